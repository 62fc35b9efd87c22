"""What recorded tries tell of a pair: repeats, stale verdicts, and what the tree has no trace of."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from cooperbench_assets.benchmark.logtree import patch_sha256
from cooperbench_assets_tests.benchmark.looking import (
    ONE,
    TIMEOUT,
    both,
    outcome,
    reading,
    solo_sha,
)
from cooperbench_assets_tests.trees import Tree


def ended_by_a_timeout(solo: Tree) -> str:
    solo.result(ONE)
    solo.patches(ONE, "diff x\n")
    solo.evaluation(ONE, passed=(False, True), outputs=(TIMEOUT, None))
    return solo_sha("diff x\n")


def record(solo: Tree, n: int, sha: str | None, **more: Any) -> None:
    values = {"outcome": "infra_error", "family": "test_timeout", "patch_sha256": sha} | more
    solo.attempt(ONE, "eval", n, **values)


def test_the_first_timeout_of_a_patch_is_infrastructure(solo: Tree) -> None:
    record(solo, 1, ended_by_a_timeout(solo))
    assert outcome(solo).outcome == "infra_error"


def test_the_same_patch_timing_out_again_is_a_fail(solo: Tree) -> None:
    sha = ended_by_a_timeout(solo)
    record(solo, 1, sha)
    record(solo, 2, sha)
    found = outcome(solo)
    assert both(found) == ("fail", "test_timeout", "fail", "test_timeout")
    assert found.evidence == TIMEOUT
    assert found.retryable is None


def test_the_try_that_is_being_judged_need_not_be_recorded_as_timed_out(solo: Tree) -> None:
    sha = ended_by_a_timeout(solo)
    record(solo, 1, sha)
    record(solo, 2, sha, outcome="completed", family=None)
    assert outcome(solo).reason == "test_timeout"


@pytest.mark.parametrize(
    "later",
    [
        {"outcome": "running", "family": None},
        {"outcome": "interrupted", "family": "interrupted"},
        {"outcome": "infra_error", "family": "engine"},
    ],
)
def test_a_later_try_that_wrote_no_verdict_makes_no_repeat_of_the_first_timeout(
    solo: Tree, later: dict[str, Any]
) -> None:
    sha = ended_by_a_timeout(solo)
    record(solo, 1, sha)
    record(solo, 2, sha, **later)
    found = outcome(solo)
    assert (found.outcome, found.retryable) == ("infra_error", True)


def test_a_timeout_of_another_patch_is_no_repeat(solo: Tree) -> None:
    sha = ended_by_a_timeout(solo)
    record(solo, 1, solo_sha("diff of an earlier try\n"))
    record(solo, 2, sha)
    assert outcome(solo).outcome == "infra_error"


def test_a_repeat_that_is_told_by_an_error_is_a_fail_too(solo: Tree) -> None:
    sha = ended_by_a_timeout(solo)
    solo.evaluation(ONE, passed=(False, False), error="[infra:test_timeout] tests of feature 1 ran over 600 s")
    record(solo, 1, sha)
    record(solo, 2, sha)
    assert outcome(solo).reason == "test_timeout"


ABORTED = "[infra:tests_aborted] the kernel killed 1 of the container's processes at its memory limit of 64 MB"


def test_the_first_kill_of_a_patchs_tests_is_infrastructure(solo: Tree) -> None:
    sha = ended_by_a_timeout(solo)
    solo.evaluation(ONE, passed=(False, False), error=ABORTED)
    record(solo, 1, sha, family="tests_aborted")
    found = outcome(solo)
    assert (found.outcome, found.family, found.retryable) == ("infra_error", "tests_aborted", True)


@pytest.mark.parametrize("before", ["tests_aborted", "test_timeout"])
def test_the_same_patchs_tests_killed_again_are_a_fail_with_what_killed_them(solo: Tree, before: str) -> None:
    sha = ended_by_a_timeout(solo)
    solo.evaluation(ONE, passed=(False, False), error=ABORTED)
    record(solo, 1, sha, family=before)
    record(solo, 2, sha, family="tests_aborted")
    found = outcome(solo)
    assert both(found) == ("fail", "tests", "fail", "tests")
    assert found.evidence == ABORTED


def test_an_evaluation_that_hangs_outside_its_tests_is_never_a_fail(solo: Tree) -> None:
    sha = ended_by_a_timeout(solo)
    solo.evaluation(ONE, passed=(False, False), error="[infra:eval_timeout] while the sandbox was made")
    for n in (1, 2, 3):
        record(solo, n, sha, family="eval_timeout")
    assert (outcome(solo).outcome, outcome(solo).family) == ("infra_error", "eval_timeout")


def test_a_kill_that_the_machine_may_be_at_fault_for_stays_infrastructure_when_it_repeats(solo: Tree) -> None:
    sha = ended_by_a_timeout(solo)
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


def test_a_verdict_of_infrastructure_is_good_where_its_try_is_recorded_whatever_the_results_clock(solo: Tree) -> None:
    sha = ended_by_a_timeout(solo)
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


def test_the_hash_of_two_patches_is_of_their_hashes_in_feature_order(coop: Tree) -> None:
    coop.pair(ONE)
    first, second = b"diff --git a/x b/x\n", b"diff --git a/y b/y\n"
    digests = "\n".join(hashlib.sha256(content).hexdigest() for content in (first, second))
    expected = hashlib.sha256(digests.encode()).hexdigest()
    found = reading(coop)
    assert found is not None
    assert found.patch_sha256 == expected == patch_sha256([first, second])
    assert patch_sha256([first]) == hashlib.sha256(first).hexdigest()
