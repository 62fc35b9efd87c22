"""Files and units of other versions: earlier ones become present ones without losing rows, later ones are refused."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import pytest

from cooperbench_assets.store import read
from cooperbench_assets.store.errors import StoreTooNewError
from cooperbench_assets.store.partition_tables import load_record
from cooperbench_assets.store.schema import SCHEMA_VERSION
from cooperbench_assets.store.units import POINTER, cell_unit
from cooperbench_assets_tests.store.stores import COOP, SOLO, Store

VERSION_1 = """
CREATE TABLE schema_migrations (version INTEGER, name VARCHAR, applied_at TIMESTAMP);
CREATE TABLE store_info (name VARCHAR, value VARCHAR);
CREATE TABLE declarations (table_name VARCHAR, declaration VARCHAR);
CREATE TABLE published
    (unit VARCHAR, content_sha256 VARCHAR, key VARCHAR, rows VARCHAR, published_at TIMESTAMP);
INSERT INTO schema_migrations VALUES (1, 'keep books', TIMESTAMP '2026-11-20 09:00:00');
CREATE TABLE pairs (experiment VARCHAR, setting VARCHAR, seed INTEGER, pair VARCHAR, outcome VARCHAR);
CREATE TABLE messages (experiment VARCHAR, setting VARCHAR, seed INTEGER, pair VARCHAR, message VARCHAR);
INSERT INTO messages VALUES ('demo', 'gone', 5, 'demo_task/1/f1_f2', 'My plan');
CREATE VIEW cells AS SELECT setting, count(*) AS pairs FROM pairs GROUP BY setting;
INSERT INTO pairs VALUES ('demo', 'solo', 0, 'demo_task/1/f1_f2', 'pass');
INSERT INTO pairs VALUES ('demo', 'gone', 5, 'demo_task/1/f1_f2', 'fail');
INSERT INTO published VALUES
    ('demo/cells/solo/0', '{content}', '{{"experiment": "demo", "setting": "solo", "seed": 0}}', '{{"pairs": 1}}',
     TIMESTAMP '2026-11-20 09:00:00'),
    ('demo/cells/gone/5', 'old', '{{"experiment": "demo", "setting": "gone", "seed": 5}}',
     '{{"pairs": 1, "messages": 1}}', TIMESTAMP '2026-11-20 09:00:00');
INSERT INTO store_info VALUES ('file_time_us', '1795165200000000');
"""
"""A file of version 1, in tables of few columns: a cell whose Parquet files are there, and one whose files are gone.
Frozen: earlier programs wrote it."""

VERSION_2 = """
INSERT INTO schema_migrations VALUES (2, 'steps of messages', TIMESTAMP '2026-11-20 10:00:00');
ALTER TABLE messages ADD COLUMN step BIGINT;
"""
VERSION_3 = """
INSERT INTO schema_migrations VALUES (3, 'hashes of rows', TIMESTAMP '2026-11-20 11:00:00');
ALTER TABLE published ADD COLUMN row_hashes VARCHAR;
"""
"""What makes a file of the next version of one before it. Frozen, like that."""


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", VERSION_2, VERSION_2 + VERSION_3], ids=["1", "2", "3"])
def test_a_file_of_an_earlier_program_is_built_anew_and_keeps_the_rows_that_are_nowhere_else(
    store: Store, more: str
) -> None:
    store.write(SOLO[0], COOP)
    content = load_record(cell_unit(SOLO[0]).folder(store.tables)).content_sha256
    with duckdb.connect(str(store.database)) as connection:
        connection.execute(VERSION_1.format(content=content) + more)
    os.utime(store.database, ns=(1795165200000000000, 1795165200000000000))
    done = store.publish()
    assert done.rebuilt
    assert (done.changed, done.warnings) == (("demo/cells/coop-comm/0", "demo/cells/solo/0"), ())
    assert list(done.unreadable) == ["demo/cells/gone/5"]
    kept = store.table("pairs").filter(setting="gone").select("pair", "outcome", "cost_usd")
    assert kept.rows() == [("demo_task/1/f1_f2", "fail", None)]
    said = store.table("messages").filter(setting="gone").select("message", "sender", "step")
    assert said.rows() == [("My plan", None, None)]
    assert not store.publish().replaced
    with_plan = store.publish(planned={"demo": [SOLO[0], COOP]})
    assert with_plan.dropped == ("demo/cells/gone/5",)
    assert store.holds(SOLO[0], COOP)
    brought_up = store.contents()
    store.database.unlink()
    store.publish()
    assert store.contents() == brought_up


def test_a_file_by_another_version_of_duckdb_is_built_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(COOP)
    with monkeypatch.context() as patch:
        patch.setattr(duckdb, "__version__", "1.0.0")
        store.publish()
    done = store.publish()
    assert (bool(done.rebuilt), done.changed, done.warnings) == (True, ("demo/cells/coop-comm/0",), ())
    assert not store.publish().replaced


def test_a_published_file_says_its_version_where_earlier_programs_look_for_it(store: Store) -> None:
    store.publish()
    found = read.query(store.database, "SELECT max(version) AS version FROM schema_migrations")
    assert found["version"].to_list() == [SCHEMA_VERSION]


def test_a_file_of_a_later_version_is_refused_and_left_alone(store: Store) -> None:
    store.write(COOP)
    store.publish()
    store.database.chmod(0o644)
    with duckdb.connect(str(store.database)) as connection:
        connection.execute("INSERT INTO schema_migrations (version, name) VALUES (99, 'split the names')")
    before = store.database.read_bytes()
    store.write(*SOLO)
    found = f"has layout 99, and this cooperbench-assets knows up to {SCHEMA_VERSION}: update"
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
