"""The assets of an experiment that only reads: real runs on an ephemeral Dagster instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl
import pytest

from cooperbench_assets.assets.keys import asset_key, partition_key
from cooperbench_assets.assets.reading import CELL_CHECKS
from cooperbench_assets.assets.results_store import publish_experiment
from cooperbench_assets.automation.dagster_runs import CELL_ASSETS, error_of
from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.experiment import experiment_definitions
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.partition_tables import list_units
from cooperbench_assets.store.read import query
from cooperbench_assets.store.units import cell_unit
from cooperbench_assets_tests.experiments import SETTINGS, bind, fill, tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cooperbench_assets.experiment_context import ExperimentContext

SOLO = Cell("made", "solo", 0)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def experiment(tmp_path: Path) -> ExperimentContext:
    return bind(tmp_path)


def run(
    experiment: ExperimentContext,
    instance: dg.DagsterInstance,
    cell: Cell | None = SOLO,
    assets: Sequence[str] = CELL_ASSETS,
    **config: Any,
) -> dg.ExecuteInProcessResult:
    job = experiment_definitions(experiment).resolve_implicit_global_asset_job_def()
    ops = {f"made__{asset}": {"config": config} for asset in assets} if config else {}
    return job.execute_in_process(
        instance=instance,
        partition_key=None if cell is None else partition_key(cell),
        asset_selection=[asset_key("made", asset) for asset in assets],
        run_config={"ops": ops},
        raise_on_error=False,
    )


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    events = [event.step_materialization_data.materialization for event in result.get_asset_materialization_events()]
    found = next(event for event in events if event.asset_key.path[-1] == asset)
    return {name: value.value for name, value in found.metadata.items()}


def failed_checks(result: dg.ExecuteInProcessResult) -> set[str]:
    return {found.check_name for found in result.get_asset_check_evaluations() if not found.passed}


def test_a_cell_is_read_written_and_checked(experiment: ExperimentContext, instance: dg.DagsterInstance) -> None:
    fill(experiment, "solo")
    result = run(experiment, instance)
    assert result.success
    said = metadata(result, "pair_results")
    assert (said["results"], said["pass"], said["fail"], said["dagster/row_count"]) == (4, 3, 1, 4)
    assert failed_checks(result) == set()
    partitions = {evaluation.partition for evaluation in result.get_asset_check_evaluations()}
    assert partitions == {"solo/0"}


def test_reading_again_changes_nothing_and_says_so(experiment: ExperimentContext, instance: dg.DagsterInstance) -> None:
    first, *_ = fill(experiment, "solo")
    before = metadata(run(experiment, instance), "pair_results")
    again = metadata(run(experiment, instance), "pair_results")
    tree(experiment, "solo").evaluation(first, passed=(True, True))
    changed = metadata(run(experiment, instance), "pair_results")
    assert (before["changed"], again["changed"], changed["changed"]) == (True, False, True)
    assert before["content_sha256"] == again["content_sha256"] != changed["content_sha256"]


@pytest.mark.slow
def test_changing_one_file_changes_one_cell_of_the_store(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    for setting, seed in (("solo", 0), ("solo", 1)):
        fill(experiment, setting, seed)
        run(experiment, instance, Cell("made", setting, seed))
    publish_experiment(experiment)
    first = experiment.subset().pairs[0]
    tree(experiment, "solo", 1).evaluation(first, passed=(True, True))
    run(experiment, instance, Cell("made", "solo", 1))
    changed = publish_experiment(experiment).changed
    assert [name for name in changed if "/cells/" in name and "/checks/" not in name] == ["made/cells/solo/1"]


def test_a_missing_run_folder_is_one_clear_error(experiment: ExperimentContext, instance: dg.DagsterInstance) -> None:
    result = run(experiment, instance)
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.error is not None
    assert "made solo seed 0: no run folder data/logs/solo; correct logs:" in str(failure.step_failure_data.error)


def test_a_missing_subset_lists_those_that_are_there(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    result = run(bind(tmp_path, subset="lite"), instance, None, ["subset_pairs"])
    assert not result.success
    assert "there are: some" in str(result.all_events)


def test_what_is_not_planned_is_no_partition_though_its_run_folder_is_there(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    fill(experiment, "coop-comm", 1)
    graph = experiment_definitions(experiment).resolve_asset_graph()
    for asset in CELL_ASSETS:
        partitions = graph.get(asset_key("made", asset)).partitions_def
        assert partitions is not None
        assert partitions.get_partition_keys() == ["coop-comm/0", "coop-nocomm/0", "solo/0", "solo/1"]
    with pytest.raises(dg.DagsterUnknownPartitionError, match="coop-comm/1"):
        run(experiment, instance, Cell("made", "coop-comm", 1))


def test_pairs_that_nobody_planned_stop_what_is_downstream(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    fill(experiment, "solo")
    tree(experiment, "solo").pair(Pair("other_task", 1, (1, 2)))
    result = run(experiment, instance)
    assert not result.success
    logged = instance.all_logs(result.run_id)
    assert [one.asset_materialization.asset_key.path[-1] for one in logged if one.asset_materialization] == ["run_logs"]
    found = [one.asset_check_evaluation for one in logged if one.asset_check_evaluation]
    failed = {one.check_name: one.description or "" for one in found if not one.passed}
    assert next(iter(failed)) == "only_planned_pairs"
    later = [check.name for asset in ("eval_outputs", "pair_results") for check in CELL_CHECKS[asset]]
    assert list(failed)[1:] == later
    assert all(failed[name].startswith("not evaluated: blocked by only_planned_pairs: 1 pair") for name in later)
    assert list_units(experiment.project.tables) != []
    assert not cell_unit(SOLO).folder(experiment.project.tables).exists()
    said = error_of(instance, result.run_id)
    assert said.startswith("made solo seed 0: blocked by only_planned_pairs: 1 pair extra, duplicate or misplaced")
    assert "other_task/1/f1_f2 is not in subset some" in said
    assert "how to fix: move them out of the run folder, or correct subset: or run_name: in defs.yaml" in said


def test_missing_results_fail_their_checks_and_stop_nothing(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    first, *_ = fill(experiment, "solo")
    (tree(experiment, "solo").folder(first) / "result.json").unlink()
    result = run(experiment, instance)
    assert result.success
    assert failed_checks(result) == {"expected_results", "expected_verdicts", "expected_rows"}


@pytest.mark.slow
def test_the_store_holds_every_cell_and_what_the_checks_found(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    for cell in experiment.cells:
        fill(experiment, cell.cell.setting, cell.cell.seed)
        assert run(experiment, instance, cell.cell).success
    result = run(experiment, instance, None, ["results_store"])
    assert result.success
    assert failed_checks(result) == set()
    said = metadata(result, "results_store")
    assert (said["cells"], said["pass"], said["fail"], said["dagster/row_count"]) == (4, 12, 4, 16)
    checks = query(
        experiment.project.database, "SELECT asset, count(*) AS n FROM check_results GROUP BY asset ORDER BY 1"
    )
    assert checks.rows() == [("eval_outputs", 20), ("pair_results", 12), ("results_store", 5), ("run_logs", 28)]
    assert query(experiment.project.database, "SELECT sum(checks_failed) FROM cells").item() == 0


@pytest.mark.slow
def test_a_dropped_cell_leaves_the_store_and_an_unreadable_one_stays(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    experiment = bind(tmp_path)
    for seed in (0, 1):
        fill(experiment, "solo", seed)
        run(experiment, instance, Cell("made", "solo", seed))
    publish_experiment(experiment)
    experiment.run_dir(experiment.cells[0]).rename(tmp_path / "gone")
    fewer = bind(tmp_path, settings={**SETTINGS, "solo": {"mode": "solo", "seeds": [0]}})
    publish_experiment(fewer)
    assert query(experiment.project.database, "SELECT setting, seed FROM cells").rows() == [("solo", 0)]


@pytest.mark.slow
def test_cells_of_another_model_are_named(experiment: ExperimentContext, instance: dg.DagsterInstance) -> None:
    for cell in experiment.cells:
        for pair in fill(experiment, cell.cell.setting, cell.cell.seed):
            if cell.cell.setting == "coop-comm":
                tree(experiment, "coop-comm").result(pair, model="another-model")
                tree(experiment, "coop-comm").evaluation(pair)
        tree(experiment, cell.cell.setting, cell.cell.seed).config(
            model="another-model" if cell.cell.setting == "coop-comm" else "some-model"
        )
        run(experiment, instance, cell.cell)
    result = run(experiment, instance, None, ["results_store"])
    assert failed_checks(result) == {"one_recipe"}
    [check] = [found for found in result.get_asset_check_evaluations() if not found.passed]
    assert "coop-comm seed 0: model another-model" in str(check.metadata["sample"])


@pytest.mark.real_logs
@pytest.mark.slow
def test_the_real_flash_runs_give_their_published_figures(
    real_logs: Path, flash_subset: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    settings = {
        "solo": {"seeds": [1, 2, 3], "run_name": "flash_solo_{seed}"},
        "coop-comm": {"seeds": [1, 2, 3], "run_name": "flash_msg_{seed}"},
    }
    experiment = bind(tmp_path, subset=str(flash_subset), logs=str(real_logs), settings=settings)
    for cell in experiment.cells:
        assert run(experiment, instance, cell.cell).success
    assert run(experiment, instance, None, ["results_store"]).success
    sql = (
        "SELECT setting, seed, results, evals, pass, fail, infra_error, unevaluated, round(cost_usd, 2) AS cost "
        "FROM cells ORDER BY setting DESC, seed"
    )
    assert query(experiment.project.database, sql).rows() == [
        ("solo", 1, 50, 48, 21, 25, 4, 0, 33.21),
        ("solo", 2, 50, 48, 20, 27, 3, 0, 35.62),
        ("solo", 3, 50, 47, 21, 23, 6, 0, 28.51),
        ("coop-comm", 1, 50, 47, 6, 38, 6, 0, 55.67),
        ("coop-comm", 2, 50, 48, 6, 41, 3, 0, 56.42),
        ("coop-comm", 3, 50, 47, 6, 40, 4, 0, 56.48),
    ]
    dead = "SELECT count(*) FROM pairs JOIN agents USING (experiment, setting, seed, pair) WHERE {}"
    where = "outcome = 'fail' AND status = 'Error'"
    assert query(experiment.project.database, dead.format(where)).item() == 0
    families = query(
        experiment.project.database,
        "SELECT setting, stage, family, count(*) AS n FROM pairs WHERE outcome = 'infra_error' "
        "GROUP BY ALL ORDER BY ALL",
    )
    assert families.filter(pl.col("stage") == "agent").rows() == [
        ("coop-comm", "agent", "auth", 2),
        ("coop-comm", "agent", "container_start", 3),
        ("solo", "agent", "auth", 2),
    ]
