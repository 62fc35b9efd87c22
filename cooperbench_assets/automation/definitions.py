"""All automation of one experiment, as Dagster definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from cooperbench_assets.automation.downstream_sensor import build_downstream_sensor
from cooperbench_assets.automation.jobs import build_jobs
from cooperbench_assets.automation.nightly_schedule import build_fill_job, build_nightly_schedule
from cooperbench_assets.automation.read_again_job import build_read_again_job
from cooperbench_assets.automation.retry_sensor import build_retry_sensor
from cooperbench_assets.automation.second_verdict_job import build_second_verdict_job
from cooperbench_assets.automation.watch_sensor import build_watch_sensor

if TYPE_CHECKING:
    from cooperbench_assets.experiment_context import ExperimentContext


def automation_definitions(experiment: ExperimentContext, partitions: dg.StaticPartitionsDefinition) -> dg.Definitions:
    """Sensors, schedules and jobs; an experiment that only reads has nothing to retry."""
    sensors: list[dg.SensorDefinition] = [build_watch_sensor(experiment), build_downstream_sensor(experiment)]
    if experiment.spec.execution != "none":
        sensors.append(build_retry_sensor(experiment))
    fill = build_fill_job(experiment, partitions)
    nightly = build_nightly_schedule(experiment, partitions, fill)
    executing = []
    if experiment.spec.execution != "none":
        executing = [build_read_again_job(experiment), build_second_verdict_job(experiment, partitions)]
    return dg.Definitions(
        sensors=sensors,
        schedules=[nightly] if nightly is not None else [],
        jobs=[*build_jobs(experiment), fill, *executing],
    )
