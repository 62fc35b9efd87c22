"""What Dagster's storage is asked, and runs that a dead process left there."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from sqlalchemy import Engine, event

from cooperbench_assets.assets.keys import HOST_TAG, partition_key, partitions_of
from cooperbench_assets.automation import runs
from cooperbench_assets.automation.runs import (
    CELL_ASSETS,
    RANGE_TAGS,
    UNFINISHED,
    CellRuns,
    cell_runs,
    concerns,
    error_of,
    report_dead_runs,
)
from cooperbench_assets.execution.lock import cell_lock
from cooperbench_assets.launch import Launcher
from cooperbench_assets.spec import load_experiments
from cooperbench_assets.store.cells import Cell
from cooperbench_assets_tests.automation.driving import Driver, bind_demo, demo_attributes
from cooperbench_assets_tests.projects import make_project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def driver(tmp_path: Path, instance: dg.DagsterInstance) -> Driver:
    return Driver(bind_demo(tmp_path), instance)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def started(driver: Driver, pid: int | None, **tags: str) -> dg.DagsterRun:
    """A run that a process began and has not ended."""
    run = driver.instance.create_run_for_job(
        driver.job,
        tags={"dagster/partition": "solo/0", **tags},
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=frozenset([dg.AssetKey(["drill", "run_logs"])]),
    )
    if pid is not None:
        from dagster._core.events import EngineEventData

        driver.instance.report_engine_event(f"Started (pid: {pid}).", run, EngineEventData.in_process(pid))
    return run


def runs_of(driver: Driver, seed: int = 0) -> CellRuns:
    """What is known of the runs of a solo cell."""
    [cell] = [cell for cell in driver.bound.cells if cell.cell.seed == seed]
    return cell_runs(driver.instance, driver.bound, driver.bound.cells)[cell.cell]


def made(driver: Driver, status: dg.DagsterRunStatus, **tags: str) -> dg.DagsterRun:
    """A run of all of a cell's assets, as it stands there without a tag of ours: the UI makes such."""
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("somewhere"), "__repository__")
    return driver.instance.create_run_for_job(
        driver.job,
        tags=tags or {"dagster/partition": key_of(driver)},
        status=status,
        asset_selection=frozenset(dg.AssetKey([driver.bound.name, name]) for name in CELL_ASSETS),
        remote_job_origin=RemoteJobOrigin(repository, driver.job.name),
    )


def history(driver: Driver, count: int, seed: int = 0) -> None:
    """Runs of a cell that are long over."""
    selected = frozenset(dg.AssetKey([driver.bound.name, name]) for name in CELL_ASSETS)
    tags = {"dagster/partition": key_of(driver, seed)}
    for _ in range(count):
        run = dg.DagsterRun("__ASSET_JOB", status=dg.DagsterRunStatus.SUCCESS, tags=tags, asset_selection=selected)
        driver.instance.add_run(run)


def key_of(driver: Driver, seed: int = 0) -> str:
    return partition_key(Cell(driver.bound.name, "solo", seed))


def cancelled(driver: Driver) -> dg.DagsterRun:
    """A run of a cell that a person cancelled while it was queued."""
    run = made(driver, dg.DagsterRunStatus.QUEUED)
    driver.instance.report_run_canceling(run)
    driver.instance.report_run_canceled(run)
    return run


