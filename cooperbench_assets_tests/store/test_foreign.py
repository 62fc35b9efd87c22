"""Other people's hands in the published file: readers, writers, the dead, and copies."""

from __future__ import annotations

import os
import shutil

import duckdb
import pytest

from cooperbench_assets.store import read
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.units import POINTER, cell_unit
from cooperbench_assets_tests.store.foreign import read_forever, write_foreign
from cooperbench_assets_tests.store.stores import COOP, SOLO, Store
from cooperbench_assets_tests.store.worker import finish, publish_cells, start


def foreign_rows(store: Store) -> int:
    return store.table("pairs", "foreign").height


def set_aside(store: Store) -> list[str]:
    return sorted(path.name for path in store.root.glob("results.duckdb.set-aside-*"))


@pytest.mark.slow
def test_a_process_that_has_the_file_open_for_reading_neither_blocks_nor_breaks(store: Store) -> None:
    store.write(COOP)
    store.publish()
    reader = start(read_forever, store.root)
    try:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "[(10,)]\n"
        store.write(*SOLO)
        done = store.publish()
        assert (done.rebuilt, done.warnings, len(done.changed)) == (None, (), 3)
        assert store.holds(*SOLO, COOP)
        assert reader.poll() is None
    finally:
        finish(reader)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["stay", "in-transaction"])
def test_a_process_that_has_the_file_open_for_writing_neither_blocks_nor_breaks(store: Store, ending: str) -> None:
    store.write(COOP)
    store.publish()
    writer = start(write_foreign, store.root, ending)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        assert foreign_rows(store) == 0, "a reader sees the file as published"
        store.write(*SOLO)
        done = store.publish()
        assert len(done.changed) >= 3
        assert len(done.warnings) == 1
        assert "kept as results.duckdb.set-aside-" in done.warnings[0]
        assert store.holds(*SOLO, COOP)
        assert writer.poll() is None
    finally:
        finish(writer)
    assert not store.publish().replaced
    assert store.holds(*SOLO, COOP)


@pytest.mark.slow
def test_a_log_that_a_dead_writer_left_is_kept_aside_with_its_file(store: Store) -> None:
    store.write(COOP)
    first = store.publish()
    writer = start(write_foreign, store.root, "die")
    writer.communicate()
    assert (store.root / "results.duckdb.wal").exists()
    assert foreign_rows(store) == 0, "a reader does not replay it"
    done = store.publish()
    assert (done.replaced, done.content, len(done.warnings)) == (False, first.content, 1)
    database, log = set_aside(store)
    assert log == f"{database}.wal"
    assert not (store.root / "results.duckdb.wal").exists()
    with duckdb.connect(str(store.root / database), read_only=True) as connection:
        query = "SELECT count(*) FROM pairs WHERE experiment = 'foreign'"
        assert connection.execute(query).fetchall() == [(1,)]
    with duckdb.connect(str(store.database), read_only=True) as connection:
        assert connection.execute(query).fetchall() == [(0,)]


