"""Reading results.duckdb: snapshots, queries, tables. Nothing that changes data belongs here.

A snapshot is the file as it was when it was opened, whatever is published meanwhile. It is opened under a name of
its own (a hard link in the build folder, removed at once): DuckDB would otherwise answer from a file of that name
that this process has open, though it has been replaced, and replay a write-ahead log that somebody left beside it.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb
import polars as pl

from cooperbench_assets.store.arrow import frame
from cooperbench_assets.store.build_dir import SNAPSHOT_PREFIX, BuildDir
from cooperbench_assets.store.catalog import checked_version
from cooperbench_assets.store.errors import StoreError, StoreMissingError
from cooperbench_assets.store.files import copy
from cooperbench_assets.store.types import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from duckdb import DuckDBPyConnection, DuckDBPyRelation

_CONFIG: Final = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "lock_configuration": "true",
}

_TRIES: Final = 5
"""How often a file that somebody is writing into is copied anew."""

_AS_TEXT: Final = ("INTERVAL", "UNION", "BIGNUM", "BIT")
"""SQL types that polars has no like for."""

_ORDER: Final = ("experiment", "setting", "seed", "asset")


def connect(database: Path) -> DuckDBPyConnection:
    """A read-only connection to a snapshot of the results store; close it when done.

    It reads that file and nothing else: no other files, no extensions, no settings.

    Raises:
        StoreMissingError: if there is no results store yet.
        StoreError: if it cannot be opened.
    """
    if not database.exists():
        raise StoreMissingError(
            f"there is no results store at {database} yet; make it with: cooperbench-assets materialize EXPERIMENT"
        )
    for _ in range(_TRIES):
        try:
            connection = _open(database)
            break
        except (OSError, duckdb.Error) as error:
            problem: Exception = error
    else:
        raise StoreError(
            f"{database} cannot be opened ({problem}); publish again: a file that was changed is built anew"
        )
    try:
        checked_version(connection)
    except StoreError:
        connection.close()
        raise
    return connection


def _open(database: Path) -> DuckDBPyConnection:
    """Open a link to the file; a copy where somebody has it locked for writing, or no link can be made."""
    try:
        with _private(database, link=True) as path:
            return _connect(path)
    except (OSError, duckdb.IOException):
        with _private(database, link=False) as path:
            return _connect(path)


def _connect(path: Path) -> DuckDBPyConnection:
    # Large sorts spill; beside the file they could not, because its private folder is gone by then.
    spill = Path(tempfile.gettempdir()) / f"cooperbench-assets-{secrets.token_hex(4)}"
    return duckdb.connect(str(path), read_only=True, config={**_CONFIG, "temp_directory": str(spill)})


@contextmanager
def _private(database: Path, *, link: bool) -> Iterator[Path]:
    """The file under a name of its own, for as long as it takes to open it.

    Raises:
        OSError: if no link can be made.
    """
    parent = BuildDir.of(database).folder if link else None
    if parent is not None:
        parent.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=SNAPSHOT_PREFIX, dir=parent))
    path = folder / database.name
    try:
        if link:
            path.hardlink_to(database.resolve())
        else:
            copy(database, path)
        yield path
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def snapshot(database: Path) -> Iterator[Snapshot]:
    """A snapshot to take several frames from, all of one state of the store.

    Raises:
        StoreError: as `connect` does.
    """
    connection = connect(database)
    try:
        yield Snapshot(connection)
    finally:
        connection.close()


class Snapshot:
    """The store as it was at one time."""

    def __init__(self, connection: DuckDBPyConnection) -> None:
        self.connection = connection

    def query(self, sql: str) -> pl.DataFrame:
        """What a query gives; of several statements, what the last one gives.

        Columns of one name are told apart by ``_1``, ``_2``. What polars has no type for comes as text, and
        whole numbers of 128 bits (sums) as 64 where they fit.

        Raises:
            StoreError: if the query is wrong, or would do more than read.
        """
        try:
            relation: DuckDBPyRelation | None = self.connection.sql(sql)
            return pl.DataFrame() if relation is None else _as_frame(relation)
        except (duckdb.Error, pl.exceptions.PolarsError) as error:
            raise StoreError(f"the query cannot be answered: {error}") from error

    def table(self, name: str, experiment: str | None = None) -> pl.DataFrame:
        """All rows of a table or view, of one experiment if told so, in order of their cells.

        Raises:
            StoreError: if there is no such table.
        """
        where = "" if experiment is None else f" WHERE experiment = {literal(experiment)}"
        try:
            rows = _as_frame(self.connection.sql(f"SELECT * FROM {identifier(name)}{where}"))  # noqa: S608 - quoted
        except duckdb.CatalogException:
            there = ", ".join(self.names())
            raise StoreError(f"the results store has no table {name!r}; it has {there}") from None
        order = [column for column in _ORDER if column in rows.columns]
        return rows.sort(order, maintain_order=True) if order else rows

    def names(self) -> list[str]:
        """Tables and views, by name."""
        rows = self.connection.execute(
            "SELECT table_name FROM duckdb_tables() UNION ALL "
            "SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY 1"
        ).fetchall()
        return [name for (name,) in rows]


def _as_frame(relation: DuckDBPyRelation) -> pl.DataFrame:
    # A projection is planned anew, which costs as much as reading a table of ours: most need none.
    if len({name.casefold() for name in relation.columns}) < len(relation.columns):
        relation = relation.project("*")  # columns of one name get different ones
    kinds = list(zip(relation.columns, map(str, relation.types), strict=True))
    as_text = {name for name, kind in kinds if any(strange in kind for strange in _AS_TEXT)}
    if as_text:
        columns = (
            f"CAST({identifier(name)} AS VARCHAR) AS {identifier(name)}" if name in as_text else identifier(name)
            for name, _ in kinds
        )
        relation = relation.project(", ".join(columns))
    rows = frame(relation.__arrow_c_stream__())
    return rows.with_columns(_narrowed(rows[name]) for name, kind in kinds if kind in ("HUGEINT", "UHUGEINT"))


def _narrowed(column: pl.Series) -> pl.Series:
    fits = column.cast(pl.Int64, strict=False)
    return fits if fits.null_count() == column.null_count() else column


def query(database: Path, sql: str) -> pl.DataFrame:
    """What a query of the results store gives, as `Snapshot.query` says."""
    with snapshot(database) as store:
        return store.query(sql)


def table(database: Path, name: str, experiment: str | None = None) -> pl.DataFrame:
    """A table of the results store, as `Snapshot.table` says."""
    with snapshot(database) as store:
        return store.table(name, experiment)
