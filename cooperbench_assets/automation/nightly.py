"""The nightly schedule: one backfill of whatever planned cells are missing, incomplete or stale.

What belongs here: which cells, and the words on the Backfills page. What does not: how a backfill is made
(``backfills``). There is none where defs.yaml gives no ``nightly:``, and it is off until somebody starts it.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of a schedule as they are.
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import dagster as dg

from cooperbench_assets.assets.keys import asset_key, partition_key
from cooperbench_assets.automation.backfills import add_backfill, running_backfills
from cooperbench_assets.automation.dead import report_dead_runs
from cooperbench_assets.automation.decide import FRUITLESS_RUNS, Launch, decide, ready_at
from cooperbench_assets.automation.look import Look, look
from cooperbench_assets.automation.retry import backfilled, run_config, sensor_is_on
from cooperbench_assets.automation.runs import CELL_ASSETS, WHY_TAG, job_name
from cooperbench_assets.bound import BoundExperiment, MissingInputError

NIGHTLY_TAG: Final = "cooperbench-assets/nightly"
WORDS: Final = {"missing": "never run", "incomplete": "with pairs that are owed", "stale": "newer than their tables"}


def build_nightly_schedule(
    bound: BoundExperiment, partitions: dg.StaticPartitionsDefinition
) -> dg.ScheduleDefinition | None:
    """The schedule of an experiment that names a time for it."""
    if bound.spec.nightly is None:
        return None

    @dg.schedule(
        name=job_name(bound.name, "nightly"),
        cron_schedule=bound.spec.nightly,
        execution_timezone="UTC",
        target=dg.AssetSelection.assets(*(asset_key(bound.name, name) for name in CELL_ASSETS)),
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Launches one backfill of the planned cells that are missing, incomplete or stale, cells that "
        "nobody has launched yet included. It buys model calls: start it when you want that.",
    )
    def nightly(context: dg.ScheduleEvaluationContext) -> dg.SkipReason:
        return tick(bound, partitions, context, datetime.now(UTC).replace(tzinfo=None))

    return nightly


def tick(
    bound: BoundExperiment,
    partitions: dg.StaticPartitionsDefinition,
    context: dg.ScheduleEvaluationContext,
    now: datetime,
) -> dg.SkipReason:
    """Make one backfill, or say why none; what it made is on the Backfills page, so a tick always ends as skipped."""
    report_dead_runs(context.instance, bound, now)
    tags = {NIGHTLY_TAG: bound.name}
    if running := running_backfills(context.instance, tags):
        return dg.SkipReason(f"backfill {running[0]} of an earlier night is still running")
    try:
        looks = list(look(bound, context.instance, now, backfilled=backfilled(bound, context)))
    except MissingInputError as error:
        return dg.SkipReason(str(error))
    retrying = sensor_is_on(context.instance, bound)
    chosen = [(seen.state.cell, why) for seen in looks if (why := owed_by_night(seen, retrying=retrying)) is not None]
    if not chosen:
        return dg.SkipReason("nothing is owed: " + "; ".join(_why_not(seen, retrying=retrying) for seen in looks))
    title = title_of([why for _, why in chosen])
    if is_preview(context):
        return dg.SkipReason(f"A tick would launch a backfill now. {title}")
    listed = "\n".join(f"{cell}: {WORDS[why]}" for cell, why in chosen)
    backfill = add_backfill(
        context.instance,
        partitions,
        [partition_key(cell) for cell, _ in chosen],
        [asset_key(bound.name, name) for name in CELL_ASSETS],
        title=title,
        description=listed,
        tags={
            **tags,
            # The Backfills page shows tags and no title, and cuts what is long.
            WHY_TAG: title.removeprefix("Nightly: "),
            "dagster/schedule_name": job_name(bound.name, "nightly"),
        },
        run_config=run_config(bound.name, CELL_ASSETS),
        now=now.replace(tzinfo=UTC),
    )
    return dg.SkipReason(f"backfill {backfill}: {title}")


def is_preview(context: dg.ScheduleEvaluationContext) -> bool:
    """Whether somebody only looks, by the UI's "Preview tick result": the daemon numbers its ticks, a preview does not.

    A preview calls the same code as a tick does, and must buy nothing.
    """
    key = context.log_key
    return key is not None and len(key) > 0 and not key[-1].isdecimal()


def owed_by_night(seen: Look, *, retrying: bool) -> str | None:
    """missing, incomplete or stale; None where nothing is owed, somebody is at it, or it is too early to try again.

    Args:
        seen: The cell.
        retrying: Whether the retry sensor is on: what it asks for by itself is left to it.
    """
    state = seen.state
    if state.active_run is not None or state.holder is not None or state.problem is not None:
        return None
    if not state.executes:
        return "stale" if state.unread else None
    if state.cancelled_run is not None:
        return None
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


def _paused_until(seen: Look) -> datetime | None:
    """Until when the next try must wait, for the pause behind the last one or a usage limit: a night may be early."""
    state = seen.state
    tries_owed = bool((state.agents and state.money is None) or state.evaluations)
    until = ready_at(state, tries_owed=tries_owed)
    return until if until is not None and state.now < until else None


def _left_to_the_sensor(seen: Look) -> bool:
    """Whether the sensor's next tick asks for all that is owed; pairs that nobody asked for yet it never buys."""
    return not seen.state.unwanted and isinstance(decide(seen.state), Launch)


def title_of(reasons: Sequence[str]) -> str:
    """Why there is a backfill, in one line."""
    counts = Counter(reasons)
    parts = [f"{counts[why]} {WORDS[why]}" for why in WORDS if counts[why]]
    total = sum(counts.values())
    return f"Nightly: {total} cell{'s' if total > 1 else ''} ({', '.join(parts)})"


def _why_not(seen: Look, *, retrying: bool) -> str:
    state = seen.state
    if state.active_run is not None or state.holder is not None:
        return f"{state.cell} is being worked on"
    if state.executes and state.cancelled_run is not None:
        return f"{state.cell}: a person cancelled its last run ({state.cancelled_run[:8]}); materialise it to go on"
    if (until := _paused_until(seen)) is not None:
        return f"{state.cell}: pause before the next try, until {until:%Y-%m-%d %H:%M:%S} UTC"
    if retrying and _left_to_the_sensor(seen):
        return f"{state.cell} is left to the retry sensor"
    return f"{state.cell}: {state.problem or state.money or 'up to date, or waits for a person'}"


__all__: Sequence[str] = ("NIGHTLY_TAG", "build_nightly_schedule", "owed_by_night", "tick", "title_of")
