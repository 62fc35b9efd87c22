from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import pytest

from cooperbench_assets.store import read
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.errors import StoreError, StoreMissingError
from cooperbench_assets_tests.store.stores import COOP, OTHER, SOLO, Store
from cooperbench_assets_tests.store.worker import GENERATION, finish, generations, publish_for_ever, start


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A published store that no test changes."""
    store = Store(tmp_path_factory.mktemp("shared"))
    store.write(*SOLO, COOP, OTHER)
    store.publish()
    return store


@pytest.fixture
def published(shared: Store, tmp_path: Path) -> Store:
    """A published store of the test's own."""
    shutil.copytree(shared.root, tmp_path / "own")
    return Store(tmp_path / "own")


def test_a_store_that_is_not_there_yet_says_which_command_makes_it(tmp_path: Path) -> None:
    with pytest.raises(StoreMissingError, match="cooperbench-assets materialize EXPERIMENT"):
        read.query(tmp_path / "results.duckdb", "SELECT 1")
    assert list(tmp_path.iterdir()) == []


def test_rows_come_in_the_order_of_their_cells_whatever_was_published_last(published: Store) -> None:
    before = published.table("pairs")
    published.write(SOLO[0], draw=1)
    published.publish()
    published.write(SOLO[0])
    published.publish()
    assert published.table("pairs").equals(before)
    keys = before.select("experiment", "setting", "seed").unique(maintain_order=True).rows()
    assert keys == sorted(keys)


def test_one_experiment_can_be_asked_for(shared: Store) -> None:
    assert shared.table("pairs", "other")["experiment"].unique().to_list() == ["other"]
    assert shared.table("cells", "demo").height == 4
    assert shared.table("pairs", "o'ther").height == 0


def test_a_table_that_is_not_there_is_named_with_those_that_are(shared: Store) -> None:
    with pytest.raises(StoreError, match=r"no table 'pears'; it has .*, outcomes, pairs, "):
        shared.table("pears")


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT count(*) AS n, sum(seed) AS s FROM provenance WHERE experiment = 'demo'", [(4, 3)]),
        ("SELECT INTERVAL 90 MINUTE AS i, [INTERVAL 1 DAY] AS l", [("01:30:00", "[1 day]")]),
        ("SELECT 1 AS a, 2 AS a, 3 AS A", [(1, 2, 3)]),
        ("SELECT 1; SELECT 2 AS b", [(2,)]),
        ("SELECT 1.50::DECIMAL(9, 2) AS d", [(Decimal("1.50"),)]),
        ("SELECT ['a', NULL] AS l, {'a': 1} AS s, NULL AS n", [(["a", None], {"a": 1}, None)]),
        ("SELECT seed FROM provenance WHERE false", []),
        ("SELECT seed FROM provenance WHERE experiment = 'demo' ORDER BY seed DESC LIMIT 2", [(2,), (1,)]),
        ("SELECT union_value(k := 1) AS u", [("1",)]),
        ("VALUES (1, 'x')", [(1, "x")]),
        ("-- nothing", []),
    ],
)
def test_a_query_gives_a_frame(shared: Store, sql: str, rows: list[tuple[object, ...]]) -> None:
    assert read.query(shared.database, sql).rows() == rows


