"""The book of units that a results store keeps about itself: which are in it, with which content and rows.

What belongs here: reading and writing the table ``published``. What does not: the rows of results
(``store.loading``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from cooperbench_assets.store.units import Value, parse_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from duckdb import DuckDBPyConnection

    from cooperbench_assets.store.units import Record


@dataclass(frozen=True, slots=True)
class Entry:
    """A unit whose rows are in the file."""

    unit: str
    content_sha256: str
    key: Mapping[str, Value]
    rows: Mapping[str, int]
    """Rows by table."""

    @property
    def experiment(self) -> str:
        """The experiment it belongs to."""
        return parse_name(self.unit)[0]

    @classmethod
    def of(cls, record: Record) -> Entry:
        """The entry of a unit as its folder says."""
        return cls(record.unit, record.content_sha256, record.key, record.rows)


def read_books(connection: DuckDBPyConnection, catalog: str = "") -> dict[str, Entry]:
    """The units in an open file, by name; `catalog` is ``old.`` for an attached one."""
    rows = connection.execute(
        f"SELECT unit, content_sha256, key, rows FROM {catalog}published"  # noqa: S608 - a constant
    ).fetchall()
    return {
        unit: Entry(
            unit,
            content,
            msgspec.json.decode(key, type=dict[str, str | int | None]),
            msgspec.json.decode(counts, type=dict[str, int]),
        )
        for unit, content, key, counts in rows
    }


def strike(connection: DuckDBPyConnection, units: Iterable[str]) -> None:
    """Take units out of the books."""
    if names := list(units):
        connection.execute("DELETE FROM published WHERE unit IN (SELECT unnest(?))", [names])


def enter(connection: DuckDBPyConnection, entries: Iterable[Entry]) -> None:
    """Put units into the books; they must not be there."""
    now = datetime.now(UTC).replace(tzinfo=None)
    rows = [
        (entry.unit, entry.content_sha256, _json(entry.key), _json(entry.rows), now)
        for entry in sorted(entries, key=lambda entry: entry.unit)
    ]
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        connection.execute(
            "INSERT INTO published (unit, content_sha256, key, rows, published_at) "
            "SELECT unnest(?), unnest(?), unnest(?), unnest(?), unnest(?)",
            columns,
        )


def _json(mapping: Mapping[str, Value]) -> str:
    return msgspec.json.encode(mapping).decode()


def content_of(entries: Iterable[Entry]) -> str:
    """Hash of all that is in a store, whenever and in whichever order it was published."""
    lines = sorted(f"{entry.unit} {entry.content_sha256}\n" for entry in entries)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
