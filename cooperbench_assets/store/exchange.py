"""Which units of partition tables change in results.duckdb, and the exchange of their rows.

What belongs here: the comparison of partition tables, plans and the file's catalog; DELETE, INSERT and counting. What
does not: the file as a whole (``store.publish``).

All of it happens in a file that nobody else sees and that is thrown away if anything fails: a transaction is but a
piece of work whose rows fit into memory.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from cooperbench_assets.faultpoints import hit
from cooperbench_assets.store.catalog import Entry, read_entries, replace_entries
from cooperbench_assets.store.content_hash import columns_sha256
from cooperbench_assets.store.errors import StoreError, UnitError
from cooperbench_assets.store.partition_tables import list_units, opened, problem_of
from cooperbench_assets.store.planned import keeps
from cooperbench_assets.store.types import identifier, literal, sql_type
from cooperbench_assets.store.units import key_problem, parse_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from cooperbench_assets.store.planned import Plans
    from cooperbench_assets.store.schema import Table
    from cooperbench_assets.store.units import Record, Value

AT_ONCE: Final = 50
"""Units in one transaction, whose folders are held open: DuckDB keeps in memory what a transaction inserts, and a
process may open some 1,000 files."""

FEW: Final = 20
"""Units whose rows are looked for by key; of more, all rows are counted in one go, which costs less."""

EARLIER: Final = "earlier"
"""Name under which an earlier file is attached, whose rows are taken where Parquet has none that can be read."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What the partition tables and the plans ask of the store."""

    tables: Path
    plans: Plans
    found: Mapping[str, Record]
    """Units that can be read and are kept, by name."""

    unreadable: Mapping[str, str]
    """Units that cannot be read, and why."""


@dataclass(slots=True)
class Exchanged:
    """What came of it; units by name."""

    taken: dict[str, Entry] = field(default_factory=dict)
    """Units whose rows are now those of Parquet."""

    carried: dict[str, Entry] = field(default_factory=dict)
    """Units whose rows are now those of the earlier file."""

    kept: dict[str, Entry] = field(default_factory=dict)
    """Units whose rows were left alone."""

    dropped: set[str] = field(default_factory=set)
    unreadable: dict[str, str] = field(default_factory=dict)
    outdated: list[str] = field(default_factory=list)
    """Units written with other columns than are declared now: NULL stands for what they lack."""

    undeclared: set[str] = field(default_factory=set)

    @property
    def anything(self) -> bool:
        """Whether rows came or went."""
        return bool(self.taken or self.carried or self.dropped)

    @property
    def entries(self) -> dict[str, Entry]:
        """All units in the file now."""
        return {**self.kept, **self.carried, **self.taken}

    def rows(self, declared: Iterable[str]) -> dict[str, int]:
        """Rows by table."""
        totals = dict.fromkeys(sorted(declared), 0)
        for entry in self.entries.values():
            for table, rows in entry.rows.items():
                totals[table] += rows
        return totals


def survey(tables: Path, plans: Plans) -> Survey:
    """Find all units; only their pointers are read. Of two that claim the same rows, the first by name counts."""
    kept: dict[str, Record] = {}
    unreadable: dict[str, str] = {}
    owners: dict[tuple[object, ...], str] = {}
    for unit in list_units(tables):
        if unit.record is None:
            unreadable[unit.name] = unit.problem or "it cannot be read"
        elif keeps(plans, parse_name(unit.name)[0], unit.record.key):
            claims = _claims(unit.record)
            if others := sorted({owners[claim] for claim in claims & owners.keys()}):
                remedy = f"delete {tables / unit.name}"
                unreadable[unit.name] = f"{unit.name} claims the same rows as {', '.join(others)}: {remedy}"
            else:
                owners |= dict.fromkeys(claims, unit.name)
                kept[unit.name] = unit.record
    return Survey(tables, plans, kept, unreadable)


def _claims(unit: Record | Entry) -> set[tuple[str, frozenset[tuple[str, Value]]]]:
    """What selects a unit's rows: its tables, each with its key."""
    key = frozenset(unit.key.items())
    return {(table, key) for table in unit.rows}