def test_dates_times_and_sums_keep_their_types(shared: Store) -> None:
    frame = read.query(
        shared.database,
        "SELECT DATE '2026-01-02' AS d, TIMESTAMP '2026-01-02 03:04:05' AS t, sum(seed) AS s, "
        "1000000000000000000000000000000::HUGEINT AS h FROM pairs",
    )
    assert frame.row(0)[:2] == (date(2026, 1, 2), datetime(2026, 1, 2, 3, 4, 5))  # noqa: DTZ001 - UTC without a zone
    assert frame.schema["s"] == pl.Int64
    assert frame["h"].to_list() == [Decimal(10**30)]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM pairs",
        "INSERT INTO pairs SELECT * FROM pairs",
        "CREATE TABLE mine AS SELECT 1",
        "DROP VIEW cells",
        "COPY pairs TO '{folder}/out.csv'",
        "EXPORT DATABASE '{folder}/out'",
        "ATTACH '{folder}/other.duckdb'",
        "SELECT * FROM read_csv('/etc/hostname')",
        "SELECT * FROM '{folder}/tables/demo/cells/solo/0/current.json'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SELECT 1; DELETE FROM pairs; SELECT 2",
        "SELEC 1",
        "SELECT no_such_column FROM pairs",
        "SELECT CAST(pair AS INTEGER) FROM pairs",
        "SELECT ?",
    ],
)
def test_a_query_can_only_read_the_store(shared: Store, sql: str) -> None:
    before = shared.database.read_bytes()
    names = sorted(path.name for path in shared.root.iterdir())
    with pytest.raises(StoreError, match="the query cannot be answered: "):
        read.query(shared.database, sql.format(folder=shared.root))
    assert shared.database.read_bytes() == before
    assert sorted(path.name for path in shared.root.iterdir()) == names


def test_a_snapshot_gives_several_tables_of_one_state(published: Store) -> None:
    with read.snapshot(published.database) as snapshot:
        before = snapshot.table("pairs")
        published.write(COOP, draw=5)
        published.publish()
        assert snapshot.table("pairs").equals(before)
        assert snapshot.table("provenance").height == 5
    assert not published.table("pairs").equals(before)


def test_a_process_that_already_has_the_file_open_sees_the_new_one(published: Store) -> None:
    with duckdb.connect(str(published.database), read_only=True) as mine:
        published.write(Cell("demo", "solo", 9))
        published.publish()
        assert mine.execute("SELECT count(*) FROM provenance").fetchall() == [(5,)]
        assert published.table("provenance").height == 6


def test_threads_read_at_once(shared: Store) -> None:
    heights: list[int] = []
    threads = [threading.Thread(target=lambda: heights.append(shared.table("pairs").height)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heights == [50] * 8


def test_reading_leaves_nothing_behind(shared: Store) -> None:
    shared.table("pairs")
    assert shared.leftovers() == []


@pytest.mark.slow
def test_a_query_larger_than_memory_spills_and_leaves_nothing(
    shared: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(read, "_CONFIG", {**read._CONFIG, "memory_limit": "60MB"})
    large = "CREATE TEMP TABLE x AS SELECT md5(i::VARCHAR) AS s FROM range(2000000) t(i) ORDER BY s"
    found = read.query(shared.database, f"{large}; SELECT count(*) FROM x")
    assert found.rows() == [(2_000_000,)]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_read_from_a_copy(shared: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert shared.table("pairs").height == 50
    assert shared.leftovers() == []


def test_a_file_that_is_no_database_says_what_to_do(store: Store) -> None:
    store.database.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match=r"cannot be opened .*publish again"):
        store.table("pairs")


def test_a_foreign_database_is_not_taken_for_a_store(store: Store) -> None:
    with duckdb.connect(str(store.database)) as connection:
        connection.execute("CREATE TABLE mine (a INTEGER)")
    with pytest.raises(StoreError, match="no table 'pairs'"):
        store.table("pairs")


@pytest.mark.slow
def test_readers_under_publish_load_see_whole_generations(store: Store) -> None:
    publisher = start(publish_for_ever, store.root, "solo", 0)
    try:
        while not store.database.exists():
            assert publisher.poll() is None
            time.sleep(0.01)
        seen: set[str] = set()
        end = time.monotonic() + 60
        while len(seen) < 8 and time.monotonic() < end:
            with read.snapshot(store.database) as snapshot:
                frames = {name: snapshot.table(name) for name in GENERATION}
            assert len(generations(frames)) == 1
            seen |= generations(frames)
        assert len(seen) >= 8
        assert publisher.poll() is None
    finally:
        finish(publisher)


def test_reading_needs_neither_pyarrow_nor_pandas_and_ends_in_silence(published: Store) -> None:
    program = (
        "import sys; from pathlib import Path; from cooperbench_assets.store import read;"
        f"print(read.table(Path({str(published.database)!r}), 'cells').height);"
        "assert not {'pyarrow', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert (done.stdout, done.stderr) == ("5\n", "")
