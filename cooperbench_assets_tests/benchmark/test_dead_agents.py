"""Agents that ended in an error: whose fault it was, and where the evidence of that lies."""

from __future__ import annotations

import json

import pytest

from cooperbench_assets_tests.benchmark.looking import (
    DIED,
    ONE,
    REVOKED,
    WELL,
    both,
    outcome,
    reading,
)
from cooperbench_assets_tests.trees import Tree, agent


def test_one_dead_agent_of_two_makes_the_pair_infrastructure_whatever_the_verdict(coop: Tree) -> None:
    coop.result(ONE, agents=(agent(), agent(status="Error")))
    coop.evaluation(ONE, passed=(True, True))
    coop.write(ONE, "agent1_stream.jsonl", json.dumps(WELL))
    coop.write(ONE, "agent2_stream.jsonl", '{"type":"assistant"}\n' + json.dumps(DIED))
    found = outcome(coop)
    assert both(found) == ("infra_error", None, "infra_error", None)
    assert (found.stage, found.family, found.retryable) == ("agent", "auth", False)
    assert (found.evidence, found.evidence_source) == (REVOKED, "agent2_stream.jsonl")
    ends = {end.name: end for end in (reading(coop) or pytest.fail("nothing read")).agents}
    assert ends["agent1"].failure is None
    assert ends["agent2"].feature == 40


def test_two_dead_agents_whose_empty_patches_merge_clean_are_infrastructure(coop: Tree) -> None:
    coop.result(ONE, agents=(agent(status="Error", error="Command '['docker', 'run', '-d']' timed out"),) * 2)
    coop.evaluation(ONE, passed=(False, False), applied=("skipped", "skipped"))
    found = outcome(coop)
    assert (found.outcome, found.family, found.evidence_source) == ("infra_error", "container_start", "result.json")


def test_a_solo_agents_cause_is_found_in_its_stream(solo: Tree) -> None:
    solo.result(ONE, agents=[agent(status="Error")])
    solo.write(ONE, "solo_stream.jsonl", json.dumps(DIED))
    assert (outcome(solo).family, outcome(solo).evidence_source) == ("auth", "solo_stream.jsonl")


def test_a_status_without_a_text_is_read_as_its_number(solo: Tree) -> None:
    solo.result(ONE, agents=[agent(status="Error")])
    solo.write(ONE, "solo_stream.jsonl", json.dumps(DIED | {"result": None, "api_error_status": 529}))
    assert outcome(solo).family == "provider"


def test_the_event_is_found_behind_a_megabyte_of_other_lines(solo: Tree) -> None:
    solo.result(ONE, agents=[agent(status="Error")])
    long_line = json.dumps({"type": "system", "text": "x" * 900_000})
    solo.write(ONE, "solo_stream.jsonl", json.dumps(DIED) + "\n" + long_line + '\n{"type": "cut')
    assert outcome(solo).family == "auth"


def test_the_other_kind_of_stream_tells_of_a_failed_turn(solo: Tree) -> None:
    solo.result(ONE, agents=[agent(status="Error")])
    event = {"type": "turn.failed", "error": {"message": "stream error: 503 Service Unavailable"}}
    solo.write(ONE, "solo_stream.jsonl", json.dumps(event))
    assert outcome(solo).family == "provider"


def test_a_cause_is_found_in_the_last_words_of_a_trajectory(coop: Tree) -> None:
    coop.result(ONE, agents=(agent(), agent(status="Error")))
    words = {"role": "exit", "content": "", "extra": {"exit_status": "RateLimitError", "exception_str": "code 429"}}
    coop.write(
        ONE, "agent40_traj.json", {"feature_id": 40, "agent_id": "agent2", "messages": [{"role": "user"}, words]}
    )
    found = outcome(coop)
    assert (found.family, found.evidence_source) == ("rate_limit", "agent40_traj.json")


def test_another_agents_trajectory_is_not_taken(coop: Tree) -> None:
    coop.result(ONE, agents=(agent(), agent(status="Error")))
    words = {"role": "exit", "content": "429 Too Many Requests"}
    coop.write(ONE, "agent40_traj.json", {"feature_id": 1, "messages": [words]})
    assert outcome(coop).family == "unknown"


def test_what_agents_say_at_work_is_no_cause(solo: Tree) -> None:
    solo.result(ONE, agents=[agent(status="Error")])
    said = {"role": "user", "content": "Error: 401 Unauthorized, as the test expects"}
    solo.write(ONE, "solo_traj.json", {"messages": [said]})
    assert outcome(solo).family == "unknown"


def test_a_status_error_that_nothing_explains_is_unknown_and_keeps_its_text(solo: Tree) -> None:
    solo.result(ONE, agents=[agent(status="Error", error="flux capacitor drained")])
    solo.evaluation(ONE, passed=(False, False))
    found = outcome(solo)
    assert (found.outcome, found.family, found.evidence) == ("infra_error", "unknown", "flux capacitor drained")


