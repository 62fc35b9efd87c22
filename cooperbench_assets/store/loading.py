"""Rows of results in and out of results.duckdb, unit by unit.

What belongs here: DELETE, INSERT and counting. What does not: deciding which units (``store.publish``).
Everything runs in the caller's transaction.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import polars as pl

from cooperbench_assets.faultpoints import hit
from cooperbench_assets.store.catalog import Entry
from cooperbench_assets.store.errors import StoreError, UnitError
from cooperbench_assets.store.partition_tables import opened, problem_of
from cooperbench_assets.store.types import identifier, literal, sql_type

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from cooperbench_assets.store.layout import Declaration
    from cooperbench_assets.store.units import Record, Value

AT_ONCE: Final = 200
"""Units held open, or looked for by one statement, at a time: a process may open some 1,000 files."""

FEW: Final = 20
"""Units whose rows are looked for by key; of more, all rows are counted in one go, which costs less."""

IN_PIECES: Final = 50
"""Units taken in before what came of them is kept, where that is done in pieces: DuckDB holds in memory what a
transaction inserts."""


RowKey: TypeAlias = tuple[str | None, ...]
"""A table's name, and the values of its key columns as text, in the order of the columns' names."""


class Rows(NamedTuple):
    """Rows of one key in one table."""

    number: int
    hashes: str
    """The hash of every row, added up: two sets of rows that differ at all differ in it, but for 1 in 2⁶⁴."""


NO_ROWS: Final = Rows(0, "0")


@dataclass(slots=True)
class Loaded:
    """What `exchange` took in."""

    entries: list[Entry] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    """Why a unit was not taken in, by name."""

    outdated: list[str] = field(default_factory=list)
    """Units written with other columns than are declared now: NULL stands for what they lack."""


@dataclass(frozen=True, slots=True)
class Source:
    """A table of an earlier layout or of an earlier file, from which rows can be carried over."""

    name: str
    """As SQL."""

    types: Mapping[str, str]
    """SQL types by column."""


def selects(key: Mapping[str, Value]) -> str:
    """SQL for the rows that carry a key."""
    terms = (
        f"{identifier(column)} IS NULL" if value is None else f"{identifier(column)} = {literal(value)}"
        for column, value in key.items()
    )
    return f"({' AND '.join(terms)})"


def delete(connection: DuckDBPyConnection, entries: Iterable[Entry], *, besides: Collection[str] = ()) -> None:
    """Delete the rows of units from all tables but those of `besides`."""
    keys: defaultdict[str, list[str]] = defaultdict(list)
    for entry in entries:
        for table in entry.rows.keys() - set(besides):
            keys[table].append(selects(entry.key))
    for table in sorted(keys):
        for some in _some(keys[table], AT_ONCE):
            connection.execute(f"DELETE FROM {identifier(table)} WHERE {' OR '.join(some)}")  # noqa: S608 - quoted


def _some(items: list[str], size: int) -> Iterable[list[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def exchange(
    connection: DuckDBPyConnection,
    tables: Path,
    units: Iterable[str],
    declared: Mapping[str, Declaration],
    old: Mapping[str, Entry],
    besides: Collection[str] = (),
    keep: Callable[[], None] | None = None,
) -> Loaded:
    """Put the rows of units' Parquet files, as these are by now, in place of their rows in the file.

    A unit that cannot be read keeps the rows it has. `old` says what is in the file by now, but for the tables of
    `besides`, which are empty. With `keep`, which commits, the units are taken in in pieces.
    """
    loaded = Loaded()
    for some in _some(sorted(units), AT_ONCE if keep is None else IN_PIECES):
        with ExitStack() as stack:
            held = _hold(tables, some, declared, loaded, stack)
            delete(connection, [old[record.unit] for record, _ in held if record.unit in old], besides=besides)
            hit("publish:some-deleted")
            _insert_held(connection, held, declared, loaded)
        if keep is not None:
            keep()
        hit("publish:some-inserted")
    return loaded


def _hold(
    tables: Path,
    units: Iterable[str],
    declared: Mapping[str, Declaration],
    loaded: Loaded,
    stack: ExitStack,
) -> list[tuple[Record, Path]]:
    """Hold the content folders of units until they are read; what cannot be read becomes a problem."""
    held = []
    for unit in units:
        folder = tables / unit
        try:
            record, content = stack.enter_context(opened(folder))
        except FileNotFoundError:
            loaded.problems[unit] = f"{folder} is gone"
        except UnitError as error:
            loaded.problems[unit] = str(error)
        else:
            problem = problem_of(folder, record) or _undeclared(record, declared)
            if problem is None:
                held.append((record, content))
            else:
                loaded.problems[unit] = problem
    return held


def _undeclared(record: Record, declared: Mapping[str, Declaration]) -> str | None:
    unknown = sorted(record.tables.keys() - declared.keys())
    return f"{record.unit} has tables that nobody declares: {', '.join(unknown)}" if unknown else None


def _insert_held(
    connection: DuckDBPyConnection,
    held: Sequence[tuple[Record, Path]],
    declared: Mapping[str, Declaration],
    loaded: Loaded,
) -> None:
    files: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for record, content in held:
        outdated = False
        for name, table in record.tables.items():
            path = content / f"{name}.parquet"
            like = table.columns_sha256 == declared[name].columns_sha256
            outdated |= not like
            columns = _names(declared[name]) if like else _columns(declared[name], _types_in(path))
            files[name, columns].append(str(path))
        if outdated:
            loaded.outdated.append(record.unit)
    read: dict[RowKey, Rows] = {}
    for (name, columns), paths in sorted(files.items()):
        source = f"SELECT {columns} FROM read_parquet([{', '.join(map(literal, paths))}])"  # noqa: S608 - quoted
        connection.execute(f"INSERT INTO {identifier(name)} {source}")
        read |= rows_by_key(connection, [declared[name]], f"({source})")
    for record, _ in held:
        hashes = {name: read.get(row_key(name, record.key), NO_ROWS).hashes for name in record.tables}
        loaded.entries.append(Entry.of(record, hashes))


def rows_by_key(
    connection: DuckDBPyConnection, tables: Iterable[Declaration], source: str = "", where: Mapping[str, str] = {}
) -> dict[RowKey, Rows]:
    """How many rows there are of every key, and their hashes added up, whatever their order.

    Args:
        connection: the file.
        tables: the tables.
        source: where to look, as SQL, if not in the tables themselves.
        where: SQL conditions by table.
    """
    parts = []
    for table in tables:
        key = ", ".join(f"{identifier(column)}::VARCHAR" for column in sorted(table.key))
        place = source or identifier(table.name)
        condition = f"WHERE {where[table.name]}" if where.get(table.name) else ""
        parts.append(
            f"SELECT {literal(table.name)} AS name, [{key}] AS key, "  # noqa: S608 - quoted
            f"count(*), sum(hash({_names(table)}))::VARCHAR FROM {place} {condition} GROUP BY name, key"
        )
    found = connection.execute(" UNION ALL ".join(parts)).fetchall() if parts else []
    return {(name, *key): Rows(count, hashes) for name, key, count, hashes in found}


def row_key(table: str, key: Mapping[str, Value]) -> RowKey:
    """A unit's key in one of its tables, as `rows_by_key` gives it."""
    return (table, *(None if key[column] is None else str(key[column]) for column in sorted(key)))


