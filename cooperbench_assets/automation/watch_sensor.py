"""The watch sensor of an experiment: tells people, and frees the places of dead runs. It launches nothing.

What belongs here: one tick. What does not: what is told (``alert_rules``), and how (``alerts``).
"""

# No `from __future__ import annotations`: Dagster reads the annotations of a sensor as they are.
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import dagster as dg
import msgspec

from cooperbench_assets.automation.alert_rules import alerts_of, input_alerts, run_alerts, told_since
from cooperbench_assets.automation.alerts import Notifier
from cooperbench_assets.automation.dagster_runs import job_name
from cooperbench_assets.automation.dead_runs import report_dead_runs
from cooperbench_assets.automation.tick_budget import Place, look_on, time_box
from cooperbench_assets.experiment_context import ExperimentContext, MissingInputError

WATCH_SECONDS: Final = 60


class Cursor(msgspec.Struct, frozen=True):
    """What the sensor keeps from tick to tick; it may be lost."""

    place: Place = Place()
    looked_at: datetime | None = None
    """When failed runs were told of last, UTC without a zone."""


_CURSOR: Final = msgspec.json.Decoder(Cursor)


def build_watch_sensor(experiment: ExperimentContext) -> dg.SensorDefinition:
    """The sensor that is always on: it buys nothing."""

    @dg.sensor(
        name=job_name(experiment.name, "watch"),
        target=None,
        minimum_interval_seconds=WATCH_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports runs whose process is gone as failed, and says once each: a run failed, a breaker "
        "tripped, a budget is reached, tries are exhausted, a person is needed, the experiment is complete. "
        "Launches nothing.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return tick(experiment, context, datetime.now(UTC).replace(tzinfo=None))

    return watch


def tick(
    experiment: ExperimentContext,
    context: dg.SensorEvaluationContext,
    now: datetime,
    is_over: Callable[[], bool] | None = None,
) -> dg.SkipReason:
    """One look: dead runs, failed runs, and cells as they stand, as far as the time goes; the next goes on there."""
    is_over = is_over or time_box()
    dead = report_dead_runs(context.instance, experiment, now)
    for run_id in dead:
        context.log.warning(f"run {run_id} was reported as failed: its process is gone")
    notifier = Notifier(experiment, context.log)
    cursor = _read_cursor(context.cursor)
    since = told_since(now, cursor.looked_at)
    runs = run_alerts(context.instance, experiment, since, lambda run_id: notifier.is_settled("run_failed", run_id))
    told = notifier.send_all(runs)
    cursor = msgspec.structs.replace(cursor, looked_at=now)
    context.update_cursor(_write_cursor(cursor))
    if experiment.spec.execution != "none":
        try:
            portion = look_on(experiment, context.instance, now, cursor.place, is_over)
        except MissingInputError as error:
            notifier.send_all(input_alerts(experiment, error))
            return dg.SkipReason(f"{error}")
        context.update_cursor(_write_cursor(msgspec.structs.replace(cursor, place=portion.place)))
        told += notifier.send_all(alerts_of(experiment, portion.looks, all_complete=portion.all_complete))
    return dg.SkipReason(f"{told} new alerts, {len(dead)} dead runs reported")


def _read_cursor(cursor: str | None) -> Cursor:
    try:
        return _CURSOR.decode(cursor or "")
    except (msgspec.DecodeError, UnicodeEncodeError):
        return Cursor()


def _write_cursor(cursor: Cursor) -> str:
    return msgspec.json.encode(cursor).decode()
