"""The nightly schedule: one real backfill of what is still to run, and none beside a running one."""

from __future__ import annotations

import contextlib
import os
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, SensorInstigatorData
from dagster._grpc.impl import get_external_schedule_execution

from cooperbench_assets.assets.keys import asset_key, partition_key
from cooperbench_assets.automation.backfills import running_backfills, still_to_launch
from cooperbench_assets.automation.dagster_runs import RANGE_TAGS, cell_runs
from cooperbench_assets.automation.nightly_schedule import NIGHTLY_TAG, is_preview
from cooperbench_assets.automation.retry_sensor import backfilled
from cooperbench_assets.execution.cell_lock import cell_lock
from cooperbench_assets.spec import ExperimentError
from cooperbench_assets_tests.automation.driving import ALWAYS_FAILS, CELL_ASSETS, Driver, bind_demo
from cooperbench_assets_tests.experiments import bind, fill

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cooperbench_assets.benchmark.pairs import Subset
    from cooperbench_assets.checks.finding import CellView
    from cooperbench_assets.experiment_context import ExperimentContext
    from cooperbench_assets.spec import CellSpec

GRID = {"solo": {"mode": "solo", "seeds": [0, 1]}, "coop-comm": {"mode": "coop", "seeds": [0]}}


def drive(root: Path, instance: dg.DagsterInstance, **changes: Any) -> Driver:
    return Driver(bind_demo(root, **{"settings": GRID, "nightly": "0 2 * * *", **changes}), instance)


def backfill(instance: dg.DagsterInstance) -> PartitionBackfill:
    [found] = instance.get_backfills()
    return found


def cells_of(driver: Driver) -> set[str]:
    return set(still_to_launch(driver.instance, asset_key("drill", "pair_results")))


def finish(instance: dg.DagsterInstance, found: PartitionBackfill, status: BulkActionStatus) -> None:
    instance.update_backfill(found.with_status(status))  # type: ignore[no-untyped-call]


def switch(instance: dg.DagsterInstance, sensor: str, status: InstigatorStatus) -> None:
    """What the daemon's storage holds of a sensor that somebody has switched on or off."""
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("somewhere"), "__repository__")
    origin = RemoteInstigatorOrigin(repository, sensor)
    state = InstigatorState(origin, InstigatorType.SENSOR, status, SensorInstigatorData(min_interval=30))
    known = instance.get_instigator_state(state.instigator_origin_id, state.selector_id)
    (instance.add_instigator_state if known is None else instance.update_instigator_state)(state)


def run_config(found: PartitionBackfill) -> Mapping[str, Any]:
    assert found.run_config is not None
    return found.run_config


