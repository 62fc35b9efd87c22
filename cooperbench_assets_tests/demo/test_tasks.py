"""The tasks themselves: what passes, what fails, what can be merged, judged by the tasks' own runner."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from cooperbench_assets.demo.tasks import DemoTask
from cooperbench_assets_tests.demo.bench import FEATURES, PAIRS, Bench, Run, Sandbox, at_once, per_task, split

NO_TESTS = "diff --git a/NOTES b/NOTES\nnew file mode 100644\n--- /dev/null\n+++ b/NOTES\n@@ -0,0 +1 @@\n+nothing new\n"
"""A patch without tests, so that only the repository's own ones run."""


def passed(run: Run) -> int:
    match = re.search(r"(\d+) passed", run.output)
    return int(match[1]) if match else 0


def of_feature(run: Run, task: DemoTask, number: int) -> bool:
    """Whether tests failed, and only the feature's own ones."""
    own = tuple(re.findall(r"^\+\+\+ b/(tests/.+)$", task.features[number].text("tests.patch"), re.MULTILINE))
    return run.returncode == 1 and bool(run.failed) and all(name.startswith(own) for name in run.failed)


def test_every_base_passes_its_own_tests(bench: Bench) -> None:
    runs = per_task(bench, lambda _name, _task, sandbox: [sandbox.test(NO_TESTS)])
    assert len(runs) == 8
    for run in runs:
        assert run.returncode == 0, run.output
        assert passed(run) >= 7
        assert not run.failed


@pytest.mark.slow
def test_every_features_tests_fail_on_the_base_and_pass_with_the_gold_patch(bench: Bench) -> None:
    def judge(name: str, task: DemoTask, sandbox: Sandbox) -> list[str]:
        wrong = []
        for number in task.features:
            tests = bench.patch(name, number, "tests")
            if not of_feature(sandbox.test(tests), task, number):
                wrong.append(f"{name} feature {number}: its tests do not fail on the base")
            run = sandbox.test(tests, bench.patch(name, number))
            if run.returncode != 0 or passed(run) < 10:
                wrong.append(f"{name} feature {number}: {run.output}")
        return wrong

    assert per_task(bench, judge) == []


@pytest.mark.slow
def test_a_wrong_patch_fails_its_own_tests_and_no_others(bench: Bench) -> None:
    def judge(name: str, task: DemoTask, sandbox: Sandbox) -> list[str]:
        patches = bench.submissions(name)["features"]
        runs = {
            number: sandbox.test(bench.patch(name, number, "tests"), patches[str(number)]["wrong"])
            for number in task.features
        }
        return [
            f"{name} feature {number}: {run.output}"
            for number, run in runs.items()
            if not of_feature(run, task, number)
        ]

    assert per_task(bench, judge) == []


@pytest.mark.slow
def test_the_patches_that_keep_out_of_the_way_are_as_right_and_as_wrong(bench: Bench) -> None:
    def judge(name: str, task: DemoTask, sandbox: Sandbox) -> list[str]:
        wrong = []
        for number in task.features:
            tests, patches = bench.patch(name, number, "tests"), bench.submissions(name)["features"][str(number)]
            if (run := sandbox.test(tests, patches["aside"])).returncode != 0:
                wrong.append(f"{name} feature {number} aside: {run.output}")
            if not of_feature(sandbox.test(tests, patches["wrong-aside"]), task, number):
                wrong.append(f"{name} feature {number} wrong-aside passes")
        return wrong

    assert per_task(bench, judge) == []


@pytest.mark.slow
def test_the_combined_patch_of_a_task_passes_every_features_tests(bench: Bench) -> None:
    def judge(name: str, task: DemoTask, sandbox: Sandbox) -> list[str]:
        combined = (bench.task_dir(name) / "combined.patch").read_text()
        runs = [sandbox.test(bench.patch(name, number, "tests"), combined) for number in task.features]
        return [run.output for run in runs if run.returncode != 0]

    assert per_task(bench, judge) == []


def test_upstream_reads_the_runners_output(harness: object, bench: Bench) -> None:
    from cooperbench.eval.sandbox import _parse_results

    task, feature = FEATURES[0]
    sandbox = bench.sandbox(task)
    good = sandbox.test(bench.patch(task, feature, "tests"), bench.patch(task, feature))
    assert _parse_results(good.output) == {"passed": passed(good), "failed": 0}
    bad = sandbox.test(bench.patch(task, feature, "tests"))
    assert _parse_results(bad.output) == {"passed": passed(bad), "failed": len(bad.failed)}


def test_a_broken_module_is_an_error_and_not_a_pass(bench: Bench) -> None:
    task, feature = FEATURES[0]
    broken = re.sub(r"\n\+(?!\+)", r"\n+)", bench.patch(task, feature), count=1)
    run = bench.sandbox(task).test(bench.patch(task, feature, "tests"), broken)
    assert run.returncode == 1
    assert "error" in run.output
    assert "SyntaxError" in run.output


def test_an_empty_patch_fails_like_in_real_images(bench: Bench) -> None:
    task, feature = FEATURES[0]
    run = bench.sandbox(task).test(bench.patch(task, feature, "tests"), "")
    assert run.returncode != 0
    assert "No valid patches in input" in run.output
    assert passed(run) == 0


def test_a_test_run_takes_about_a_tenth_of_a_second(bench: Bench) -> None:
    task, feature = FEATURES[0]
    sandbox = bench.sandbox(task)
    tests, gold = bench.patch(task, feature, "tests"), bench.patch(task, feature)

    def seconds() -> float:
        started = time.perf_counter()
        assert sandbox.test(tests, gold).returncode == 0
        return time.perf_counter() - started

    assert min(seconds() for _ in range(8)) < 0.2


@pytest.mark.slow
def test_gold_patches_merge_and_pass_or_conflict_as_the_subset_says(evaluating: object, bench: Bench) -> None:
    from cooperbench.eval.sandbox import test_merged as merged

    conflicting = conflicts(bench.dataset)

    def judge(pair: str) -> str | None:
        task, a, b = split(pair)
        repo, _, task_id = task.partition("/")
        gold = [bench.patch(task, number) for number in (a, b)]
        result = merged(
            repo, int(task_id), a, b, patch1=gold[0], patch2=gold[1], backend="process", dataset_dir=bench.dataset
        )
        said = (result["error"], result["merge"]["status"], result["both_passed"])
        promised = (None, "conflicts", False) if pair in conflicting else (None, "clean", True)
        return None if said == promised else f"{pair}: {said}"

    assert [wrong for wrong in at_once(judge, PAIRS) if wrong] == []


@pytest.mark.slow
def test_the_combined_patch_passes_both_features_of_every_pair(evaluating: object, bench: Bench) -> None:
    from cooperbench.eval.sandbox import test_solo as solo

    def judge(pair: str) -> str | None:
        task, a, b = split(pair)
        repo, _, task_id = task.partition("/")
        combined = bench.task_dir(task) / "combined.patch"
        result = solo(repo, int(task_id), a, b, combined, backend="process", dataset_dir=bench.dataset)
        return None if result["both_passed"] and result["error"] is None else f"{pair}: {result}"

    assert [wrong for wrong in at_once(judge, PAIRS) if wrong] == []


def conflicts(dataset: Path) -> set[str]:
    """Names of the pairs whose gold patches conflict, as the subset says."""
    entries = json.loads((dataset / "subsets" / "lite.json").read_text())["tasks"]
    return {f"{one['repo']}/{one['task_id']}/f{a}_f{b}" for one in entries for a, b in one["conflicts"]}
