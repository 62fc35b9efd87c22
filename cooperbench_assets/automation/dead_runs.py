"""Runs whose process is gone and that nobody reported: they would keep their place in the queue, their cell and pools.

What belongs here: the evidence that a run is dead, reporting it, and freeing what it holds of pools. What does not:
what follows (``policy``). The lock of a cell is the strongest sign of life: a run whose cell anybody holds is never
reported.
"""

from __future__ import annotations

import logging
import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import dagster as dg
import psutil
from dagster import DagsterEventType, DagsterRunStatus, RunsFilter

from cooperbench_assets.assets.keys import HOST_TAG, cell_of, partitions_of
from cooperbench_assets.automation.dagster_runs import CELL_ASSETS, concerns, partitions_in
from cooperbench_assets.automation.observation import newest_change
from cooperbench_assets.execution.cell_lock import holder
from cooperbench_assets.execution.processes import namespace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dagster import DagsterRun

    from cooperbench_assets.experiment_context import ExperimentContext

QUIET: Final = timedelta(minutes=30)
"""A run of cells of which nothing is heard for this long after the deadline of a pair is dead, wherever it worked."""

_CLOCK_SLACK: Final = 2.0
_LOG: Final = logging.getLogger(__name__)


def report_dead_runs(instance: dg.DagsterInstance, experiment: ExperimentContext, now: datetime) -> list[str]:
    """Report runs of an experiment as over whose process is gone: as cancelled if a person was cancelling them.

    What shows that a run is dead: its process is gone, where its number means something here; the machine was started
    anew since; the launcher says that its worker is gone; or, of a run that works on cells elsewhere, that nobody holds
    them and nothing has been heard of it for longer than any pair may take. A run that cannot be judged is left alone.

    Args:
        instance: Dagster's instance.
        experiment: The experiment.
        now: The present time, UTC without a zone.

    Returns:
        The runs that were reported.
    """
    wanted = RunsFilter(statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING])
    reported = []
    for run in instance.get_runs(wanted):
        if not concerns(run, experiment.name):
            continue
        try:
            if (why := _why_dead(instance, experiment, run, now)) is not None and _report(instance, run.run_id, why):
                reported.append(run.run_id)
        except Exception:
            # One run with a damaged log, say, must not keep the others' places, nor stop a tick.
            _LOG.warning("run %s cannot be judged", run.run_id, exc_info=True)
    return reported


def free_pools(instance: dg.DagsterInstance) -> list[str]:
    """Free what runs hold of pools, or wait for, whose process is gone or which were deleted.

    Dagster leaves that to its daemon, which looks at runs alone that were reported as over, and a command needs none.

    Returns:
        The runs of which something was freed.
    """
    freed = []
    for run_id in instance.event_log_storage.get_concurrency_run_ids():
        run = instance.get_run_by_id(run_id)
        try:
            if run is not None and _why_process_is_gone(instance, run, _engine_events(instance, run)) is None:
                continue
        except Exception:
            _LOG.warning("run %s cannot be judged", run_id, exc_info=True)
            continue
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)
        freed.append(run_id)
    return freed


def _report(instance: dg.DagsterInstance, run_id: str, why: str) -> bool:
    """Report a run, unless it ended while we looked."""
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return False
    text = f"{why}; it was reported by automation, and tries go on from disk."
    if run.status == DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, text)  # As failed, it would be retried against the person's will.
    else:
        instance.report_run_failed(run, text)
    return True


def _why_dead(
    instance: dg.DagsterInstance, experiment: ExperimentContext, run: DagsterRun, now: datetime
) -> str | None:
    """What shows that a run is dead; None while it may live."""
    folders = _run_dirs(experiment, run)
    if any(holder(folder) is not None for folder in folders or ()):
        return None
    events = _engine_events(instance, run)
    why = _why_process_is_gone(instance, run, events)
    if why is not None or (_process(events) is not None and _is_here(instance, run)):
        return why
    launched = any(_kind(entry) == DagsterEventType.PIPELINE_STARTING for entry in events)
    if launched and instance.run_launcher.supports_check_run_worker_health:
        return _why_worker_is_gone(instance, run)
    return _why_silent(instance, experiment, run, folders, now)


def _engine_events(instance: dg.DagsterInstance, run: DagsterRun) -> Sequence[dg.EventLogEntry]:
    """What says which process works on a run, and that it was launched."""
    kinds = {DagsterEventType.ENGINE_EVENT, DagsterEventType.PIPELINE_STARTING}
    return instance.all_logs(run.run_id, of_type=kinds)


