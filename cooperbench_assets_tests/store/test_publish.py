from __future__ import annotations

import os
import random
import resource
import stat
from pathlib import Path

import duckdb
import polars as pl
import pytest

from cooperbench_assets.store import exchange, partition_tables, read
from cooperbench_assets.store.build_dir import BuildDir
from cooperbench_assets.store.errors import StoreError, StoreLockedError
from cooperbench_assets.store.partition_tables import read_unit, write_unit
from cooperbench_assets.store.schema import CORE_TABLES, PAIRS
from cooperbench_assets.store.units import POINTER, Unit, analysis_unit, cell_unit, check_unit
from cooperbench_assets_tests.store.frames import START, cell_frames, check_frame
from cooperbench_assets_tests.store.stores import COOP, OTHER, SOLO, SUMMARY, Store


def test_a_first_publish_holds_every_row_of_every_table(store: Store) -> None:
    store.write(*SOLO, COOP, OTHER)
    checked = check_unit("demo", "pair_results", COOP)
    frames = check_frame(COOP, experiment="demo", asset="pair_results", passed={"count": True, "times": False})
    write_unit(store.tables, checked, frames, declared=CORE_TABLES)
    done = store.publish()
    assert (done.replaced, done.rebuilt) == (True, "there was no file")
    assert len(done.changed) == 6
    assert (done.dropped, done.unreadable, done.outdated, done.undeclared, done.warnings) == ((), {}, (), (), ())
    units = [*map(cell_unit, [*SOLO, COOP, OTHER]), checked]
    expected = store.expected(*units)
    contents = store.contents()
    assert {name: contents[name] for name in expected} == expected
    assert done.rows == {name: len(rows) for name, rows in expected.items()}
    assert stat.S_IMODE(store.database.stat().st_mode) == 0o444
    assert store.leftovers() == []


def test_columns_come_back_in_the_types_of_the_schema(store: Store) -> None:
    store.write(COOP)
    frames = check_frame(None, experiment="demo", asset="results_store", passed={"same pairs": False})
    write_unit(store.tables, check_unit("demo", "results_store"), frames, declared=CORE_TABLES)
    store.publish()
    for table in CORE_TABLES:
        assert store.table(table.name).schema == table.schema
    assert store.table("check_results").equals(frames["check_results"])
    types = dict(read.query(store.database, "DESCRIBE check_results").select("column_name", "column_type").rows())
    assert (types["sample"], types["checked_at"], types["seed"]) == ("VARCHAR[]", "TIMESTAMP", "INTEGER")


def test_every_table_view_and_column_says_what_it_means(store: Store) -> None:
    store.write(COOP)
    store.publish()
    connection = duckdb.connect(str(store.database), read_only=True)
    with connection:
        comments = dict(connection.execute("SELECT table_name, comment FROM duckdb_tables()").fetchall())
        views = connection.execute("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal").fetchall()
        columns = connection.execute(
            "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal"
        ).fetchall()
    for table in CORE_TABLES:
        assert comments[table.name] == table.description
    assert {name for name, comment in views if comment} == {"outcomes", "cells", "costs"}
    by_column = {(table, column): comment for table, column, comment in columns}
    assert (by_column["pairs", "outcome"] == PAIRS.schema and False) or by_column["pairs", "outcome"].startswith("pass")
    described = {*(table.name for table in CORE_TABLES), "outcomes", "cells", "costs"}
    assert [key for key, comment in by_column.items() if key[0] in described and not comment] == []


def test_publishing_again_touches_nothing_and_says_so(store: Store) -> None:
    store.write(*SOLO)
    first = store.publish()
    before = store.database.stat()
    second = store.publish()
    assert (second.replaced, second.changed, second.content) == (False, (), first.content)
    assert second.rows == first.rows
    after = store.database.stat()
    assert os.path.samestat(before, after)
    assert before.st_mtime_ns == after.st_mtime_ns
    assert store.leftovers() == []


