"""The assets of the analyses: one for each question, all made in one step from one state of the store.

What belongs here: reading the store, running the analyses, writing and publishing their tables. What does not: any
statistic (``analysis``) or figure (``report``).
"""

# No `from __future__ import annotations`: Dagster reads the annotations of an op as they are.
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import polars as pl

from cooperbench_assets import __version__
from cooperbench_assets.analysis.registry import ANALYSES, RESULT_TABLES, Analysis, run_analysis
from cooperbench_assets.assets.describe import column_schema, table_value
from cooperbench_assets.assets.keys import FOLLOWS, asset_key, group_name, op_name
from cooperbench_assets.assets.publishing import publish_tables
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.store.partition_tables import Written, write_unit
from cooperbench_assets.store.units import analysis_unit

PREVIEW = 30
"""Rows of a result table that its materialisation shows."""


def build_analysis_assets(experiment: ExperimentContext) -> dg.AssetsDefinition:
    """One asset for each analysis of an experiment; they share one step, because they share what they read."""
    keys = {analysis.name: asset_key(experiment.name, analysis.name) for analysis in ANALYSES}

    @dg.multi_asset(
        name=op_name(experiment.name, "analysis"),
        specs=[
            dg.AssetSpec(
                keys[analysis.name],
                deps=[asset_key(experiment.name, "results_store")],
                description=analysis.description,
                kinds={"polars", "duckdb"},
                group_name=group_name(experiment.name),
                metadata={"dagster/column_schema": column_schema(analysis.tables[0])},
                automation_condition=FOLLOWS,
                tags={"experiment": experiment.name},
                code_version=__version__,
            )
            for analysis in ANALYSES
        ],
        pool="results_store",
    )
    def analysis_assets() -> Iterator[dg.MaterializeResult[Any]]:
        results = run_analyses(experiment)
        written = {name: write_result(experiment, name, frame) for name, frame in results.items()}
        publish_tables(experiment)
        for analysis in ANALYSES:
            yield dg.MaterializeResult(asset_key=keys[analysis.name], metadata=_metadata(analysis, results, written))

    return analysis_assets


def run_analyses(experiment: ExperimentContext) -> dict[str, pl.DataFrame]:
    """Every result table of an experiment, from one state of the store."""
    inputs = {name for analysis in ANALYSES for name in analysis.needs}
    from cooperbench_assets.store.read import snapshot

    with snapshot(experiment.project.database) as store:
        frames = {name: store.table(name, experiment.name) for name in sorted(inputs.intersection(store.names()))}
    results: dict[str, pl.DataFrame] = {}
    for analysis in ANALYSES:
        results |= run_analysis(analysis, frames | results)
    return results


def write_result(experiment: ExperimentContext, name: str, frame: pl.DataFrame) -> Written:
    """Write a result table as the experiment's unit of that name."""
    return write_unit(
        experiment.project.tables, analysis_unit(experiment.name, name), {name: frame}, declared=RESULT_TABLES
    )


def _metadata(
    analysis: Analysis, results: Mapping[str, pl.DataFrame], written: Mapping[str, Written]
) -> dict[str, Any]:
    """Row counts and the first rows of each of an analysis's tables."""
    metadata: dict[str, Any] = {
        "dagster/row_count": results[analysis.tables[0].name].height,
        "changed": any(written[table.name].changed for table in analysis.tables),
    }
    for table in analysis.tables:
        shown = results[table.name].drop("experiment", strict=False).head(PREVIEW)
        metadata[table.name] = table_value(shown)
    return metadata
