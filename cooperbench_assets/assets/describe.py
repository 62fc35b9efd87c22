"""What a materialisation says of itself in the UI: figures that plot over time, and tables to read.

What belongs here: metadata made from frames. What does not: what the figures mean (``store.counts``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import dagster as dg
import polars as pl

from cooperbench_assets.benchmark.records import TOKENS
from cooperbench_assets.store.counts import cell_counts

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cooperbench_assets.benchmark.pairs import Subset
    from cooperbench_assets.checks.finding import CellView
    from cooperbench_assets.store.schema import Table

ATTENTION = 25
"""Rows of the table of pairs that need attention; the rest are counted."""

EVIDENCE: Final = 80
"""Characters of the evidence in that table."""

AGENT_FIGURES: Final = frozenset(
    {"planned", "results", "missing", "infra_agent", "suspect", "cost_usd", "hours", *TOKENS}
)
VERDICT_FIGURES: Final = frozenset({"planned", "evals", "pass", "fail", "unevaluated", "infra_eval", "stale"})
STANDING: Final = ("outcome", "stage", "family", "retryable")

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


def run_logs_metadata(view: CellView) -> dict[str, Any]:
    """What agents left: results, cost, tokens and time. Nothing of verdicts, which come later."""
    return {
        **_figures(view, AGENT_FIGURES, ("model", "agent", "harness_version", "origin")),
        **_quarantine(view),
        **_attention(_agent_troubles(view), "has_result", "family", "retryable", "suspect"),
    }


def _agent_troubles(view: CellView) -> pl.DataFrame:
    """The pairs whose agents need attention, as they are before an evaluation says something of the pair."""
    infra_failed = (pl.col("outcome") == "infra_error") & (pl.col("stage") == "agent")
    suspects = view.frames["agents"].filter("suspect").select("pair", pl.col("evidence").alias("of_agent"))
    rows = view.pairs.filter(~pl.col("has_result") | infra_failed | pl.col("suspect"))
    return rows.join(suspects.unique("pair", keep="first"), on="pair", how="left", maintain_order="left").with_columns(
        pl.when(infra_failed | ~pl.col("has_result")).then("outcome").otherwise(pl.lit("suspect")).alias("outcome"),
        *(pl.when(infra_failed).then(name).alias(name) for name in ("family", "retryable")),
        pl.when(infra_failed).then("evidence").otherwise("of_agent").alias("evidence"),
    )


def eval_outputs_metadata(view: CellView) -> dict[str, Any]:
    """What the evaluations said. Nothing of what agents cost."""
    infra_failed = (pl.col("outcome") == "infra_error") & (pl.col("stage") == "eval")
    rows = view.pairs.filter(infra_failed | (pl.col("outcome") == "unevaluated") | pl.col("stale"))
    return {
        **_figures(view, VERDICT_FIGURES, ("harness_version", "merge_policy", "origin")),
        **_attention(rows, *STANDING),
    }


def pair_results_metadata(view: CellView) -> dict[str, Any]:
    """Figures of one cell, its provenance in short, and the pairs that need attention."""
    rows = view.pairs.filter(~pl.col("outcome").is_in(["pass", "fail"]) | pl.col("suspect") | pl.col("stale"))
    return {
        **_figures(view, None, ("model", "agent", "harness_version", "merge_policy", "origin")),
        **_quarantine(view),
        **_attention(rows, *STANDING, "suspect"),
    }


CELL_METADATA: Final = {
    "run_logs": run_logs_metadata,
    "eval_outputs": eval_outputs_metadata,
    "pair_results": pair_results_metadata,
}
"""What each asset of a cell says of it: what that asset knows."""


def _figures(view: CellView, names: Collection[str] | None, provenance: Sequence[str]) -> dict[str, Any]:
    """The named counts of a cell (all if none is named) as far as they are known, and some of its provenance."""
    counts = cell_counts(view.pairs)
    made = view.frames["provenance"].row(0, named=True)
    return {
        **{
            name: _settled(value)
            for name, value in counts.items()
            if value is not None and (names is None or name in names)
        },
        **{name: made[name] for name in provenance if made[name] is not None},
        "run_folder": dg.MetadataValue.path(str(view.reading.run_dir)),
    }


def _quarantine(view: CellView) -> dict[str, Any]:
    """What could not be taken in."""
    found = view.frames["quarantine"]
    if not found.height:
        return {"excluded": 0}
    rows = found.select("path", "kind", "message", "remedy").head(ATTENTION)
    return {"excluded": found.height, "quarantine": table_value(rows)}


def _settled(value: float) -> float:
    """A sum without the last digits that only its order of adding decides."""
    return round(value, 6) if isinstance(value, float) else value


def _attention(rows: pl.DataFrame, *columns: str) -> dict[str, Any]:
    """Pairs that need attention, the worst first, with some columns of theirs and what shows why."""
    if not rows.height:
        return {}
    order = {"missing": 0, "unevaluated": 1, "infra_error": 2}
    shown = rows.sort(pl.col("outcome").replace_strict(order, default=3), "pair").select(
        # First, and so short that a row is one line: the viewer's page of the pair, a link away, has all of it.
        pl.col("evidence").str.replace_all(r"\s+", " ").str.strip_chars().str.slice(0, EVIDENCE).alias("evidence"),
        "pair",
        *columns,
    )
    return {"pairs_that_need_attention": table_value(shown.head(ATTENTION)), "need_attention": rows.height}


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