def test_one_changed_value_changes_one_unit(store: Store) -> None:
    store.write(*SOLO, COOP)
    first = store.publish()
    frames = cell_frames(COOP)
    frames["pairs"] = frames["pairs"].with_columns(
        cost_usd=pl.when(pl.int_range(pl.len()) == 4).then(99.5).otherwise("cost_usd")
    )
    write_unit(store.tables, cell_unit(COOP), frames, declared=CORE_TABLES)
    done = store.publish()
    assert done.changed == ("demo/cells/coop-comm/0",)
    assert (done.rebuilt, done.replaced) == (None, True)
    assert done.content != first.content
    assert store.holds(*SOLO, COOP)
    assert 99.5 in store.table("pairs")["cost_usd"].to_list()
    store.write(COOP)
    assert store.publish().content == first.content


def test_another_time_of_reading_alone_changes_nothing(store: Store) -> None:
    store.write(COOP, read_at=START)
    store.publish()
    store.write(COOP, read_at=START.replace(year=2027))
    assert not store.publish().replaced


def test_a_cell_with_fewer_rows_leaves_none_behind(store: Store) -> None:
    write_unit(store.tables, cell_unit(COOP), cell_frames(COOP, 20), declared=CORE_TABLES)
    store.publish()
    write_unit(store.tables, cell_unit(COOP), cell_frames(COOP, 5), declared=CORE_TABLES)
    assert store.publish().rows["pairs"] == 5
    write_unit(store.tables, cell_unit(COOP), {}, declared=CORE_TABLES)
    assert set(store.publish().rows.values()) == {0}


@pytest.mark.slow
def test_a_dropped_cell_leaves_with_its_checks_and_returns_when_it_is_planned_again(store: Store) -> None:
    store.write(*SOLO, OTHER)
    for cell in (SOLO[0], SOLO[1], None):
        frames = check_frame(cell, experiment="demo", asset="pair_results", passed={"count": True})
        write_unit(store.tables, check_unit("demo", "pair_results", cell), frames, declared=CORE_TABLES)
    store.publish(planned={"demo": SOLO})
    done = store.publish(planned={"demo": SOLO[1:]})
    assert done.dropped == ("demo/cells/solo/0", "demo/checks/pair_results/cells/solo/0")
    assert store.holds(*SOLO[1:], OTHER)
    assert store.table("check_results")["seed"].to_list() == [None, 1]
    assert not store.publish().replaced, "the plan is remembered"
    store.database.unlink()
    assert store.publish().content == done.content
    assert len(store.publish(planned={"demo": SOLO}).changed) == 2
    assert store.holds(*SOLO, OTHER)


def test_an_experiment_without_cells_leaves_as_a_whole(store: Store) -> None:
    store.write(*SOLO, OTHER)
    store.write_summary("demo", 0.5)
    store.publish(declared=[*CORE_TABLES, SUMMARY])
    done = store.publish(declared=[*CORE_TABLES, SUMMARY], planned={"demo": []})
    assert len(done.dropped) == 4
    assert store.holds(OTHER)
    assert store.table("summary").height == 0


def unreadable_pointer(folder: Path) -> None:
    (folder / POINTER).write_text("{")


def no_pointer(folder: Path) -> None:
    (folder / POINTER).unlink()


def cut_table(folder: Path) -> None:
    for table in folder.glob("@*/agents.parquet"):
        table.write_bytes(table.read_bytes()[:100])


def no_content(folder: Path) -> None:
    for path in folder.glob("@*"):
        path.rename(folder.parent / "gone")


def no_folder(folder: Path) -> None:
    folder.rename(folder.parents[2] / ".gone")


@pytest.mark.slow
@pytest.mark.parametrize("damage", [unreadable_pointer, no_pointer, cut_table, no_content, no_folder])
def test_a_cell_that_cannot_be_read_keeps_its_rows_and_is_named(store: Store, damage: object) -> None:
    assert callable(damage)
    store.write(*SOLO)
    first = store.publish(planned={"demo": SOLO})
    before = store.contents()
    store.write(SOLO[0], SOLO[1], draw=1)
    damage(cell_unit(SOLO[1]).folder(store.tables))
    done = store.publish(planned={"demo": SOLO})
    assert done.changed == ("demo/cells/solo/0",)
    assert list(done.unreadable) == ["demo/cells/solo/1"]
    assert done.dropped == ()
    assert [row for row in before["agents"] if "'solo', 1," in row] == [
        row for row in store.contents()["agents"] if "'solo', 1," in row
    ]
    assert done.rows == first.rows
    store.write(SOLO[1], draw=1)
    assert store.publish().changed == ("demo/cells/solo/1",)
    assert store.holds(*SOLO)