def test_an_unknown_text_gives_way_to_a_stream_that_knows(solo: Tree) -> None:
    solo.result(ONE, agents=[agent(status="Error", error="agent exited with code 1")])
    solo.write(ONE, "solo_stream.jsonl", json.dumps(DIED))
    assert (outcome(solo).family, outcome(solo).evidence) == ("auth", REVOKED)


@pytest.mark.parametrize("error", [{"code": 429, "status": "Too Many Requests"}, ["429 Too Many Requests"]])
def test_an_error_that_is_no_text_is_read_as_its_json(solo: Tree, error: object) -> None:
    solo.result(ONE, agents=[agent(status="Error", error=error)])
    assert outcome(solo).family == "rate_limit"


def test_an_end_by_the_agents_own_doing_is_a_fail(solo: Tree) -> None:
    solo.result(ONE, agents=[agent(status="Error", error="ContextWindowExceededError: prompt is too long")])
    solo.evaluation(ONE, passed=(True, True))
    assert both(outcome(solo)) == ("fail", "agent_error", "fail", "agent_error")


def test_infrastructure_weighs_more_than_the_other_agents_own_error(coop: Tree) -> None:
    own, infra_failed = agent(status="Error", error="FormatError"), agent(status="Error", error="Error code: 529")
    coop.result(ONE, agents=(own, infra_failed))
    assert outcome(coop).family == "provider"


def test_an_agent_killed_at_its_deadline_while_the_model_answered_is_a_fail(solo: Tree) -> None:
    solo.result(ONE, agents=[agent(status="Error", error="[agent_timeout] killed after 90 minutes")])
    assert both(outcome(solo)) == ("fail", "agent_timeout", "fail", "agent_timeout")


def test_an_agent_killed_while_the_model_was_silent_is_infrastructure(solo: Tree) -> None:
    solo.result(ONE, agents=[agent(status="Error", error="[infra:provider_timeout] no reply for 31 minutes")])
    assert (outcome(solo).outcome, outcome(solo).family) == ("infra_error", "provider_timeout")


@pytest.mark.parametrize("status", [None, "AuthenticationError", "RetryError: 503 Service Unavailable"])
def test_a_status_that_is_no_end_is_read_like_an_error(solo: Tree, status: str | None) -> None:
    solo.result(ONE, agents=[agent(status=status)])
    solo.evaluation(ONE, passed=(False, False))
    assert outcome(solo).outcome == "infra_error"


def test_a_status_that_nobody_knows_is_graded(solo: Tree) -> None:
    solo.result(ONE, agents=[agent(status="Contemplating")])
    solo.evaluation(ONE)
    assert outcome(solo).outcome == "pass"


@pytest.mark.parametrize("status", ["LimitsExceeded", "CostLimitExceeded"])
def test_a_limit_is_graded_and_flagged(solo: Tree, status: str) -> None:
    solo.result(ONE, agents=[agent(status=status)])
    solo.write(ONE, "solo_stream.jsonl", json.dumps(DIED | {"subtype": "error_max_turns", "api_error_status": None}))
    solo.evaluation(ONE)
    found = outcome(solo)
    assert (found.outcome, found.limits_exceeded, found.suspect) == ("pass", True, False)


def test_submitted_over_a_stream_that_ended_in_an_api_error_is_suspect(coop: Tree) -> None:
    coop.result(ONE)
    coop.evaluation(ONE, passed=(False, True))
    coop.write(ONE, "agent1_stream.jsonl", json.dumps(DIED))
    coop.write(ONE, "agent2_stream.jsonl", json.dumps(WELL))
    found = outcome(coop)
    assert (found.outcome, found.reason, found.suspect) == ("fail", "tests", True)


def test_odd_bytes_in_a_stream_do_not_hide_its_end(solo: Tree) -> None:
    solo.result(ONE, agents=[agent(status="Error")])
    line = json.dumps(DIED | {"result": "API Error: 401 # \udc80"}).encode().replace(b"#", b"\xff")
    solo.write(ONE, "solo_stream.jsonl", line)
    assert (outcome(solo).family, outcome(solo).evidence) == ("auth", "API Error: 401 \ufffd \ufffd")


def test_an_error_in_the_middle_of_a_stream_is_not_suspect(solo: Tree) -> None:
    solo.result(ONE)
    solo.evaluation(ONE)
    solo.write(ONE, "solo_stream.jsonl", json.dumps(DIED) + "\n" + json.dumps(WELL) + "\n")
    assert not outcome(solo).suspect


def test_evidence_is_cut(solo: Tree) -> None:
    solo.result(ONE, agents=[agent(status="Error", error="503 Service Unavailable " + "x" * 9000)])
    assert len(outcome(solo).evidence or "") == 2000
