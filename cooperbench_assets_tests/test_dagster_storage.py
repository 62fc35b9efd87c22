"""The event log of the project's Dagster instance: files that stay open, read and written by several processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import psutil
import pytest
from dagster._core.events import EngineEventData
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

from cooperbench_assets.dagster_storage import MOST_OPEN, LockedSqliteStorage, OpenEventLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STORAGE = {
    "storage": {
        "custom": {"module": "cooperbench_assets.dagster_storage", "class": "LockedSqliteStorage", "config": {}}
    }
}

WRITE_AND_STAY = """
import sys
import dagster as dg
from dagster._core.events import EngineEventData
from dagster._core.instance.ref import InstanceRef
with dg.DagsterInstance.from_ref(InstanceRef.from_dir(sys.argv[1])) as instance:
    run = instance.get_run_by_id(sys.argv[2])
    for n in range(int(sys.argv[3])):
        instance.report_engine_event(f"event {n}", run, EngineEventData())
        key = dg.AssetKey("made")
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=f"{sys.argv[4]}{n}"))
    print("written", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance in a folder of its own, with a dagster.yaml that other processes read too."""
    storage = {"custom": {**STORAGE["storage"]["custom"], "config": {"base_dir": str(tmp_path / "data")}}}
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides={"storage": storage}) as made:
        assert isinstance(made.event_log_storage, OpenEventLog)
        yield made


@dg.job
def nothing() -> None:
    pass


def new_run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    return instance.create_run_for_job(nothing)


def writer(root: Path, run: dg.DagsterRun, events: int = 5, prefix: str = "p") -> subprocess.Popen[str]:
    """Another process that writes events of a run and materialisations, and stays; it has written when this returns."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_STAY, str(root), run.run_id, str(events), prefix],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    return process


def leave(process: subprocess.Popen[str]) -> None:
    process.communicate("\n")
    assert process.returncode == 0


def messages(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[str]:
    return [entry.dagster_event.message or "" for entry in instance.all_logs(run.run_id) if entry.dagster_event]


def sound(file: Path) -> bool:
    import sqlite3

    with contextlib.closing(sqlite3.connect(file)) as connection:
        return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))


