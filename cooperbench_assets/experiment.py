"""The Dagster component: one defs.yaml becomes assets, checks and jobs.

What belongs here: how the definitions of one experiment are put together. What does not: what an experiment is
(``spec``) and what its assets do (``assets``).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Self

import dagster as dg

from cooperbench_assets.assets.analysis import build_analysis_assets
from cooperbench_assets.assets.cells import build_cell_assets
from cooperbench_assets.assets.gold_baseline import build_gold_baseline
from cooperbench_assets.assets.keys import partitions_of
from cooperbench_assets.assets.report import build_report_asset
from cooperbench_assets.assets.results_store import build_results_store
from cooperbench_assets.assets.subset import build_subset_asset
from cooperbench_assets.assets.task_images import build_task_images
from cooperbench_assets.automation.definitions import automation_definitions
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.project import Project, named_project
from cooperbench_assets.spec import ExperimentError, ExperimentSpec

if TYPE_CHECKING:
    from pydantic import BaseModel


class Experiment(dg.Component):
    """One model, agent, agent config, subset and harness, in some settings and seeds.

    The attributes are those of ``spec.ExperimentSpec``, validated as they stand: without Dagster's resolution of
    templates, a brace in an agent config means itself.
    """

    def __init__(self, spec: ExperimentSpec) -> None:
        self.spec = spec

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The schema of `attributes`, for Dagster's checks and completion."""
        return ExperimentSpec

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """The experiment that a defs.yaml describes."""
        if not isinstance(attributes, ExperimentSpec):
            raise ExperimentError(f"{context.path}: attributes: say what the experiment is")
        return cls(attributes)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The definitions of the experiment whose folder this is: <root>/cooperbench_assets/defs/<name>.

        Its data are in the project that COOPERBENCH_ASSETS_ROOT names, where it is set.
        """
        project = named_project() or Project(context.path.parents[2])
        return experiment_definitions(ExperimentContext(context.path.name, self.spec, project))


def experiment_definitions(experiment: ExperimentContext) -> dg.Definitions:
    """Assets, checks, sensors, schedules and jobs of one experiment."""
    with warnings.catch_warnings():
        # Partitioned checks and components are new in Dagster 1.13; their behaviour is tested here.
        warnings.simplefilter("ignore", category=dg.PreviewWarning)
        warnings.simplefilter("ignore", category=dg.BetaWarning)
        partitions = partitions_of(experiment.spec)
        assets = [
            build_subset_asset(experiment),
            *_machine_assets(experiment),
            *build_cell_assets(experiment, partitions),
            build_results_store(experiment),
            build_analysis_assets(experiment),
            build_report_asset(experiment),
        ]
        owned = dg.map_asset_specs(lambda spec: spec.replace_attributes(owners=experiment.spec.owners), assets)
        return dg.Definitions.merge(dg.Definitions(assets=owned), automation_definitions(experiment, partitions))


def _machine_assets(experiment: ExperimentContext) -> list[dg.AssetsDefinition]:
    """What says whether this machine and the benchmark are fit for the experiment, before agents are bought."""
    assets = []
    if experiment.spec.execution == "docker":
        assets.append(build_task_images(experiment))
    if experiment.spec.execution in ("docker", "process"):
        assets.append(build_gold_baseline(experiment))
    return assets
