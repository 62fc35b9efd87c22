"""Real backfills from a schedule. Dagster has no public way: its private parts that this needs are named here alone.

What belongs here: making a backfill, and asking which ones run. What does not: which cells to fill
(``nightly_schedule``). Dagster's modules for backfills are imported where they are used: commands that read cells load
the definitions with the sensors in them, and those modules are a tenth of Dagster's.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime


def add_backfill(
    instance: dg.DagsterInstance,
    partitions: dg.PartitionsDefinition[str],
    keys: Iterable[str],
    assets: Iterable[dg.AssetKey],
    *,
    title: str,
    description: str,
    tags: Mapping[str, str],
    run_config: Mapping[str, Any],
    now: datetime,
) -> str:
    """Ask Dagster's daemon for a backfill of some partitions of some assets; it shows on the Backfills page.

    Args:
        instance: Dagster's instance.
        partitions: How the assets are partitioned.
        keys: The partitions.
        assets: The assets.
        title: What the Backfills page says of it.
        description: More of that.
        tags: Tags of the backfill and of each run of it.
        run_config: Run config of each run of it.
        now: The present time, with its zone.

    Returns:
        The backfill's id.
    """
    from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
    from dagster._core.execution.backfill import PartitionBackfill

    subset = partitions.subset_with_partition_keys(list(keys))
    backfill = PartitionBackfill.from_asset_graph_subset(
        backfill_id=secrets.token_hex(4),
        backfill_timestamp=now.timestamp(),
        tags=dict(tags),
        dynamic_partitions_store=instance,
        asset_graph_subset=AssetGraphSubset(  # type: ignore[call-arg]  # its decorator hides the defaults
            partitions_subsets_by_asset_key=dict.fromkeys(assets, subset)
        ),
        title=title,
        description=description,
        run_config=dict(run_config),
    )
    instance.add_backfill(backfill)
    return str(backfill.backfill_id)


def running_backfills(instance: dg.DagsterInstance, tags: Mapping[str, str]) -> list[str]:
    """Ids of the backfills with these tags that are not over."""
    from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus

    running = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING]
    wanted = BulkActionsFilter(statuses=running, tags=dict(tags))
    return [backfill.backfill_id for backfill in instance.get_backfills(filters=wanted)]


def still_to_launch(instance: dg.DagsterInstance, asset: dg.AssetKey) -> dict[str, str]:
    """Partitions of an asset that a running backfill has not launched yet, each with the backfill's id."""
    from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus

    found: dict[str, str] = {}
    for backfill in instance.get_backfills(filters=BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED])):
        data = backfill.asset_backfill_data
        if data is None or asset not in (backfill.asset_selection or ()):
            continue
        target = data.target_subset.partitions_subsets_by_asset_key.get(asset)
        begun = data.requested_subset.partitions_subsets_by_asset_key.get(asset)
        launched = set(begun.get_partition_keys()) if begun is not None else set()
        keys = target.get_partition_keys() if target is not None else ()
        found.update({str(key): backfill.backfill_id for key in keys if key not in launched})
    return found