def _why_process_is_gone(
    instance: dg.DagsterInstance, run: DagsterRun, events: Sequence[dg.EventLogEntry]
) -> str | None:
    """What shows that a run's process is gone; None where it lives, or cannot be seen from here."""
    process = _process(events)
    if process is not None and _is_here(instance, run):
        return None if _alive(*process) else f"The process of this run ({process[0]}) is gone"
    return "The machine of this run was started anew" if _was_restarted(instance, run) else None


def _is_here(instance: dg.DagsterInstance, run: DagsterRun) -> bool:
    """Whether the run's process number means something here.

    A run that says nothing of its place was launched from the UI, and has not come to work yet: with an SQLite storage
    and Dagster's own launcher its process is a child of the code server's, as this one is.
    """
    if (place := run.tags.get(HOST_TAG)) is not None:
        return place == namespace()
    return _on_one_machine(instance) and isinstance(instance.run_launcher, dg.DefaultRunLauncher)


def _was_restarted(instance: dg.DagsterInstance, run: DagsterRun) -> bool:
    """Whether the one machine that an SQLite storage serves was started anew since the run began."""
    place, here = run.tags.get(HOST_TAG, "").split("/"), namespace().split("/")
    same_host = len(place) == len(here) and place[0] == here[0] == socket.gethostname()
    return same_host and place[1] != here[1] and _on_one_machine(instance)


def _on_one_machine(instance: dg.DagsterInstance) -> bool:
    # Nothing public says what kind of storage an instance has. Imported here: it brings SQLAlchemy, which loading the
    # code location needs for nothing else.
    from dagster._core.storage.runs.sqlite import SqliteRunStorage

    return isinstance(instance.run_storage, SqliteRunStorage)


def _why_worker_is_gone(instance: dg.DagsterInstance, run: DagsterRun) -> str | None:
    """What the launcher says of a worker that is gone; None where it lives, or where Dagster's monitoring asks."""
    if instance.run_monitoring_enabled:
        return None  # The daemon asks the launcher itself, and may start the run anew.
    found = instance.run_launcher.check_run_worker_health(run)
    return f"The worker of this run is gone ({found})" if found.status.value in ("NOT_FOUND", "FAILED") else None


def _why_silent(
    instance: dg.DagsterInstance, experiment: ExperimentContext, run: DagsterRun, folders: Sequence[Path], now: datetime
) -> str | None:
    """Whether a run that works on cells has been silent for too long.

    Its cells are free. Between two stages that is so for a while, and on a file system without shared locks it always
    looks so: its events and its files must have stood still as well.
    """
    selected = {key.path[-1] for key in run.asset_selection or ()}
    if not folders or not selected <= set(CELL_ASSETS):
        return None
    newest = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
    if not newest:
        return None
    said = datetime.fromtimestamp(newest[0].timestamp, UTC).replace(tzinfo=None)
    moved = [moment for folder in folders if (moment := newest_change(folder, hidden=True)) is not None]
    silent = now - max([said, *moved])
    if silent <= QUIET + timedelta(minutes=experiment.spec.limits.pair_timeout_minutes):
        return None
    return f"Nothing was heard of this run for {silent.total_seconds() / 60:.0f} minutes, and nobody holds its cells"


def _run_dirs(experiment: ExperimentContext, run: DagsterRun) -> list[Path]:
    """The run folders of the run's cells, those included that defs.yaml has dropped since; empty where it has none."""
    folders = []
    for key in partitions_in(run, partitions_of(experiment.spec)):
        try:
            cell = cell_of(experiment.name, key)
            folders.append(experiment.run_dir(experiment.spec.cell(experiment.name, cell.setting, cell.seed)))
        except (KeyError, ValueError):
            continue  # A setting that is gone, or a key of an earlier layout.
    return folders


def _process(events: Sequence[dg.EventLogEntry]) -> tuple[int, float] | None:
    """The process that works on a run, and when it said so (seconds since 1970); None where none has said so."""
    found = None
    for entry in events:
        event = entry.dagster_event
        if event is None or not event.is_engine_event:
            continue
        pid = event.engine_event_data.metadata.get("pid")
        if pid is not None and str(pid.value).isdecimal() and (found is None or entry.timestamp >= found[1]):
            found = (int(str(pid.value)), entry.timestamp)
    return found


def _kind(entry: dg.EventLogEntry) -> DagsterEventType | None:
    return entry.dagster_event.event_type if entry.dagster_event is not None else None


def _alive(pid: int, said_at: float) -> bool:
    """Whether the process that said something then still runs; a later one of the same number is another."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= said_at + _CLOCK_SLACK
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
