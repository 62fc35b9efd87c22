"""What becomes of a pair, rule by rule, from files on disk."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.benchmark.logtree import PairReading, patch_sha256, read_run
from cooperbench_assets.benchmark.outcomes import Outcome, judge
from cooperbench_assets_tests.trees import EVALUATED, Tree, agent, feature, pairs

(ONE,) = pairs(1)
REVOKED = "Failed to authenticate. API Error: 401 OAuth access token has been revoked."
DIED = {"type": "result", "subtype": "success", "is_error": True, "api_error_status": 401, "result": REVOKED}
WELL = {"type": "result", "subtype": "success", "is_error": False, "api_error_status": None, "result": "done"}
TIMEOUT = "Command timed out after 600 seconds"
NETWORK = "curl: (6) Could not resolve host: static.example.com\n"


@pytest.fixture
def solo(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "logs" / "run-solo")


@pytest.fixture
def coop(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "logs" / "run-coop", "coop")


def outcome(tree: Tree) -> Outcome:
    return judge(reading(tree))


def reading(tree: Tree) -> PairReading | None:
    return read_run(tree.run_dir, tree.mode, alive=lambda _: False).pairs.get(ONE)


def both(found: Outcome) -> tuple[str, str | None, str, str | None]:
    return found.outcome, found.reason, found.outcome_strict, found.reason_strict


# Missing and unevaluated.


def test_a_pair_without_anything_is_missing() -> None:
    assert both(judge(None)) == ("missing", None, "missing", None)


def test_an_unreadable_result_is_missing_even_beside_a_verdict(solo: Tree) -> None:
    solo.pair(ONE)
    solo.write(ONE, "result.json", b'{"repo": "sprout_task", "agent": {"status"')
    assert both(outcome(solo)) == ("missing", None, "missing", None)


def test_a_result_without_a_verdict_is_unevaluated(solo: Tree) -> None:
    solo.result(ONE)
    assert both(outcome(solo)) == ("unevaluated", None, "unevaluated", None)


def test_an_error_that_only_the_evaluation_summary_kept_is_infrastructure(solo: Tree) -> None:
    solo.result(ONE)
    solo.eval_summary({ONE: "UnixHTTPConnectionPool(host='localhost', port=None): Read timed out. (read timeout=65)"})
    found = outcome(solo)
    assert both(found) == ("infra_error", None, "infra_error", None)
    assert (found.stage, found.family, found.retryable) == ("eval", "engine", True)
    assert found.evidence_source is not None
    assert (solo.folder(ONE) / found.evidence_source).resolve() == (solo.run_dir / "eval_summary.json").resolve()


def test_an_older_evaluation_summary_says_nothing_of_a_newer_result(solo: Tree) -> None:
    solo.result(ONE)
    solo.eval_summary({ONE: "Read timed out."}, at="2026-07-16T09:00:00")
    assert outcome(solo).outcome == "unevaluated"


# Dead agents.


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
    own, struck = agent(status="Error", error="FormatError"), agent(status="Error", error="Error code: 529")
    coop.result(ONE, agents=(own, struck))
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


# Verdicts.


def test_solo_passes_and_fails_by_its_tests(solo: Tree) -> None:
    solo.pair(ONE)
    assert both(outcome(solo)) == ("pass", None, "pass", None)
    assert outcome(solo).both_passed_strict is True
    solo.evaluation(ONE, passed=(True, False))
    assert both(outcome(solo)) == ("fail", "tests", "fail", "tests")


@pytest.mark.parametrize("merge", [("clean", "naive"), ("identical", "skip-merge-identical")])
def test_a_merge_of_both_patches_that_passes_is_a_strict_pass(coop: Tree, merge: tuple[str, str]) -> None:
    coop.pair(ONE)
    coop.evaluation(ONE, merge=merge)
    assert both(outcome(coop)) == ("pass", None, "pass", None)


def test_a_conflict_is_a_fail_whose_fallback_was_not_seen(coop: Tree) -> None:
    coop.pair(ONE)
    coop.evaluation(ONE, passed=(False, False), merge=("conflicts", "naive"))
    found = outcome(coop)
    assert both(found) == ("fail", "conflict", "fail", "conflict")
    assert found.fallback_unseen
    assert found.stage is None


def test_a_conflict_that_agent_1s_patch_alone_survives_passes_and_fails_strictly(coop: Tree) -> None:
    coop.pair(ONE)
    coop.evaluation(ONE, merge=("conflicts", "solo-agent1"))
    found = outcome(coop)
    assert both(found) == ("pass", None, "fail", "conflict")
    assert (found.both_passed_strict, found.fallback_unseen) == (False, False)


def test_a_union_merge_that_passes_fails_strictly(coop: Tree) -> None:
    coop.pair(ONE)
    coop.evaluation(ONE, merge=("conflicts", "union"), applied=None)
    assert both(outcome(coop)) == ("pass", None, "fail", "conflict")


def test_a_union_merge_that_fails_is_a_conflict_whose_tests_were_seen(coop: Tree) -> None:
    coop.pair(ONE)
    coop.evaluation(ONE, passed=(False, True), merge=("conflicts", "union"), applied=None)
    found = outcome(coop)
    assert both(found) == ("fail", "conflict", "fail", "conflict")
    assert not found.fallback_unseen


def test_a_union_merge_whose_tests_were_struck_is_infrastructure_and_strictly_a_conflict(coop: Tree) -> None:
    coop.pair(ONE)
    coop.evaluation(ONE, passed=(False, True), outputs=(TIMEOUT, None), merge=("conflicts", "union"), applied=None)
    assert both(outcome(coop)) == ("infra_error", None, "fail", "conflict")


@pytest.mark.parametrize("applied", [("failed", "applied"), ("applied", "failed")])
def test_a_patch_that_does_not_apply_is_a_fail_of_its_own_kind(coop: Tree, applied: tuple[str, str]) -> None:
    coop.pair(ONE)
    coop.evaluation(ONE, passed=(False, False), merge=("missing_input", "naive"), applied=applied)
    found = outcome(coop)
    assert both(found) == ("fail", "not_applied", "fail", "not_applied")
    assert found.fallback_unseen == (applied[0] == "applied")


def test_a_rescue_without_the_other_patch_fails_strictly(coop: Tree) -> None:
    coop.pair(ONE)
    coop.evaluation(ONE, merge=("missing_input", "solo-agent1"), applied=("applied", "failed"))
    assert both(outcome(coop)) == ("pass", None, "fail", "not_applied")


def test_a_pass_in_which_one_agent_did_nothing_fails_strictly(coop: Tree) -> None:
    coop.pair(ONE)
    coop.evaluation(ONE, applied=("applied", "skipped"))
    assert both(outcome(coop)) == ("pass", None, "fail", "not_applied")


def test_two_agents_that_did_nothing_fail_their_tests_and_are_hollow(coop: Tree) -> None:
    coop.result(ONE)
    coop.patches(ONE, "", "\n")
    empty = {"status": "clean", "strategy": "naive", "diff": ""}
    output = "error: No valid patches in input"
    coop.evaluation(ONE, passed=(False, False), outputs=(output, output), applied=("skipped", "skipped"))
    content = json.loads((coop.folder(ONE) / "eval.json").read_text()) | {"merge": empty}
    coop.write(ONE, "eval.json", content)
    found = outcome(coop)
    assert both(found) == ("fail", "tests", "fail", "tests")
    assert found.hollow


def test_an_empty_solo_patch_fails_its_tests(solo: Tree) -> None:
    solo.result(ONE, agents=[agent(patch_lines=0)])
    solo.patches(ONE, "")
    output = 'error: No valid patches in input (allow with "--allow-empty")'
    solo.evaluation(ONE, passed=(False, False), outputs=(output, output))
    assert both(outcome(solo)) == ("fail", "tests", "fail", "tests")


def test_without_a_word_on_the_patches_a_clean_merge_is_believed_unless_a_patch_is_empty(coop: Tree) -> None:
    coop.result(ONE)
    coop.evaluation(ONE, applied=None)
    assert outcome(coop).outcome_strict == "pass"
    coop.patches(ONE, "diff --git a/x b/x\n", "")
    assert both(outcome(coop)) == ("pass", None, "fail", "not_applied")


def test_a_coop_pass_that_does_not_say_how_it_was_merged_is_not_strictly_known(coop: Tree) -> None:
    coop.result(ONE)
    coop.evaluation(ONE, merge=("clean", None))
    content = json.loads((coop.folder(ONE) / "eval.json").read_text()) | {"merge": None, "apply_status": None}
    coop.write(ONE, "eval.json", content)
    assert both(outcome(coop)) == ("pass", None, "unevaluated", None)
    assert outcome(coop).both_passed_strict is None


def test_upstreams_word_stands_where_its_features_disagree(solo: Tree) -> None:
    solo.result(ONE)
    solo.evaluation(ONE, passed=(True, False), both_passed=True)
    assert outcome(solo).outcome == "pass"


def test_team_is_judged_like_coop(tmp_path: Path) -> None:
    team = Tree(tmp_path / "logs" / "run-team", "team")
    team.pair(ONE)
    team.evaluation(ONE, merge=("conflicts", "solo-agent1"))
    assert both(outcome(team)) == ("pass", None, "fail", "conflict")


# Struck tests.


@pytest.mark.parametrize(
    ("output", "family"),
    [(TIMEOUT, "test_timeout"), (NETWORK, "network"), ("runner.sh: line 9: 12 Killed  pytest\n", "oom")],
)
def test_tests_that_were_struck_are_infrastructure_in_solo(solo: Tree, output: str, family: str) -> None:
    solo.result(ONE)
    solo.evaluation(ONE, passed=(False, True), outputs=(output, None))
    found = outcome(solo)
    assert both(found) == ("infra_error", None, "infra_error", None)
    assert (found.stage, found.family, found.retryable) == ("eval", family, True)
    assert (found.evidence, found.evidence_source) == (output.strip(), "eval.json")


def test_output_under_its_older_name_is_read_too(solo: Tree) -> None:
    solo.result(ONE)
    solo.evaluation(ONE, passed=(False, True))
    content = json.loads((solo.folder(ONE) / "eval.json").read_text())
    content["feature1"] = {"passed": False, "output": TIMEOUT}
    solo.write(ONE, "eval.json", content)
    assert outcome(solo).family == "test_timeout"


def test_an_exit_code_tells_of_a_kill_in_coop(coop: Tree) -> None:
    coop.pair(ONE)
    coop.evaluation(ONE, passed=(True, False))
    content = json.loads((coop.folder(ONE) / "eval.json").read_text())
    content["feature2"] |= {"exit_code": 137, "test_output": "collected 4 items\n"}
    coop.write(ONE, "eval.json", content)
    assert (outcome(coop).outcome, outcome(coop).family) == ("infra_error", "oom")


def test_one_feature_that_failed_by_itself_makes_a_fail_whatever_struck_the_other(solo: Tree) -> None:
    solo.result(ONE)
    solo.evaluation(ONE, passed=(False, False), outputs=(TIMEOUT, None))
    assert both(outcome(solo)) == ("fail", "tests", "fail", "tests")


def test_both_features_struck_is_infrastructure(solo: Tree) -> None:
    solo.result(ONE)
    solo.evaluation(ONE, passed=(False, False), outputs=(TIMEOUT, NETWORK))
    assert outcome(solo).outcome == "infra_error"


@pytest.mark.parametrize("nothing", [None, "", False, {}, []])
def test_an_error_that_says_nothing_is_none(solo: Tree, nothing: object) -> None:
    solo.result(ONE, agents=[agent(error=nothing)])
    solo.evaluation(ONE, error=nothing)
    assert outcome(solo).outcome == "pass"


def test_a_verdict_that_holds_an_error_is_infrastructure(coop: Tree) -> None:
    coop.pair(ONE)
    error = '409 Client Error for http+docker://localhost/v1.45/exec: Conflict ("container a1 is not running")'
    coop.evaluation(ONE, passed=(False, False), merge=("error", None), applied=("unknown", "unknown"), error=error)
    found = outcome(coop)
    assert (found.outcome, found.stage, found.family) == ("infra_error", "eval", "container_died")
    assert found.evidence == error


def test_a_merge_that_went_wrong_without_a_text_is_unknown(coop: Tree) -> None:
    coop.pair(ONE)
    coop.evaluation(ONE, passed=(False, False), merge=("error", None))
    assert (outcome(coop).outcome, outcome(coop).family) == ("infra_error", "unknown")


def test_an_error_that_is_only_a_consequence_leaves_a_fail(solo: Tree) -> None:
    solo.pair(ONE)
    solo.evaluation(ONE, passed=(False, False), error="error: No valid patches in input")
    assert both(outcome(solo)) == ("fail", "tests", "fail", "tests")


# Attempts: repeats, staleness, and what the tree has no trace of.


def solo_sha(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def struck_by_a_timeout(solo: Tree) -> str:
    solo.result(ONE)
    solo.patches(ONE, "diff x\n")
    solo.evaluation(ONE, passed=(False, True), outputs=(TIMEOUT, None))
    return solo_sha("diff x\n")


def record(solo: Tree, n: int, sha: str | None, **more: Any) -> None:
    values = {"outcome": "infra_error", "family": "test_timeout", "patch_sha256": sha} | more
    solo.attempt(ONE, "eval", n, **values)


def test_the_first_timeout_of_a_patch_is_infrastructure(solo: Tree) -> None:
    record(solo, 1, struck_by_a_timeout(solo))
    assert outcome(solo).outcome == "infra_error"


def test_the_same_patch_timing_out_again_is_a_fail(solo: Tree) -> None:
    sha = struck_by_a_timeout(solo)
    record(solo, 1, sha)
    record(solo, 2, sha)
    found = outcome(solo)
    assert both(found) == ("fail", "test_timeout", "fail", "test_timeout")
    assert found.evidence == TIMEOUT
    assert found.retryable is None


@pytest.mark.parametrize("present", [{"outcome": "running"}, {"outcome": "completed", "family": None}])
def test_the_try_that_is_being_judged_need_not_be_recorded_as_timed_out(solo: Tree, present: dict[str, Any]) -> None:
    sha = struck_by_a_timeout(solo)
    record(solo, 1, sha)
    record(solo, 2, sha, **({"family": None} | present))
    assert outcome(solo).reason == "test_timeout"


def test_a_timeout_of_another_patch_is_no_repeat(solo: Tree) -> None:
    sha = struck_by_a_timeout(solo)
    record(solo, 1, solo_sha("diff of an earlier try\n"))
    record(solo, 2, sha)
    assert outcome(solo).outcome == "infra_error"


def test_a_repeat_that_is_told_by_an_error_is_a_fail_too(solo: Tree) -> None:
    sha = struck_by_a_timeout(solo)
    solo.evaluation(ONE, passed=(False, False), error="[infra:test_timeout] tests of feature 1 ran over 600 s")
    record(solo, 1, sha)
    record(solo, 2, sha)
    assert outcome(solo).reason == "test_timeout"


def test_a_kill_stays_infrastructure_when_it_repeats(solo: Tree) -> None:
    sha = struck_by_a_timeout(solo)
    solo.evaluation(ONE, passed=(False, True), outputs=("runner.sh: line 9: 12 Killed  pytest\n", None))
    record(solo, 1, sha, family="oom")
    record(solo, 2, sha, family="oom")
    assert outcome(solo).family == "oom"


def test_a_verdict_older_than_its_result_is_stale(solo: Tree) -> None:
    solo.pair(ONE)
    solo.evaluation(ONE, evaluated_at="2026-07-16T10:04:59")
    found = outcome(solo)
    assert (found.outcome, found.stale) == ("unevaluated", True)


def test_a_verdict_of_another_patch_is_stale_whatever_its_time(solo: Tree) -> None:
    solo.pair(ONE)
    solo.attempt(ONE, "eval", 1, patch_sha256=solo_sha("another\n"))
    assert (outcome(solo).outcome, outcome(solo).stale) == ("unevaluated", True)


def test_a_verdict_recorded_to_be_of_the_present_patch_is_good_whatever_its_time(solo: Tree) -> None:
    solo.pair(ONE)
    solo.evaluation(ONE, evaluated_at="2026-07-16T02:00:00")
    solo.attempt(ONE, "eval", 1, patch_sha256=solo_sha("diff --git a/x b/x\n"))
    assert (outcome(solo).outcome, outcome(solo).stale) == ("pass", False)


def test_a_stale_verdict_with_a_broken_later_try_is_infrastructure(solo: Tree) -> None:
    solo.pair(ONE)
    solo.evaluation(ONE, evaluated_at="2026-07-16T08:00:00")
    solo.attempt(
        ONE,
        "eval",
        2,
        outcome="infra_error",
        family="engine",
        evidence="daemon away",
        retryable=True,
        patch_sha256=solo_sha("diff --git a/x b/x\n"),
    )
    found = outcome(solo)
    assert (found.outcome, found.stage, found.family, found.stale) == ("infra_error", "eval", "engine", True)


def test_a_struck_verdict_is_good_where_its_try_is_recorded_whatever_the_results_clock(solo: Tree) -> None:
    sha = struck_by_a_timeout(solo)
    solo.result(ONE, ended_at="2026-07-16T12:00:00")  # local time, ahead of UTC
    at = {"started_at": "2026-07-16T10:55:00+00:00", "ended_at": "2026-07-16T11:00:01+00:00"}
    record(solo, 1, sha)
    record(solo, 2, sha, **at)
    assert (outcome(solo).reason, outcome(solo).stale) == ("test_timeout", False)


def test_a_broken_evaluation_that_left_no_file_is_known_from_its_record(solo: Tree) -> None:
    solo.result(ONE)
    solo.patches(ONE, "diff x\n")
    solo.attempt(
        ONE, "eval", 1, outcome="infra_error", family="image_missing", evidence="No such image", retryable=False
    )
    found = outcome(solo)
    assert (found.outcome, found.stage, found.family, found.retryable) == (
        "infra_error",
        "eval",
        "image_missing",
        False,
    )
    assert found.evidence == "No such image"
    assert found.evidence_source is not None
    assert (solo.folder(ONE) / found.evidence_source).resolve().is_file()


def test_a_broken_evaluation_of_an_earlier_patch_says_nothing_of_the_present_one(solo: Tree) -> None:
    solo.result(ONE)
    solo.patches(ONE, "diff x\n")
    solo.attempt(ONE, "eval", 1, outcome="infra_error", family="engine", patch_sha256=solo_sha("diff y\n"))
    assert outcome(solo).outcome == "unevaluated"


def test_agents_that_broke_and_left_no_result_are_known_from_their_record(solo: Tree) -> None:
    solo.attempt(ONE, "agent", 1, outcome="completed")
    solo.attempt(
        ONE, "agent", 2, outcome="infra_error", family="container_start", evidence="docker run", retryable=True
    )
    found = outcome(solo)
    assert (found.outcome, found.stage, found.family) == ("infra_error", "agent", "container_start")


@pytest.mark.parametrize("how", ["interrupted", "running"])
def test_an_interrupted_try_without_a_result_leaves_the_pair_missing(solo: Tree, how: str) -> None:
    solo.attempt(ONE, "agent", 1, outcome=how, ended_at=None)
    assert outcome(solo).outcome == "missing"


def test_evidence_is_cut(solo: Tree) -> None:
    solo.result(ONE, agents=[agent(status="Error", error="503 Service Unavailable " + "x" * 9000)])
    assert len(outcome(solo).evidence or "") == 2000


def test_the_hash_of_two_patches_is_of_their_hashes_in_feature_order(coop: Tree) -> None:
    coop.pair(ONE)
    first, second = b"diff --git a/x b/x\n", b"diff --git a/y b/y\n"
    digests = "\n".join(hashlib.sha256(content).hexdigest() for content in (first, second))
    expected = hashlib.sha256(digests.encode()).hexdigest()
    found = reading(coop)
    assert found is not None
    assert found.patch_sha256 == expected == patch_sha256([first, second])
    assert patch_sha256([first]) == hashlib.sha256(first).hexdigest()


def test_features_of_a_verdict_are_matched_by_number(coop: Tree) -> None:
    coop.result(ONE)
    coop.evaluation(ONE, passed=(True, False))
    content = json.loads((coop.folder(ONE) / "eval.json").read_text())
    content["feature1"], content["feature2"] = content["feature2"], content["feature1"]
    coop.write(ONE, "eval.json", content)
    found = reading(coop)
    assert found is not None
    assert found.evaluation is not None
    assert found.evaluation.feature_a is not None
    assert found.evaluation.feature_a.passed is True


def test_a_verdict_without_its_features_is_a_fail(solo: Tree) -> None:
    solo.result(ONE)
    solo.write(ONE, "eval.json", {"both_passed": False, "evaluated_at": EVALUATED, "feature1": feature(True)})
    assert both(outcome(solo)) == ("fail", "tests", "fail", "tests")