def write_under_another_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> Unit:
    """Rows of the first solo cell in the folder of a seed that nobody has, as earlier versions accepted it."""
    unit = Unit("demo", "cells", ("solo", "7"), cell_unit(SOLO[0]).key)
    with monkeypatch.context() as patch:
        patch.setattr(partition_tables, "key_problem", lambda *_: None)
        write_unit(store.tables, unit, cell_frames(SOLO[0], draw=9), declared=CORE_TABLES)
    return unit


def test_a_unit_with_the_key_of_another_is_named_and_left_out_and_the_rest_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = write_under_another_name(store, monkeypatch)
    store.write(*SOLO)
    done = store.publish()
    assert list(done.unreadable) == [unit.name]
    assert "unit demo/cells/solo/7 has the key of another one" in done.unreadable[unit.name]
    assert store.holds(*SOLO)
    store.write(SOLO[0], draw=1)
    assert store.publish().changed == ("demo/cells/solo/0",)
    assert store.holds(*SOLO)


def test_of_two_units_that_claim_the_same_rows_the_second_is_named_and_left_out(store: Store) -> None:
    store.write_summary("demo", 0.5)
    copy = Unit.of("demo", "analysis", "summary-copy", key={"experiment": "demo"})
    frame = read_unit(store.tables, analysis_unit("demo", "summary"))["summary"]
    write_unit(store.tables, copy, {"summary": frame}, declared=[SUMMARY])
    done = store.publish(declared=[*CORE_TABLES, SUMMARY])
    assert list(done.unreadable) == ["demo/analysis/summary-copy"]
    assert "claims the same rows as demo/analysis/summary: delete" in done.unreadable["demo/analysis/summary-copy"]
    assert store.table("summary").height == 1
    earlier = Unit.of("demo", "analysis", "a-copy", key={"experiment": "demo"})
    write_unit(store.tables, earlier, {"summary": frame}, declared=[SUMMARY])
    done = store.publish(declared=[*CORE_TABLES, SUMMARY])
    assert (done.changed, done.dropped) == (("demo/analysis/a-copy",), ("demo/analysis/summary",))
    assert store.table("summary").height == 1


