"""Whether results.duckdb holds the rows of the partition tables.

What belongs here: comparing the file, its books and the partition tables. What does not: bringing them together
(``store.publish``).

A publish keeps, for every unit and table, how many rows its Parquet file has, and their hashes added up. One pass over
the file then finds any row that is wrong, lacking or too many, and no Parquet file has to be decoded or sorted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import duckdb

from cooperbench_assets.store.catalog import read_books
from cooperbench_assets.store.exchange import HASHED_BY
from cooperbench_assets.store.layout import kept_declarations
from cooperbench_assets.store.loading import differing, row_key, rows_by_key
from cooperbench_assets.store.migrations import info
from cooperbench_assets.store.partition_tables import list_units, problem_of
from cooperbench_assets.store.planned import keeps, recall
from cooperbench_assets.store.publish import FILE_TIME
from cooperbench_assets.store.types import literal
from cooperbench_assets.store.units import parse_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from cooperbench_assets.store.catalog import Entry
    from cooperbench_assets.store.loading import RowKey, Rows
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


@dataclass(frozen=True, slots=True)
class _File:
    """What the published file holds of an experiment's cells."""

    books: Mapping[str, Entry]
    rows: Mapping[RowKey, Rows]
    written_at: datetime
    same_hashes: bool


def compare(connection: DuckDBPyConnection, tables: Path, experiment: str) -> Comparison:
    """Compare an experiment's cells in the results store, which is open, with its partition tables.

    Raises:
        StoreError: if a plan beside the partition tables cannot be read.
    """
    file = _look(connection, experiment)
    plans = recall(tables)
    listed = {
        unit.name: unit
        for unit in list_units(tables, experiment)
        if _is_cell(unit.name, experiment) and (unit.record is None or keeps(plans, experiment, unit.record.key))
    }
    newer = {name for name, unit in listed.items() if _is_newer(unit, file.written_at)}
    return Comparison(
        sum(rows.number for rows in file.rows.values()),
        (*_in_books(tables, file, listed, newer), *_beside_books(file, listed, newer)),
        len(newer),
    )


def _is_cell(unit: str, experiment: str) -> bool:
    return parse_name(unit)[:2] == (experiment, "cells")


def _look(connection: DuckDBPyConnection, experiment: str) -> _File:
    books = {name: entry for name, entry in read_books(connection).items() if _is_cell(name, experiment)}
    of_cells = {table for entry in books.values() for table in entry.rows}
    declared = [table for name, table in sorted(kept_declarations(connection).items()) if name in of_cells]
    where = dict.fromkeys(of_cells, f"experiment = {literal(experiment)}")
    return _File(
        books,
        rows_by_key(connection, declared, where=where),
        _EPOCH + timedelta(microseconds=int(info(connection, FILE_TIME) or 0)),
        info(connection, HASHED_BY) == duckdb.__version__,
    )


def _is_newer(unit: Listed, written_at: datetime) -> bool:
    return unit.record is not None and datetime.fromisoformat(unit.record.written_at) > written_at


def _in_books(tables: Path, file: _File, listed: Mapping[str, Listed], newer: set[str]) -> Iterator[str]:
    """What is wrong with the units that the file says it holds."""
    if not file.same_hashes:
        yield "the file has no hashes of rows by this version of DuckDB: publish again"
    for name, entry in sorted(file.books.items()):
        if file.same_hashes:
            yield from differing(entry, file.rows)
        unit = listed.get(name)
        if unit is None or unit.record is None:
            problem = f"{tables / name} is gone" if unit is None else unit.problem
            yield f"{problem}; its last rows are kept"
        elif name in newer:
            continue
        elif unit.record.content_sha256 != entry.content_sha256:
            yield f"{name}: its partition tables say something else than was published"
        elif problem := problem_of(tables / name, unit.record):
            yield f"{problem}; its last rows are kept"


def _beside_books(file: _File, listed: Mapping[str, Listed], newer: set[str]) -> Iterator[str]:
    """Units and rows that the file's books do not know."""
    for name, unit in sorted(listed.items()):
        if name not in file.books and name not in newer:
            yield f"{unit.problem or name + ' was not published'}"
    known = {row_key(table, entry.key) for entry in file.books.values() for table in entry.rows}
    for key in sorted(file.rows.keys() - known, key=str):
        cell = ", ".join(map(str, key[1:]))
        yield f"table {key[0]} holds {file.rows[key].number} rows that no partition table has ({cell})"