def exchange(
    connection: DuckDBPyConnection, asked: Survey, declared: Mapping[str, Table], *, earlier: bool = False
) -> Exchanged:
    """Bring the rows of an open file up to what is asked.

    Args:
        connection: the file, with the tables `declared`.
        asked: what it should hold.
        declared: all its tables.
        earlier: whether the file is blank and the one that it replaces is attached.

    Raises:
        StoreError: if it does not hold what it should afterwards.
    """
    present = read_entries(connection)
    before = read_entries(connection, f"{EARLIER}.published", "'{}'") if earlier else present
    done = Exchanged(dropped=_dropped(asked, before))
    done.undeclared = {unit for unit, record in asked.found.items() if record.tables.keys() - declared.keys()}
    due = [
        unit
        for unit, record in asked.found.items()
        if unit not in done.undeclared
        and (unit not in present or present[unit].content_sha256 != record.content_sha256)
    ]
    _delete(connection, [present[unit] for unit in done.dropped & present.keys()])
    for some in _some(due):
        _take(connection, asked.tables, some, declared, present, done)
    left = {unit: entry for unit, entry in before.items() if unit not in done.taken.keys() | done.dropped}
    if earlier:
        done.carried = _carry(connection, left.values(), declared)
    else:
        done.kept = left
    gone = {unit: f"{asked.tables / unit} is gone" for unit in left.keys() - asked.found.keys()}
    done.unreadable = dict(sorted({**gone, **asked.unreadable, **done.unreadable}.items()))
    if done.anything:
        _check(connection, done, declared)
        replace_entries(connection, done.taken.keys() | done.dropped, [*done.taken.values(), *done.carried.values()])
    return done


def _dropped(asked: Survey, before: Mapping[str, Entry]) -> set[str]:
    """Units whose rows leave: no plan keeps them, or they are those of another unit."""
    claimed = {claim for record in asked.found.values() for claim in _claims(record)}
    return {
        unit
        for unit, entry in before.items()
        if not keeps(asked.plans, entry.experiment, entry.key)
        or key_problem(unit, entry.key)
        or (unit not in asked.found and claimed & _claims(entry))
    }


def _take(
    connection: DuckDBPyConnection,
    tables: Path,
    units: Sequence[str],
    declared: Mapping[str, Table],
    present: Mapping[str, Entry],
    done: Exchanged,
) -> None:
    """Put the rows of units' Parquet files, as these are by now, in place of their rows in the file.

    A unit that cannot be read keeps the rows it has.
    """
    with ExitStack() as stack:
        held = list(_hold(tables, units, declared, stack, done))
        connection.begin()
        _delete(connection, [present[record.unit] for record, _ in held if record.unit in present])
        hit("publish:some-deleted")
        _insert(connection, held, declared, done)
        connection.commit()
        hit("publish:some-inserted")
    for record, _ in held:
        done.taken[record.unit] = Entry(record.unit, record.content_sha256, record.key, record.rows)


def _hold(
    tables: Path, units: Iterable[str], declared: Mapping[str, Table], stack: ExitStack, done: Exchanged
) -> Iterator[tuple[Record, Path]]:
    """Hold the content folders of units until they are read; those that cannot be read are named."""
    for unit in units:
        folder = tables / unit
        try:
            record, content = stack.enter_context(opened(folder))
        except FileNotFoundError:
            done.unreadable[unit] = f"{folder} is gone"
        except UnitError as error:
            done.unreadable[unit] = str(error)
        else:
            unknown = ", ".join(sorted(record.tables.keys() - declared.keys()))
            problem = f"{unit} has tables that nobody declares: {unknown}" if unknown else problem_of(folder, record)
            if problem is None:
                yield record, content
            else:
                done.unreadable[unit] = problem


def _insert(
    connection: DuckDBPyConnection,
    held: Sequence[tuple[Record, Path]],
    declared: Mapping[str, Table],
    done: Exchanged,
) -> None:
    alike = {name: columns_sha256(declared[name]) for record, _ in held for name in record.tables}
    files: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for record, content in held:
        outdated = False
        for name, table in record.tables.items():
            path = literal(str(content / f"{name}.parquet"))
            like = table.columns_sha256 == alike[name]
            outdated |= not like
            files[name, "*" if like else _columns(connection, declared[name], f"read_parquet({path})")].append(path)
        if outdated:
            done.outdated.append(record.unit)
    for (name, columns), paths in sorted(files.items()):
        source = f"SELECT {columns} FROM read_parquet([{', '.join(paths)}])"  # noqa: S608 - quoted
        connection.execute(f"INSERT INTO {identifier(name)} BY NAME {source}")


def _columns(connection: DuckDBPyConnection, table: Table, source: str) -> str:
    """A table's columns out of a source with other ones: NULL for what it lacks or cannot give."""
    there = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE FROM {source}").fetchall()}
    selected = []
    for column in table.columns:
        name, wanted = identifier(column.name), sql_type(column.dtype)
        value = f"TRY_CAST({name}::VARCHAR AS {wanted})" if column.name in there else "NULL"
        selected.append(name if there.get(column.name) == wanted else f"{value} AS {name}")
    return ", ".join(selected)


