from __future__ import annotations

import json
import os
from pathlib import Path

import duckdb
import pytest

from cooperbench_assets.store import migrations, read
from cooperbench_assets.store.errors import StoreError, StoreTooNewError
from cooperbench_assets.store.migrations import BOOKS, MIGRATIONS, Migration, migrate, version_of
from cooperbench_assets.store.partition_tables import load_record
from cooperbench_assets.store.schema import CELL_TABLES, SCHEMA_VERSION
from cooperbench_assets.store.units import POINTER, cell_unit
from cooperbench_assets_tests.store.stores import COOP, SOLO, Store

VERSION_1 = """
CREATE TABLE schema_migrations (version INTEGER, name VARCHAR, applied_at TIMESTAMP);
CREATE TABLE store_info (name VARCHAR, value VARCHAR);
CREATE TABLE declarations (table_name VARCHAR, declaration VARCHAR);
CREATE TABLE published
    (unit VARCHAR, content_sha256 VARCHAR, key VARCHAR, rows VARCHAR, published_at TIMESTAMP);
INSERT INTO schema_migrations VALUES (1, 'keep books', TIMESTAMP '2026-11-20 09:00:00');
"""
"""The books of a file of version 1. Frozen: later versions are tested from it."""

VERSION_1_RESULTS = """
CREATE TABLE pairs (experiment VARCHAR, setting VARCHAR, seed INTEGER, pair VARCHAR, outcome VARCHAR);
INSERT INTO declarations VALUES ('pairs', '{"name": "pairs", "comment": "Pairs", "columns": [
    {"name": "experiment", "type": "VARCHAR", "comment": ""},
    {"name": "setting", "type": "VARCHAR", "comment": ""},
    {"name": "seed", "type": "INTEGER", "comment": ""},
    {"name": "pair", "type": "VARCHAR", "comment": ""},
    {"name": "outcome", "type": "VARCHAR", "comment": ""}],
    "key": ["experiment", "setting", "seed"], "columns_sha256": "of version 1"}');
CREATE TABLE messages (experiment VARCHAR, setting VARCHAR, seed INTEGER, pair VARCHAR, message VARCHAR);
INSERT INTO declarations VALUES ('messages', '{"name": "messages", "comment": "Messages", "columns": [
    {"name": "experiment", "type": "VARCHAR", "comment": ""},
    {"name": "setting", "type": "VARCHAR", "comment": ""},
    {"name": "seed", "type": "INTEGER", "comment": ""},
    {"name": "pair", "type": "VARCHAR", "comment": ""},
    {"name": "message", "type": "VARCHAR", "comment": ""}],
    "key": ["experiment", "setting", "seed"], "columns_sha256": "of version 1"}');
INSERT INTO messages VALUES ('demo', 'gone', 5, 'demo_task/1/f1_f2', 'My plan');
CREATE VIEW cells AS SELECT setting, count(*) AS pairs FROM pairs GROUP BY setting;
INSERT INTO pairs VALUES ('demo', 'solo', 0, 'demo_task/1/f1_f2', 'pass');
INSERT INTO pairs VALUES ('demo', 'gone', 5, 'demo_task/1/f1_f2', 'fail');
INSERT INTO published VALUES
    ('demo/cells/solo/0', 'old', '{"experiment": "demo", "setting": "solo", "seed": 0}', '{"pairs": 1}',
     TIMESTAMP '2026-11-20 09:00:00'),
    ('demo/cells/gone/5', 'old', '{"experiment": "demo", "setting": "gone", "seed": 5}', '{"pairs": 1, "messages": 1}',
     TIMESTAMP '2026-11-20 09:00:00');
INSERT INTO store_info VALUES ('file_time_us', '1795165200000000');
"""
"""A cell whose Parquet files are there, and one whose files are gone, in a table of few columns."""


def make_version_1(store: Store) -> None:
    with duckdb.connect(str(store.database)) as connection:
        connection.execute(VERSION_1 + VERSION_1_RESULTS)
    os.utime(store.database, ns=(1795165200000000000, 1795165200000000000))


def books(connection: duckdb.DuckDBPyConnection) -> list[tuple[object, ...]]:
    return connection.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal "
        f"AND table_name IN {BOOKS} ORDER BY table_name, column_index"
    ).fetchall()


def test_migrations_are_numbered_from_one_to_the_schema_version() -> None:
    assert [migration.version for migration in MIGRATIONS] == list(range(1, SCHEMA_VERSION + 1))
    assert len({migration.name for migration in MIGRATIONS}) == len(MIGRATIONS)


def test_the_first_migration_makes_the_frozen_version_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "MIGRATIONS", MIGRATIONS[:1])
    with duckdb.connect() as made, duckdb.connect() as frozen:
        migrate(made, 0)
        frozen.execute(VERSION_1)
        assert books(made) == books(frozen)
        assert version_of(made) == version_of(frozen) == 1


def test_the_second_migration_gives_messages_a_step_and_needs_no_messages() -> None:
    with duckdb.connect() as made, duckdb.connect() as without:
        made.execute(VERSION_1 + VERSION_1_RESULTS)
        without.execute(VERSION_1)
        for connection in (made, without):
            assert migrate(connection, 1)[0] == "steps of messages"
            assert version_of(connection) == SCHEMA_VERSION
        assert made.execute("SELECT message, step FROM messages").fetchall() == [("My plan", None)]


VERSION_2 = """
INSERT INTO schema_migrations VALUES (2, 'steps of messages', TIMESTAMP '2026-11-20 10:00:00');
ALTER TABLE messages ADD COLUMN step BIGINT;
"""
"""What makes a file of version 2 of one of version 1. Frozen, like that."""


