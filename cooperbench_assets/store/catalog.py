"""The book of units that a results store keeps about itself: which are in it, with which content and rows.

What belongs here: reading and writing the table ``published``. What does not: the rows of results
(``store.loading``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
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

    hashes: Mapping[str, str] = field(default_factory=dict)
    """By table: the hashes of its rows added up, as this version of DuckDB hashes them; empty where not known."""

    @property
    def experiment(self) -> str:
        """The experiment it belongs to."""
        return parse_name(self.unit)[0]

    @classmethod
    def of(cls, record: Record, hashes: Mapping[str, str]) -> Entry:
        """The entry of a unit as its folder says, with the hashes of its rows."""
        return cls(record.unit, record.content_sha256, record.key, record.rows, hashes)


def read_books(connection: DuckDBPyConnection, catalog: str = "") -> dict[str, Entry]:
    """The units in an open file, by name; `catalog` is ``old.`` for an attached one, which may be of any layout."""
    rows = connection.execute(f"SELECT * FROM {catalog}published")  # noqa: S608 - a constant
    columns = [column[0] for column in rows.description or ()]
    return {row["unit"]: _entry(row) for values in rows.fetchall() if (row := dict(zip(columns, values, strict=True)))}


def _entry(row: Mapping[str, str]) -> Entry:
    return Entry(
        row["unit"],
        row["content_sha256"],
        msgspec.json.decode(row["key"], type=dict[str, str | int | None]),
        msgspec.json.decode(row["rows"], type=dict[str, int]),
        msgspec.json.decode(row.get("row_hashes") or "{}", type=dict[str, str]),
    )


def forget_hashes(connection: DuckDBPyConnection) -> None:
    """Take the hashes of rows out of the books, because this version of DuckDB may hash otherwise."""
    connection.execute("UPDATE published SET row_hashes = '{}'")


def strike(connection: DuckDBPyConnection, units: Iterable[str]) -> None:
    """Take units out of the books."""
    if names := list(units):
        connection.execute("DELETE FROM published WHERE unit IN (SELECT unnest(?))", [names])


def enter(connection: DuckDBPyConnection, entries: Iterable[Entry]) -> None:
    """Put units into the books; they must not be there."""
    now = datetime.now(UTC).replace(tzinfo=None)
    rows = [
        (entry.unit, entry.content_sha256, _json(entry.key), _json(entry.rows), _json(entry.hashes), now)
        for entry in sorted(entries, key=lambda entry: entry.unit)
    ]
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        connection.execute(
            "INSERT INTO published (unit, content_sha256, key, rows, row_hashes, published_at) "
            "SELECT unnest(?), unnest(?), unnest(?), unnest(?), unnest(?), unnest(?)",
            columns,
        )


def _json(mapping: Mapping[str, Value]) -> str:
    return msgspec.json.encode(mapping).decode()


def content_of(entries: Iterable[Entry]) -> str:
    """Hash of all that is in a store, whenever and in whichever order it was published."""
    lines = sorted(f"{entry.unit} {entry.content_sha256}\n" for entry in entries)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
