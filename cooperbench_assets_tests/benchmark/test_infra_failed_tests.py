"""Tests that infrastructure ended, and errors of an evaluation: infrastructure or a fail."""

from __future__ import annotations

import json

import pytest

from cooperbench_assets_tests.benchmark.looking import (
    NETWORK,
    ONE,
    TIMEOUT,
    both,
    outcome,
)
from cooperbench_assets_tests.trees import Tree, agent


@pytest.mark.parametrize(
    ("output", "family"),
    [(TIMEOUT, "test_timeout"), (NETWORK, "network"), ("runner.sh: line 9: 12 Killed  pytest\n", "oom")],
)
def test_tests_that_infrastructure_ended_are_infrastructure_in_solo(solo: Tree, output: str, family: str) -> None:
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


def test_one_feature_that_failed_by_itself_makes_a_fail_whatever_ended_the_other(solo: Tree) -> None:
    solo.result(ONE)
    solo.evaluation(ONE, passed=(False, False), outputs=(TIMEOUT, None))
    assert both(outcome(solo)) == ("fail", "tests", "fail", "tests")


def test_both_features_ended_by_infrastructure_is_infrastructure(solo: Tree) -> None:
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
