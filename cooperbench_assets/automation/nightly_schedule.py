"""The nightly schedule: one backfill of whatever planned cells are missing, incomplete or stale.

What belongs here: which cells, and the words on the Backfills page. What does not: how a backfill is made
(``backfills``). There is none where defs.yaml gives no ``nightly:``, and it is off until somebody starts it.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of a schedule as they are.
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import dagster as dg

from cooperbench_assets.assets.keys import asset_key, model_tag, op_name, partition_key
from cooperbench_assets.automation.backfills import add_backfill, running_backfills
from cooperbench_assets.automation.dagster_runs import CELL_ASSETS, UNFINISHED, WHY_TAG, job_name
from cooperbench_assets.automation.dead_runs import report_dead_runs
from cooperbench_assets.automation.observation import Observation, observe
from cooperbench_assets.automation.policy import FRUITLESS_RUNS, Launch, decide, ready_at
from cooperbench_assets.automation.retry_sensor import backfilled, run_config, sensor_is_on
from cooperbench_assets.automation.tick_budget import Place, by_reason, look_on, time_box
from cooperbench_assets.experiment_context import ExperimentContext, MissingInputError

Night = dg.SkipReason | dg.RunRequest
FILL: Final = "fill"
"""Job that looks at all cells, however many there are."""

NIGHTLY_TAG: Final = "cooperbench-assets/nightly"
WORDS: Final = {"missing": "never run", "incomplete": "with pairs still to run", "stale": "newer than their tables"}


def build_fill_job(experiment: ExperimentContext, partitions: dg.StaticPartitionsDefinition) -> dg.JobDefinition:
    """The job that does what the schedule does, with all the time that it takes."""

    @dg.op(name=op_name(experiment.name, "launch_backfill"))
    def fill(context: dg.OpExecutionContext) -> None:
        now = datetime.now(UTC).replace(tzinfo=None)
        looks = list(observe(experiment, context.instance, now, backfilled=backfilled(experiment, context.instance)))
        context.log.info(launch_backfill(experiment, partitions, context.instance, looks, now))

    @dg.job(
        name=job_name(experiment.name, FILL),
        executor_def=dg.in_process_executor,
        description="Launches one backfill of the planned cells that are missing, incomplete or stale. The nightly "
        "schedule leaves it to this job where there are more cells than a tick has time for. It buys model calls.",
    )
    def fill_job() -> None:
        fill()

    return fill_job


def build_nightly_schedule(
    experiment: ExperimentContext, partitions: dg.StaticPartitionsDefinition, job: dg.JobDefinition
) -> dg.ScheduleDefinition | None:
    """The schedule of an experiment that names a time for it; `job` does its work where a tick has no time for it."""
    if experiment.spec.nightly is None:
        return None

    @dg.schedule(
        name=job_name(experiment.name, "nightly"),
        cron_schedule=experiment.spec.nightly,
        execution_timezone="UTC",
        job=job,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Launches one backfill of the planned cells that are missing, incomplete or stale, cells that "
        "nobody has launched yet included. It buys model calls: start it when you want that.",
    )
    def nightly(context: dg.ScheduleEvaluationContext) -> Night:
        return tick(experiment, partitions, context, datetime.now(UTC).replace(tzinfo=None))

    return nightly


def tick(
    experiment: ExperimentContext,
    partitions: dg.StaticPartitionsDefinition,
    context: dg.ScheduleEvaluationContext,
    now: datetime,
    is_over: Callable[[], bool] | None = None,
) -> Night:
    """Make one backfill, or say why none; what it made is on the Backfills page, so a tick mostly ends as skipped.

    A schedule has one tick a night: where its time is over before every cell was looked at, a run goes on.
    """
    is_over = is_over or time_box()
    report_dead_runs(context.instance, experiment, now)
    if (earlier := _of_an_earlier_night(context.instance, experiment)) is not None:
        return dg.SkipReason(earlier)
    try:
        portion = look_on(
            experiment, context.instance, now, Place(), is_over, backfilled=backfilled(experiment, context.instance)
        )
    except MissingInputError as error:
        return dg.SkipReason(str(error))
    if portion.whole:
        return dg.SkipReason(
            launch_backfill(experiment, partitions, context.instance, portion.looks, now, preview=is_preview(context))
        )
    why = f"{len(experiment.cells)} cells, of which a tick has time for {len(portion.looks)}"
    if is_preview(context):
        return dg.SkipReason(f"A tick would launch a run of {job_name(experiment.name, FILL)} now: {why}")
    return dg.RunRequest(tags={WHY_TAG: why})


def _of_an_earlier_night(instance: dg.DagsterInstance, experiment: ExperimentContext) -> str | None:
    """What an earlier night has not finished; None where it has."""
    if running := running_backfills(instance, {NIGHTLY_TAG: experiment.name}):
        return f"backfill {running[0]} of an earlier night is still running"
    wanted = dg.RunsFilter(job_name=job_name(experiment.name, FILL), statuses=list(UNFINISHED))
    if runs := instance.get_runs(wanted, limit=1):
        return f"run {runs[0].run_id[:8]} of an earlier night is not over"
    return None


def launch_backfill(
    experiment: ExperimentContext,
    partitions: dg.StaticPartitionsDefinition,
    instance: dg.DagsterInstance,
    looks: Sequence[Observation],
    now: datetime,
    *,
    preview: bool = False,
) -> str:
    """Launch one backfill of what is still to run, unless somebody only looks; returns what was done, or why not."""
    retrying = sensor_is_on(instance, experiment)
    chosen = [
        (seen.state.cell, why) for seen in looks if (why := reason_to_run_at_night(seen, retrying=retrying)) is not None
    ]
    if not chosen:
        reasons = by_reason((seen.state.cell, _why_not(seen, retrying=retrying)) for seen in looks)
        return "nothing to launch: " + "; ".join(reasons)
    title = title_of([why for _, why in chosen])
    if preview:
        return f"A tick would launch a backfill now. {title}"
    listed = "\n".join(f"{cell}: {WORDS[why]}" for cell, why in chosen)
    backfill = add_backfill(
        instance,
        partitions,
        [partition_key(cell) for cell, _ in chosen],
        [asset_key(experiment.name, name) for name in CELL_ASSETS],
        title=title,
        description=listed,
        tags={
            NIGHTLY_TAG: experiment.name,
            **model_tag(experiment.spec),
            # The Backfills page shows tags and no title, and cuts what is long.
            WHY_TAG: title.removeprefix("Nightly: "),
            "dagster/schedule_name": job_name(experiment.name, "nightly"),
        },
        run_config=run_config(experiment.name, CELL_ASSETS) if experiment.spec.execution != "none" else {},
        now=now.replace(tzinfo=UTC),
    )
    return f"backfill {backfill}: {title}"


def is_preview(context: dg.ScheduleEvaluationContext) -> bool:
    """Whether somebody only looks, by the UI's "Preview tick result": the daemon numbers its ticks, a preview does not.

    A preview calls the same code as a tick does, and must buy nothing. Dagster's context has no field for it: the log's
    key alone tells them apart, and a test asks Dagster for both.
    """
    key = context.log_key
    return key is not None and len(key) > 0 and not key[-1].isdecimal()


def reason_to_run_at_night(seen: Observation, *, retrying: bool) -> str | None:
    """missing, incomplete or stale; None where nothing is left to run, a run is at it, or it is too early.

    Args:
        seen: The cell.
        retrying: Whether the retry sensor is on: what it asks for by itself is left to it.
    """
    state = seen.state
    if state.active_run is not None or state.holder is not None or state.problem is not None:
        return None
    if state.cancelled_run is not None:
        return None
    if not state.executes:
        return "stale" if state.unread else None
    if state.fruitless >= FRUITLESS_RUNS or _paused_until(seen) is not None:
        return None
    if retrying and _left_to_the_sensor(seen):
        return None
    agents = state.agents or state.unwanted
    if not state.launched:
        return "missing" if agents and state.money is None else None
    if (agents and state.money is None) or state.evaluations:
        return "incomplete"
    return "stale" if state.unread else None


def _paused_until(seen: Observation) -> datetime | None:
    """Until when the next try must wait, for the pause behind the last one or a usage limit: a night may be early."""
    state = seen.state
    tries_left_to_run = bool((state.agents and state.money is None) or state.evaluations)
    until = ready_at(state, tries_left_to_run=tries_left_to_run)
    return until if until is not None and state.now < until else None


def _left_to_the_sensor(seen: Observation) -> bool:
    """Whether the sensor's next tick asks for all that is left to run; what nobody asked for yet it never buys."""
    return not seen.state.unwanted and isinstance(decide(seen.state), Launch)


def title_of(reasons: Sequence[str]) -> str:
    """Why there is a backfill, in one line."""
    counts = Counter(reasons)
    parts = [f"{counts[why]} {WORDS[why]}" for why in WORDS if counts[why]]
    total = sum(counts.values())
    return f"Nightly: {total} cell{'s' if total > 1 else ''} ({', '.join(parts)})"


def _why_not(seen: Observation, *, retrying: bool) -> str:
    state = seen.state
    if state.active_run is not None or state.holder is not None:
        return "it is being worked on"
    if state.cancelled_run is not None:
        return f"a person cancelled its last run ({state.cancelled_run[:8]}); materialise it to go on"
    if (until := _paused_until(seen)) is not None:
        return f"pause before the next try, until {until:%Y-%m-%d %H:%M:%S} UTC"
    if retrying and _left_to_the_sensor(seen):
        return "it is left to the retry sensor"
    return state.problem or state.money or "up to date, or waits for a person"


__all__: Sequence[str] = ("NIGHTLY_TAG", "build_nightly_schedule", "reason_to_run_at_night", "tick", "title_of")
