"""What the pages of assets and of their checks say of cells: an asset's overview, its list of checks, each check."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from cooperbench_assets.assets.keys import asset_key, partitions_of
from cooperbench_assets.assets.reading import CELL_CHECKS
from cooperbench_assets.assets.results_store import publish_experiment
from cooperbench_assets.automation.dagster_runs import CELL_ASSETS, RANGE_TAGS, error_of
from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.checks.results_store import RESULTS_STORE_CHECKS
from cooperbench_assets.dagster_storage import OpenEventLog
from cooperbench_assets.experiment import experiment_definitions
from cooperbench_assets.local_runs import QUIET, open_instance
from cooperbench_assets.store.read import query
from cooperbench_assets_tests.automation.driving import Driver
from cooperbench_assets_tests.experiments import SETTINGS, bind, fill, tree
from cooperbench_assets_tests.projects import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cooperbench_assets.benchmark.pairs import Subset
    from cooperbench_assets.checks.finding import CellView, Check
    from cooperbench_assets.experiment_context import ExperimentContext
    from cooperbench_assets.spec import CellSpec

KEYS = ["coop-comm/0", "coop-nocomm/0", "solo/0", "solo/1"]
ALL = dict(zip(RANGE_TAGS, (KEYS[0], KEYS[-1]), strict=True))
OF_CELLS: dict[str, Any] = dict(CELL_CHECKS)


@pytest.fixture
def experiment(tmp_path: Path) -> ExperimentContext:
    made = bind(tmp_path)
    for cell in made.cells:
        fill(made, cell.cell.setting, cell.cell.seed)
    return made


@pytest.fixture
def instance(experiment: ExperimentContext) -> Iterator[dg.DagsterInstance]:
    """The instance that people have: the one of the project's dagster.yaml."""
    shutil.copy(CHECKOUT / "dagster.yaml", experiment.project.root)
    with open_instance(experiment.project) as opened:
        assert isinstance(storage(opened), OpenEventLog)
        yield opened


def storage(instance: dg.DagsterInstance) -> Any:
    """The event log behind what Dagster wraps it in."""
    log: Any = instance.event_log_storage
    return getattr(getattr(log, "_storage", None), "event_log_storage", log)


def job_of(experiment: ExperimentContext) -> dg.JobDefinition:
    """The job that holds every asset and check."""
    return experiment_definitions(experiment).resolve_implicit_global_asset_job_def()


def execute_all(
    experiment: ExperimentContext,
    instance: dg.DagsterInstance,
    asset: str,
    checks: tuple[Check[Any], ...],
    job: dg.JobDefinition | None = None,
) -> dg.ExecuteInProcessResult:
    """What the button launches on the page of an asset's checks: checks alone, and no partition."""
    job = job or job_of(experiment)
    chosen = {dg.AssetCheckKey(asset_key("made", asset), check.name) for check in checks}
    return job.get_subset(asset_selection=set(), asset_check_selection=chosen).execute_in_process(
        instance=instance, run_config={"loggers": QUIET}, raise_on_error=False
    )


def execute_all_of_cells(experiment: ExperimentContext, instance: dg.DagsterInstance) -> None:
    job = job_of(experiment)
    for asset, checks in OF_CELLS.items():
        execute_all(experiment, instance, asset, checks, job)


def listed(experiment: ExperimentContext, instance: dg.DagsterInstance) -> dict[str, set[str]]:
    """Checks with the partitions in which the list beside a check's page shows it red."""
    found: dict[str, set[str]] = {}
    for asset, checks in OF_CELLS.items():
        keys = [
            (dg.AssetCheckKey(asset_key("made", asset), check.name), partitions_of(experiment.spec)) for check in checks
        ]
        for key, state in instance.event_log_storage.get_asset_check_state(keys).items():
            red = [
                subset.subset_value.get_partition_keys()
                for status, subset in state.subsets.items()
                if status.value in ("FAILED", "EXECUTION_FAILED")
            ]
            found[key.name] = {partition for keys in red for partition in keys}
    return found


def shown(instance: dg.DagsterInstance) -> dict[str, tuple[str, str | None, str]]:
    """Checks with what the pages of asset and check show: state, partition, sentence."""
    keys = [dg.AssetCheckKey(asset_key("made", asset), check.name) for asset, of in OF_CELLS.items() for check in of]
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    return {
        key.name: (record.status.value, record.partition, getattr(record.evaluation, "description", None) or "")
        for key, record in latest.items()
    }


