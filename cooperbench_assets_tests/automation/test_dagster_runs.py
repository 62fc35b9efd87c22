"""What Dagster's storage is asked of the runs of cells."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from sqlalchemy import Engine, event

from cooperbench_assets.assets.keys import partition_key, partitions_of
from cooperbench_assets.automation import dagster_runs
from cooperbench_assets.automation.dagster_runs import (
    CELL_ASSETS,
    RANGE_TAGS,
    UNFINISHED,
    CellRuns,
    cell_runs,
    concerns,
)
from cooperbench_assets.store.cells import Cell
from cooperbench_assets_tests.automation.driving import Driver, bind_demo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def driver(tmp_path: Path, instance: dg.DagsterInstance) -> Driver:
    return Driver(bind_demo(tmp_path), instance)


def runs_of(driver: Driver, seed: int = 0) -> CellRuns:
    """What is known of the runs of a solo cell."""
    [cell] = [cell for cell in driver.experiment.cells if cell.cell.seed == seed]
    return cell_runs(driver.instance, driver.experiment, driver.experiment.cells)[cell.cell]


def made(driver: Driver, status: dg.DagsterRunStatus, **tags: str) -> dg.DagsterRun:
    """A run of all of a cell's assets, as it stands there without a tag of ours: the UI makes such."""
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("somewhere"), "__repository__")
    return driver.instance.create_run_for_job(
        driver.job,
        tags=tags or {"dagster/partition": key_of(driver)},
        status=status,
        asset_selection=frozenset(dg.AssetKey([driver.experiment.name, name]) for name in CELL_ASSETS),
        remote_job_origin=RemoteJobOrigin(repository, driver.job.name),
    )


def history(driver: Driver, count: int, seed: int = 0) -> None:
    """Runs of a cell that are long over."""
    selected = frozenset(dg.AssetKey([driver.experiment.name, name]) for name in CELL_ASSETS)
    tags = {"dagster/partition": key_of(driver, seed)}
    for _ in range(count):
        run = dg.DagsterRun("__ASSET_JOB", status=dg.DagsterRunStatus.SUCCESS, tags=tags, asset_selection=selected)
        driver.instance.add_run(run)


def key_of(driver: Driver, seed: int = 0) -> str:
    return partition_key(Cell(driver.experiment.name, "solo", seed))


def cancelled(driver: Driver) -> dg.DagsterRun:
    """A run of a cell that a person cancelled while it was queued."""
    run = made(driver, dg.DagsterRunStatus.QUEUED)
    driver.instance.report_run_canceling(run)
    driver.instance.report_run_canceled(run)
    return run


def test_a_run_concerns_an_experiment_by_its_assets_or_its_job() -> None:
    def run(job: str, *assets: str) -> dg.DagsterRun:
        selected = frozenset(dg.AssetKey(name.split("/")) for name in assets) or None
        return dg.DagsterRun(job_name=job, asset_selection=selected)

    assert concerns(run("__ASSET_JOB", "drill/run_logs"), "drill", CELL_ASSETS)
    assert not concerns(run("__ASSET_JOB", "drill/results_store"), "drill", CELL_ASSETS)
    assert concerns(run("__ASSET_JOB", "drill/results_store"), "drill")
    assert not concerns(run("__ASSET_JOB", "drill2/run_logs"), "drill", CELL_ASSETS)
    assert concerns(run("drill_smoke"), "drill", CELL_ASSETS)
    assert not concerns(run("drill_refresh_results"), "drill", CELL_ASSETS)
    assert concerns(run("drill_refresh_results"), "drill")
    assert not concerns(run("drill_2_smoke"), "drill")


def test_a_run_that_was_asked_for_and_never_handed_over_does_not_block_its_own_handing_over(driver: Driver) -> None:
    driver.instance.create_run_for_job(
        driver.job,
        tags={"dagster/partition": "solo/0", dagster_runs.FINGERPRINT_TAG: "f"},
        asset_selection=frozenset([dg.AssetKey(["drill", "run_logs"])]),
    )
    assert runs_of(driver).active is None


