"""The Dagster component: one defs.yaml becomes assets, checks and jobs.

What belongs here: how the definitions of one experiment are put together. What does not: what an experiment is
(``spec``) and what its assets do (``assets``).
"""

from __future__ import annotations

import warnings

import dagster as dg

from cooperbench_assets.assets.cells import build_cell_assets
from cooperbench_assets.assets.keys import partitions_of
from cooperbench_assets.assets.results_store import build_results_store
from cooperbench_assets.assets.subset import build_subset_asset
from cooperbench_assets.bound import BoundExperiment
from cooperbench_assets.project import find_project
from cooperbench_assets.spec import ExperimentSpec


class Experiment(dg.Component, ExperimentSpec, dg.Resolvable):
    """One model, agent, agent config, subset and harness, in some settings and seeds."""

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The definitions of the experiment whose folder this is."""
        spec = ExperimentSpec.model_validate(self.model_dump())
        return experiment_definitions(BoundExperiment(context.path.name, spec, find_project()))


def experiment_definitions(bound: BoundExperiment) -> dg.Definitions:
    """Assets and checks of one experiment."""
    with warnings.catch_warnings():
        # Partitioned checks and components are new in Dagster 1.13; their behaviour is tested here.
        warnings.simplefilter("ignore", category=dg.PreviewWarning)
        warnings.simplefilter("ignore", category=dg.BetaWarning)
        partitions = partitions_of(bound.spec)
        return dg.Definitions(
            assets=[
                build_subset_asset(bound),
                *build_cell_assets(bound, partitions),
                build_results_store(bound),
            ]
        )
