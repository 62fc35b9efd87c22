"""Names: asset keys, op names and partitions of an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from cooperbench_assets.spec import dagster_name
from cooperbench_assets.store.cells import Cell

if TYPE_CHECKING:
    from cooperbench_assets.spec import ExperimentSpec

FOLLOWS = dg.AutomationCondition.any_deps_updated()
"""Condition of what lies downstream of the cells. `eager()` would wait until every cell is there."""

HOST_TAG = "cooperbench-assets/host"
"""Tag of a run: where its process works (``processes.namespace``), which alone can tell whether that is alive."""

MODEL_TAG = "cooperbench-assets/model"
"""Tag of a run whose agents ask a model: an instance can limit how many of them run at once."""


def model_tag(spec: ExperimentSpec) -> dict[str, str]:
    """The tag of runs of this experiment; none where it runs nothing."""
    return {MODEL_TAG: spec.model_name} if spec.execution != "none" and spec.model_name else {}


def asset_key(experiment: str, asset: str) -> dg.AssetKey:
    """The key of an experiment's asset: ``<experiment>/<asset>``."""
    return dg.AssetKey([experiment, asset])


def group_name(experiment: str) -> str:
    """A name that Dagster takes for a group: letters, digits and underscores."""
    return dagster_name(experiment)


def op_name(experiment: str, op: str) -> str:
    """A name that Dagster takes for an op, alike.

    No op is called as a job is: that of `a` would have the name that the job of an experiment `a_` has.
    """
    return f"{group_name(experiment)}__{op}"


def partitions_of(spec: ExperimentSpec) -> dg.StaticPartitionsDefinition:
    """The planned cells and no others, by setting and seed: what is not planned cannot be launched."""
    cells = sorted(cell.cell for cell in spec.cells(""))
    return dg.StaticPartitionsDefinition([partition_key(cell) for cell in cells])


def partition_key(cell: Cell) -> str:
    """The partition that a cell is: ``setting/seed``."""
    return f"{cell.setting}/{cell.seed}"


def cell_of(experiment: str, key: str) -> Cell:
    """The cell that a partition is; ``spec`` lets no label have a slash.

    Raises:
        ValueError: if the key is no partition of a cell.
    """
    setting, slash, seed = key.rpartition("/")
    if not (slash and setting and seed.isdecimal()):
        raise ValueError(f"{key!r} is no partition of a cell: setting/seed")
    return Cell(experiment, setting, int(seed))