def status(driver: Driver, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = driver.instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_run_whose_process_was_killed_is_reported_and_frees_its_place(
    driver: Driver, sleeper: subprocess.Popen[bytes]
) -> None:
    run = started(driver, sleeper.pid)
    assert report_dead_runs(driver.instance, driver.bound) == []
    assert runs_of(driver).active == run.run_id
    kill(sleeper)
    assert report_dead_runs(driver.instance, driver.bound) == [run.run_id]
    assert status(driver, run) == dg.DagsterRunStatus.FAILURE
    assert runs_of(driver).active is None
    assert report_dead_runs(driver.instance, driver.bound) == []


def test_a_run_that_was_reported_is_told_of_with_the_reason(driver: Driver, sleeper: subprocess.Popen[bytes]) -> None:
    run = started(driver, sleeper.pid)
    kill(sleeper)
    assert driver.watch() == "1 new alerts, 1 dead runs reported"
    assert f"The process of this run ({sleeper.pid}) is gone" in error_of(driver.instance, run.run_id)
    assert driver.watch() == "0 new alerts, 0 dead runs reported"


def test_a_process_that_waits_to_be_reaped_is_dead(driver: Driver, sleeper: subprocess.Popen[bytes]) -> None:
    run = started(driver, sleeper.pid)
    os.kill(sleeper.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not (reported := report_dead_runs(driver.instance, driver.bound)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert reported == [run.run_id]


def test_a_later_process_of_the_same_number_is_another(
    driver: Driver, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = started(driver, sleeper.pid)
    assert report_dead_runs(driver.instance, driver.bound) == []
    # As if the run had said its number before this process was born.
    process = runs._process

    def said_long_ago(instance: dg.DagsterInstance, run_id: str) -> tuple[int, float] | None:
        found = process(instance, run_id)
        return None if found is None else (found[0], found[1] - 3600)

    monkeypatch.setattr(runs, "_process", said_long_ago)
    assert report_dead_runs(driver.instance, driver.bound) == [run.run_id]


def test_a_run_whose_cell_is_held_is_left_alone(driver: Driver, sleeper: subprocess.Popen[bytes]) -> None:
    started(driver, sleeper.pid)
    kill(sleeper)
    with cell_lock(driver.bound.run_dir(driver.bound.cells[0]), "another machine's run"):
        assert report_dead_runs(driver.instance, driver.bound) == []


def test_a_run_that_named_no_process_is_left_alone(driver: Driver) -> None:
    started(driver, None)
    assert report_dead_runs(driver.instance, driver.bound) == []


def test_runs_of_another_machine_in_a_shared_storage_are_left_alone(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    with dg.DagsterInstance.ephemeral() as shared:
        driver = Driver(bind_demo(tmp_path), shared)
        theirs = started(driver, sleeper.pid, **{HOST_TAG: "another-machine"})
        ours = started(driver, sleeper.pid, **{HOST_TAG: socket.gethostname()})
        unsigned = started(driver, sleeper.pid)
        kill(sleeper)
        assert report_dead_runs(shared, driver.bound) == [ours.run_id]
        assert {status(driver, run) for run in (theirs, unsigned)} == {dg.DagsterRunStatus.STARTED}


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
        tags={"dagster/partition": "solo/0", runs.FINGERPRINT_TAG: "f"},
        asset_selection=frozenset([dg.AssetKey(["drill", "run_logs"])]),
    )
    assert runs_of(driver).active is None


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


def test_a_cancelled_run_counts_until_a_newer_run_of_any_of_the_cells_assets(driver: Driver) -> None:
    cancelled(driver)
    newer = started(driver, None)
    assert runs_of(driver).active == newer.run_id
    driver.instance.report_run_failed(newer)
    assert runs_of(driver) == CellRuns(newest=newer.run_id)


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


def test_a_run_of_a_range_is_a_run_of_every_cell_in_it(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    driver = Driver(bind_demo(tmp_path, settings={"solo": {"mode": "solo", "seeds": [0, 1, 2]}}), instance)
    keys = partitions_of(driver.bound.spec).get_partition_keys()
    run = made(driver, dg.DagsterRunStatus.QUEUED, **dict(zip(RANGE_TAGS, keys[:2], strict=True)))
    assert [runs_of(driver, seed).active for seed in (0, 1, 2)] == [run.run_id, run.run_id, None]
    driver.instance.report_run_canceling(run)
    driver.instance.report_run_canceled(run)
    assert [runs_of(driver, seed).cancelled for seed in (0, 1, 2)] == [run.run_id, run.run_id, None]


def test_a_queued_run_of_a_range_that_was_cut_short_since_keeps_every_cell(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    before = Driver(bind_demo(tmp_path, settings={"solo": {"mode": "solo", "seeds": [0, 1, 2]}}), instance)
    keys = partitions_of(before.bound.spec).get_partition_keys()
    run = made(before, dg.DagsterRunStatus.QUEUED, **dict(zip(RANGE_TAGS, keys[1:], strict=True)))
    after = Driver(bind_demo(tmp_path, settings={"solo": {"mode": "solo", "seeds": [0, 1]}}), instance)
    assert [runs_of(after, seed).active for seed in (0, 1)] == [run.run_id, run.run_id]


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
                cell_runs(instance, driver.bound, driver.bound.cells)
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


def test_the_command_line_reports_dead_runs_when_it_starts(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "project", {"drill": demo_attributes()})
    monkeypatch.setenv("DAGSTER_HOME", str(project.root))
    spec = load_experiments(project.defs)["drill"]
    with Launcher(project, "drill", spec) as launcher:
        assert launcher._instance is not None
        driver = Driver(launcher.bound, launcher._instance)
        run = started(driver, sleeper.pid)
    kill(sleeper)
    with Launcher(project, "drill", spec) as launcher:
        assert launcher._instance is not None
        found = launcher._instance.get_run_by_id(run.run_id)
        assert found is not None
        assert found.status == dg.DagsterRunStatus.FAILURE