def test_rows_that_were_published_under_another_name_give_way_to_the_unit_of_their_key(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = write_under_another_name(store, monkeypatch)
    store.write(COOP)
    with monkeypatch.context() as patch:
        for module in (partition_tables, exchange):
            patch.setattr(module, "key_problem", lambda *_: None)
        assert unit.name in store.publish().changed
    store.write(SOLO[0])
    done = store.publish()
    assert (done.dropped, done.changed) == ((unit.name,), ("demo/cells/solo/0",))
    assert store.holds(SOLO[0], COOP)
    assert not store.publish().replaced


def test_a_missing_tables_folder_takes_nothing_out(store: Store) -> None:
    store.write(*SOLO)
    first = store.publish()
    store.tables.rename(store.root / "unmounted")
    done = store.publish()
    assert not done.replaced
    assert len(done.unreadable) == 3
    assert done.content == first.content


@pytest.mark.slow
def test_a_rebuilt_store_equals_the_published_one(store: Store) -> None:
    draw = random.Random(7)
    declared = [*CORE_TABLES, SUMMARY]
    for step in range(10):
        cell = draw.choice([*SOLO, COOP, OTHER])
        store.write(cell, draw=step)
        frames = check_frame(
            cell, experiment=cell.experiment, asset="pair_results", passed={"count": draw.random() < 0.5}
        )
        unit = check_unit(cell.experiment, "pair_results", cell)
        write_unit(store.tables, unit, frames, declared=CORE_TABLES)
        if draw.random() < 0.3:
            store.write_summary(cell.experiment, step / 10)
        planned = {"demo": draw.sample([*SOLO, COOP], 3)} if draw.random() < 0.3 else None
        done = store.publish(declared=declared, planned=planned)
        assert done.rebuilt is None or step == 0
    published = store.contents()
    store.database.unlink()
    again = store.publish(declared=declared)
    assert store.contents() == published
    assert again.content == done.content
    assert not store.publish(declared=declared).replaced


@pytest.mark.slow
def test_a_file_does_not_grow_with_the_number_of_publishes(store: Store) -> None:
    store.write(*SOLO)
    sizes = []
    for step in range(12):
        store.write(COOP, draw=step)
        store.publish()
        sizes.append(store.database.stat().st_size)
    assert max(sizes[6:]) <= max(sizes[:6])


def test_a_reader_keeps_what_it_sees_and_the_next_one_sees_the_new(store: Store) -> None:
    store.write(COOP)
    store.publish()
    old = read.connect(store.database)
    store.write(*SOLO)
    store.publish()
    new = read.connect(store.database)
    counts = [c.execute("SELECT count(*) FROM provenance").fetchall()[0][0] for c in (old, new)]
    old.close()
    new.close()
    assert counts == [1, 4]


def test_two_publishers_take_turns_and_the_one_that_waited_too_long_names_the_other(store: Store) -> None:
    store.write(COOP)
    with BuildDir.of(store.database).locked(1), pytest.raises(StoreLockedError) as error:
        store.publish(timeout=0.05)
    assert f"process {os.getpid()} on " in str(error.value)
    assert "waited 0 s. Try again" in str(error.value)
    assert store.publish().replaced


def test_the_store_may_be_reached_by_a_symbolic_link(store: Store, tmp_path: Path) -> None:
    store.write(COOP)
    elsewhere = tmp_path / "disk"
    elsewhere.mkdir()
    store.database.symlink_to(elsewhere / "results.duckdb")
    store.publish()
    assert store.database.is_symlink()
    assert store.holds(COOP)
    assert (elsewhere / ".results.duckdb" / "lock").exists()


def test_a_disk_error_leaves_the_old_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(COOP)
    store.publish()
    before = store.contents()
    store.write(*SOLO)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "build")

    monkeypatch.setattr("cooperbench_assets.store.publish.sync", full)
    with pytest.raises(OSError, match="No space left"):
        store.publish()
    assert store.contents() == before
    assert store.leftovers() == []
    monkeypatch.undo()
    assert len(store.publish().changed) == 3


@pytest.mark.slow
@pytest.mark.parametrize("present", [True, False])
def test_a_disk_that_takes_no_more_bytes_leaves_the_old_file(store: Store, present: bool) -> None:
    store.write(COOP)
    if present:
        store.publish()
    before = store.contents() if present else None
    store.write(*SOLO)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # More than a file without rows and less than it will be: the system refuses what lies beyond, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, limits[1]))
    try:
        with pytest.raises((OSError, StoreError)):
            store.publish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (store.contents() if present else None) == before
    assert [name for name in store.leftovers() if not name.startswith("build-")] == []
    assert len(store.publish().changed) == 4 - present
    assert store.leftovers() == []
    assert store.holds(*SOLO, COOP)


@pytest.mark.slow
def test_a_store_that_would_not_hold_what_the_pointers_say_is_never_put_in_place(store: Store) -> None:
    store.write(COOP)
    store.publish()
    before = store.contents()
    store.write(*SOLO)
    pointer = cell_unit(SOLO[1]).folder(store.tables) / POINTER
    pointer.write_text(pointer.read_text().replace('"rows": 10', '"rows": 11', 1))
    with pytest.raises(StoreError, match="rows"):
        store.publish()
    assert store.contents() == before
    assert store.leftovers() == []
    pointer.unlink()
    store.write(SOLO[1])
    store.publish()
    assert store.holds(*SOLO, COOP)
