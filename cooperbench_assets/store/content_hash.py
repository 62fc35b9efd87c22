"""Hashes of what tables say, whatever file, process or library version holds it.

What belongs here: the byte form that is hashed. What does not: files (``store.partition_tables``).

The hash is over table names, column names, types and values in row order, but for a table's volatile columns.
What is hashed does not depend on polars or Parquet: each column as the standard library writes it as JSON, where a
number has the shortest text that gives it back.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, cast

import polars as pl

from cooperbench_assets.store.types import sql_type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cooperbench_assets.store.schema import Table


def columns_sha256(table: Table) -> str:
    """Hash of a table's column names and SQL types, in order."""
    columns = [(column.name, sql_type(column.dtype)) for column in table.columns]
    return hashlib.sha256(json.dumps(columns).encode()).hexdigest()


def content_sha256(frames: Sequence[tuple[Table, pl.DataFrame]]) -> str:
    """Hash of the content of one unit's tables, whatever order they are given in."""
    digest = hashlib.sha256()
    for table, frame in sorted(frames, key=lambda item: item[0].name):
        kept = [column for column in table.columns if column.name not in table.volatile]
        head = [table.name, frame.height, [(column.name, sql_type(column.dtype)) for column in kept]]
        digest.update(json.dumps(head).encode())
        for column in kept:
            digest.update(_text_of(frame[column.name]).encode())
    return digest.hexdigest()


def _text_of(series: pl.Series) -> str:
    """A column as JSON; times and dates as the whole numbers that stand for them."""
    plain = series.to_physical() if _holds_times(series.dtype) else series
    return json.dumps(plain.to_list(), ensure_ascii=False, separators=(",", ":"))


def _holds_times(dtype: pl.DataType) -> bool:
    return _holds_times(cast("pl.DataType", dtype.inner)) if isinstance(dtype, pl.List) else dtype.is_temporal()
