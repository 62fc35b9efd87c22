"""Tables and views of results.duckdb as they are declared: made, compared, described.

What belongs here: CREATE, COMMENT ON and DROP of what holds results. What does not: rows (``store.loading``)
and the store's own books (``store.migrations``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from cooperbench_assets.store.content_hash import columns_sha256
from cooperbench_assets.store.migrations import BOOKS, info, note
from cooperbench_assets.store.types import identifier, literal, sql_type
from cooperbench_assets.store.views import VIEWS, fingerprint

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from duckdb import DuckDBPyConnection

    from cooperbench_assets.store.schema import Table
    from cooperbench_assets.store.views import View

BEFORE = " (before)"
"""What is added to the name of a table while its successor is filled."""


class DeclaredColumn(msgspec.Struct, frozen=True):
    """A column as DuckDB has it."""

    name: str
    type: str
    comment: str


class Declaration(msgspec.Struct, frozen=True):
    """A table of results as DuckDB has it; kept in the file, so that the file says how it was meant."""

    name: str
    comment: str
    columns: tuple[DeclaredColumn, ...]
    key: tuple[str, ...]
    columns_sha256: str
    """As `store.content_hash.columns_sha256` gives it: what a Parquet file must have to be taken as it is."""

    def holds_like(self, other: Declaration) -> bool:
        """Whether rows of the one can stay as rows of the other: same columns and key, whatever they mean."""
        return (self.columns_sha256, self.key) == (other.columns_sha256, other.key)


@dataclass(frozen=True, slots=True)
class Layout:
    """What `lay_out` did."""

    changed: bool
    aside: Mapping[str, Declaration]
    """Tables that were set aside, as they were declared."""


def declaration(table: Table) -> Declaration:
    """What a declared table is in DuckDB."""
    columns = tuple(DeclaredColumn(column.name, sql_type(column.dtype), column.description) for column in table.columns)
    return Declaration(table.name, table.description, columns, table.key, columns_sha256(table))


def declarations(tables: Iterable[Table]) -> dict[str, Declaration]:
    """Declared tables by name.

    Raises:
        ValueError: for a name that is taken, a key that is no column, or a type that the store does not hold.
    """
    taken = {*BOOKS, *(view.name for view in VIEWS)}
    declared: dict[str, Declaration] = {}
    for table in tables:
        if table.name in taken or table.name in declared:
            raise ValueError(f"the store already has a table or view {table.name!r}; rename one")
        if strange := set(table.key) - {column.name for column in table.columns}:
            raise ValueError(f"table {table.name!r} has no column {', '.join(sorted(strange))}, its key")
        declared[table.name] = declaration(table)
    return declared


def kept_declarations(connection: DuckDBPyConnection, catalog: str = "") -> dict[str, Declaration]:
    """What the tables of an open file were declared as; `catalog` is ``old.`` for an attached one."""
    rows = connection.execute(f"SELECT declaration FROM {catalog}declarations").fetchall()  # noqa: S608 - a constant
    kept = (msgspec.json.decode(text, type=Declaration) for (text,) in rows)
    return {table.name: table for table in kept}


def lay_out(connection: DuckDBPyConnection, declared: Mapping[str, Declaration]) -> Layout:
    """Make tables and views as declared, in the caller's transaction.

    A table whose columns or key differ is set aside as ``<name> (before)`` and made anew, empty;
    `drop_set_aside` ends the old one.
    """
    kept = kept_declarations(connection)
    changed = [table for name, table in declared.items() if kept.get(name) != table]
    views = _views_over({**kept, **declared}.keys())
    if not changed and info(connection, "views") == fingerprint(views):
        return Layout(changed=False, aside={})
    _drop_views(connection)
    aside: dict[str, Declaration] = {}
    for table in changed:
        before = kept.get(table.name)
        if before is not None and not before.holds_like(table):
            aside[table.name] = before
            connection.execute(f"ALTER TABLE {identifier(table.name)} RENAME TO {identifier(table.name + BEFORE)}")
        if before is None or table.name in aside:
            _create(connection, table)
        _declare(connection, table)
    for view in views:
        _make_view(connection, view)
    note(connection, "views", fingerprint(views))
    return Layout(changed=True, aside=aside)


def _views_over(tables: Collection[str]) -> list[View]:
    return [view for view in VIEWS if view.needs <= set(tables)]


def _drop_views(connection: DuckDBPyConnection) -> None:
    names = connection.execute(
        "SELECT view_name FROM duckdb_views() WHERE NOT internal AND database_name = current_database()"
    ).fetchall()
    for (name,) in names:
        connection.execute(f"DROP VIEW {identifier(name)}")


def _make_view(connection: DuckDBPyConnection, view: View) -> None:
    name = identifier(view.name)
    connection.execute(f"CREATE VIEW {name} AS {view.sql}")
    connection.execute(f"COMMENT ON VIEW {name} IS {literal(view.description)}")
    for column in view.columns:
        connection.execute(f"COMMENT ON COLUMN {name}.{identifier(column.name)} IS {literal(column.description)}")


def drop_set_aside(connection: DuckDBPyConnection, aside: Iterable[str]) -> None:
    """Drop the tables that `lay_out` set aside."""
    for name in aside:
        connection.execute(f"DROP TABLE {identifier(name + BEFORE)}")


def _create(connection: DuckDBPyConnection, table: Declaration) -> None:
    columns = ", ".join(f"{identifier(column.name)} {column.type}" for column in table.columns)
    connection.execute(f"CREATE TABLE {identifier(table.name)} ({columns})")


def _declare(connection: DuckDBPyConnection, table: Declaration) -> None:
    """Describe a table, and keep its declaration."""
    name = identifier(table.name)
    connection.execute(f"COMMENT ON TABLE {name} IS {literal(table.comment)}")
    for column in table.columns:
        connection.execute(f"COMMENT ON COLUMN {name}.{identifier(column.name)} IS {literal(column.comment)}")
    connection.execute("DELETE FROM declarations WHERE table_name = ?", [table.name])
    text = msgspec.json.encode(table).decode()
    connection.execute("INSERT INTO declarations (table_name, declaration) VALUES (?, ?)", [table.name, text])