def red_checks(experiment: ExperimentContext, instance: dg.DagsterInstance) -> set[tuple[str, str]]:
    """The red checks, each with the cell that its page shows; list and pages must agree."""
    red, pages = listed(experiment, instance), shown(instance)
    for name, (status, partition, _) in pages.items():
        if red[name]:
            assert status != AssetCheckExecutionRecordStatus.SUCCEEDED.value, name
            assert partition in red[name], name
        else:
            assert status == AssetCheckExecutionRecordStatus.SUCCEEDED.value, name
    return {(name, str(pages[name][1])) for name in red if red[name]}


def lose_a_result(experiment: ExperimentContext, setting: str, seed: int = 0) -> None:
    (tree(experiment, setting, seed).folder(experiment.subset().pairs[0]) / "result.json").unlink()


@pytest.mark.slow
@pytest.mark.parametrize("lost", [("coop-comm", 0), ("solo", 0), ("solo", 1)])
def test_a_check_that_fails_in_one_cell_is_red_on_every_page_until_that_cell_is_well(
    experiment: ExperimentContext, instance: dg.DagsterInstance, lost: tuple[str, int]
) -> None:
    cell = f"{lost[0]}/{lost[1]}"
    red = {(name, cell) for name in ("expected_results", "expected_verdicts", "expected_rows")}
    driver = Driver(experiment, instance)
    lose_a_result(experiment, *lost)
    assert driver.materialize(CELL_ASSETS, tags=ALL).success
    assert red_checks(experiment, instance) == red
    assert driver.materialize(CELL_ASSETS, "coop-nocomm/0").success
    assert red_checks(experiment, instance) == red, "another cell's run is newer"
    execute_all_of_cells(experiment, instance)
    assert red_checks(experiment, instance) == red
    fill(experiment, *lost)
    assert driver.materialize(CELL_ASSETS, cell).success
    assert red_checks(experiment, instance) == set()


