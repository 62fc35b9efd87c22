"""What results.duckdb consists of, as the statements that make a blank file one.

What belongs here: CREATE and COMMENT ON. What does not: rows (``store.exchange``) and the store's notes
(``store.catalog``).

The file is derived, so nothing is ever altered in it: where these statements change, it is built anew from Parquet.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from cooperbench_assets.store.schema import SCHEMA_VERSION
from cooperbench_assets.store.types import identifier, literal, sql_type
from cooperbench_assets.store.views import VIEWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cooperbench_assets.store.schema import Table

_OWN: Final = {
    # Earlier programs look for the version here, and refuse a later one than they know.
    "schema_migrations": ("version INTEGER, name VARCHAR, applied_at TIMESTAMP", "Version of this file's layout"),
    "store_info": ("name VARCHAR, value VARCHAR", "What the store notes about this file"),
    "published": (
        "unit VARCHAR, content_sha256 VARCHAR, key VARCHAR, rows VARCHAR, published_at TIMESTAMP, row_hashes VARCHAR",
        "One row for every unit of partition tables in this file",
    ),
}
"""Columns and meaning of the tables that the store keeps for itself."""

_PUBLISHED: Final = {
    "unit": "Path of the unit below the partition tables",
    "content_sha256": "Hash of what its tables say",
    "key": "Columns and values that select its rows, as JSON",
    "rows": "Rows by table, as JSON",
    "published_at": "When its rows were last replaced, UTC",
    "row_hashes": "Hashes of its rows added up by table, as JSON; comparable within one version of DuckDB",
}


def by_name(tables: Iterable[Table]) -> dict[str, Table]:
    """Declared tables by name.

    Raises:
        ValueError: for a name that is taken, or a key that is no column.
    """
    taken = {*_OWN, *(view.name for view in VIEWS)}
    declared: dict[str, Table] = {}
    for table in tables:
        if table.name in taken or table.name in declared:
            raise ValueError(f"the store already has a table or view {table.name!r}; rename one")
        if unknown := set(table.key) - {column.name for column in table.columns}:
            raise ValueError(f"table {table.name!r} has no column {', '.join(sorted(unknown))}, its key")
        declared[table.name] = table
    return declared


def statements(declared: Mapping[str, Table]) -> list[str]:
    """The SQL that makes a blank file a results store without rows.

    Raises:
        ValueError: for a column of a type that the store does not hold.
    """
    made = [f"CREATE TABLE {name} ({columns})" for name, (columns, _) in _OWN.items()]
    made += [_comment("TABLE", [name], meaning) for name, (_, meaning) in _OWN.items()]
    made += [_comment("COLUMN", ["published", name], meaning) for name, meaning in _PUBLISHED.items()]
    made.append(f"INSERT INTO schema_migrations (version, name) VALUES ({SCHEMA_VERSION}, 'built')")  # noqa: S608 - a number
    for table in declared.values():
        columns = ", ".join(f"{identifier(column.name)} {sql_type(column.dtype)}" for column in table.columns)
        made.append(f"CREATE TABLE {identifier(table.name)} ({columns})")
        made.append(_comment("TABLE", [table.name], table.description))
        made += [_comment("COLUMN", [table.name, column.name], column.description) for column in table.columns]
    for view in VIEWS:
        if view.needs <= declared.keys():
            made.append(f"CREATE VIEW {identifier(view.name)} AS {view.sql}")
            made.append(_comment("VIEW", [view.name], view.description))
            made += [_comment("COLUMN", [view.name, column.name], column.description) for column in view.columns]
    return made


def _comment(kind: str, names: Sequence[str], meaning: str) -> str:
    return f"COMMENT ON {kind} {'.'.join(map(identifier, names))} IS {literal(meaning)}"


def fingerprint(declared: Mapping[str, Table]) -> str:
    """Hash of all that makes the file, its rows apart."""
    return hashlib.sha256("\n".join(statements(declared)).encode()).hexdigest()
