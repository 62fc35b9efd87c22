"""The assets of a cell: run_logs, eval_outputs and pair_results, one partition a planned cell.

What belongs here: how they are declared, and what a materialisation does in which order. What does not: how cells are
read and reported (``reading``), how pairs are run (``execution``).
"""

# No `from __future__ import annotations`: Dagster reads the annotations of an op as they are.
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from cooperbench_assets.assets.check_events import check_specs
from cooperbench_assets.assets.describe import column_schema
from cooperbench_assets.assets.execution import LaunchConfig, run_stage
from cooperbench_assets.assets.keys import asset_key, group_name, op_name
from cooperbench_assets.assets.reading import CELL_CHECKS, read_selected
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.spec import CellSpec
from cooperbench_assets.store.schema import PAIRS

Results = Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]


def build_cell_assets(
    experiment: ExperimentContext, partitions: dg.StaticPartitionsDefinition
) -> list[dg.AssetsDefinition]:
    """run_logs → eval_outputs → pair_results of one experiment.

    Where pairs are run, each asset is a step, and each cell a run: its results are there as soon as it ends. Where logs
    are only read, all three are one step that reads a cell once, and one run takes as many cells as lie side by side.
    """
    if experiment.spec.execution == "none":
        return [_reading(experiment, partitions)]
    return [_executing(experiment, partitions, name) for name in CELL_CHECKS]


def _spec(experiment: ExperimentContext, name: str) -> dg.AssetSpec:
    """The spec of one of them; skippable, because a step that has logged what it did yields nothing."""
    images = ["task_images"] if experiment.spec.execution == "docker" else []
    deps, kinds, description = {
        "run_logs": (
            ["subset_pairs", *images],
            {"json"},
            "Logs of the agents' runs of one cell, in upstream's log tree.",
        ),
        "eval_outputs": (
            ["run_logs"],
            {"json"},
            "Verdicts of one cell: each pair's patches merged and tested, in upstream's log tree.",
        ),
        "pair_results": (
            ["run_logs", "eval_outputs"],
            {"parquet", "polars"},
            "One row for every planned pair of one cell, with its outcome; also agents, messages, tries, provenance.",
        ),
    }[name]
    return dg.AssetSpec(
        asset_key(experiment.name, name),
        deps=[asset_key(experiment.name, dep) for dep in deps],
        description=description,
        kinds=kinds,
        group_name=group_name(experiment.name),
        metadata={"dagster/column_schema": column_schema(PAIRS)} if name == "pair_results" else None,
        tags={"experiment": experiment.name},
        skippable=True,
    )


def _checks(
    experiment: ExperimentContext, partitions: dg.StaticPartitionsDefinition, name: str
) -> list[dg.AssetCheckSpec]:
    return check_specs(asset_key(experiment.name, name), CELL_CHECKS[name], partitions)


def _reading(experiment: ExperimentContext, partitions: dg.StaticPartitionsDefinition) -> dg.AssetsDefinition:
    """All three of an experiment whose logs are made elsewhere."""

    @dg.multi_asset(
        name=op_name(experiment.name, "cells"),
        specs=[_spec(experiment, name) for name in CELL_CHECKS],
        partitions_def=partitions,
        check_specs=[spec for name in CELL_CHECKS for spec in _checks(experiment, partitions, name)],
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def cells(context: dg.AssetExecutionContext) -> Results:
        yield from read_selected(context, experiment)

    return cells


def _executing(
    experiment: ExperimentContext, partitions: dg.StaticPartitionsDefinition, name: str
) -> dg.AssetsDefinition:
    """One of them where pairs are run: runs what is still to run, then reads.

    ``can_subset`` lets a launch name its checks alone.
    """

    @dg.multi_asset(
        name=op_name(experiment.name, name),
        specs=[_spec(experiment, name)],
        partitions_def=partitions,
        check_specs=_checks(experiment, partitions, name),
        can_subset=True,
    )
    def cell_asset(context: dg.AssetExecutionContext, config: LaunchConfig) -> Results:
        def stage(cell: CellSpec) -> Mapping[str, Any]:
            return run_stage(context, experiment, cell, asset_key(experiment.name, name), config)

        yield from read_selected(context, experiment, None if name == "pair_results" else stage)

    return cell_asset
