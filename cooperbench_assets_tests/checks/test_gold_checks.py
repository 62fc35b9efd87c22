"""The checks of the gold baseline: on runs whose solutions have one verdict, or none, and once they have two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from cooperbench_assets.assets.execution import job_of
from cooperbench_assets.assets.keys import asset_key
from cooperbench_assets.execution.gold import MODES, gold_job, read_gold, seed, to_judge
from cooperbench_assets.experiment import experiment_definitions
from cooperbench_assets_tests import trees
from cooperbench_assets_tests.experiments import bind

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.job import CellJob
    from cooperbench_assets.experiment_context import ExperimentContext

SOLUTION = "diff --git a/x b/x\n"


def solve(dataset: Path, pair: Pair, *, combined: bool = True) -> None:
    """Give a pair's task its solutions, as the dataset has them; the combined one only if told so."""
    task = dataset / pair.task.folder
    for feature in pair.features:
        trees.put(task / f"feature{feature}" / "feature.patch", SOLUTION)
    if combined:
        trees.put(task / "combined.patch", SOLUTION)


def judge(job: CellJob) -> None:
    """Two verdicts of every solution that is there, as evaluations leave them."""
    built = trees.Tree(job.run_dir, job.mode)
    for pair in job.subset.pairs:
        if not (built.folder(pair) / "result.json").is_file():
            continue
        built.evaluation(pair, evaluated_at="2099-01-01T00:00:00")
        record = {"n": 1, "campaign": 2, "stage": "eval", "outcome": "completed", "verdict": "pass"}
        times = {"started_at": "2099-01-01T00:00:00+00:00", "ended_at": "2099-01-01T00:01:00+00:00"}
        trees.put(job.attempts_dir(pair) / "verdict-2" / "attempt.json", record | times)


def gold_runs(experiment: ExperimentContext) -> list[CellJob]:
    """The runs of gold in both modes, with two verdicts of every solution that the dataset has."""
    first = job_of(experiment, experiment.cells[0], experiment.subset())
    jobs = [gold_job(first, mode) for mode in MODES]
    for job in jobs:
        seed(job)
        judge(job)
    return jobs


def materialize(experiment: ExperimentContext) -> dict[str, dg.AssetCheckEvaluation]:
    """What the checks say when the asset is materialised; no evaluation is left to run."""
    with dg.DagsterInstance.ephemeral() as instance:
        job = experiment_definitions(experiment).resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance, asset_selection=[asset_key("made", "gold_baseline")])
    return {found.check_name: found for found in result.get_asset_check_evaluations()}


def bind_gold(root: Path) -> ExperimentContext:
    solo = {"solo": {"mode": "solo", "seeds": [0]}}
    return bind(root, count=2, execution="process", agent="toy", model_name="none", settings=solo)


def test_a_solution_without_two_verdicts_is_named_until_it_has_them(tmp_path: Path) -> None:
    experiment = bind_gold(tmp_path)
    first, second = experiment.subset().pairs
    solve(experiment.dataset, first)
    solve(experiment.dataset, second, combined=False)
    gold_runs(experiment)
    found = materialize(experiment)
    assert found["gold_passes"].passed
    said = found["all_judged"]
    assert not said.passed
    assert said.description == "1 of 4 solutions has no two clean verdicts"
    assert said.metadata["sample"].value == f"- {second.name} solo: missing"
    assert "materialize made --gold, which does what is missing" in str(said.metadata["remedy"].value)

    solve(experiment.dataset, second)
    gold_runs(experiment)
    assert materialize(experiment)["all_judged"].passed


def test_one_verdict_is_not_enough_and_a_later_rounds_is_taken_where_the_second_has_used_up_its_tries(
    tmp_path: Path,
) -> None:
    experiment = bind_gold(tmp_path)
    for pair in experiment.subset().pairs:
        solve(experiment.dataset, pair)
    solo, _ = gold_runs(experiment)
    first, second = experiment.subset().pairs
    failed = {"n": 2, "campaign": 2, "stage": "eval", "outcome": "infra_error", "family": "oom"}
    times = {"started_at": "2099-01-01T00:00:00+00:00", "ended_at": "2099-01-01T00:01:00+00:00"}
    trees.put(solo.attempts_dir(first) / "verdict-2" / "attempt.json", failed | times)
    assert to_judge(solo) == ((), (first,))
    seen = [row for row in read_gold(solo) if row.sound is None]
    assert [(row.pair, row.first, row.second, row.second_reason) for row in seen] == [
        (first, "pass", "infra_error", "oom")
    ]

    further = {"n": 1, "campaign": 3, "stage": "eval", "outcome": "completed", "verdict": "pass"}
    for pair in (first, second):
        trees.put(solo.attempts_dir(pair) / "verdict-3" / "attempt.json", further | times)
    assert to_judge(solo) == ((), ())
    assert materialize(experiment)["all_judged"].passed
