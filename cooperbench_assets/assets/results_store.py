"""The asset results_store: an experiment's cells in the one DuckDB file that all experiments share."""

# No `from __future__ import annotations`: Dagster reads the annotations of an op as they are.
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from cooperbench_assets import __version__
from cooperbench_assets.assets.check_events import check_results, check_specs
from cooperbench_assets.assets.describe import published_metadata
from cooperbench_assets.assets.keys import FOLLOWS, asset_key, group_name, op_name
from cooperbench_assets.assets.publishing import publish_tables
from cooperbench_assets.checks.finding import Check, Finding
from cooperbench_assets.checks.reporting import check_rows
from cooperbench_assets.checks.results_store import RESULTS_STORE_CHECKS, StoreView
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.errors import StoreError, UnitError
from cooperbench_assets.store.partition_tables import list_units, load_record, read_unit, write_unit
from cooperbench_assets.store.planned import Plans, recall
from cooperbench_assets.store.schema import CHECK_RESULTS, PAIRS, PROVENANCE
from cooperbench_assets.store.units import cell_unit, check_unit, parse_name, quote
from cooperbench_assets.viewer_links import experiment_page, viewer_address

if TYPE_CHECKING:
    from cooperbench_assets.store.publish import Published

Results = Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]


NIGHTLY: Final = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=50), warn_window=timedelta(hours=26))
"""Of an experiment with nights: a warning after one that published nothing, a failure after two."""


def build_results_store(experiment: ExperimentContext) -> dg.AssetsDefinition:
    """results_store of one experiment: publishes its cells, and checks them together."""
    key = asset_key(experiment.name, "results_store")

    @dg.multi_asset(
        name=op_name(experiment.name, "results_store"),
        specs=[
            dg.AssetSpec(
                key,
                deps=[asset_key(experiment.name, "pair_results")],
                description="The experiment's tables in data/results.duckdb, which all experiments share.",
                kinds={"duckdb"},
                group_name=group_name(experiment.name),
                metadata={"dagster/relation_identifier": "results.main.pairs"},
                automation_condition=FOLLOWS,
                tags={"experiment": experiment.name},
                code_version=__version__,
                freshness_policy=NIGHTLY if experiment.spec.nightly else None,
            )
        ],
        check_specs=check_specs(key, RESULTS_STORE_CHECKS),
        can_subset=True,  # "Execute all" on the page of its checks looks at the store as it is, and publishes nothing.
        pool="results_store",
    )
    def results_store(context: dg.AssetExecutionContext) -> Results:
        asked = context.selected_asset_check_keys
        wanted = [one for one in RESULTS_STORE_CHECKS if dg.AssetCheckKey(key, one.name) in asked]
        if key not in context.selected_asset_keys:
            view = store_view(experiment)
            yield from check_results(key, [(check, check.find(view)) for check in wanted])
            return
        published = publish_experiment(experiment)
        for warning in (*published.warnings, *named_problems(published)):
            context.log.warning(warning)
        view = store_view(experiment)
        findings = [(check, check.find(view)) for check in RESULTS_STORE_CHECKS]
        if _keep(experiment, findings):  # What is found is published too; what was found before has been just now.
            publish_experiment(experiment)
        yield dg.MaterializeResult(
            asset_key=key,
            metadata={
                "open_experiment": dg.MetadataValue.url(
                    viewer_address(experiment.project.root) + experiment_page(experiment.name)
                ),
                **published_metadata(view.published),
                "changed": bool(published.changed or published.dropped),
                "changed_units": len(published.changed),
                "dropped_units": len(published.dropped),
                "file": dg.MetadataValue.path(str(experiment.project.database)),
                "open_it": f"duckdb -readonly {experiment.project.relative(experiment.project.database)}",
            },
            check_results=check_results(key, [one for one in findings if one[0] in wanted]),
        )

    return results_store


