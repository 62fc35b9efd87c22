"""The asset results_store: an experiment's cells in the one DuckDB file."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from cooperbench_assets.assets.describe import published_metadata
from cooperbench_assets.assets.keys import asset_key, op_name
from cooperbench_assets.checks.reporting import check_results, check_rows, check_specs
from cooperbench_assets.checks.results_store import RESULTS_STORE_CHECKS, StoreView
from cooperbench_assets.store.partition import read_unit, write_unit
from cooperbench_assets.store.publish import publish
from cooperbench_assets.store.read import table
from cooperbench_assets.store.schema import CELL_TABLES, CHECK_RESULTS
from cooperbench_assets.store.units import cell_unit, checks_unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cooperbench_assets.bound import BoundExperiment
    from cooperbench_assets.store.cells import Cell
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
                group_name=op_name(bound.name, "cells").removesuffix("__cells"),
                metadata={"dagster/relation_identifier": "results.main.pairs"},
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
        write_unit(
            bound.project.tables,
            checks_unit(bound.name, "results_store"),
            {CHECK_RESULTS.name: check_rows(row_key, findings, now)},
            declared=(CHECK_RESULTS,),
        )
        publish_experiment(bound)
        yield dg.MaterializeResult(
            asset_key=key,
            metadata={
                **published_metadata(view.published),
                "changed_units": len(published.changed),
                "dropped_units": len(published.dropped),
                "file": dg.MetadataValue.path(str(bound.project.database)),
                "open_it": f"duckdb -readonly {bound.project.relative(bound.project.database)}",
            },
            check_results=check_results(key, findings),
        )

    return results_store


def publish_experiment(bound: BoundExperiment) -> Published:
    """Publish what changed; cells that the experiment dropped go, cells that were launched unplanned stay."""
    unplanned = {
        cell for cell in _cells_with_tables(bound) if cell not in bound.planned and not _was_planned(bound, cell)
    }
    return publish(bound.project.database, bound.project.tables, planned={bound.name: set(bound.planned) | unplanned})


def _cells_with_tables(bound: BoundExperiment) -> list[Cell]:
    raise NotImplementedError


def _was_planned(bound: BoundExperiment, cell: Cell) -> bool:
    raise NotImplementedError


def store_view(bound: BoundExperiment) -> StoreView:
    """What the checks over cells look at: the published rows, and the partition tables."""
    return StoreView(
        bound.name,
        tuple(sorted(bound.planned)),
        {declared.name: table(bound.project.database, declared.name, bound.name) for declared in CELL_TABLES},
        {},
    )