@pytest.mark.slow
def test_runs_of_other_experiments_hide_neither_a_cancelled_nor_a_queued_run_of_a_cell(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    driver, other = (Driver(bind_demo(tmp_path / name, name), instance) for name in ("drill", "other"))
    ended = cancelled(driver)
    history(other, 60)
    assert runs_of(driver).cancelled == ended.run_id
    assert runs_of(other).cancelled is None
    waiting = made(driver, dg.DagsterRunStatus.QUEUED)
    history(other, 60)
    assert runs_of(driver).active == waiting.run_id
    assert runs_of(other).active is None


@pytest.mark.slow
def test_a_cancelled_run_counts_until_a_newer_run_of_any_of_the_cells_assets(driver: Driver) -> None:
    cancelled(driver)
    newer = made(driver, dg.DagsterRunStatus.STARTED)
    assert runs_of(driver).active == newer.run_id
    driver.instance.report_run_failed(newer)
    assert runs_of(driver) == CellRuns(newest=newer.run_id)


@pytest.mark.slow
@pytest.mark.parametrize("unfinished", UNFINISHED)
def test_a_run_that_is_not_over_is_active_whatever_it_waits_for(
    driver: Driver, unfinished: dg.DagsterRunStatus
) -> None:
    run = made(driver, unfinished)
    assert runs_of(driver).active == run.run_id


def test_every_status_of_dagsters_is_either_over_or_not() -> None:
    over = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
    # Runs that are managed elsewhere are none of ours: nothing here makes them.
    assert over | set(UNFINISHED) == set(dg.DagsterRunStatus) - {dg.DagsterRunStatus.MANAGED}


@pytest.mark.slow
def test_a_run_of_a_range_is_a_run_of_every_cell_in_it(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    driver = Driver(bind_demo(tmp_path, settings={"solo": {"mode": "solo", "seeds": [0, 1, 2]}}), instance)
    keys = partitions_of(driver.experiment.spec).get_partition_keys()
    run = made(driver, dg.DagsterRunStatus.QUEUED, **dict(zip(RANGE_TAGS, keys[:2], strict=True)))
    assert [runs_of(driver, seed).active for seed in (0, 1, 2)] == [run.run_id, run.run_id, None]
    driver.instance.report_run_canceling(run)
    driver.instance.report_run_canceled(run)
    assert [runs_of(driver, seed).cancelled for seed in (0, 1, 2)] == [run.run_id, run.run_id, None]


def test_a_queued_run_of_a_range_that_was_cut_short_since_keeps_every_cell(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    before = Driver(bind_demo(tmp_path, settings={"solo": {"mode": "solo", "seeds": [0, 1, 2]}}), instance)
    keys = partitions_of(before.experiment.spec).get_partition_keys()
    run = made(before, dg.DagsterRunStatus.QUEUED, **dict(zip(RANGE_TAGS, keys[1:], strict=True)))
    after = Driver(bind_demo(tmp_path, settings={"solo": {"mode": "solo", "seeds": [0, 1]}}), instance)
    assert [runs_of(after, seed).active for seed in (0, 1)] == [run.run_id, run.run_id]


@pytest.mark.slow
def test_as_many_questions_are_asked_of_the_storage_for_many_cells_and_runs_as_for_few(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    one = Driver(bind_demo(tmp_path, "one"), instance)
    many = Driver(bind_demo(tmp_path, "many", settings={"solo": {"mode": "solo", "seeds": list(range(20))}}), instance)
    made(one, dg.DagsterRunStatus.SUCCESS)
    asked = []
    for _ in range(2):
        for driver in (one, many):
            with statements() as seen:
                cell_runs(instance, driver.experiment, driver.experiment.cells)
            asked.append(len(seen))
        history(one, 60)
        for seed in range(20):
            history(many, 2, seed)
        made(many, dg.DagsterRunStatus.SUCCESS)
    assert asked[0] == asked[2]
    assert asked[1] <= asked[3] <= asked[0]


@contextmanager
def statements() -> Iterator[list[str]]:
    """The statements that any storage is asked meanwhile."""
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT"):
            found.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", note)
