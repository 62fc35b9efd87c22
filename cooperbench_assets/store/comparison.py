"""Whether results.duckdb holds the rows of the partition tables.

What belongs here: comparing the file, its catalog and the partition tables. What does not: bringing them together
(``store.publish``).

A publish keeps, for every unit and table, how many rows there are, and their hashes added up. One pass over the file
then finds any row that is wrong, lacking or too many, and no Parquet file has to be decoded or sorted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import duckdb

from cooperbench_assets.store.catalog import FILE_TIME, HASHED_BY, info, read_entries
from cooperbench_assets.store.exchange import differing, row_key, rows_by_key
from cooperbench_assets.store.partition_tables import list_units, problem_of
from cooperbench_assets.store.planned import keeps, recall
from cooperbench_assets.store.types import literal
from cooperbench_assets.store.units import parse_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from cooperbench_assets.store.catalog import Entry
    from cooperbench_assets.store.partition_tables import Listed

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison found."""

    rows: int
    """Rows of the experiment's cells in the file."""

    problems: tuple[str, ...]
    """What differs, a sentence each."""

    newer: int
    """Cells that were written after the file: the next publish takes them in."""


def compare(connection: DuckDBPyConnection, tables: Path, experiment: str) -> Comparison:
    """Compare an experiment's cells in the results store, which is open, with its partition tables.

    Raises:
        StoreError: if a plan beside the partition tables cannot be read.
    """
    entries = {name: entry for name, entry in sorted(read_entries(connection).items()) if _is_cell(name, experiment)}
    keys = {table: tuple(entry.key) for entry in entries.values() for table in entry.rows}
    rows = rows_by_key(connection, keys, dict.fromkeys(keys, f"experiment = {literal(experiment)}"))
    same_hashes = info(connection, HASHED_BY) == duckdb.__version__
    written_at = _EPOCH + timedelta(microseconds=int(info(connection, FILE_TIME) or 0))
    plans = recall(tables)
    listed = {
        unit.name: unit
        for unit in list_units(tables, experiment)
        if _is_cell(unit.name, experiment) and (unit.record is None or keeps(plans, experiment, unit.record.key))
    }
    newer = {name for name, unit in listed.items() if _is_newer(unit, written_at)}
    problems = [] if same_hashes else ["the file has no hashes of rows by this version of DuckDB: publish again"]
    for name, entry in entries.items():
        problems += differing(entry, rows) if same_hashes else ()
        problems += _differing_unit(tables, entry, listed.get(name), is_newer=name in newer)
    for name, unit in listed.items():
        if name not in entries and name not in newer:
            problems.append(unit.problem or f"{name} was not published")
    known = {row_key(table, entry.key) for entry in entries.values() for table in entry.rows}
    for key in sorted(rows.keys() - known, key=str):
        cell = ", ".join(map(str, key[1:]))
        problems.append(f"table {key[0]} holds {rows[key].number} rows that no partition table has ({cell})")
    return Comparison(sum(of_key.number for of_key in rows.values()), tuple(problems), len(newer))


def _is_cell(unit: str, experiment: str) -> bool:
    return parse_name(unit)[:2] == (experiment, "cells")


def _is_newer(unit: Listed, written_at: datetime) -> bool:
    return unit.record is not None and datetime.fromisoformat(unit.record.written_at) > written_at


def _differing_unit(tables: Path, entry: Entry, unit: Listed | None, *, is_newer: bool) -> Iterator[str]:
    """What is wrong with the partition tables of a unit that the file holds."""
    if unit is None or unit.record is None:
        problem = f"{tables / entry.unit} is gone" if unit is None else unit.problem
        yield f"{problem}; its last rows are kept"
    elif is_newer:
        return
    elif unit.record.content_sha256 != entry.content_sha256:
        yield f"{entry.unit}: its partition tables say something else than was published"
    elif problem := problem_of(tables / entry.unit, unit.record):
        yield f"{problem}; its last rows are kept"
