"""The watch sensor of an experiment: tells people, and frees the places of dead runs. It launches nothing.

What belongs here: one tick. What does not: what is told (``standing``), and how (``alerts``).
"""

# No `from __future__ import annotations`: Dagster reads the annotations of a sensor as they are.
from datetime import UTC, datetime
from typing import Final

import dagster as dg

from cooperbench_assets.automation.alerts import Teller
from cooperbench_assets.automation.dead import report_dead_runs
from cooperbench_assets.automation.look import look
from cooperbench_assets.automation.runs import job_name
from cooperbench_assets.automation.standing import alerts_of, run_alerts
from cooperbench_assets.bound import BoundExperiment, MissingInputError

WATCH_SECONDS: Final = 60


def build_watch_sensor(bound: BoundExperiment) -> dg.SensorDefinition:
    """The sensor that is always on: it buys nothing."""

    @dg.sensor(
        name=job_name(bound.name, "watch"),
        target=None,
        minimum_interval_seconds=WATCH_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports runs whose process is gone as failed, and says once each: a run failed, a breaker "
        "tripped, a budget is reached, tries are exhausted, a person is needed, the experiment is complete. "
        "Launches nothing.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return tick(bound, context, datetime.now(UTC).replace(tzinfo=None))

    return watch


def tick(bound: BoundExperiment, context: dg.SensorEvaluationContext, now: datetime) -> dg.SkipReason:
    """One look: dead runs, failed runs, and cells as they stand."""
    dead = report_dead_runs(context.instance, bound, now)
    for run_id in dead:
        context.log.warning(f"run {run_id} was reported as failed: its process is gone")
    teller = Teller(bound, context.log)
    told = teller.tell_all(run_alerts(context.instance, bound, now))
    if bound.spec.execution != "none":
        try:
            told += teller.tell_all(alerts_of(bound, list(look(bound, context.instance, now))))
        except MissingInputError as error:
            return dg.SkipReason(f"{error}")
    return dg.SkipReason(f"{told} new alerts, {len(dead)} dead runs reported")
