"""What becomes of a pair, rule by rule, from files on disk: nothing there, and verdicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cooperbench_assets.benchmark.outcomes import judge
from cooperbench_assets_tests.benchmark.looking import (
    ONE,
    TIMEOUT,
    both,
    outcome,
    reading,
)
from cooperbench_assets_tests.trees import EVALUATED, Tree, agent, feature


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


def test_a_union_merge_whose_tests_infrastructure_ended_is_infrastructure_and_strictly_a_conflict(coop: Tree) -> None:
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
    assert both(outcome(coop)) == ("pass", None, "fail", "empty_patch")


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
    assert both(outcome(coop)) == ("pass", None, "fail", "empty_patch")


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