def _keep(experiment: ExperimentContext, findings: Sequence[tuple[Check[StoreView], Finding]]) -> bool:
    """Write what was found as a table; says whether it differs from what was found before."""
    row_key = {"experiment": experiment.name, "setting": None, "seed": None, "asset": "results_store"}
    rows = check_rows(row_key, findings, datetime.now(UTC).replace(tzinfo=None))
    unit = check_unit(experiment.name, "results_store")
    return write_unit(experiment.project.tables, unit, {CHECK_RESULTS.name: rows}, declared=(CHECK_RESULTS,)).changed


def named_problems(published: "Published") -> Iterator[str]:
    """What a publish could not take in, a sentence each."""
    for name, problem in published.unreadable.items():
        yield f"{name} cannot be read, and its last rows are kept: {problem}"
    if published.outdated:
        few = ", ".join(published.outdated[:3])
        yield f"{len(published.outdated)} units ({few}, …) were written by another version: read those cells again"


def kept_cells(experiment: ExperimentContext) -> dict[Cell, bool]:
    """The cells that belong in the store, and whether each is planned.

    These are the planned ones, those that were launched although nobody plans them (their own tables say so), and those
    that another machine made. A cell that no plan names any more has been dropped; one whose tables cannot be read
    stays, if it was there.
    """
    tables = experiment.project.tables
    before = _kept_before(tables, experiment.name)
    planned = experiment.planned_now()
    if planned is None:  # While defs.yaml is broken, nothing leaves.
        planned = experiment.planned if before is None else before
    kept = dict.fromkeys(sorted(planned), True)
    written = {cell for unit in list_units(tables, experiment.name) if (cell := _cell_named(unit.name)) is not None}
    for cell in sorted({*(before or ()), *written} - planned):
        if _stays(tables, cell, was_kept=before is None or cell in before):
            kept[cell] = False
    return kept


def _kept_before(tables: Path, experiment: str) -> frozenset[Cell] | None:
    """The cells that the last publish kept; None where that is not known."""
    try:
        return recall(tables, experiment).get(experiment)
    except StoreError:
        return None


def _cell_named(unit: str) -> Cell | None:
    """The cell whose tables a unit's name stands for."""
    experiment, kind, *parts = parse_name(unit)
    return Cell(experiment, parts[0], int(parts[1])) if kind == "cells" and parts[1:] and parts[1].isdecimal() else None


def _stays(tables: Path, cell: Cell, *, was_kept: bool) -> bool:
    """Whether a cell that no plan names belongs in the store."""
    unit = cell_unit(cell)
    folder = unit.folder(tables)
    try:
        if load_record(folder).imported:
            return True
        return not read_unit(tables, unit)["provenance"]["planned"].all()
    except FileNotFoundError:
        return was_kept and folder.exists()
    except (OSError, UnitError):
        return was_kept


def publish_experiment(experiment: ExperimentContext) -> "Published":
    """Publish what changed of an experiment; what it dropped leaves the store."""

    def plan() -> Plans:
        # Without the folder of its tables (no disk mounted, say) nothing can be told of its cells: all stay.
        there = (experiment.project.tables / quote(experiment.name)).is_dir()
        return {experiment.name: set(kept_cells(experiment))} if there else {}

    return publish_tables(experiment, plan)


def store_view(experiment: ExperimentContext) -> StoreView:
    """What the checks over cells look at: the published rows, and what differs from the partition tables."""
    from cooperbench_assets.store.comparison import compare
    from cooperbench_assets.store.read import snapshot

    kept = kept_cells(experiment)
    with snapshot(experiment.project.database) as store:
        published = {declared.name: store.table(declared.name, experiment.name) for declared in (PAIRS, PROVENANCE)}
        comparison = compare(store.connection, experiment.project.tables, experiment.name)
    return StoreView(
        experiment.name,
        tuple(cell for cell, planned in kept.items() if planned),
        frozenset(kept),
        published,
        comparison,
    )