@pytest.mark.slow
def test_executing_all_checks_makes_the_pages_of_a_check_red_and_well_again(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    assert Driver(experiment, instance).materialize(CELL_ASSETS, tags=ALL).success
    lose_a_result(experiment, "coop-comm")
    execute_all_of_cells(experiment, instance)
    lost = ("expected_results", "expected_verdicts", "expected_rows")
    assert red_checks(experiment, instance) == {(name, "coop-comm/0") for name in lost}
    fill(experiment, "coop-comm", 0)
    execute_all_of_cells(experiment, instance)
    assert red_checks(experiment, instance) == set()


@pytest.mark.slow
@pytest.mark.parametrize("tags", [ALL, {"dagster/partition": "solo/0"}], ids=["among others", "alone"])
def test_the_checks_that_a_blocked_cell_keeps_from_being_evaluated_say_so_with_reason_and_fix(
    experiment: ExperimentContext, instance: dg.DagsterInstance, tags: dict[str, str]
) -> None:
    driver = Driver(experiment, instance)
    assert driver.materialize(CELL_ASSETS, tags=ALL).success
    tree(experiment, "solo").pair(Pair("other_task", 1, (1, 2)))
    assert not driver.materialize(CELL_ASSETS, tags=tags).success
    blocked = {check.name for asset in ("eval_outputs", "pair_results") for check in CELL_CHECKS[asset]}
    assert red_checks(experiment, instance) == {(name, "solo/0") for name in {*blocked, "only_planned_pairs"}}
    for name in blocked:
        assert shown(instance)[name][2].startswith("not evaluated: blocked by only_planned_pairs: 1 pair extra")
    before = query_failed(experiment)
    assert before <= {("solo", "only_planned_pairs")}, "what was not evaluated is no finding of the store"


def query_failed(experiment: ExperimentContext) -> set[tuple[str, str]]:
    publish_experiment(experiment)
    found = query(experiment.project.database, "SELECT setting, check_name FROM check_results WHERE NOT passed")
    return {(str(setting), str(name)) for setting, name in found.rows()}


def test_the_checks_of_a_cell_that_cannot_be_read_say_so(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    shutil.rmtree(experiment.run_dir(experiment.cells[0]))
    assert not Driver(experiment, instance).materialize(CELL_ASSETS, tags=ALL).success
    names = {check.name for checks in OF_CELLS.values() for check in checks}
    assert red_checks(experiment, instance) == {(name, "solo/0") for name in names}
    assert all("not evaluated: made solo seed 0: no run folder" in said for _, _, said in shown(instance).values())


def test_of_a_run_that_is_cancelled_the_cells_that_were_read_keep_their_results(
    experiment: ExperimentContext, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = type(experiment).view

    def cancelled_before_the_third(self: ExperimentContext, cell: CellSpec, subset: Subset | None = None) -> CellView:
        if cell.cell.setting == "solo":
            [run] = instance.get_runs()
            instance.report_run_canceling(run)
            raise dg.DagsterExecutionInterruptedError
        return read(self, cell, subset)

    monkeypatch.setattr(type(experiment), "view", cancelled_before_the_third)
    with contextlib.suppress(dg.DagsterExecutionInterruptedError):
        Driver(experiment, instance).materialize(CELL_ASSETS, tags=ALL)
    [run] = instance.get_runs()
    assert run.status == dg.DagsterRunStatus.CANCELED
    for asset, checks in OF_CELLS.items():
        assert instance.get_materialized_partitions(asset_key("made", asset)) == set(KEYS[:2])
        for check in checks:
            key = (dg.AssetCheckKey(asset_key("made", asset), check.name), partitions_of(experiment.spec))
            [state] = instance.event_log_storage.get_asset_check_state([key]).values()
            found = {status.value: subset.subset_value.get_partition_keys() for status, subset in state.subsets.items()}
            assert set(found["SUCCEEDED"]) == set(KEYS[:2])
            assert set(found["SKIPPED"]) == set(KEYS[2:])


@pytest.mark.slow
def test_a_cell_that_is_no_longer_planned_stays_red_until_all_are_evaluated_again(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    lose_a_result(experiment, "solo", 1)
    assert Driver(experiment, instance).materialize(CELL_ASSETS, tags=ALL).success
    fewer = bind(experiment.project.root, settings={**SETTINGS, "solo": {"mode": "solo", "seeds": [0]}})
    assert shown(instance)["expected_rows"][:2] == ("FAILED", "solo/1")
    execute_all_of_cells(fewer, instance)
    assert red_checks(fewer, instance) == set()


@pytest.mark.slow
def test_the_error_of_a_backfill_says_how_the_other_cells_are_published(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    tree(experiment, "solo").pair(Pair("other_task", 1, (1, 2)))
    driver = Driver(experiment, instance)
    hint = "to publish the others, launch the job made_refresh_results; the sensor made_downstream does so by itself"
    by_hand = driver.materialize(CELL_ASSETS, tags=ALL)
    assert hint not in error_of(instance, by_hand.run_id)
    backfill = driver.materialize(CELL_ASSETS, tags={**ALL, "dagster/backfill": "abcdefgh"})
    said = error_of(instance, backfill.run_id).splitlines()
    assert said[0] == "3 of 4 cells are done; 1 is blocked or could not be read:"
    assert said[-1] == f"{hint} while it is on"


@pytest.mark.slow
def test_executing_all_checks_of_the_store_looks_at_it_and_publishes_nothing(
    experiment: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    driver = Driver(experiment, instance)
    assert driver.materialize(CELL_ASSETS, "solo/0").success
    nothing = execute_all(experiment, instance, "results_store", RESULTS_STORE_CHECKS)
    assert not nothing.success
    assert str(experiment.project.database.name) in error_of(instance, nothing.run_id)
    assert driver.materialize(["results_store"]).success
    published = experiment.project.database.stat().st_mtime_ns
    assert driver.materialize(CELL_ASSETS, tags=ALL).success
    again = execute_all(experiment, instance, "results_store", RESULTS_STORE_CHECKS)
    assert again.success
    assert again.get_asset_materialization_events() == []
    found = {one.check_name: one.passed for one in again.get_asset_check_evaluations()}
    assert found == {check.name: check.name != "planned_cells_present" for check in RESULTS_STORE_CHECKS}
    assert experiment.project.database.stat().st_mtime_ns == published
    assert driver.materialize(["results_store"]).success
    better = execute_all(experiment, instance, "results_store", RESULTS_STORE_CHECKS)
    assert all(one.passed for one in better.get_asset_check_evaluations())
