"""The asset subset_pairs: what an experiment plans, and how many results a cell must have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from cooperbench_assets.assets.describe import subset_metadata
from cooperbench_assets.assets.keys import asset_key, group_name

if TYPE_CHECKING:
    from cooperbench_assets.experiment_context import ExperimentContext


def build_subset_asset(experiment: ExperimentContext) -> dg.AssetsDefinition:
    """subset_pairs of one experiment."""

    @dg.asset(
        key=asset_key(experiment.name, "subset_pairs"),
        description="The pairs that every cell of the experiment must have a result for.",
        kinds={"json"},
        group_name=group_name(experiment.name),
        tags={"experiment": experiment.name},
    )
    def subset_pairs() -> dg.MaterializeResult[Any]:
        subset = experiment.subset()
        return dg.MaterializeResult(metadata=subset_metadata(subset), data_version=dg.DataVersion(subset.sha256))

    return subset_pairs
