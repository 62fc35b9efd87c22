"""The asset results_store: an experiment's cells in the one DuckDB file that all experiments share."""

# No `from __future__ import annotations`: Dagster reads the annotations of an op as they are.
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from cooperbench_assets.assets.describe import published_metadata
from cooperbench_assets.assets.keys import FOLLOWS, asset_key, group_name, op_name
from cooperbench_assets.assets.publishing import publish_tables
from cooperbench_assets.assets.tables import CELL_UNIT_TABLES
from cooperbench_assets.bound import BoundExperiment
from cooperbench_assets.checks.reporting import check_results, check_rows, check_specs
from cooperbench_assets.checks.results_store import RESULTS_STORE_CHECKS, StoreView
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.partition import list_units, read_unit, write_unit
from cooperbench_assets.store.schema import CHECK_RESULTS
from cooperbench_assets.store.units import cell_of, cell_unit, check_unit

if TYPE_CHECKING:
    from cooperbench_assets.store.publish import Published


def build_results_store(bound: BoundExperiment) -> dg.AssetsDefinition:
    """results_store of one experiment: publishes its cells, and checks them together."""
    key = asset_key(bound.name, "results_store")

    @dg.multi_asset(
        name=op_name(bound.name, "results_store"),
        specs=[
            dg.AssetSpec(
                key,
                deps=[asset_key(bound.name, "pair_results")],
                description="The experiment's tables in data/results.duckdb, which all experiments share.",
                kinds={"duckdb"},
                group_name=group_name(bound.name),
                metadata={"dagster/relation_identifier": "results.main.pairs"},
                automation_condition=FOLLOWS,
                tags={"experiment": bound.name},
            )
        ],
        check_specs=check_specs(key, RESULTS_STORE_CHECKS),
        pool="results_store",
    )
    def results_store(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        published = publish_experiment(bound)
        for warning in published.warnings:
            context.log.warning(warning)
        view = store_view(bound)
        findings = [(check, check.find(view)) for check in RESULTS_STORE_CHECKS]
        now = datetime.now(UTC).replace(tzinfo=None)
        row_key = {"experiment": bound.name, "setting": None, "seed": None, "asset": "results_store"}
        written = write_unit(
            bound.project.tables,
            check_unit(bound.name, "results_store"),
            {CHECK_RESULTS.name: check_rows(row_key, findings, now)},
            declared=(CHECK_RESULTS,),
        )
        if written.changed:  # What is found is published too; what was found before has been just now.
            publish_experiment(bound)
        yield dg.MaterializeResult(
            asset_key=key,
            metadata={
                **published_metadata(view.published),
                "changed": bool(published.changed or published.dropped),
                "changed_units": len(published.changed),
                "dropped_units": len(published.dropped),
                "file": dg.MetadataValue.path(str(bound.project.database)),
                "open_it": f"duckdb -readonly {bound.project.relative(bound.project.database)}",
            },
            check_results=check_results(key, findings),
        )

    return results_store


def kept_cells(bound: BoundExperiment) -> dict[Cell, bool]:
    """The cells that belong in the store, and whether each is planned.

    These are the planned ones, and those that were launched although nobody plans them: their own tables say so.
    A cell that was planned when it was read, and is not any more, has been dropped.
    """
    kept = dict.fromkeys(sorted(bound.planned), True)
    for listed in list_units(bound.project.tables):
        cell = None if listed.record is None else cell_of(listed.record.key)
        if cell is None or cell.experiment != bound.name or cell in kept or listed.name != cell_unit(cell).name:
            continue
        if not read_unit(bound.project.tables, cell_unit(cell))["provenance"]["planned"].all():
            kept[cell] = False
    return kept


def publish_experiment(bound: BoundExperiment) -> "Published":
    """Publish what changed of an experiment; what it dropped leaves the store."""
    return publish_tables(bound, {bound.name: set(kept_cells(bound))})


def store_view(bound: BoundExperiment) -> StoreView:
    """What the checks over cells look at: the published rows, and the partition tables behind them."""
    from cooperbench_assets.store.read import table

    written = {
        cell: cell_unit(cell) for cell in kept_cells(bound) if cell_unit(cell).folder(bound.project.tables).is_dir()
    }
    return StoreView(
        bound.name,
        tuple(sorted(bound.planned)),
        {declared.name: table(bound.project.database, declared.name, bound.name) for declared in CELL_UNIT_TABLES},
        {cell: read_unit(bound.project.tables, unit) for cell, unit in written.items()},
    )
