"""The tasks themselves: what passes, what fails, what can be merged, judged by the tasks' own runner."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.demo.tasks import DemoTask
from cooperbench_assets_tests.demo.bench import FEATURES, PAIRS, TASKS, Bench, Run, Sandbox, at_once, per_task, split

NO_TESTS = "diff --git a/NOTES b/NOTES\nnew file mode 100644\n--- /dev/null\n+++ b/NOTES\n@@ -0,0 +1 @@\n+nothing new\n"
"""A patch without tests, so that only the repository's own ones run."""


def passed(run: Run) -> int:
    match = re.search(r"(\d+) passed", run.output)
    return int(match[1]) if match else 0


def own_tests(task: DemoTask, *numbers: int) -> tuple[str, ...]:
    """The files that features' tests are in: of all features if none is named. No two have one in common."""
    text = "".join(task.features[number].text("tests.patch") for number in numbers or task.features)
    return tuple(re.findall(r"^\+\+\+ b/(tests/.+)$", text, re.MULTILINE))


def suite_of(bench: Bench, name: str, *numbers: int) -> str:
    """The tests of several features of a task, as one patch."""
    return "".join(bench.patch(name, number, "tests") for number in numbers)


def of_feature(run: Run, task: DemoTask, number: int) -> bool:
    """Whether tests failed, and only the feature's own ones."""
    own = own_tests(task, number)
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
        base, wrong = sandbox.test(suite_of(bench, name, *task.features)), []
        if base.returncode != 1 or not all(name.startswith(own_tests(task)) for name in base.failed):
            wrong.append(f"{name}: {base.output}")
        for number in task.features:
            if not any(failed.startswith(own_tests(task, number)) for failed in base.failed):
                wrong.append(f"{name} feature {number}: its tests do not fail on the base")
            run = sandbox.test(bench.patch(name, number, "tests"), bench.patch(name, number))
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
def test_patches_for_several_features_pass_the_tests_of_all_of_them(bench: Bench) -> None:
    def judge(name: str, task: DemoTask, sandbox: Sandbox) -> list[str]:
        patches = bench.submissions(name)["pairs"]
        made: dict[tuple[int, ...], str] = {pair: patches["{}_{}".format(*pair)]["right-right"] for pair in task.pairs}
        made[tuple(task.features)] = (bench.task_dir(name) / "combined.patch").read_text()
        runs = [sandbox.test(suite_of(bench, name, *numbers), patch) for numbers, patch in made.items()]
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


@pytest.mark.slow
def test_gold_patches_merge_and_pass_or_conflict_as_the_subset_says(bench: Bench) -> None:
    conflicting = conflicts(bench.dataset)

    def judge(name: str, task: DemoTask, sandbox: Sandbox) -> list[str]:
        wrong = []
        for (a, b), patch in merged_gold(bench, name).items():
            pair = f"{name}/f{a}_f{b}"
            if (patch is None) != (pair in conflicting):
                wrong.append(f"{pair}: conflicts or merges")
            elif patch is not None and (run := sandbox.test(suite_of(bench, name, a, b), patch)).returncode != 0:
                wrong.append(f"{pair}: {run.output}")
        return wrong

    assert per_task(bench, judge) == []


def merged_gold(bench: Bench, name: str) -> dict[tuple[int, int], str | None]:
    """What merging the gold patches of each pair of a task gives, as a patch; None where they conflict."""
    task, sandbox = TASKS[name], bench.sandbox(name)

    def git(*words: str) -> Run:
        return sandbox.exec("git", "-c", "user.name=demo", "-c", "user.email=demo@example.org", *words)

    for number in task.features:
        git("checkout", "--quiet", "-b", f"feature{number}", "main")
        (sandbox.folder / "patches" / "gold.patch").write_text(bench.patch(name, number))
        git("apply", "--index", "/patches/gold.patch")
        assert git("commit", "--quiet", "--message", "gold").returncode == 0
    found: dict[tuple[int, int], str | None] = {}
    for a, b in task.pairs:
        git("checkout", "--quiet", "--force", "--detach", f"feature{a}")
        clean = git("merge", "--quiet", "--message", "both", f"feature{b}").returncode == 0
        found[a, b] = git("diff", "main", "HEAD").output if clean else None
    return found


@pytest.mark.slow
def test_upstream_judges_the_datasets_own_solutions_as_the_subset_says(evaluating: object, bench: Bench) -> None:
    """One pair of each task that conflicts and one that does not: each pair is judged without upstream above."""
    from cooperbench.eval.sandbox import test_merged as merged
    from cooperbench.eval.sandbox import test_solo as solo

    conflicting = conflicts(bench.dataset)

    def judge(pair: str) -> str | None:
        task, a, b = split(pair)
        repo, _, task_id = task.partition("/")
        asked: Any = {"backend": "process", "dataset_dir": bench.dataset}
        gold: Any = {"patch1": bench.patch(task, a), "patch2": bench.patch(task, b)}
        both = merged(repo, int(task_id), a, b, **gold, **asked)
        alone = solo(repo, int(task_id), a, b, bench.task_dir(task) / "combined.patch", **asked)
        said = (both["error"], both["merge"]["status"], both["both_passed"], alone["error"], alone["both_passed"])
        apart = pair in conflicting
        promised = (None, "conflicts" if apart else "clean", not apart, None, True)
        return None if said == promised else f"{pair}: {said}"

    chosen = {(split(pair)[0], pair in conflicting): pair for pair in PAIRS}
    assert len(chosen) == 2 * len(TASKS)
    assert [wrong for wrong in at_once(judge, chosen.values()) if wrong] == []


def conflicts(dataset: Path) -> set[str]:
    """Names of the pairs whose gold patches conflict, as the subset says."""
    entries = json.loads((dataset / "subsets" / "lite.json").read_text())["tasks"]
    return {f"{one['repo']}/{one['task_id']}/f{a}_f{b}" for one in entries for a, b in one["conflicts"]}
