"""What follows new results by itself: the results store, the analyses, the report.

What belongs here: the condition, and the sensor that looks at it. What does not: the assets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from cooperbench_assets.assets.keys import group_name
from cooperbench_assets.automation.dagster_runs import job_name

if TYPE_CHECKING:
    from cooperbench_assets.experiment_context import ExperimentContext


def build_downstream_sensor(experiment: ExperimentContext) -> dg.AutomationConditionSensorDefinition:
    """The sensor that materialises every asset of the experiment that has an automation condition."""
    return dg.AutomationConditionSensorDefinition(
        name=job_name(experiment.name, "downstream"),
        target=dg.AssetSelection.groups(group_name(experiment.name)),
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Brings the results store, the analyses and the report up to date whenever a cell has new "
        "results. It costs seconds of this machine, and no money.",
    )
