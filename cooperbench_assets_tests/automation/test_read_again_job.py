"""Cells of an experiment that runs pairs, read again in one run that runs none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from cooperbench_assets.assets.keys import asset_key
from cooperbench_assets.assets.reading import CELL_CHECKS, ONE_EACH
from cooperbench_assets.automation.dagster_runs import CELL_ASSETS, RANGE_TAGS, cell_runs, error_of
from cooperbench_assets.execution.attempts.records import scan_attempts
from cooperbench_assets.execution.cell_lock import cell_lock
from cooperbench_assets.local_runs import QUIET
from cooperbench_assets_tests.automation.driving import ALWAYS_FAILS, Driver, bind_demo

if TYPE_CHECKING:
    from pathlib import Path

TWO_SEEDS = {"solo": {"mode": "solo", "seeds": [0, 1]}}


def drive(root: Path, instance: dg.DagsterInstance, **changes: Any) -> Driver:
    return Driver(bind_demo(root, **{"settings": TWO_SEEDS, **changes}), instance)


def read_again(driver: Driver) -> dg.ExecuteInProcessResult:
    job = driver.repository.get_job("drill_read_again")
    return job.execute_in_process(instance=driver.instance, run_config={"loggers": QUIET}, raise_on_error=False)


def read_partitions(driver: Driver, run_id: str) -> list[tuple[str, str | None]]:
    """Assets and partitions that a run materialised."""
    logged = driver.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    events = [entry.asset_materialization for entry in logged]
    return [(event.asset_key.path[-1], event.partition) for event in events if event is not None]


def judged(driver: Driver, run_id: str) -> dict[tuple[str | None, str], bool]:
    logged = driver.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [entry.asset_check_evaluation for entry in logged]
    return {(one.partition, one.check_name): one.passed for one in found if one is not None}


def spoil_a_verdict(driver: Driver, seed: int = 0) -> None:
    """Have a verdict contradict its own features."""
    folder = driver.experiment.run_dir(driver.experiment.cells[seed])
    file = next(folder.glob("solo/*/*/*/eval.json"))
    content = json.loads(file.read_bytes())
    file.write_text(json.dumps({**content, "both_passed": not content["both_passed"]}))


@pytest.mark.slow
def test_one_run_reads_every_launched_cell_and_judges_it_anew_and_runs_no_pair(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    driver = drive(tmp_path, instance, faults={"rate": 0.0, "always": [ALWAYS_FAILS]})
    launched, never = driver.experiment.cells
    assert driver.launch(launched.cell).success
    folder = driver.experiment.run_dir(launched)
    tries = scan_attempts(folder, "solo")
    spoil_a_verdict(driver)

    result = read_again(driver)
    assert result.success
    assert read_partitions(driver, result.run_id) == [("pair_results", "solo/0")]
    found = judged(driver, result.run_id)
    assert {name for _, name in found} == {check.name for checks in CELL_CHECKS.values() for check in checks}
    assert found["solo/0", "verdict_agrees"] is False
    assert scan_attempts(folder, "solo") == tries, "the pair that was ended by infrastructure is not tried again"
    assert not driver.experiment.run_dir(never).exists()
    assert driver.materialize(["results_store"]).success


@pytest.mark.slow
def test_a_cell_that_is_being_run_is_left_to_its_run(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    driver = drive(tmp_path, instance)
    for cell in driver.experiment.cells:
        assert driver.launch(cell.cell).success
    with cell_lock(driver.experiment.run_dir(driver.experiment.cells[0]), "somebody's command"):
        result = read_again(driver)
    assert result.success
    assert read_partitions(driver, result.run_id) == [("pair_results", "solo/1")]


@pytest.mark.slow
def test_executing_all_checks_judges_the_cells_of_an_experiment_that_runs_pairs(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    driver = drive(tmp_path, instance)
    first, _ = driver.experiment.cells
    assert driver.launch(first.cell).success
    spoil_a_verdict(driver)
    tries = scan_attempts(driver.experiment.run_dir(first), "solo")
    chosen = {
        dg.AssetCheckKey(asset_key("drill", name), check.name)
        for name, checks in CELL_CHECKS.items()
        for check in checks
    }
    job = driver.job.get_subset(asset_selection=set(), asset_check_selection=chosen)
    result = job.execute_in_process(instance=instance, run_config={"loggers": QUIET}, raise_on_error=False)
    assert result.success
    found = judged(driver, result.run_id)
    assert {partition for partition, _ in found} == {"solo/0"}
    assert [name for (_, name), passed in found.items() if not passed] == ["verdict_agrees"]
    assert scan_attempts(driver.experiment.run_dir(first), "solo") == tries


@pytest.mark.slow
def test_one_run_for_all_cells_that_are_to_be_run_is_refused(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    driver = drive(tmp_path, instance)
    result = driver.materialize(CELL_ASSETS, tags=dict(zip(RANGE_TAGS, ("solo/0", "solo/1"), strict=True)))
    assert not result.success
    assert error_of(instance, result.run_id) == ONE_EACH
    assert not any(driver.experiment.run_dir(cell).exists() for cell in driver.experiment.cells)


def test_a_cell_that_is_being_read_again_is_not_asked_for(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    driver = drive(tmp_path, instance)
    run = instance.create_run_for_job(driver.repository.get_job("drill_read_again"), status=dg.DagsterRunStatus.STARTED)
    found = cell_runs(instance, driver.experiment, driver.experiment.cells)
    assert [runs.active for runs in found.values()] == [run.run_id] * 2
    instance.report_run_canceling(run)
    instance.report_run_canceled(run)
    found = cell_runs(instance, driver.experiment, driver.experiment.cells)
    assert [(runs.active, runs.cancelled) for runs in found.values()] == [(None, None)] * 2, "nothing was bought"