def _carry(connection: DuckDBPyConnection, entries: Iterable[Entry], declared: Mapping[str, Table]) -> dict[str, Entry]:
    """Copy rows of units from the earlier file.

    Returns:
        their entries, with the rows that were there, and without a content hash: what was there may not be what was
        published, so that the unit is taken anew once it can be read.
    """
    carried = {}
    for entry in entries:
        rows = {}
        for name in sorted(entry.rows.keys() & declared.keys()):
            source = f"{EARLIER}.{identifier(name)}"
            columns = _columns(connection, declared[name], source)
            sql = f"INSERT INTO {identifier(name)} SELECT {columns} FROM {source} WHERE {_selects(entry.key)}"  # noqa: S608 - quoted
            rows[name] = connection.execute(sql).fetchall()[0][0]
        if rows or not entry.rows:
            carried[entry.unit] = replace(entry, content_sha256="", rows=rows)
    return carried


def _delete(connection: DuckDBPyConnection, entries: Collection[Entry]) -> None:
    for table in sorted({table for entry in entries for table in entry.rows}):
        keys = [_selects(entry.key) for entry in entries if table in entry.rows]
        for some in _some(keys):
            connection.execute(f"DELETE FROM {identifier(table)} WHERE {' OR '.join(some)}")  # noqa: S608 - quoted


def _some(items: Sequence[str]) -> Iterator[Sequence[str]]:
    return (items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE))


def _selects(key: Mapping[str, Value]) -> str:
    """SQL for the rows that carry a key."""
    terms = (f"{identifier(name)} {'IS' if value is None else '='} {literal(value)}" for name, value in key.items())
    return f"({' AND '.join(terms)})"


RowKey: TypeAlias = tuple[str | None, ...]
"""A table's name, and the values of its key columns as text, in the order of the columns' names."""


class Rows(NamedTuple):
    """Rows of one key in one table."""

    number: int
    hashes: str
    """The hash of every row, added up: two sets of rows that differ at all differ in it, but for 1 in 2⁶⁴."""


NO_ROWS: Final = Rows(0, "0")


def rows_by_key(
    connection: DuckDBPyConnection, keys: Mapping[str, Iterable[str]], where: Mapping[str, str]
) -> dict[RowKey, Rows]:
    """How many rows there are of every key, and their hashes added up, whatever their order.

    Args:
        connection: the file.
        keys: the key columns, by table.
        where: SQL conditions by table.
    """
    parts = []
    for table, key in sorted(keys.items()):
        columns = ", ".join(f"{identifier(column)}::VARCHAR" for column in sorted(key))
        parts.append(
            f"SELECT {literal(table)}, [{columns}], count(*), sum(hash(_row))::VARCHAR "  # noqa: S608 - quoted
            f"FROM {identifier(table)} AS _row WHERE {where.get(table, 'true')} GROUP BY ALL"
        )
    found = connection.execute(" UNION ALL ".join(parts)).fetchall() if parts else []
    return {(table, *key): Rows(number, hashes) for table, key, number, hashes in found}


def row_key(table: str, key: Mapping[str, Value]) -> RowKey:
    """A unit's key in one of its tables, as `rows_by_key` gives it."""
    return (table, *(None if key[column] is None else str(key[column]) for column in sorted(key)))


def _check(connection: DuckDBPyConnection, done: Exchanged, declared: Mapping[str, Table]) -> None:
    """Count the rows of every table and of every unit that was taken, and note the hashes of these.

    Raises:
        StoreError: if they are not as many as the units say.
    """
    totals = done.rows(declared)
    counts = [f"SELECT {literal(table)}, count(*) FROM {identifier(table)}" for table in totals]  # noqa: S608 - quoted
    for table, there in connection.execute(" UNION ALL ".join(counts)).fetchall() if counts else ():
        if there != (rows := totals[table]):
            raise StoreError(f"table {table} holds {there} rows, and its units {rows}")
    taken: defaultdict[str, list[str]] = defaultdict(list)
    for entry in done.taken.values():
        for table in entry.rows:
            taken[table].append(_selects(entry.key))
    few = {table: " OR ".join(keys) for table, keys in taken.items() if len(keys) <= FEW}
    there_are = rows_by_key(connection, {table: declared[table].key for table in taken}, few)
    for unit, entry in done.taken.items():
        if problems := differing(entry, there_are):
            raise StoreError("; ".join(problems))
        hashes = {table: there_are.get(row_key(table, entry.key), NO_ROWS).hashes for table in entry.rows}
        done.taken[unit] = replace(entry, hashes=hashes)


def differing(entry: Entry, found: Mapping[RowKey, Rows]) -> list[str]:
    """How the rows of a unit differ from those that were published."""
    problems = []
    for table, rows in entry.rows.items():
        there = found.get(row_key(table, entry.key), NO_ROWS)
        if there.number != rows:
            problems.append(f"table {table} holds {there.number} rows of {entry.unit}, and should hold {rows}")
        elif entry.hashes.get(table, there.hashes) != there.hashes:
            problems.append(f"table {table} holds {rows} rows of {entry.unit} that are not those of its Parquet file")
    return problems