@pytest.mark.slow
def test_cells_that_nobody_launched_yet_are_filled_by_one_backfill(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    driver = drive(tmp_path, instance)
    said = driver.nightly()
    found = backfill(instance)
    assert found.backfill_id in said
    assert found.title == "Nightly: 3 cells (3 never run)"
    assert "drill coop-comm seed 0: never run" in (found.description or "")
    assert found.tags[NIGHTLY_TAG] == "drill"
    assert cells_of(driver) == {"solo/0", "solo/1", "coop-comm/0"}
    assert set(found.asset_selection or ()) == {asset_key("drill", name) for name in CELL_ASSETS}
    configs = run_config(found)["ops"]
    assert all(config["config"]["automatic"] is True for config in configs.values())


def test_dagster_tells_a_preview_from_a_tick_of_the_daemon_by_the_key_of_the_log(instance: dg.DagsterInstance) -> None:
    seen = []

    @dg.schedule(cron_schedule="@daily", target="*")
    def night(context: dg.ScheduleEvaluationContext) -> dg.SkipReason:
        seen.append(is_preview(context))
        return dg.SkipReason("only looking")

    repository = dg.Definitions(schedules=[night]).get_repository_def()
    # The UI names no key, and the daemon one that ends with the number of the tick.
    for log_key in (None, [repository.name, "night", "17"]):
        get_external_schedule_execution(repository, instance.get_ref(), "night", time.time(), "UTC", log_key)
    assert seen == [True, False]


@pytest.mark.slow
def test_there_is_never_a_second_beside_a_running_one(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    driver = drive(tmp_path, instance)
    driver.nightly()
    assert "is still running" in driver.nightly()
    assert len(instance.get_backfills()) == 1
    finish(instance, backfill(instance), BulkActionStatus.CANCELING)
    assert "is still running" in driver.nightly()
    finish(instance, backfill(instance), BulkActionStatus.COMPLETED_FAILED)
    assert running_backfills(instance, {NIGHTLY_TAG: "drill"}) == []
    driver.nightly()
    assert len(instance.get_backfills()) == 2


@pytest.mark.slow
def test_the_retry_sensor_leaves_cells_alone_that_a_backfill_will_launch(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    driver = drive(tmp_path, instance)
    driver.nightly()
    looked = driver.tick()
    assert not looked.run_requests
    # Seen by the sensor, not by a look that knows no backfills.
    waiting = backfilled(driver.experiment, instance)
    assert waiting == dict.fromkeys(["solo/0", "solo/1", "coop-comm/0"], backfill(instance).backfill_id)


@pytest.mark.slow
def test_a_night_between_a_fault_and_its_retry_waits_for_the_pause_and_leaves_the_cell_to_a_sensor_that_is_on(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    settings = {"solo": {"mode": "solo", "seeds": [0]}}
    driver = drive(tmp_path, instance, settings=settings, faults={"rate": 0.0, "always": [ALWAYS_FAILS]})
    [cell] = driver.experiment.cells
    assert driver.launch(cell.cell).success
    assert driver.nightly().startswith("nothing to launch: drill solo seed 0: pause before the next try, until 2")
    driver.now += timedelta(hours=1)
    switch(instance, "drill_retry", InstigatorStatus.RUNNING)
    assert driver.nightly() == "nothing to launch: drill solo seed 0: it is left to the retry sensor"
    assert instance.get_backfills() == []
    switch(instance, "drill_retry", InstigatorStatus.STOPPED)
    switch(instance, "another_retry", InstigatorStatus.RUNNING)
    assert "Nightly: 1 cell (1 with pairs still to run)" in driver.nightly()


@pytest.mark.slow
def test_pairs_that_nobody_asked_for_yet_are_bought_by_night_though_the_sensor_is_on(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    settings = {"solo": {"mode": "solo", "seeds": [0]}}
    driver = drive(tmp_path, instance, settings=settings)
    driver.launch(driver.experiment.cells[0].cell, at_most=1)
    switch(instance, "drill_retry", InstigatorStatus.RUNNING)
    assert driver.tick().run_requests in (None, [])
    assert "Nightly: 1 cell (1 with pairs still to run)" in driver.nightly()


@pytest.mark.slow
def test_a_cell_that_a_person_cancelled_is_not_bought_by_night(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    driver = drive(tmp_path, instance)
    kept, *_ = driver.experiment.cells
    run = instance.create_run_for_job(
        driver.job,
        tags={"dagster/partition": partition_key(kept.cell)},
        asset_selection=frozenset([asset_key("drill", "run_logs")]),
    )
    instance.report_run_canceling(run)
    instance.report_run_canceled(run)
    driver.nightly()
    assert cells_of(driver) == {partition_key(cell.cell) for cell in driver.experiment.cells} - {
        partition_key(kept.cell)
    }


@pytest.mark.slow
def test_only_what_is_still_to_run_is_filled_and_nothing_when_nothing_is(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    settings = {"solo": {"mode": "solo", "seeds": [0, 1, 2]}}
    driver = drive(tmp_path, instance, settings=settings, faults={"rate": 0.0, "always": [ALWAYS_FAILS]})
    done, smoked, unread = driver.experiment.cells
    driver.launch(
        done.cell, pairs=[pair.name for pair in driver.experiment.subset().pairs if pair.name != ALWAYS_FAILS]
    )
    driver.launch(smoked.cell, at_most=1)
    driver.materialize(CELL_ASSETS[:2], partition_key(unread.cell))
    accepting = drive(
        tmp_path,
        instance,
        settings=settings,
        faults={"rate": 0.0, "always": [ALWAYS_FAILS]},
        accepted=[{"pair": ALWAYS_FAILS, "reason": "it always fails", "seed": seed} for seed in (0, 2)],
    )
    accepting.now += timedelta(hours=1)  # the pause after the fault is over
    with cell_lock(accepting.experiment.run_dir(smoked), "somebody's command"):
        said = accepting.nightly()
    assert "Nightly: 1 cell (1 newer than their tables)" in said
    assert cells_of(accepting) == {"solo/2"}
    finish(instance, backfill(instance), BulkActionStatus.COMPLETED_SUCCESS)
    accepting.materialize(CELL_ASSETS, partition_key(unread.cell))
    assert "Nightly: 1 cell (1 with pairs still to run)" in accepting.nightly()
    assert cells_of(accepting) == {"solo/1"}
    for one in instance.get_backfills():
        finish(instance, one, BulkActionStatus.COMPLETED_SUCCESS)
    accepting.launch(smoked.cell)
    accepting.leave_alone()
    assert accepting.nightly().startswith("nothing to launch: drill solo seed 0: up to date")
    assert len(instance.get_backfills()) == 2


@pytest.mark.slow
def test_an_experiment_that_only_reads_is_read_again_where_its_logs_changed(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    experiment = bind(tmp_path, nightly="0 2 * * *")
    fill(experiment, "solo")
    driver = Driver(experiment, instance)
    assert "Nightly: 1 cell (1 newer than their tables)" in driver.nightly()
    finish(instance, backfill(instance), BulkActionStatus.COMPLETED_SUCCESS)
    driver.materialize(CELL_ASSETS, partition_key(experiment.cells[0].cell))
    assert driver.nightly().startswith("nothing to launch")


@pytest.mark.slow
def test_cells_that_a_cancelled_run_did_not_come_to_are_not_read_by_night(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = bind(tmp_path, nightly="0 2 * * *")
    for cell in experiment.cells:
        fill(experiment, cell.cell.setting, cell.cell.seed)
    driver = Driver(experiment, instance)
    keys = [partition_key(cell) for cell in sorted(cell.cell for cell in experiment.cells)]
    read = type(experiment).view

    def cancelled_before_the_third(self: ExperimentContext, cell: CellSpec, subset: Subset | None = None) -> CellView:
        if partition_key(cell.cell) == keys[2]:
            [run] = instance.get_runs()
            instance.report_run_canceling(run)
            raise dg.DagsterExecutionInterruptedError
        return read(self, cell, subset)

    monkeypatch.setattr(type(experiment), "view", cancelled_before_the_third)
    with contextlib.suppress(dg.DagsterExecutionInterruptedError):
        driver.materialize(CELL_ASSETS, tags=dict(zip(RANGE_TAGS, (keys[0], keys[-1]), strict=True)))
    monkeypatch.undo()
    [run] = instance.get_runs()
    assert run.status == dg.DagsterRunStatus.CANCELED
    found = {
        partition_key(cell): runs.cancelled for cell, runs in cell_runs(instance, experiment, experiment.cells).items()
    }
    assert found == {keys[0]: None, keys[1]: None, keys[2]: run.run_id, keys[3]: run.run_id}
    said = driver.nightly()
    assert said.startswith("nothing to launch")
    assert f"a person cancelled its last run ({run.run_id[:8]}); materialise it to go on" in said
    later = time.time() + 3600
    for cell in experiment.cells:
        for file in experiment.run_dir(cell).rglob("eval.json"):
            os.utime(file, (later, later))
    assert "Nightly: 2 cells (2 newer than their tables)" in driver.nightly()


def test_the_schedule_is_off_and_there_only_where_defs_yaml_names_a_time(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    schedule = drive(tmp_path, instance).repository.get_schedule_def("drill_nightly")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 2 * * *", "UTC")
    assert not drive(tmp_path, instance, nightly=None).repository.has_schedule_def("drill_nightly")


@pytest.mark.parametrize("cron", ["at night", "0 2 * *", "", "rm -rf / * *"])
def test_what_is_no_cron_expression_is_refused(tmp_path: Path, cron: str) -> None:
    with pytest.raises(ExperimentError, match=r"defs\.yaml: nightly: .*; write a cron expression such as"):
        bind_demo(tmp_path, nightly=cron)
