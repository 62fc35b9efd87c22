"""What agents are recorded as that were killed at their deadline: the rule, at figures of real runs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.benchmark.failures import classify
from cooperbench_assets.execution.attempts.completion import priced
from cooperbench_assets.execution.attempts.deadlines import (
    LONGEST_PATIENCE_SECONDS,
    SHORTEST_PATIENCE_SECONDS,
    ActivityAtDeadline,
    Counted,
    cost_of,
    ends,
    observe_activity,
    patience_seconds,
    read_counted,
)
from cooperbench_assets.execution.attempts.pair_state import read_staged
from cooperbench_assets.execution.attempts.records import Attempt
from cooperbench_assets.execution.attempts.staging import Staged, write_timed_out_result
from cooperbench_assets.execution.worker.model_calls import FILE, AgentCalls
from cooperbench_assets_tests.execution.cells import PAIRS, cell
from cooperbench_assets_tests.execution.toy import Toy

V2, CLAUDE, OWN = "mini_swe_agent_v2", "claude_code", "an agent of one's own"
NOW = 1_800_000_000.0
SOLO = ("solo",)
BOTH = ("agent1", "agent2")
MINUTE = 60.0


def found(calls: AgentCalls, minutes: float, agent: str = V2) -> tuple[str, str]:
    """Kind and family of how a solo agent with these counts ended."""
    sight = ActivityAtDeadline(NOW, Counted({"solo": calls}))
    failure = classify(ends(sight, SOLO, agent, minutes * MINUTE)["solo"].error)
    assert failure is not None
    return failure.kind, failure.family


def answered(times: int, ago: float, longest: float = 5.0) -> AgentCalls:
    """An agent that does something itself since its last reply."""
    return AgentCalls(asked=times, replies=times, last_reply=NOW - ago, longest_wait=longest)


def waiting(since: float, replies: int = 0, longest: float = 5.0, problem: str | None = None) -> AgentCalls:
    """An agent that has waited for a reply for so many seconds."""
    last = NOW - since - 1 if replies else None
    return AgentCalls(
        asked=replies + 1,
        replies=replies,
        last_reply=last,
        waiting=NOW - since,
        longest_wait=longest,
        problem=problem,
    )


TIMEOUT = ("agent_timeout", "agent_timeout")
HUNG = ("infra", "provider_timeout")


@pytest.mark.parametrize(
    ("calls", "minutes", "expected"),
    [
        # A reply every five seconds, the last one four seconds before.
        (answered(106, ago=4), 11.5, TIMEOUT),
        (waiting(4, replies=106), 11.5, TIMEOUT),
        # Three warnings that the endpoint was asked again, after a dozen replies.
        (waiting(9 * MINUTE, replies=12, problem="Timeout"), 11.5, HUNG),
        # Never one reply.
        (waiting(80), 1.5, HUNG),
        (waiting(89 * MINUTE), 90, HUNG),
        # The usual deadline: ten minutes without a reply.
        (waiting(9 * MINUTE, replies=50), 90, TIMEOUT),
        (waiting(11 * MINUTE, replies=50), 90, HUNG),
        # A short one: a hang over the second half of it.
        (waiting(45, replies=5), 1.5, HUNG),
        (waiting(20, replies=5), 1.5, TIMEOUT),
        # A slow model that answers is no hung one.
        (waiting(40, replies=1, longest=45), 1.5, TIMEOUT),
        # A test run of the agent's own that takes half an hour.
        (answered(40, ago=30 * MINUTE), 90, TIMEOUT),
        # Refused again and again.
        (waiting(11 * MINUTE, replies=50, problem="RateLimitError"), 90, ("infra", "rate_limit")),
        (waiting(80, problem="error status 529"), 1.5, ("infra", "provider")),
        # Nothing was asked: the container took all the time.
        (AgentCalls(), 1.5, ("infra", "container_start")),
    ],
)
def test_a_productive_agent_used_up_its_time_and_a_hung_model_is_infrastructure(
    calls: AgentCalls, minutes: float, expected: tuple[str, str]
) -> None:
    assert found(calls, minutes) == expected


def test_an_agent_whose_program_never_began_was_kept_from_it_by_its_installation() -> None:
    assert found(AgentCalls(), 90, CLAUDE) == ("infra", "agent_install")


def test_the_text_says_what_was_seen() -> None:
    sight = ActivityAtDeadline(NOW, Counted({"solo": answered(106, ago=4)}))
    (end,) = ends(sight, SOLO, V2, 11.5 * MINUTE).values()
    expected = "[agent_timeout] killed at the deadline of 11.5 minutes; the model answered 106 times, last 4 s ago"
    assert (end.status, end.error) == ("Error", expected)
    sight = ActivityAtDeadline(NOW, Counted({"solo": waiting(9 * MINUTE, replies=1, problem="Timeout")}))
    (end,) = ends(sight, SOLO, V2, 11.5 * MINUTE).values()
    assert end.error == (
        "[infra:provider_timeout] killed at the deadline of 11.5 minutes; no reply for 9.0 min, last error Timeout; "
        "it had answered once"
    )


@given(
    st.floats(0.1, 24 * 60),
    st.floats(0, 3600),
    st.integers(1, 500),
    st.floats(0, 3600),
)
def test_whoever_was_answered_within_its_patience_is_never_infrastructure_and_after_ten_minutes_always(
    minutes: float, waited: float, replies: int, longest: float
) -> None:
    patience = patience_seconds(minutes * MINUTE, longest)
    assert SHORTEST_PATIENCE_SECONDS <= patience <= LONGEST_PATIENCE_SECONDS
    kind = found(waiting(waited, replies, longest), minutes)
    if waited <= patience - 1:
        assert kind == TIMEOUT
    if waited >= LONGEST_PATIENCE_SECONDS + 1:
        assert kind == HUNG


@given(st.floats(0.1, 24 * 60), st.floats(0, 24 * 3600), st.booleans())
def test_an_agent_that_never_got_a_reply_is_never_a_fail(minutes: float, waited: float, asked: bool) -> None:
    calls = waiting(waited) if asked else AgentCalls()
    assert found(calls, minutes)[0] == "infra"


def test_one_agent_whose_model_hangs_does_not_hide_how_the_other_one_ended() -> None:
    done = AgentCalls(asked=3, replies=3, last_reply=NOW - 900, status="Submitted", result_cost=0.25)
    sight = ActivityAtDeadline(NOW, Counted({"agent1": done, "agent2": waiting(700, replies=2)}))
    first, second = ends(sight, BOTH, V2, 90 * MINUTE).values()
    assert (first.status, first.error) == ("Submitted", None)
    assert (second.error or "").startswith("[infra:provider_timeout]")


def test_of_an_agent_that_nothing_is_seen_of_its_own_files_tell() -> None:
    def kind(written: float | None) -> str:
        failure = classify(ends(ActivityAtDeadline(NOW, Counted(), written), SOLO, OWN, 90 * MINUTE)["solo"].error)
        assert failure is not None
        return failure.family

    assert kind(NOW - 30) == "agent_timeout"
    assert kind(NOW - 700) == "provider_timeout"
    assert kind(None) == "provider_timeout"


def test_what_a_child_prints_is_no_reply(tmp_path: Path) -> None:
    place = Staged(tmp_path, tmp_path / "logs/run/solo/a/1/f1_f2")
    place.log.write_text("Retrying\n")
    assert observe_activity(place).written is None
    place.pair_dir.mkdir(parents=True)
    (place.pair_dir / "empty.json").touch()
    assert observe_activity(place).written is None
    (place.pair_dir / "solo_traj.json").write_text("{}")
    assert observe_activity(place).written == (place.pair_dir / "solo_traj.json").stat().st_mtime


@pytest.mark.parametrize(
    ("calls", "agent", "cost"),
    [
        (AgentCalls(asked=2, replies=2, cost_usd=0.5), V2, 0.5),
        (AgentCalls(asked=2, replies=2, cost_usd=0.5), OWN, 0.5),
        (AgentCalls(asked=2, replies=2, cost_usd=0.5, unpriced=1), V2, None),
        (AgentCalls(), V2, 0.0),
        (AgentCalls(), CLAUDE, None),
        (AgentCalls(), OWN, None),
        (AgentCalls(asked=1, replies=1, unpriced=1, result_cost=0.75), CLAUDE, 0.75),
        # Upstream leaves out what the summaries of a long conversation cost.
        (AgentCalls(asked=3, replies=3, cost_usd=0.5, result_cost=0.4), V2, 0.5),
        # Upstream's adapter died, and says 0.
        (AgentCalls(asked=3, replies=3, cost_usd=0.5, status="Error", result_cost=0.0), V2, 0.5),
    ],
)
def test_a_cost_is_known_where_every_reply_has_a_price(calls: AgentCalls, agent: str, cost: float | None) -> None:
    assert cost_of(calls, agent) == cost
    assert Counted({"solo": calls}).known("solo", agent) == ({} if cost is None else {"cost": cost})


def test_the_cost_of_a_pair_is_known_where_that_of_both_agents_is() -> None:
    one, two = AgentCalls(asked=1, replies=1, cost_usd=0.5), AgentCalls(asked=1, replies=1, cost_usd=0.25)
    assert Counted({"agent1": one, "agent2": two}).spent(V2) == 0.75
    assert Counted({"agent1": one, "agent2": AgentCalls(replies=1, unpriced=1)}).spent(V2) is None
    assert Counted().spent(V2) is None
    assert Counted().known("solo", V2) == {}


def test_a_killed_pair_s_result_keeps_what_an_agent_handed_in_that_had_ended(tmp_path: Path, core_toy: Toy) -> None:
    job = cell(core_toy, tmp_path, mode="coop", setting="coop-nocomm", agent=V2)
    root = tmp_path / "staging"
    place = Staged(root, root / f"logs/{job.run_name}/coop/{PAIRS[0].name}")
    place.root.mkdir()
    (root / "agent1.patch").write_text("one\ntwo\n")
    (root / "agent2.patch").write_text("of an earlier life")
    done = AgentCalls(asked=3, replies=3, last_reply=NOW - 9, status="Submitted", cost_usd=0.2, result_cost=0.25)
    late = AgentCalls(asked=2, replies=2, last_reply=NOW - 1, cost_usd=0.5, tokens={"input_tokens": 7})
    counted = Counted({"agent1": done, "agent2": late})
    found = ends(ActivityAtDeadline(NOW, counted), BOTH, V2, 90 * MINUTE)
    write_timed_out_result(job, PAIRS[0], place, datetime.now(UTC), found, counted)

    reading, outcome, wrong = read_staged(root / "logs" / job.run_name, PAIRS[0], "coop", ())
    assert (wrong, outcome.outcome, outcome.reason) == ("", "fail", "agent_timeout")
    assert reading.result is not None
    assert reading.result.total_cost == 0.75
    first, second = (agent.record for agent in reading.agents)
    assert (first.status, first.cost, first.patch_lines, first.error) == ("Submitted", 0.25, 2, None)
    assert (second.status, second.cost, second.patch_lines, second.input_tokens) == ("Error", 0.5, 0, 7)
    assert (place.pair_dir / "agent1.patch").read_text() == "one\ntwo\n"
    assert (place.pair_dir / "agent2.patch").read_text() == ""


def broken(family: str = "unknown") -> Attempt:
    return Attempt(
        n=1, retry_generation=1, stage="agent", outcome="infra_error", family=family, started_at="2026-01-01T00:00Z"
    )


@pytest.mark.parametrize(
    ("result", "counted", "expected"),
    [
        # Known from the result, from the counts, or from both: then the larger, since upstream leaves some out.
        (0.5, None, (0.5, False)),
        (None, 0.25, (0.25, False)),
        (0.0, 0.25, (0.25, False)),
        (0.5, 0.75, (0.75, False)),
        (0.5, 0.5 + 1e-12, (0.5, False)),
        (0.0, 0.0, (0.0, False)),
        # Not known: estimated.
        (None, None, (2.0, True)),
        (0.0, None, (2.0, True)),
    ],
)
def test_a_try_costs_what_is_known_of_it_and_an_estimate_otherwise(
    result: float | None, counted: float | None, expected: tuple[float, bool]
) -> None:
    made = priced(broken(), result, None, 2.0, counted)
    assert (made.cost_usd, made.cost_estimated) == expected


@given(st.one_of(st.binary(max_size=60), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)))
def test_counts_that_cannot_be_read_are_none(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    root = tmp_path_factory.mktemp("counts")
    data = content if isinstance(content, bytes) else content.encode()
    (root / FILE).write_bytes(data)
    assert read_counted(Staged(root, root)) == Counted()
