"""What a materialisation says of itself in the UI: figures that plot over time, and tables to read.

What belongs here: metadata made from frames. What does not: what the figures mean (``store.rows``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from cooperbench_assets.store.rows import cell_counts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cooperbench_assets.benchmark.pairs import Subset
    from cooperbench_assets.checks.finding import CellView
    from cooperbench_assets.store.schema import Table

ATTENTION = 25
"""Rows of the table of pairs that need attention; the rest are counted."""

_TYPES = {pl.String: "string", pl.Boolean: "bool", pl.Int32: "int", pl.Int64: "int", pl.Float64: "float"}


def column_schema(table: Table) -> dg.TableSchema:
    """A table's columns, types and meanings, as the UI shows them."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                column.name,
                type=next((name for dtype, name in _TYPES.items() if column.dtype == dtype), str(column.dtype)),
                description=column.description,
            )
            for column in table.columns
        ]
    )


def cell_metadata(view: CellView) -> dict[str, Any]:
    """Figures of one cell, its provenance in short, and the pairs that need attention."""
    counts = cell_counts(view.pairs)
    provenance = view.frames["provenance"].row(0, named=True)
    metadata: dict[str, Any] = {name: _settled(value) for name, value in counts.items() if value is not None}
    for name in ("model", "agent", "harness_version", "merge_policy", "origin"):
        if provenance[name] is not None:
            metadata[name] = provenance[name]
    metadata["run_folder"] = dg.MetadataValue.path(str(view.reading.run_dir))
    metadata["quarantined"] = view.frames["quarantine"].height
    if (rows := _attention(view)).height:
        metadata["pairs_that_need_attention"] = table_value(rows.head(ATTENTION))
        metadata["need_attention"] = rows.height
    if view.frames["quarantine"].height:
        metadata["quarantine"] = table_value(
            view.frames["quarantine"].select("path", "kind", "message", "remedy").head(ATTENTION)
        )
    return metadata


def _settled(value: float) -> float:
    """A sum without the last digits that only its order of adding decides."""
    return round(value, 6) if isinstance(value, float) else value


def _attention(view: CellView) -> pl.DataFrame:
    """Pairs without a verdict, or with one that should not be trusted; the worst first."""
    order = {"missing": 0, "unevaluated": 1, "infra_error": 2}
    rows = view.pairs.filter(~pl.col("outcome").is_in(["pass", "fail"]) | pl.col("suspect") | pl.col("stale"))
    return rows.sort(pl.col("outcome").replace_strict(order, default=3), "pair").select(
        "pair",
        "outcome",
        "stage",
        "family",
        "retryable",
        "suspect",
        pl.col("evidence").str.slice(0, 200),
        "path",
    )


def subset_metadata(subset: Subset) -> dict[str, Any]:
    """How many pairs, tasks and repositories a subset has, and which."""
    tasks = pl.DataFrame(
        {"repo": [pair.repo for pair in subset.pairs], "task_id": [pair.task_id for pair in subset.pairs]}
    )
    by_task = tasks.group_by("repo", "task_id").agg(pl.len().alias("pairs")).sort("repo", "task_id")
    return {
        "subset": subset.name,
        "pairs": len(subset.pairs),
        "tasks": by_task.height,
        "repositories": by_task["repo"].n_unique(),
        "sha256": subset.sha256,
        "file": dg.MetadataValue.path(str(subset.path)),
        "pairs_by_task": table_value(by_task),
        "dagster/row_count": len(subset.pairs),
    }


def table_value(frame: pl.DataFrame) -> dg.TableMetadataValue:
    """A frame as a table in the UI; values are numbers, booleans or text."""
    records = [
        dg.TableRecord({name: _plain(value) for name, value in row.items()}) for row in frame.iter_rows(named=True)
    ]
    columns = [dg.TableColumn(name) for name in frame.columns]
    return dg.MetadataValue.table(records=records, schema=dg.TableSchema(columns))


def _plain(value: object) -> str | int | float | bool | None:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def published_metadata(published: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """Figures of one experiment in the store, over its cells; the gold baseline's are no agents' results."""
    provenance = published["provenance"].filter(~pl.col("gold").fill_null(False))
    pairs = published["pairs"].join(provenance.select("setting", "seed"), on=["setting", "seed"], how="semi")
    totals = {name: value for name, value in cell_counts(pairs).items() if value is not None}
    return {
        **totals,
        "cells": provenance.height,
        "dagster/row_count": pairs.height,
    }
