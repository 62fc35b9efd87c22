"""Names: asset keys, op names and partitions of an experiment."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import dagster as dg

from cooperbench_assets.store.cells import Cell

if TYPE_CHECKING:
    from cooperbench_assets.spec import ExperimentSpec

FOLLOWS = dg.AutomationCondition.any_deps_updated()
"""Condition of what lies downstream of the cells. `eager()` would wait for every cell that nobody plans."""

HOST_TAG = "cooperbench-assets/host"
"""Tag of a run of a cell: the machine it works on, which alone can tell whether its process is alive."""


def asset_key(experiment: str, asset: str) -> dg.AssetKey:
    """The key of an experiment's asset: ``<experiment>/<asset>``."""
    return dg.AssetKey([experiment, asset])


def group_name(experiment: str) -> str:
    """A name that Dagster takes for a group: letters, digits and underscores."""
    return re.sub(r"[^A-Za-z0-9]", "_", experiment)


def op_name(experiment: str, asset: str) -> str:
    """A name that Dagster takes for an op, alike."""
    return f"{group_name(experiment)}__{asset}"


def partitions_of(spec: ExperimentSpec) -> dg.MultiPartitionsDefinition:
    """Setting × seed. Dagster has no sparse grids: a cell that nobody plans shows as missing, and buys nothing."""
    seeds = sorted({seed for setting in spec.settings.values() for seed in setting.seeds})
    return dg.MultiPartitionsDefinition(
        {
            "setting": dg.StaticPartitionsDefinition(list(spec.settings)),
            "seed": dg.StaticPartitionsDefinition([str(seed) for seed in seeds]),
        }
    )


def partition_key(cell: Cell) -> dg.MultiPartitionKey:
    """The partition that a cell is."""
    return dg.MultiPartitionKey({"setting": cell.setting, "seed": str(cell.seed)})


def cell_of(experiment: str, key: str) -> Cell:
    """The cell that a partition is.

    Args:
        experiment: The experiment's name.
        key: A ``MultiPartitionKey``, as ``context.partition_key`` gives it.
    """
    if not isinstance(key, dg.MultiPartitionKey):
        raise TypeError(f"{key!r} is no partition of setting and seed")
    dimensions = key.keys_by_dimension
    return Cell(experiment, dimensions["setting"], int(dimensions["seed"]))
