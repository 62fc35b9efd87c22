"""What a publish does inside its transaction: choose the units that change, and exchange their rows.

What belongs here: the comparison of partition tables, plans and books. What does not: files
(``store.publish``) and SQL on rows (``store.loading``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import duckdb

from cooperbench_assets.store import loading
from cooperbench_assets.store.catalog import Entry, enter, forget_hashes, read_books, strike
from cooperbench_assets.store.layout import BEFORE, drop_set_aside, kept_declarations, lay_out
from cooperbench_assets.store.loading import Source
from cooperbench_assets.store.migrations import info, migrate
from cooperbench_assets.store.partition_tables import list_units
from cooperbench_assets.store.planned import keeps
from cooperbench_assets.store.types import identifier
from cooperbench_assets.store.units import key_problem, parse_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from cooperbench_assets.store.layout import Declaration
    from cooperbench_assets.store.planned import Plans
    from cooperbench_assets.store.units import Record, Value


HASHED_BY: Final = "hashed_by"
"""Note in the file: the version of DuckDB that made the hashes in its books."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What the partition tables and the plans ask of the store."""

    tables: Path
    plans: Plans
    found: Mapping[str, Record]
    """Units that can be read and are kept, by name."""

    unreadable: Mapping[str, str]
    """Units that cannot be read, and why."""


@dataclass(frozen=True, slots=True)
class Before:
    """An earlier file, attached, whose rows are taken where Parquet has none that can be read."""

    declared: Mapping[str, Declaration]
    books: Mapping[str, Entry]
    sources: Mapping[str, Source]


NOTHING_BEFORE = Before({}, {}, {})


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What came of it."""

    anything: bool
    """Whether the file differs from what it was."""

    changed: tuple[str, ...]
    dropped: tuple[str, ...]
    unreadable: Mapping[str, str]
    outdated: tuple[str, ...]
    undeclared: tuple[str, ...]
    rows: Mapping[str, int]
    entries: tuple[Entry, ...]
    """All units in the file now."""


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


def bring_up(
    connection: DuckDBPyConnection, asked: Survey, declared: Mapping[str, Declaration], version: int
) -> Exchanged:
    """Bring a file that we published, of layout `version`, up to what is asked, in the caller's transaction."""
    migrated = migrate(connection, version)
    declared = {**kept_declarations(connection), **declared}
    layout = lay_out(connection, declared)
    if info(connection, HASHED_BY) != duckdb.__version__:
        forget_hashes(connection)
    books = read_books(connection)
    sources = {name: _source(identifier(name + BEFORE), table) for name, table in layout.aside.items()}
    done = _settle(connection, asked, declared, Before(declared, books, sources), present=books)
    drop_set_aside(connection, layout.aside)
    return replace(done, anything=done.anything or bool(migrated) or layout.changed)


def fill(
    connection: DuckDBPyConnection,
    asked: Survey,
    declared: Mapping[str, Declaration],
    before: Before = NOTHING_BEFORE,
) -> Exchanged:
    """Fill a blank file with what is asked, in several transactions, of which the caller's is the first and the last.

    A file that was blank is thrown away if anything fails: nothing of it needs to be taken back.
    """

    def keep() -> None:
        connection.commit()
        connection.execute("CHECKPOINT")
        connection.begin()

    migrate(connection, 0)
    declared = {**before.declared, **declared}
    lay_out(connection, declared)
    return replace(_settle(connection, asked, declared, before, present={}, keep=keep), anything=True)


def read_before(connection: DuckDBPyConnection, catalog: str) -> Before:
    """What an attached earlier file holds."""
    declared = kept_declarations(connection, f"{catalog}.")
    sources = {name: _source(f"{catalog}.{identifier(name)}", table) for name, table in declared.items()}
    return Before(declared, read_books(connection, f"{catalog}."), sources)


def _source(name: str, table: Declaration) -> Source:
    return Source(name, {column.name: column.type for column in table.columns})


def _settle(
    connection: DuckDBPyConnection,
    asked: Survey,
    declared: Mapping[str, Declaration],
    before: Before,
    *,
    present: Mapping[str, Entry],
    keep: Callable[[], None] | None = None,
) -> Exchanged:
    """Exchange what differs.

    Args:
        connection: the file.
        asked: what it should hold.
        declared: all its tables.
        before: units that are or were in a file, and where their rows are that this file's tables lack.
        present: units that are in this file, but for their rows in `before.sources`.
        keep: commits, so that DuckDB need not hold everything in memory.
    """
    undeclared = {unit for unit, record in asked.found.items() if record.tables.keys() - declared.keys()}
    dropped = _dropped(asked, before.books)
    due = [
        unit
        for unit, record in asked.found.items()
        if unit not in undeclared and _differs(record, present.get(unit), before.sources)
    ]
    loading.delete(connection, [present[unit] for unit in dropped & present.keys()], besides=before.sources)
    loaded = loading.exchange(connection, asked.tables, due, declared, present, before.sources, keep)
    taken = {entry.unit: entry for entry in loaded.entries}
    kept = {unit: entry for unit, entry in before.books.items() if unit not in taken.keys() | dropped}
    carried = loading.carry(connection, kept.values(), before.sources, declared)
    strike(connection, taken.keys() | dropped | carried.keys())
    enter(connection, [*taken.values(), *carried.values()])
    gone = {unit: f"{asked.tables / unit} is gone" for unit in kept.keys() - asked.found.keys()}
    entries = (*{**kept, **carried, **taken}.values(),)
    rows = loading.totals_of(entries, declared)
    anything = bool(taken or dropped or carried)
    if anything:
        loading.check(connection, loaded.entries, rows, declared)
    return Exchanged(
        anything=anything,
        changed=tuple(sorted(taken)),
        dropped=tuple(sorted(dropped)),
        unreadable=dict(sorted({**gone, **asked.unreadable, **loaded.problems}.items())),
        outdated=tuple(loaded.outdated),
        undeclared=tuple(sorted(undeclared)),
        rows=rows,
        entries=entries,
    )


def _dropped(asked: Survey, books: Mapping[str, Entry]) -> set[str]:
    """Units whose rows leave: no plan keeps them, or they are those of another unit."""
    claimed = {claim for record in asked.found.values() for claim in _claims(record)}
    return {
        unit
        for unit, entry in books.items()
        if not keeps(asked.plans, entry.experiment, entry.key)
        or key_problem(unit, entry.key)
        or (unit not in asked.found and claimed & _claims(entry))
    }


def _differs(record: Record, entry: Entry | None, moved: Mapping[str, Source]) -> bool:
    """Whether a unit's rows must be put in: it is new, says something else, or one of its tables is empty.

    Its rows are put in too where their hashes are not known, or are those of another version of DuckDB.
    """
    if entry is None or entry.content_sha256 != record.content_sha256:
        return True
    return bool(record.tables.keys() & moved.keys() or record.tables.keys() - entry.hashes.keys())
