"""What is still to run of a cell when nobody asks, from plans and recorded tries."""

# ruff: noqa: DTZ001 - times are UTC without a zone here

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.automation.cell_state import PairsToRun, assess, fingerprint, lifted_at
from cooperbench_assets.spec import ExperimentSpec
from cooperbench_assets.store.cells import Cell
from cooperbench_assets_tests.execution.making import attempt, job, pair, state

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.execution.attempts.pair_state import PairState
    from cooperbench_assets.execution.attempts.records import Attempt

NOW = datetime(2026, 1, 1, 12)
FAILED = datetime(2026, 1, 1, 10, 30)
PAIRS = tuple(pair(2 * n + 1) for n in range(4))
FIRST, SECOND, THIRD, FOURTH = PAIRS


def infra_failed(
    n: int, *tries: Attempt, family: str = "provider", retryable: bool = True, **changes: Any
) -> PairState:
    values = {"stage": "agent", "family": family, "retryable": retryable, "has_result": True, **changes}
    return state(PAIRS[n], "infra_error", attempts=tries, **values)


def to_run(
    root: Path, *states: PairState, whole: bool = True, retry_generations: dict[str, int] | None = None
) -> PairsToRun:
    pairs = tuple(one.pair for one in states)
    return assess(job(root, pairs), {one.pair: one for one in states}, retry_generations or {}, whole=whole, now=NOW)


def test_failed_and_missing_pairs_are_still_to_run_and_settled_ones_are_not(tmp_path: Path) -> None:
    found = to_run(
        tmp_path,
        infra_failed(0, attempt(1)),
        state(SECOND, "pass", has_result=True, has_eval=True),
        state(THIRD, "unevaluated", has_result=True, patch_sha256="p"),
        state(FOURTH),
    )
    assert found.agents == (FIRST.name, FOURTH.name)
    assert found.evaluations == (THIRD.name,)
    assert (found.rounds, found.newest_end) == (1, datetime(2026, 1, 1, 0, 0, 1))
    assert not found.complete


def test_pairs_that_were_never_tried_are_nobodys_wish_after_a_smoke_run(tmp_path: Path) -> None:
    found = to_run(tmp_path, infra_failed(0, attempt(1)), state(SECOND), whole=False)
    assert found.agents == (FIRST.name,)
    assert found.unwanted == (SECOND.name,)


def test_used_up_tries_are_told_with_their_stage(tmp_path: Path) -> None:
    evaluated = infra_failed(
        1,
        *(attempt(n, "eval", patch_sha256="p", family="oom") for n in (1, 2)),
        stage="eval",
        family="oom",
        patch_sha256="p",
    )
    found = to_run(tmp_path, infra_failed(0, *(attempt(n) for n in (1, 2, 3))), evaluated)
    assert found.agents == found.evaluations == ()
    assert found.exhausted == {FIRST.name: "agent", SECOND.name: "eval"}


def test_resetting_the_retry_counters_reopens_what_was_used_up(tmp_path: Path) -> None:
    tries = [attempt(n) for n in (1, 2, 3)]
    assert to_run(tmp_path, infra_failed(0, *tries)).agents == ()
    assert to_run(tmp_path, infra_failed(0, *tries), retry_generations={"agent": 2}).agents == (FIRST.name,)


def test_a_refused_key_makes_every_pair_wait(tmp_path: Path) -> None:
    refused = infra_failed(0, attempt(1, family="auth", retryable=False), family="auth", retryable=False)
    found = to_run(tmp_path, refused, state(SECOND))
    assert found.agents == ()
    assert found.waiting == {FIRST.name: "auth", SECOND.name: "auth"}


def test_a_refused_key_is_named_also_where_it_left_no_result(tmp_path: Path) -> None:
    tried = attempt(1, family="auth", retryable=False)
    found = to_run(tmp_path, state(FIRST, "missing", attempts=(tried,)), state(SECOND))
    assert found.waiting == {FIRST.name: "auth", SECOND.name: "auth"}


def test_a_wrong_configuration_waits_alone(tmp_path: Path) -> None:
    wrong = infra_failed(0, attempt(1), family="configuration", retryable=False)
    found = to_run(tmp_path, wrong, state(SECOND))
    assert found.waiting == {FIRST.name: "configuration"}
    assert found.agents == (SECOND.name,)


