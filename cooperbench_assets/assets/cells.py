"""The assets of a cell: run_logs, eval_outputs and pair_results, partitioned by setting and seed.

What belongs here: what a materialisation does, in which order, and what it reports. What does not: how pairs are
run (``execution``), read (``benchmark``) or written (``store``).
"""

# No `from __future__ import annotations`: Dagster reads the annotations of an op as they are.
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from cooperbench_assets.assets.describe import cell_metadata, column_schema
from cooperbench_assets.assets.execution import STAGES, LaunchConfig, plan_of, run_stage
from cooperbench_assets.assets.keys import HOST_TAG, asset_key, cell_of, group_name, op_name
from cooperbench_assets.assets.secrecy import keeping_secrets
from cooperbench_assets.assets.tables import CELL_UNIT_TABLES
from cooperbench_assets.bound import BoundExperiment
from cooperbench_assets.checks.eval_outputs import EVAL_OUTPUTS_CHECKS
from cooperbench_assets.checks.finding import BLOCKED_FOR_GOOD, CellView, Check, Finding
from cooperbench_assets.checks.pair_results import PAIR_RESULTS_CHECKS
from cooperbench_assets.checks.reporting import check_results, check_rows, check_specs
from cooperbench_assets.checks.run_logs import RUN_LOGS_CHECKS
from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.processes import namespace
from cooperbench_assets.spec import CellSpec
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.partition import write_unit
from cooperbench_assets.store.schema import CHECK_RESULTS, PAIRS
from cooperbench_assets.store.units import cell_unit, check_unit

Metadata = Mapping[str, Any]
Work = Callable[[dg.AssetExecutionContext, CellSpec, LaunchConfig], tuple[CellView, Metadata]]


def build_cell_assets(bound: BoundExperiment, partitions: dg.StaticPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """run_logs → eval_outputs → pair_results of one experiment."""
    return [
        _cell_asset(
            bound,
            partitions,
            "run_logs",
            description="Logs of the agents' runs of one cell, in upstream's log tree.",
            kinds={"json"},
            deps=["subset_pairs", *(["task_images"] if bound.spec.execution == "docker" else [])],
            checks=RUN_LOGS_CHECKS,
            work=_stage(bound, "run_logs"),
        ),
        _cell_asset(
            bound,
            partitions,
            "eval_outputs",
            description="Verdicts of one cell: each pair's patches merged and tested, in upstream's log tree.",
            kinds={"json"},
            deps=["run_logs"],
            checks=EVAL_OUTPUTS_CHECKS,
            work=_stage(bound, "eval_outputs"),
        ),
        _cell_asset(
            bound,
            partitions,
            "pair_results",
            description="One row for every planned pair of one cell, with its outcome; and its agents, messages, "
            "attempts, quarantine and provenance.",
            kinds={"parquet", "polars"},
            deps=["run_logs", "eval_outputs"],
            checks=PAIR_RESULTS_CHECKS,
            work=lambda context, cell, _config: _write_tables(context, bound, cell),
            metadata={"dagster/column_schema": column_schema(PAIRS)},
        ),
    ]


def _cell_asset(
    bound: BoundExperiment,
    partitions: dg.StaticPartitionsDefinition,
    name: str,
    *,
    description: str,
    kinds: set[str],
    deps: Sequence[str],
    checks: Sequence[Check[CellView]],
    work: Work,
    metadata: Metadata | None = None,
) -> dg.AssetsDefinition:
    """An asset of a cell: does its work, then evaluates its checks on what is there.

    The checks are evaluated in the asset's own op: a run of their own for each would cost more than the reading.
    ``can_subset`` and ``skippable`` let a launch name some of the asset and its checks.
    """
    key = asset_key(bound.name, name)

    @dg.multi_asset(
        name=op_name(bound.name, name),
        specs=[
            dg.AssetSpec(
                key,
                deps=[asset_key(bound.name, dep) for dep in deps],
                description=description,
                kinds=kinds,
                group_name=group_name(bound.name),
                metadata=metadata,
                tags={"experiment": bound.name},
                skippable=True,
            )
        ],
        partitions_def=partitions,
        check_specs=check_specs(key, checks, partitions),
        can_subset=True,
    )
    def cell_asset(context: dg.AssetExecutionContext, config: LaunchConfig) -> Iterator[dg.MaterializeResult[Any]]:
        cell = cell_of(bound.name, context.partition_key)
        spec = bound.spec.cell(bound.name, cell.setting, cell.seed)
        context.instance.add_run_tags(context.run.run_id, {HOST_TAG: namespace()})
        with keeping_secrets(bound, context.log):
            view, extra = work(context, spec, config)
            findings = [(check, check.find(view)) for check in checks]
            _keep_findings(bound, cell, name, findings)
        yield dg.MaterializeResult(
            asset_key=key,
            metadata={**cell_metadata(view), **extra},
            check_results=check_results(key, findings),
        )

    return cell_asset


def _stage(bound: BoundExperiment, name: str) -> Work:
    """The work of run_logs or eval_outputs: run what is owed, where the experiment runs pairs; then read."""

    def work(context: dg.AssetExecutionContext, cell: CellSpec, config: LaunchConfig) -> tuple[CellView, Metadata]:
        said: Metadata = {}
        if bound.spec.execution != "none":
            said = run_stage(context, bound, cell, asset_key(bound.name, name), config)
        return bound.view(cell), said

    return work


def _keep_findings(
    bound: BoundExperiment, cell: Cell, asset: str, findings: Sequence[tuple[Check[CellView], Finding]]
) -> None:
    """Findings are a table of the store too."""
    now = datetime.now(UTC).replace(tzinfo=None)
    key = {"experiment": cell.experiment, "setting": cell.setting, "seed": cell.seed, "asset": asset}
    write_unit(
        bound.project.tables,
        check_unit(cell.experiment, asset, cell),
        {CHECK_RESULTS.name: check_rows(key, findings, now)},
        declared=(CHECK_RESULTS,),
    )


def left_behind(bound: BoundExperiment, cell: CellSpec) -> dict[str, str]:
    """Pairs of a cell that no retry will touch, with the reason: their tries are used up, or a person is needed.

    Raises:
        LaunchError: if the cell cannot be planned: the dataset is missing, say.
    """
    if bound.spec.execution == "none":
        return {}
    reasons: dict[str, str] = {}
    for asset in STAGES:
        for step in plan_of(bound, cell, asset, LaunchConfig(automatic=True)).having("blocked"):
            if step.reason.startswith(BLOCKED_FOR_GOOD):
                reasons[step.pair.name] = step.reason
    return reasons


def _write_tables(
    context: dg.AssetExecutionContext, bound: BoundExperiment, spec: CellSpec
) -> tuple[CellView, Metadata]:
    """Write a cell's partition tables; the same content again changes nothing, and says so."""
    view = bound.view(spec)
    try:
        # What nobody asked for yet is not left behind, whatever struck the others.
        behind = {pair: why for pair, why in left_behind(bound, spec).items() if pair not in view.unasked}
        view = replace(view, left_behind=behind)
    except LaunchError as error:
        context.log.warning(f"what is owed cannot be told: {error}")
        view = replace(view, left_behind=None)
    written = write_unit(bound.project.tables, cell_unit(spec.cell), view.frames, declared=CELL_UNIT_TABLES)
    return view, {
        "dagster/row_count": view.pairs.height,
        "content_sha256": written.content_sha256,
        "changed": written.changed,
        "tables": dg.MetadataValue.path(str(written.folder)),
    }