def _names(table: Declaration) -> str:
    return ", ".join(identifier(column.name) for column in table.columns)


def _types_in(path: Path) -> dict[str, str]:
    return {name: sql_type(dtype) for name, dtype in pl.read_parquet_schema(path).items()}


def _columns(table: Declaration, there: Mapping[str, str]) -> str:
    """A table's columns out of a source with other ones: NULL for what it lacks or cannot give."""
    return ", ".join(
        identifier(column.name)
        if there.get(column.name) == column.type
        else f"TRY_CAST({identifier(column.name) if column.name in there else 'NULL'} AS {column.type}) "
        f"AS {identifier(column.name)}"
        for column in table.columns
    )


def carry(
    connection: DuckDBPyConnection,
    entries: Iterable[Entry],
    sources: Mapping[str, Source],
    declared: Mapping[str, Declaration],
) -> dict[str, Entry]:
    """Carry rows of units over from where they were, in the tables that `sources` names.

    Returns:
        the entries of units with such tables, with the rows that were there, and without a content hash: what
        was there may not be what was published, so that the unit is taken anew once it can be read.
    """
    carried = {}
    for entry in entries:
        rows = dict(entry.rows)
        for name in sorted(rows.keys() & sources.keys()):
            source = sources[name]
            columns = _columns(declared[name], source.types)
            rows[name] = connection.execute(
                f"INSERT INTO {identifier(name)} SELECT {columns} FROM {source.name} "  # noqa: S608 - quoted
                f"WHERE {selects(entry.key)}"
            ).fetchall()[0][0]
            carried[entry.unit] = replace(entry, content_sha256="", rows=rows, hashes={})
    return carried


def totals_of(books: Iterable[Entry], declared: Iterable[str]) -> dict[str, int]:
    """Rows by table, as the books say."""
    totals = dict.fromkeys(sorted(declared), 0)
    for entry in books:
        for table, rows in entry.rows.items():
            totals[table] += rows
    return totals


def check(
    connection: DuckDBPyConnection,
    fresh: Sequence[Entry],
    totals: Mapping[str, int],
    declared: Mapping[str, Declaration],
) -> None:
    """Compare the rows with the books: those of every fresh unit, and how many every table has in all.

    Raises:
        StoreError: if they differ.
    """
    counts = ", ".join(f"(SELECT count(*) FROM {identifier(table)})" for table in totals)  # noqa: S608 - quoted
    found = connection.execute(f"SELECT {counts or 0}").fetchall()[0]
    for (table, rows), there in zip(totals.items(), found, strict=bool(totals)):
        if there != rows:
            raise StoreError(f"table {table} holds {there} rows, and its units {rows}")
    keys = {table: [entry.key for entry in fresh if table in entry.rows] for table in totals}
    used = [declared[table] for table in totals if keys[table]]
    few = {table: " OR ".join(map(selects, of_table)) for table, of_table in keys.items() if len(of_table) <= FEW}
    there_are = rows_by_key(connection, used, where=few)
    for entry in fresh:
        if problems := differing(entry, there_are):
            raise StoreError("; ".join(problems))


def differing(entry: Entry, found: Mapping[RowKey, Rows]) -> list[str]:
    """How the rows of a unit differ from those that were read from its Parquet files."""
    problems = []
    for table, rows in entry.rows.items():
        there = found.get(row_key(table, entry.key), NO_ROWS)
        if there.number != rows:
            problems.append(f"table {table} holds {there.number} rows of {entry.unit}, and should hold {rows}")
        elif entry.hashes.get(table, there.hashes) != there.hashes:
            problems.append(f"table {table} holds {rows} rows of {entry.unit} that are not those of its Parquet file")
    return problems