def test_a_usage_limit_is_waited_for(tmp_path: Path) -> None:
    text = "You've hit your usage limit. It resets at 3:40pm (UTC)"
    late = "2026-01-01T11:30:00+00:00"
    told = infra_failed(0, attempt(1, family="quota", evidence=text, ended_at=late), family="quota")
    silent = infra_failed(0, attempt(1, family="quota", evidence="hit your limit", ended_at=late), family="quota")
    assert to_run(tmp_path, told).not_before == datetime(2026, 1, 1, 15, 40)
    assert to_run(tmp_path, silent).not_before == datetime(2026, 1, 1, 12, 30)


def test_tries_of_other_pairs_that_failed_in_a_row_count_as_rounds(tmp_path: Path) -> None:
    dead = [
        infra_failed(
            n, attempt(1, ended_at=f"2026-01-01T00:00:0{n}+00:00"), attempt(2, ended_at=f"2026-01-01T00:01:0{n}Z")
        )
        for n in range(4)
    ]
    assert to_run(tmp_path, *dead).rounds == 2
    recovered = state(
        FOURTH,
        "unevaluated",
        has_result=True,
        patch_sha256="p",
        attempts=(attempt(1, outcome="completed", ended_at="2026-01-01T01:00:00+00:00"),),
    )
    assert to_run(tmp_path, *dead[:3], recovered).rounds == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Rate limit reached. Please try again in 20s.", FAILED + timedelta(seconds=20)),
        ("Please try again in 1h2m30s", FAILED + timedelta(hours=1, minutes=2, seconds=30)),
        ("retry after 2 minutes", FAILED + timedelta(minutes=2)),
        ("You've hit your session limit · resets 3:40pm (UTC)", datetime(2026, 1, 1, 15, 40)),
        ("hit your limit, resets 9am", datetime(2026, 1, 2, 9)),
        ("usage limit reached; resets 2pm (Europe/Berlin)", datetime(2026, 1, 1, 13)),
        ("limit resets at 2026-01-01T18:00:00Z", datetime(2026, 1, 1, 18)),
        ("limit resets at 2026-01-01T18:00:00+02:00", datetime(2026, 1, 1, 16)),
        ("limit resets at 2030-01-01T18:00:00Z", None),
        ("resets 99pm", None),
        ("try again in 30 days", None),
        ("insufficient funds", None),
        ("", None),
    ],
)
def test_the_text_of_a_limit_says_when_it_is_lifted(text: str, expected: datetime | None) -> None:
    assert lifted_at(text, FAILED) == expected


@given(st.text(max_size=60), st.sampled_from(["try again in ", "resets ", "resets at ", ""]))
def test_any_text_is_read_without_an_error_and_never_far_into_the_future(text: str, start: str) -> None:
    found = lifted_at(start + text, FAILED)
    assert found is None or FAILED <= found <= FAILED + timedelta(days=7)


def spec(**changes: Any) -> ExperimentSpec:
    return ExperimentSpec.model_validate({"subset": "some", "settings": {"solo": {"seeds": [0]}}, **changes})


def test_a_fingerprint_changes_with_what_matters_and_with_nothing_else() -> None:
    cell = Cell("toy", "solo", 0)
    same = fingerprint(cell, spec(), "s", PairsToRun(), None)
    assert same == fingerprint(cell, spec(nightly="0 2 * * *", retry={"backoff_minutes": 9}), "s", PairsToRun(), None)
    others = [
        fingerprint(cell, spec(limits={"max_cost_usd": 9}), "s", PairsToRun(), None),
        fingerprint(cell, spec(), "t", PairsToRun(), None),
        fingerprint(cell, spec(), "s", PairsToRun(tries={"agent": 1}), None),
        fingerprint(cell, spec(), "s", PairsToRun(agents=("a",)), None),
        fingerprint(cell, spec(), "s", PairsToRun(), datetime.now(UTC)),
        fingerprint(replace(cell, seed=1), spec(), "s", PairsToRun(), None),
        fingerprint(replace(cell, setting="coop"), spec(), "s", PairsToRun(), None),
        fingerprint(replace(cell, experiment="other"), spec(), "s", PairsToRun(), None),
    ]
    assert len({same, *others}) == 9
