"""What task_images and gold_baseline share: assets of a whole experiment, with a table and checks of their own.

What belongs here: how such an asset is declared, and where its table and its checks are written. What does not: what
one of them does.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import dagster as dg

from cooperbench_assets.assets.describe import column_schema
from cooperbench_assets.assets.keys import asset_key, group_name
from cooperbench_assets.checks.reporting import check_rows
from cooperbench_assets.store.partition_tables import write_unit
from cooperbench_assets.store.schema import CHECK_RESULTS
from cooperbench_assets.store.units import Unit, check_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from cooperbench_assets.checks.finding import Check, Finding
    from cooperbench_assets.experiment_context import ExperimentContext
    from cooperbench_assets.store.schema import Table

View = TypeVar("View")


def asset_spec(
    experiment: ExperimentContext, table: Table, *, after: Sequence[str], description: str, kind: str
) -> dg.AssetSpec:
    """The spec of the asset that has a table's name, and comes after others of the experiment."""
    return dg.AssetSpec(
        asset_key(experiment.name, table.name),
        deps=[asset_key(experiment.name, other) for other in after],
        description=description,
        kinds={kind},
        group_name=group_name(experiment.name),
        metadata={"dagster/column_schema": column_schema(table)},
        tags={"experiment": experiment.name},
    )


def write_table(experiment: ExperimentContext, table: Table, frame: pl.DataFrame) -> None:
    """Put the asset's table into the partition tables, in place of the one before."""
    unit = Unit.of(experiment.name, table.name, "all", key={"experiment": experiment.name})
    write_unit(experiment.project.tables, unit, {table.name: frame}, declared=(table,))


def look(
    experiment: ExperimentContext, table: Table, checks: Sequence[Check[View]], view: View
) -> list[tuple[Check[View], Finding]]:
    """What the asset's checks find, which is written for the store as well."""
    findings = [(check, check.find(view)) for check in checks]
    key = {"experiment": experiment.name, "setting": None, "seed": None, "asset": table.name}
    rows = check_rows(key, findings, datetime.now(UTC).replace(tzinfo=None))
    unit = check_unit(experiment.name, table.name)
    write_unit(experiment.project.tables, unit, {CHECK_RESULTS.name: rows}, declared=(CHECK_RESULTS,))
    return findings
