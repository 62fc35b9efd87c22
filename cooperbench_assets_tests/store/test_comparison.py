"""The store against the partition tables: a row that is wrong, lacking or too many is found, whatever it is."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import duckdb
import pytest

from cooperbench_assets.store.comparison import Comparison, compare
from cooperbench_assets.store.schema import CELL_TABLES, PAIRS
from cooperbench_assets.store.types import identifier, literal
from cooperbench_assets.store.units import POINTER, cell_unit
from cooperbench_assets_tests.store.stores import COOP, OTHER, SOLO, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cooperbench_assets.store.schema import Table

SMALL = SOLO[0]
KEY = PAIRS.key
VALUES = {"VARCHAR": "'x'", "BOOLEAN": "true", "TIMESTAMP": "TIMESTAMP '2001-01-01'"}
"""A value of each type, but for numbers."""


@contextmanager
def copied(store: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    """A copy of the published file, open for changes."""
    copy = store.root / "copy.duckdb"
    copy.write_bytes(store.database.read_bytes())
    with duckdb.connect(str(copy)) as connection:
        yield connection
    copy.unlink()


def compared(store: Store, *changes: str) -> Comparison:
    """What is found of the experiment `demo` after some SQL on a copy of the published file."""
    with copied(store) as connection:
        for sql in changes:
            connection.execute(sql)
        return compare(connection, store.tables, "demo")


def test_a_published_store_equals_its_partition_tables(store: Store) -> None:
    store.write(*SOLO, COOP, OTHER)
    rows = sum(count for table, count in store.publish().rows.items()) * 4 // 5
    assert compared(store) == Comparison(rows, (), 0)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("published"))
    store.write(SMALL, COOP)
    store.publish()
    return store


@pytest.mark.slow
@pytest.mark.parametrize("table", CELL_TABLES, ids=lambda table: table.name)
def test_one_changed_value_of_any_column_of_any_table_is_found(published: Store, table: Table) -> None:
    height = published.table(table.name).height
    kinds = f"SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = '{table.name}'"
    with copied(published) as connection:
        dtypes = dict(connection.execute(kinds).fetchall())
        for row, column in enumerate(column.name for column in table.columns if column.name not in KEY):
            name, other = identifier(column), VALUES.get(dtypes[column], "77")
            connection.begin()
            connection.execute(
                f"UPDATE {table.name} SET {name} = "
                f"CASE WHEN {name} IS NOT DISTINCT FROM {other} THEN NULL ELSE {other} END WHERE rowid = {row % height}"
            )
            (problem,) = compare(connection, published.tables, "demo").problems
            connection.rollback()
            assert f"table {table.name} holds" in problem, column
            assert "not those of its Parquet file" in problem, column
        assert compare(connection, published.tables, "demo").problems == ()


@pytest.mark.parametrize("table", [table.name for table in CELL_TABLES])
def test_a_row_too_few_or_too_many_is_found_and_so_are_values_that_changed_places(published: Store, table: str) -> None:
    for change in (
        f"DELETE FROM {table} WHERE rowid = 0",
        f"INSERT INTO {table} SELECT * FROM {table} WHERE rowid = 0",
    ):
        (problem,) = compared(published, change).problems
        assert f"table {table} holds" in problem
        assert "and should hold" in problem
    swapped = f"UPDATE {table} SET setting = CASE setting WHEN 'solo' THEN 'coop-comm' ELSE 'solo' END"
    assert len(compared(published, swapped).problems) == 2


def test_rows_of_a_cell_that_nobody_wrote_are_found(published: Store) -> None:
    rows = "INSERT INTO pairs SELECT * REPLACE (7 AS seed) FROM pairs WHERE setting = 'solo'"
    assert compared(published, rows).problems == (
        "table pairs holds 10 rows that no partition table has (demo, 7, solo)",
    )


@pytest.mark.slow
def test_tables_that_changed_without_a_publish_are_found_and_newer_ones_are_counted(store: Store) -> None:
    store.write(SMALL, COOP)
    store.publish()
    store.write(SMALL, draw=1)
    assert compared(store) == Comparison(compared(store).rows, (), 1)
    late = (datetime.now(UTC) + timedelta(hours=1)).timestamp() * 1e6
    later = f"UPDATE store_info SET value = {literal(str(int(late)))} WHERE name = 'file_time_us'"
    found = compared(store, later)
    assert found.problems == ("demo/cells/solo/0: its partition tables say something else than was published",)
    store.write(SOLO[1])
    assert compared(store, later).problems[-1] == "demo/cells/solo/1 was not published"
    assert compared(store).newer == 2
    assert store.publish().changed == ("demo/cells/solo/0", "demo/cells/solo/1")
    assert compared(store).problems == ()


def test_damaged_and_lost_tables_are_named_and_their_last_rows_count(store: Store) -> None:
    store.write(*SOLO, COOP)
    store.publish()
    whole = compared(store).rows
    folders = [cell_unit(cell).folder(store.tables) for cell in SOLO]
    (table,) = folders[0].glob("@*/agents.parquet")
    table.write_bytes(table.read_bytes()[:-7])
    (folders[1] / POINTER).write_text("")
    folders[2].rename(store.root / "gone")
    found = compared(store)
    assert found.rows == whole
    assert [problem.rpartition(": ")[2].rpartition("; ")[2] for problem in found.problems] == [
        "its last rows are kept"
    ] * 3
    for problem, folder in zip(found.problems, folders, strict=True):
        assert str(folder) in problem


def test_what_the_experiment_dropped_is_not_missed(store: Store) -> None:
    store.write(*SOLO)
    store.publish(planned={"demo": SOLO[:1]})
    assert compared(store).problems == ()


def test_a_file_by_another_version_of_duckdb_is_one_sentence(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(duckdb, "__version__", "1.0.0")
        store.publish()
    assert compared(store).problems == ("the file has no hashes of rows by this version of DuckDB: publish again",)
    store.publish()
    assert compared(store).problems == ()


def test_sorting_and_decoding_are_not_needed(published: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import polars as pl

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a Parquet file is decoded")

    for name in ("read_parquet", "scan_parquet", "read_parquet_schema"):
        monkeypatch.setattr(pl, name, refuse)
    assert compared(published).problems == ()