def test_the_third_migration_gives_the_books_hashes_of_rows_that_are_made_when_a_unit_is_read_again(
    store: Store,
) -> None:
    with duckdb.connect(str(store.database)) as connection:
        connection.execute(VERSION_1 + VERSION_1_RESULTS + VERSION_2)
        connection.execute("UPDATE published SET content_sha256 = ?", [store_content(store)])
    os.utime(store.database, ns=(1795165200000000000, 1795165200000000000))
    done = store.publish()
    assert (done.rebuilt, done.changed) == (None, ("demo/cells/solo/0",))
    kept = read.query(store.database, "SELECT unit, row_hashes FROM published ORDER BY unit").rows()
    assert [unit for unit, _ in kept] == ["demo/cells/gone/5", "demo/cells/solo/0"]
    assert kept[0][1] == "{}", "its Parquet files are gone"
    assert set(json.loads(kept[1][1])) == {table.name for table in CELL_TABLES}
    assert store.table("pairs").filter(setting="gone")["agents_with_tokens"].to_list() == [None]
    assert not store.publish().replaced


def store_content(store: Store) -> str:
    """Write the cell that is there in every version; its content, as if that version had published the same."""
    store.write(SOLO[0])
    return load_record(cell_unit(SOLO[0]).folder(store.tables)).content_sha256


def test_rows_are_hashed_again_by_another_version_of_duckdb(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(COOP)
    with monkeypatch.context() as patch:
        patch.setattr(duckdb, "__version__", "1.0.0")
        store.publish()
    done = store.publish()
    assert (done.rebuilt, done.changed) == (None, ("demo/cells/coop-comm/0",))
    assert not store.publish().replaced


def test_a_blank_file_gets_every_migration_once() -> None:
    with duckdb.connect() as connection:
        assert migrate(connection, version_of(connection)) == [migration.name for migration in MIGRATIONS]
        assert migrate(connection, version_of(connection)) == []
        assert version_of(connection) == SCHEMA_VERSION
        uncommented = connection.execute("SELECT table_name FROM duckdb_tables() WHERE comment IS NULL").fetchall()
        assert uncommented == []


def test_the_oldest_file_becomes_a_present_one(store: Store) -> None:
    make_version_1(store)
    store.write(SOLO[0], COOP)
    done = store.publish()
    assert (done.rebuilt, done.changed) == (None, ("demo/cells/coop-comm/0", "demo/cells/solo/0"))
    assert list(done.unreadable) == ["demo/cells/gone/5"]
    kept = store.table("pairs").filter(setting="gone").select("pair", "outcome", "cost_usd")
    assert kept.rows() == [("demo_task/1/f1_f2", "fail", None)]
    said = store.table("messages").filter(setting="gone").select("message", "sender", "step")
    assert said.rows() == [("My plan", None, None)]
    with_plan = store.publish(planned={"demo": [SOLO[0], COOP]})
    assert with_plan.dropped == ("demo/cells/gone/5",)
    brought_up = store.contents()
    store.database.unlink()
    store.publish()
    assert store.contents() == brought_up


NEXT = SCHEMA_VERSION + 1
LATER = Migration(NEXT, "split the names", ("ALTER TABLE store_info ADD COLUMN noted_at TIMESTAMP",))
BROKEN = Migration(NEXT, "break", ("CREATE TABLE half (a INTEGER)", "ALTER TABLE no_such_table RENAME TO other"))


def use(monkeypatch: pytest.MonkeyPatch, *more: Migration) -> None:
    """Let the code know later versions of the layout."""
    known = (*MIGRATIONS, *more)
    monkeypatch.setattr(migrations, "MIGRATIONS", known)
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", known[-1].version)


def test_a_later_migration_is_applied_to_a_published_file_that_keeps_its_rows(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(COOP)
    store.publish()
    before = store.contents()
    use(monkeypatch, LATER)
    done = store.publish()
    assert (done.replaced, done.changed, done.rebuilt) == (True, (), None)
    assert store.contents() == before
    applied = read.query(store.database, "SELECT version, name FROM schema_migrations ORDER BY version")
    assert applied.rows() == [*((one.version, one.name) for one in MIGRATIONS), (NEXT, "split the names")]
    assert "noted_at" in read.query(store.database, "FROM store_info").columns
    assert not store.publish().replaced


def test_a_migration_that_fails_changes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(COOP)
    store.publish()
    before = (store.contents(), store.database.stat().st_mtime_ns)
    use(monkeypatch, BROKEN)
    with pytest.raises(StoreError, match="no_such_table"):
        store.publish()
    monkeypatch.undo()
    assert (store.contents(), store.database.stat().st_mtime_ns) == before
    assert store.leftovers() == []


def test_a_file_of_a_later_version_is_refused_and_left_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(COOP)
    use(monkeypatch, LATER)
    store.publish()
    monkeypatch.undo()
    before = store.database.read_bytes()
    store.write(*SOLO)
    found = f"has layout {NEXT}, and this cooperbench-assets knows up to {SCHEMA_VERSION}: update"
    with pytest.raises(StoreTooNewError, match=found):
        store.publish()
    with pytest.raises(StoreTooNewError, match="update cooperbench-assets"):
        read.table(store.database, "pairs")
    assert store.database.read_bytes() == before
    assert store.leftovers() == []


def test_a_unit_of_a_later_version_keeps_the_rows_that_were_published(store: Store) -> None:
    store.write(COOP)
    store.publish()
    pointer: Path = cell_unit(COOP).folder(store.tables) / POINTER
    pointer.write_text(pointer.read_text().replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 99'))
    done = store.publish()
    assert not done.replaced
    assert "later version" in done.unreadable["demo/cells/coop-comm/0"]
