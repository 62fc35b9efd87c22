"""What results.duckdb says about itself: its version, its notes, and which units are in it with which content.

What belongs here: reading and writing ``schema_migrations``, ``store_info`` and ``published``. What does not: the rows
of results (``store.exchange``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import duckdb
import msgspec

from cooperbench_assets.store.errors import StoreTooNewError
from cooperbench_assets.store.schema import SCHEMA_VERSION
from cooperbench_assets.store.units import Value, parse_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from duckdb import DuckDBPyConnection

FILE_TIME: Final = "file_time_us"
"""Note: the time of the file's last change, microseconds since 1970. A unit written later is not in it."""

HASHED_BY: Final = "hashed_by"
"""Note: the version of DuckDB that made the hashes of rows; another one may hash otherwise."""

LAYOUT: Final = "layout"
"""Note: the hash of all that made the file, as `store.layout.fingerprint` gives it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A unit whose rows are in the file."""

    unit: str
    content_sha256: str
    """Empty where its rows come from an earlier file, and may not be what was published."""

    key: Mapping[str, Value]
    rows: Mapping[str, int]
    """Rows by table."""

    hashes: Mapping[str, str] = field(default_factory=dict)
    """By table: the hashes of its rows added up, as this version of DuckDB hashes them; empty where not known."""

    @property
    def experiment(self) -> str:
        """The experiment it belongs to."""
        return parse_name(self.unit)[0]


def read_entries(
    connection: DuckDBPyConnection, table: str = "published", hashes: str = "row_hashes"
) -> dict[str, Entry]:
    """The units in an open file, by name.

    Args:
        connection: the file.
        table: where it says so, as SQL: the catalog of another file that is attached.
        hashes: the column with the hashes of rows, as SQL; ``'{}'`` where they count for nothing.
    """
    rows = connection.execute(f"SELECT unit, content_sha256, key, rows, {hashes} FROM {table}").fetchall()  # noqa: S608 - constants
    return {
        unit: Entry(
            unit,
            content,
            msgspec.json.decode(key, type=dict[str, str | int | None]),
            msgspec.json.decode(rows_of, type=dict[str, int]),
            msgspec.json.decode(hashes_of, type=dict[str, str]),
        )
        for unit, content, key, rows_of, hashes_of in rows
    }


def replace_entries(connection: DuckDBPyConnection, removed: Collection[str], added: Iterable[Entry]) -> None:
    """Take units out of the catalog, and put others in."""
    connection.execute("DELETE FROM published WHERE unit IN (SELECT unnest(?))", [list(removed)])
    now = datetime.now(UTC).replace(tzinfo=None)
    rows = [
        (entry.unit, entry.content_sha256, *map(_json, (entry.key, entry.rows, entry.hashes)), now)
        for entry in sorted(added, key=lambda entry: entry.unit)
    ]
    if rows:
        connection.execute(
            "INSERT INTO published (unit, content_sha256, key, rows, row_hashes, published_at) "
            "SELECT unnest(?), unnest(?), unnest(?), unnest(?), unnest(?), unnest(?)",
            [list(column) for column in zip(*rows, strict=True)],
        )


def _json(mapping: Mapping[str, Value]) -> str:
    return msgspec.json.encode(mapping).decode()


def content_of(entries: Iterable[Entry]) -> str:
    """Hash of all that is in a store, whenever and in whichever order it was published."""
    lines = sorted(f"{entry.unit} {entry.content_sha256}\n" for entry in entries)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def info(connection: DuckDBPyConnection, name: str) -> str | None:
    """What the store noted in an open file under a name."""
    rows = connection.execute("SELECT value FROM store_info WHERE name = ?", [name]).fetchall()
    return str(rows[0][0]) if rows else None


def note(connection: DuckDBPyConnection, name: str, value: str) -> None:
    """Note something in an open file, in place of what was noted under that name."""
    connection.execute("DELETE FROM store_info WHERE name = ?", [name])
    connection.execute("INSERT INTO store_info (name, value) VALUES (?, ?)", [name, value])


def checked_version(connection: DuckDBPyConnection) -> int:
    """Version of an open file's layout; 0 for one that is no results store.

    Raises:
        StoreTooNewError: if it is of a later version than this code.
    """
    try:
        version = int(connection.execute("SELECT coalesce(max(version), 0) FROM schema_migrations").fetchall()[0][0])
    except duckdb.CatalogException:
        return 0
    if version > SCHEMA_VERSION:
        raise StoreTooNewError(
            f"the results store has layout {version}, and this cooperbench-assets knows up to {SCHEMA_VERSION}: "
            "update cooperbench-assets, or move the file away and publish again (it is made anew from Parquet)"
        )
    return version
