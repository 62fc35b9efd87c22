"""Runs that a dead process left in Dagster's storage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from dagster import DagsterEventType
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext

from cooperbench_assets.assets.keys import HOST_TAG
from cooperbench_assets.automation import dead_runs
from cooperbench_assets.automation.dagster_runs import RANGE_TAGS, active_runs, error_of
from cooperbench_assets.automation.dead_runs import report_dead_runs
from cooperbench_assets.dagster_storage import CLAIM_SECONDS
from cooperbench_assets.execution.cell_lock import cell_lock
from cooperbench_assets.execution.processes import namespace
from cooperbench_assets.local_runs import Launcher
from cooperbench_assets.spec import load_experiments
from cooperbench_assets_tests.automation.driving import Driver, bind_demo, demo_attributes
from cooperbench_assets_tests.automation.launchers import WORKER_TAG, ProcessLauncher
from cooperbench_assets_tests.projects import make_project

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


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
    partition = {} if RANGE_TAGS[0] in tags else {"dagster/partition": "solo/0"}
    run = driver.instance.create_run_for_job(
        driver.job,
        tags={**partition, **tags},
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=frozenset([dg.AssetKey(["drill", "run_logs"])]),
    )
    if pid is not None:
        from dagster._core.events import EngineEventData

        driver.instance.report_engine_event(f"Started (pid: {pid}).", run, EngineEventData.in_process(pid))
    return run


def reported(driver: Driver, later: timedelta = timedelta()) -> list[str]:
    """The runs that are reported as dead now, or later."""
    now = datetime.now(UTC).replace(tzinfo=None) + later
    return report_dead_runs(driver.instance, driver.experiment, now)


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
    assert reported(driver) == []
    assert list(active_runs(driver.instance, driver.experiment).values()) == [run.run_id]
    kill(sleeper)
    assert reported(driver) == [run.run_id]
    assert status(driver, run) == dg.DagsterRunStatus.FAILURE
    assert active_runs(driver.instance, driver.experiment) == {}
    assert reported(driver) == []


@pytest.mark.slow
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
    while not (found := reported(driver)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found == [run.run_id]


def test_a_later_process_of_the_same_number_is_another(
    driver: Driver, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = started(driver, sleeper.pid)
    assert reported(driver) == []
    # As if the run had said its number before this process was born.
    process = dead_runs._process

    def said_long_ago(events: Sequence[dg.EventLogEntry]) -> tuple[int, float] | None:
        found = process(events)
        return None if found is None else (found[0], found[1] - 3600)

    monkeypatch.setattr(dead_runs, "_process", said_long_ago)
    assert reported(driver) == [run.run_id]


def test_a_run_whose_cell_is_held_is_left_alone(driver: Driver, sleeper: subprocess.Popen[bytes]) -> None:
    started(driver, sleeper.pid)
    kill(sleeper)
    with cell_lock(driver.experiment.run_dir(driver.experiment.cells[0]), "another machine's run"):
        assert reported(driver) == []


def test_a_run_that_named_no_process_is_left_alone(driver: Driver) -> None:
    started(driver, None)
    assert reported(driver) == []


def test_only_processes_of_this_place_are_judged_by_their_number_in_a_shared_storage(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    host, boot, _ = namespace().split("/")
    elsewhere = [f"another-machine/{boot}/pid:[1]", f"{host}/{boot}/pid:[1]", f"{host}/another boot/pid:[1]", host]
    with dg.DagsterInstance.ephemeral() as shared:
        driver = Driver(bind_demo(tmp_path), shared)
        others = [started(driver, sleeper.pid, **{HOST_TAG: place}) for place in elsewhere]
        ours = started(driver, sleeper.pid, **{HOST_TAG: namespace()})
        unsigned = started(driver, sleeper.pid)
        kill(sleeper)
        assert reported(driver) == [ours.run_id]
        assert {status(driver, run) for run in (*others, unsigned)} == {dg.DagsterRunStatus.STARTED}


def test_the_number_of_a_process_in_another_container_means_nothing_though_the_storage_is_one_file(
    driver: Driver, sleeper: subprocess.Popen[bytes]
) -> None:
    host, boot, _ = namespace().split("/")
    started(driver, sleeper.pid, **{HOST_TAG: f"a-container/{boot}/pid:[1]"})
    started(driver, sleeper.pid, **{HOST_TAG: f"{host}/{boot}/pid:[1]"})
    kill(sleeper)
    assert reported(driver) == []


def test_a_run_from_before_the_machine_was_started_anew_is_dead(driver: Driver) -> None:
    host, _, own = namespace().split("/")
    run = started(driver, os.getpid(), **{HOST_TAG: f"{host}/another boot/{own}"})
    assert reported(driver) == [run.run_id]


SILENCE = timedelta(minutes=31 + 1)
"""A pair of these experiments may take a minute."""


def test_a_run_of_a_container_that_is_gone_is_reported_once_it_was_silent_for_longer_than_a_pair_may_take(
    driver: Driver,
) -> None:
    run = started(driver, 1, **{HOST_TAG: "a-container/boot/pid:[1]"})
    assert reported(driver, timedelta(minutes=30)) == []
    folder = driver.experiment.run_dir(driver.experiment.cells[0])
    with cell_lock(folder, "a run elsewhere"):
        assert reported(driver, SILENCE) == [], "its cell is held"
    assert reported(driver, SILENCE) == [run.run_id]
    assert "Nothing was heard of this run for 32 minutes" in error_of(driver.instance, run.run_id)


def test_a_run_elsewhere_whose_files_change_lives_though_its_lock_cannot_be_seen(driver: Driver) -> None:
    run = started(driver, 1, **{HOST_TAG: "another-machine/boot/pid:[1]"})
    staging = driver.experiment.run_dir(driver.experiment.cells[0]) / ".staging" / "pair"
    staging.mkdir(parents=True)
    (staging / "child.log").write_text("a reply\n")
    later = (datetime.now(UTC) + timedelta(hours=1)).timestamp()
    os.utime(staging / "child.log", (later, later))
    assert reported(driver, timedelta(hours=1)) == []
    assert reported(driver, timedelta(hours=1) + SILENCE) == [run.run_id]


def test_a_silent_run_of_other_assets_is_left_alone(driver: Driver) -> None:
    tags = {HOST_TAG: "another-machine/boot/pid:[1]"}
    driver.instance.create_run_for_job(
        driver.job,
        tags=tags,
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=frozenset([dg.AssetKey(["drill", "gold_baseline"])]),
    )
    assert reported(driver, timedelta(days=3)) == []


def test_a_silent_run_of_a_range_is_left_alone_while_any_of_its_cells_is_held(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    driver = Driver(bind_demo(tmp_path, settings={"solo": {"mode": "solo", "seeds": [0, 1]}}), instance)
    place = {HOST_TAG: "another-machine/boot/pid:[1]"}
    run = started(driver, 1, **place, **dict(zip(RANGE_TAGS, ("solo/0", "solo/1"), strict=True)))
    with cell_lock(driver.experiment.run_dir(driver.experiment.cells[1]), "a run elsewhere"):
        assert reported(driver, SILENCE) == []
    assert reported(driver, SILENCE) == [run.run_id]


def test_the_lock_of_a_cell_that_defs_yaml_dropped_counts_too(
    tmp_path: Path, instance: dg.DagsterInstance, sleeper: subprocess.Popen[bytes]
) -> None:
    before = Driver(bind_demo(tmp_path, settings={"solo": {"mode": "solo", "seeds": [0, 1]}}), instance)
    run = started(before, sleeper.pid, **{"dagster/partition": "solo/1"})
    kill(sleeper)
    after = Driver(bind_demo(tmp_path), instance)
    with cell_lock(before.experiment.run_dir(before.experiment.cells[1]), "its process"):
        assert reported(after) == []
    assert reported(after) == [run.run_id]


def test_a_run_that_a_person_was_cancelling_is_reported_as_cancelled(
    driver: Driver, sleeper: subprocess.Popen[bytes]
) -> None:
    run = started(driver, sleeper.pid)
    driver.instance.report_run_canceling(run)
    kill(sleeper)
    assert reported(driver) == [run.run_id]
    assert status(driver, run) == dg.DagsterRunStatus.CANCELED


def claimed(driver: Driver, run: dg.DagsterRun) -> bool:
    """Whether a step of a run may work that needs the one place of a pool."""
    return bool(driver.instance.event_log_storage.claim_concurrency_slot("a pool", run.run_id, "step").is_claimed)


def test_what_dead_runs_hold_of_a_pool_or_wait_for_is_free_for_the_next_step_that_asks(
    driver: Driver, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("cooperbench_assets.dagster_storage.time.sleep", pauses.append)
    driver.instance.event_log_storage.set_concurrency_slots("a pool", 1)
    holding, waiting = started(driver, sleeper.pid), started(driver, sleeper.pid)
    living, deleted = started(driver, os.getpid()), started(driver, os.getpid())
    elsewhere = started(driver, sleeper.pid, **{HOST_TAG: "another-machine/boot/pid:[1]"})
    assert [claimed(driver, run) for run in (holding, waiting, deleted, living)] == [True, False, False, False]
    assert pauses == [CLAIM_SECONDS] * 3
    driver.instance.delete_run(deleted.run_id)
    kill(sleeper)
    assert claimed(driver, living)
    assert not claimed(driver, elsewhere), "a run that lives has it"
    driver.instance.event_log_storage.free_concurrency_slots_for_run(living.run_id)
    assert not claimed(driver, living), "nothing shows that the one before it is dead"


def test_dagster_asks_for_a_pool_again_without_a_pause(instance: dg.DagsterInstance) -> None:
    """Once it makes a pause, ours can go."""
    waiting = InstanceConcurrencyContext(instance, dg.DagsterRun(job_name="waits"))
    waiting._pending_claims.add("step")
    waiting._pending_timeouts["step"] = time.time() + 10
    assert waiting.interval_to_next_pending_claim_check() == 0


def test_a_suspended_run_has_no_process_on_purpose(driver: Driver) -> None:
    run = started(driver, 1, **{HOST_TAG: "another-machine/boot/pid:[1]"})
    suspended = dg.DagsterEvent(DagsterEventType.RUN_SUSPENDED.value, run.job_name)
    driver.instance.report_dagster_event(suspended, run.run_id)
    assert status(driver, run) == dg.DagsterRunStatus.SUSPENDED
    assert reported(driver, timedelta(days=3)) == []


@pytest.mark.parametrize(("monitored", "expected"), [(False, True), (True, False)])
def test_a_launcher_that_knows_its_workers_is_asked_unless_dagsters_monitoring_asks_it(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], monitored: bool, expected: bool
) -> None:
    launcher = {"module": ProcessLauncher.__module__, "class": ProcessLauncher.__name__}
    with dg.instance_for_test(
        overrides={"run_launcher": launcher, "run_monitoring": {"enabled": monitored}}
    ) as instance:
        driver = Driver(bind_demo(tmp_path), instance)
        run = started(driver, None, **{WORKER_TAG: str(sleeper.pid), HOST_TAG: "a-container/boot/pid:[1]"})
        driver.instance.report_dagster_event(
            dg.DagsterEvent(DagsterEventType.PIPELINE_STARTING.value, run.job_name), run.run_id
        )
        driver.instance.report_dagster_event(
            dg.DagsterEvent(DagsterEventType.PIPELINE_START.value, run.job_name), run.run_id
        )
        by_hand = started(driver, None, **{HOST_TAG: "a-container/boot/pid:[1]"})
        assert reported(driver, timedelta(days=3)) == [by_hand.run_id], (
            "the launcher knows no run that it did not launch"
        )
        kill(sleeper)
        assert reported(driver) == ([run.run_id] if expected else [])


def test_one_run_that_cannot_be_judged_keeps_no_other_from_being_reported(
    driver: Driver, sleeper: subprocess.Popen[bytes]
) -> None:
    dead_run, damaged = started(driver, sleeper.pid), started(driver, sleeper.pid)
    kill(sleeper)
    [file] = Path(driver.instance.root_directory).rglob(f"{damaged.run_id}.db")
    file.unlink()  # A process may hold it open, and would not look at it again.
    file.write_bytes(b"no database")
    assert reported(driver) == [dead_run.run_id]


@pytest.mark.slow
def test_the_command_line_reports_dead_runs_when_it_starts(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "project", {"drill": demo_attributes()})
    monkeypatch.setenv("DAGSTER_HOME", str(project.root))
    spec = load_experiments(project.defs)["drill"]
    with Launcher(project, "drill", spec) as launcher:
        assert launcher._instance is not None
        driver = Driver(launcher.experiment, launcher._instance)
        run = started(driver, sleeper.pid)
    kill(sleeper)
    with Launcher(project, "drill", spec) as launcher:
        assert launcher._instance is not None
        found = launcher._instance.get_run_by_id(run.run_id)
        assert found is not None
        assert found.status == dg.DagsterRunStatus.FAILURE