@pytest.mark.slow
def test_a_log_left_before_a_change_does_not_reach_the_new_file(store: Store) -> None:
    store.write(COOP)
    store.publish()
    start(write_foreign, store.root, "die").communicate()
    store.write(*SOLO)
    done = store.publish()
    assert (done.rebuilt, len(done.changed)) == (None, 3)
    assert store.holds(*SOLO, COOP)
    with duckdb.connect(str(store.database), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM provenance").fetchall() == [(4,)]


@pytest.mark.slow
def test_a_file_that_somebody_changed_is_built_anew_and_theirs_is_kept(store: Store) -> None:
    store.write(COOP, *SOLO)
    first = store.publish()
    published = store.contents()
    start(write_foreign, store.root, "leave").communicate()
    assert foreign_rows(store) == 1
    done = store.publish()
    assert done.rebuilt == "it was changed since it was published, or copied without its time"
    assert (done.replaced, done.content) == (True, first.content)
    assert store.contents() == published
    (kept,) = set_aside(store)
    with duckdb.connect(str(store.root / kept), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM pairs").fetchall() == [(41,)]
    assert not store.publish().replaced


@pytest.mark.slow
@pytest.mark.parametrize("cut", [0, 100, 4096, 300_000])
def test_a_torn_file_is_built_anew_from_parquet(store: Store, cut: int) -> None:
    store.write(COOP, *SOLO)
    store.publish()
    published = store.contents()
    store.database.chmod(0o644)
    with store.database.open("r+b") as file:
        file.truncate(cut)
    done = store.publish()
    assert done.rebuilt
    assert store.contents() == published
    assert len(set_aside(store)) == 1


@pytest.mark.slow
def test_a_file_with_broken_blocks_is_built_anew_even_if_its_time_is_right(store: Store) -> None:
    store.write(COOP, *SOLO)
    store.publish()
    published = store.contents()
    times = store.database.stat()
    store.database.chmod(0o644)
    with store.database.open("r+b") as file:
        file.seek(12_288)
        file.write(os.urandom(times.st_size - 12_288))
    os.utime(store.database, ns=(times.st_atime_ns, times.st_mtime_ns))
    store.write(COOP, draw=1)
    assert store.publish().rebuilt
    store.write(COOP)
    store.publish()
    assert store.contents() == published


def test_anything_else_under_that_name_is_kept_aside(store: Store) -> None:
    store.write(COOP)
    with duckdb.connect(str(store.database)) as connection:
        connection.execute("CREATE TABLE thesis AS SELECT 42 AS answer")
    done = store.publish()
    assert done.rebuilt == "it was no results store"
    (kept,) = set_aside(store)
    with duckdb.connect(str(store.root / kept), read_only=True) as connection:
        assert connection.execute("FROM thesis").fetchall() == [(42,)]
    assert store.holds(COOP)


@pytest.mark.slow
def test_a_copy_that_lost_its_time_keeps_the_rows_of_cells_that_cannot_be_read(store: Store) -> None:
    store.write(COOP, *SOLO)
    store.publish()
    published = store.contents()
    copy = Store(store.root / "copy")
    copy.root.mkdir()
    shutil.copyfile(store.database, copy.database)
    shutil.copytree(store.tables, copy.tables)
    (cell_unit(SOLO[0]).folder(copy.tables) / POINTER).unlink()
    done = copy.publish()
    assert done.rebuilt
    assert list(done.unreadable) == ["demo/cells/solo/0"]
    assert copy.contents() == published
    copy.write(SOLO[0])
    assert copy.publish().changed == ("demo/cells/solo/0",), "what was carried over is not taken for granted"
    assert copy.contents() == published


def test_an_archive_that_keeps_whole_seconds_is_no_change(store: Store) -> None:
    store.write(COOP)
    store.publish()
    whole = store.database.stat().st_mtime_ns // 10**9 * 10**9
    os.utime(store.database, ns=(whole, whole))
    assert not store.publish().replaced


@pytest.mark.slow
def test_a_file_copied_without_any_tables_loses_nothing(store: Store) -> None:
    store.write(COOP, *SOLO)
    store.publish()
    published = store.contents()
    copy = Store(store.root / "copy")
    copy.root.mkdir()
    shutil.copyfile(store.database, copy.database)
    done = copy.publish()
    assert len(done.unreadable) == 4
    assert copy.contents() == published


@pytest.mark.slow
def test_processes_that_write_different_cells_at_once_lose_nothing(store: Store) -> None:
    settings = ["solo", "coop-comm", "coop-nocomm"]
    processes = [start(publish_cells, store.root, setting, 3) for setting in settings]
    ends = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], ends
    cells = [Cell("race", setting, seed) for setting in settings for seed in range(3)]
    assert store.holds(*cells)
    assert not store.publish().replaced
    assert store.leftovers() == []


@pytest.mark.slow
def test_a_person_who_keeps_writing_cannot_stop_publishing(store: Store) -> None:
    store.write(COOP)
    store.publish()
    for draw in range(2):
        writer = start(write_foreign, store.root, "stay")
        try:
            assert writer.stdout is not None
            writer.stdout.readline()
            store.write(COOP, draw=draw + 1)
            store.publish(timeout=3600)  # Whoever waits for the writer to go waits longer than a test may take.
            assert store.holds(COOP)
        finally:
            finish(writer)
        assert read.query(store.database, "SELECT count(*) AS n FROM pairs")["n"].to_list() == [10]
