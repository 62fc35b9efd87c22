"""The layout of results.duckdb by version, and how an older file becomes a present one.

What belongs here: the tables in which the store keeps its own books, one migration a change. Tables of results
need none: they are derived, so ``store.layout`` makes a table that differs from its declaration anew from
Parquet. A change that this cannot see (a table renamed, its key changed, the books themselves), or that an older
program must notice, is a migration.

A migration is frozen once released: later ones build on what it made.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import duckdb

from cooperbench_assets.store.errors import StoreTooNewError
from cooperbench_assets.store.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Migration:
    """One step from a version of the layout to the next."""

    version: int
    """The version that it leads to."""

    name: str
    statements: tuple[str, ...]
    """SQL, run in order in the transaction of the publish."""


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        1,
        "keep books",
        (
            "CREATE TABLE schema_migrations (version INTEGER, name VARCHAR, applied_at TIMESTAMP)",
            "COMMENT ON TABLE schema_migrations IS 'Migrations of this file; the highest version is its layout'",
            "CREATE TABLE store_info (name VARCHAR, value VARCHAR)",
            "COMMENT ON TABLE store_info IS 'What the store notes about this file'",
            "CREATE TABLE declarations (table_name VARCHAR, declaration VARCHAR)",
            "COMMENT ON TABLE declarations IS 'What each table of results was declared as, as JSON'",
            (
                "CREATE TABLE published "
                "(unit VARCHAR, content_sha256 VARCHAR, key VARCHAR, rows VARCHAR, published_at TIMESTAMP)"
            ),
            "COMMENT ON TABLE published IS 'One row for every unit of partition tables in this file'",
            "COMMENT ON COLUMN published.unit IS 'Path of the unit below the partition tables'",
            "COMMENT ON COLUMN published.content_sha256 IS 'Hash of what its tables say'",
            "COMMENT ON COLUMN published.key IS 'Columns and values that select its rows, as JSON'",
            "COMMENT ON COLUMN published.rows IS 'Rows by table, as JSON'",
            "COMMENT ON COLUMN published.published_at IS 'When its rows were last replaced, UTC'",
        ),
    ),
    Migration(
        2,
        "steps of messages",
        # An older program must not take a cell with steps for one of its own; rows that are here have none yet.
        ("ALTER TABLE IF EXISTS messages ADD COLUMN IF NOT EXISTS step BIGINT",),
    ),
    Migration(
        3,
        "hashes of rows, agents with tokens, gold",
        # Earlier programs took a token count of one agent for that of the pair, and gold for what is called so.
        (
            "ALTER TABLE published ADD COLUMN row_hashes VARCHAR",
            (
                "COMMENT ON COLUMN published.row_hashes IS "
                "'Hashes of its rows added up by table, as JSON; comparable within one version of DuckDB'"
            ),
        ),
    ),
)
"""All migrations, in order; the last one leads to `SCHEMA_VERSION`."""

BOOKS = ("schema_migrations", "store_info", "declarations", "published")
"""Tables that the store keeps for itself."""


def version_of(connection: DuckDBPyConnection) -> int:
    """Version of an open file's layout; 0 for one without books. Not for use in a transaction: it may fail it."""
    try:
        rows = connection.execute("SELECT max(version) FROM schema_migrations").fetchall()
    except duckdb.CatalogException:
        return 0
    return int(rows[0][0] or 0)


def info(connection: DuckDBPyConnection, name: str) -> str | None:
    """What the store noted in an open file under a name."""
    rows = connection.execute("SELECT value FROM store_info WHERE name = ?", [name]).fetchall()
    return str(rows[0][0]) if rows else None


def note(connection: DuckDBPyConnection, name: str, value: str) -> None:
    """Note something in an open file, in place of what was noted under that name."""
    connection.execute("DELETE FROM store_info WHERE name = ?", [name])
    connection.execute("INSERT INTO store_info (name, value) VALUES (?, ?)", [name, value])


def check_version(version: int) -> None:
    """Refuse a file of a later version than this code.

    Raises:
        StoreTooNewError: if it is one.
    """
    if version > SCHEMA_VERSION:
        raise StoreTooNewError(
            f"the results store has layout {version}, and this cooperbench-assets knows up to {SCHEMA_VERSION}: "
            "update cooperbench-assets, or move the file away and publish again (it is made anew from Parquet)"
        )


def migrate(connection: DuckDBPyConnection, present: int) -> list[str]:
    """Bring an open file of layout `present` up to `SCHEMA_VERSION`, in the caller's transaction.

    Returns:
        names of the migrations that were applied.

    Raises:
        StoreTooNewError: if the file is of a later version.
    """
    check_version(present)
    due = [migration for migration in MIGRATIONS if migration.version > present]
    for migration in due:
        for statement in migration.statements:
            connection.execute(statement)
        connection.execute(
            "INSERT INTO schema_migrations (version, name, applied_at) VALUES (?, ?, ?)",
            [migration.version, migration.name, datetime.now(UTC).replace(tzinfo=None)],
        )
    return [migration.name for migration in due]