@pytest.mark.slow
def test_each_process_sees_and_who_watches_hears_what_the_other_writes_while_both_keep_their_files_open(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    run = new_run(instance)
    instance.report_engine_event("ours", run, EngineEventData())
    heard: list[str] = []
    all_heard = threading.Event()

    def hear(entry: dg.EventLogEntry, _cursor: str) -> None:
        heard.append(entry.dagster_event.message or "" if entry.dagster_event else "")
        if heard[-1] == "event 4":
            all_heard.set()

    instance.watch_event_logs(run.run_id, None, hear)
    other = writer(tmp_path, run)
    try:
        assert all_heard.wait(60), heard
        instance.end_watch_event_logs(run.run_id, hear)
        assert heard == messages(instance, run) == ["ours", *(f"event {n}" for n in range(5))]
        instance.report_engine_event("ours again", run, EngineEventData())
        assert instance.get_materialized_partitions(dg.AssetKey("made")) == {f"p{n}" for n in range(5)}
    finally:
        leave(other)
    assert messages(instance, run)[-1] == "ours again"


@pytest.mark.slow
def test_what_a_killed_process_wrote_is_there_and_the_files_are_sound(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    run = new_run(instance)
    other = writer(tmp_path, run, 20)
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert messages(instance, run) == [f"event {n}" for n in range(20)]
    assert len(instance.get_materialized_partitions(dg.AssetKey("made"))) == 20
    assert isinstance(instance.event_log_storage, OpenEventLog)
    for shard in ("index", run.run_id):
        assert sound(Path(instance.event_log_storage.path_for_shard(shard)))


@pytest.mark.slow
def test_processes_and_threads_that_write_at_once_lose_nothing(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    run = new_run(instance)

    def write(name: str) -> None:
        for n in range(25):
            instance.report_engine_event(f"{name} {n}", run, EngineEventData())

    threads = [threading.Thread(target=write, args=(f"thread {n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    others = [writer(tmp_path, run, 25, prefix) for prefix in ("a", "b")]
    for thread in threads:
        thread.join()
    for other in others:
        leave(other)
    assert len(messages(instance, run)) == 3 * 25 + 2 * 25
    assert len(instance.get_materialized_partitions(dg.AssetKey("made"))) == 2 * 25


@pytest.mark.slow
def test_a_process_keeps_few_files_open_however_many_runs_it_looks_at(instance: dg.DagsterInstance) -> None:
    runs = [new_run(instance) for _ in range(2 * MOST_OPEN)]
    for n, run in enumerate(runs):
        instance.report_engine_event(f"event {n}", run, EngineEventData())
    assert [messages(instance, run) for run in runs] == [[f"event {n}"] for n in range(2 * MOST_OPEN)]
    open_files = {Path(file.path).name for file in psutil.Process().open_files() if file.path.endswith(".db")}
    assert len(open_files & {f"{run.run_id}.db" for run in runs}) <= MOST_OPEN


def test_a_file_that_somebody_removed_is_made_anew(instance: dg.DagsterInstance) -> None:
    run = new_run(instance)
    instance.report_engine_event("lost", run, EngineEventData())
    assert isinstance(instance.event_log_storage, OpenEventLog)
    file = Path(instance.event_log_storage.path_for_shard(run.run_id))
    for one in file.parent.glob(f"{run.run_id}.db*"):
        one.unlink()
    assert messages(instance, run) == []
    instance.report_engine_event("kept", run, EngineEventData())
    assert messages(instance, run) == ["kept"]
    instance.event_log_storage.wipe()
    assert not file.exists()
    assert messages(instance, run) == []


def test_an_error_in_the_middle_of_a_write_leaves_nothing_of_it_and_the_log_usable(
    instance: dg.DagsterInstance,
) -> None:
    run = new_run(instance)
    instance.report_engine_event("before", run, EngineEventData())
    storage = instance.event_log_storage
    assert isinstance(storage, OpenEventLog)

    def broken() -> None:
        with storage.run_connection(run.run_id) as connection:
            connection.exec_driver_sql("DELETE FROM event_logs")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    instance.report_engine_event("after", run, EngineEventData())
    assert messages(instance, run) == ["before", "after"]


def test_a_forked_child_opens_its_own_files(instance: dg.DagsterInstance) -> None:
    run = new_run(instance)
    instance.report_engine_event("parent", run, EngineEventData())
    child = os.fork()
    if child == 0:
        try:
            instance.report_engine_event("child", run, EngineEventData())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    instance.report_engine_event("parent again", run, EngineEventData())
    assert messages(instance, run) == ["parent", "child", "parent again"]


@pytest.mark.parametrize("ends", ["well", "failed"])
def test_of_runs_side_by_side_pages_show_the_checks_of_the_one_that_materialised_last(
    instance: dg.DagsterInstance, ends: str
) -> None:
    run, shown = two_at_once(instance, ends)
    assert run().run_id == shown()
    assert run().run_id == shown()


def two_at_once(
    instance: dg.DagsterInstance, ends: str
) -> tuple[Callable[[], dg.ExecuteInProcessResult], Callable[[], str]]:
    """Two commands that publish at once: Dagster plans the checks of both, and the one planned last may work first.

    Args:
        instance: Where the runs are recorded.
        ends: How the one planned last ends: well or failed.

    Returns:
        What executes a run, with all of another one in its middle when it is first called; and what gives the run whose
        check pages show.
    """
    asset = dg.AssetKey("published")
    key = dg.AssetCheckKey(asset, "sound")
    calls = count(1)

    @dg.asset(key=asset, check_specs=[dg.AssetCheckSpec(key.name, asset=asset)])
    def publish():  # type: ignore[no-untyped-def]
        call = next(calls)
        if call == 1:  # All of the second run lies between the plan of the first one and its materialisation.
            with ThreadPoolExecutor(1) as other:
                other.submit(run).result()
        if call == 2 and ends == "failed":
            raise RuntimeError
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True)])

    def run() -> dg.ExecuteInProcessResult:
        return dg.materialize([publish], instance=instance, raise_on_error=False)

    def shown() -> str:
        latest = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
        assert asyncio.run(latest.targets_latest_materialization(LoadingContextForTest(instance)))
        return latest.run_id

    return run, shown


def test_the_storage_of_the_project_keeps_its_files_open(tmp_path: Path) -> None:
    storage = LockedSqliteStorage(str(tmp_path))
    assert isinstance(storage.event_log_storage, OpenEventLog)
    for _ in range(3):
        assert storage.run_storage.get_runs() == []
        assert storage.schedule_storage.all_instigator_state() == []
    for name in ("runs.db", "schedules.db"):
        assert open_files(tmp_path, name) == 1
    storage.dispose()
    assert open_files(tmp_path, "*.db") == 0


def test_a_storage_that_is_made_is_opened_without_reading_dagsters_migrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tick of a sensor opens it anew."""
    made = LockedSqliteStorage(str(tmp_path))
    made.run_storage.add_run(dg.DagsterRun(job_name="first"))
    made.dispose()

    def read(_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("alembic.script.ScriptDirectory.from_config", read)
    again = LockedSqliteStorage(str(tmp_path))
    assert [run.job_name for run in again.run_storage.get_runs()] == ["first"]
    again.dispose()


def test_the_files_of_runs_and_ticks_are_as_dagster_makes_them(tmp_path: Path) -> None:
    LockedSqliteStorage(str(tmp_path / "ours")).dispose()
    DagsterSqliteStorage.from_local(str(tmp_path / "dagsters")).dispose()
    for name in ("history/runs.db", "schedules/schedules.db"):
        assert _described(tmp_path / "ours" / name) == _described(tmp_path / "dagsters" / name)


def open_files(folder: Path, pattern: str) -> int:
    """How many of these files this process has open below a folder."""
    mine = (Path(file.path) for file in psutil.Process().open_files())
    return sum(file.is_relative_to(folder) and file.match(pattern) for file in mine)


def test_runs_are_those_of_the_file_that_is_there_and_of_a_process_that_was_forked_too(tmp_path: Path) -> None:
    """Connections are not used behind a fork, nor when their file has been replaced."""
    here, there = (LockedSqliteStorage(str(tmp_path / name)) for name in ("here", "there"))
    for storage, names in ((here, ("first",)), (there, ("second", "third"))):
        for name in names:
            storage.run_storage.add_run(dg.DagsterRun(job_name=name))
    assert [run.job_name for run in here.run_storage.get_runs()] == ["first"]
    child = os.fork()
    if child == 0:
        try:
            here.run_storage.add_run(dg.DagsterRun(job_name="of the child"))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert {run.job_name for run in here.run_storage.get_runs()} == {"first", "of the child"}
    there.dispose()
    for file in (tmp_path / "here").rglob("runs.db*"):
        file.unlink()
    for file in (tmp_path / "there").rglob("runs.db*"):
        file.replace(tmp_path / "here" / file.relative_to(tmp_path / "there"))
    assert {run.job_name for run in here.run_storage.get_runs()} == {"second", "third"}
    here.dispose()


def _described(file: Path) -> tuple[list[tuple[str, ...]], str, str]:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        tables = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2").fetchall()
        (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
        (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return tables, journal, revision


def test_the_file_of_a_run_is_as_dagster_would_make_it(tmp_path: Path) -> None:
    dagsters, ours = SqliteEventLogStorage(str(tmp_path / "dagsters")), OpenEventLog(str(tmp_path / "ours"))
    for log in (dagsters, ours):
        with log.run_connection("some-run") as connection:
            assert not connection.exec_driver_sql("SELECT * FROM event_logs").fetchall()
    for name in ("index.db", "some-run.db"):
        assert _described(tmp_path / "ours" / name) == _described(tmp_path / "dagsters" / name)
    assert ours.get_all_run_ids() == ["some-run"]
    ours.dispose()


def test_without_links_between_files_dagster_makes_the_file_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refused)
    log = OpenEventLog(str(tmp_path))
    with log.run_connection("some-run") as connection:
        assert not connection.exec_driver_sql("SELECT * FROM event_logs").fetchall()
    log.dispose()


def test_a_file_of_a_run_that_was_not_finished_is_finished(tmp_path: Path) -> None:
    log = OpenEventLog(str(tmp_path))
    (tmp_path / "some-run.db").touch()
    with log.run_connection("some-run") as connection:
        assert not connection.exec_driver_sql("SELECT * FROM event_logs").fetchall()
    log.dispose()
