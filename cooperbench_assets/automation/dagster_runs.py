"""What Dagster's storage knows of an experiment's runs.

What belongs here: questions about runs. What does not: what is on disk (``observation``), deciding (``policy``), and
putting right what a dead process left there (``dead_runs``). Dagster's storage may be wiped at any time: nothing that
limits tries is kept there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
from dagster import DagsterEventType, DagsterRunStatus, RunsFilter

from cooperbench_assets.assets.keys import asset_key, group_name, partition_key, partitions_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster import DagsterRun, EventLogRecord, RunRecord

    from cooperbench_assets.experiment_context import ExperimentContext
    from cooperbench_assets.spec import CellSpec
    from cooperbench_assets.store.cells import Cell

CELL_ASSETS: Final = ("run_logs", "eval_outputs", "pair_results")
"""What a run of a cell materialises."""

READ_AGAIN: Final = "read_again"
"""The job that reads every cell and runs none; its name follows the experiment's."""

CELL_JOBS: Final = ("smoke", "run_cell", "second_verdict", READ_AGAIN)
"""Jobs that work on cells, alike."""

FINGERPRINT_TAG: Final = "cooperbench-assets/state"
"""On runs that automation asked for: the fingerprint of the cell as it was then."""

WHY_TAG: Final = "why"
"""On runs and backfills that automation asked for. The UI shows tags, and cuts what is long."""

PARTITION_TAG: Final = "dagster/partition"
RANGE_TAGS: Final = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")

UNFINISHED: Final = (
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.SUSPENDED,
    DagsterRunStatus.CANCELING,
)


@dataclass(frozen=True, slots=True)
class CellRuns:
    """The runs of one cell, as far as they matter for the next one."""

    active: str | None = None
    """A run that is not over."""

    newest: str | None = None
    """The newest run, if it is over."""

    cancelled: str | None = None
    """The newest run, if a person cancelled it before it had read the cell."""

    read_at: datetime | None = None
    """When pair_results was last materialised, UTC; None where this instance knows of no time."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Runs that automation asked for of one state of a cell."""

    over: int = 0
    """Those that are over, however they ended."""

    failed: int = 0
    newest_failure: datetime | None = None
    succeeded: bool = False


def job_name(experiment: str, job: str) -> str:
    """The name of an experiment's job, sensor or schedule."""
    return f"{group_name(experiment)}_{job}"


def concerns(run: DagsterRun, experiment: str, assets: Sequence[str] = ()) -> bool:
    """Whether a run materialises some of these assets of an experiment (any of its assets if none is named)."""
    if run.asset_selection is None:
        jobs = CELL_JOBS if assets else (*CELL_JOBS, "refresh_results", "fill")
        return run.job_name in {job_name(experiment, job) for job in jobs}
    keys = {asset_key(experiment, name) for name in assets}
    return any(key in keys if keys else key.path[0] == experiment for key in run.asset_selection)


def cell_runs(
    instance: dg.DagsterInstance, experiment: ExperimentContext, cells: Sequence[CellSpec]
) -> dict[Cell, CellRuns]:
    """The runs of cells: a fixed number of questions to Dagster's storage, however many cells and runs there are.

    The newest run of a cell is found by the event that Dagster writes for each asset and partition when a run is made:
    it is there for every run, whoever made it and whether or not it has begun, and nobody else's runs stand between.
    A run that automation asked for and that was never handed over (its daemon died just then) does not count as
    active: asked for again by the same key, Dagster hands that very run over.
    """
    keys = {cell.cell: partition_key(cell.cell) for cell in cells}
    active = active_runs(instance, experiment)
    newest = _newest_runs(instance, experiment.name, set(keys.values()))
    read = _newest_read(instance, experiment.name, set(keys.values()))
    return {cell: _runs_of(active.get(key), newest.get(key), read.get(key)) for cell, key in keys.items()}


def _runs_of(active: str | None, newest: DagsterRun | None, read: EventLogRecord | None) -> CellRuns:
    over = newest is not None and newest.is_finished
    cancelled = newest is not None and newest.status == DagsterRunStatus.CANCELED
    if newest is not None and read is not None and read.run_id == newest.run_id:
        cancelled = False  # A run of many cells was cancelled after it had read this one.
    return CellRuns(
        active=active,
        newest=newest.run_id if newest is not None and over else None,
        cancelled=newest.run_id if newest is not None and cancelled else None,
        read_at=None if read is None else datetime.fromtimestamp(read.timestamp, UTC).replace(tzinfo=None),
    )


def active_runs(instance: dg.DagsterInstance, experiment: ExperimentContext) -> dict[str, str]:
    """Partitions of an experiment's cells that a run which is not over is about, with the run's id."""
    partitions = partitions_of(experiment.spec)
    found: dict[str, str] = {}
    for run in instance.get_runs(RunsFilter(statuses=list(UNFINISHED))):
        if concerns(run, experiment.name, CELL_ASSETS) and not _never_handed_over(run):
            found.update(dict.fromkeys(partitions_in(run, partitions), run.run_id))
    return found


def partitions_in(run: DagsterRun, partitions: dg.PartitionsDefinition[str]) -> Sequence[str]:
    """The partitions that a run is about; none where it names none, unless it is of the job that reads them all.

    A run of a range names its two ends. Where one of them is no partition any more (its cell was dropped while the run
    was queued), nobody can tell what lies between, and every partition counts.
    """
    if (key := run.tags.get(PARTITION_TAG)) is not None:
        return [key]
    first, last = (run.tags.get(tag) for tag in RANGE_TAGS)
    if first is None or last is None:
        return list(partitions.get_partition_keys()) if run.job_name.endswith(f"_{READ_AGAIN}") else []
    keys = list(partitions.get_partition_keys())
    if first not in keys or last not in keys:
        return keys
    return list(partitions.get_partition_keys_in_range(dg.PartitionKeyRange(first, last)))


def _newest_runs(instance: dg.DagsterInstance, experiment: str, keys: set[str]) -> dict[str, DagsterRun]:
    """The run of each partition that was made last."""
    planned: dict[str, EventLogRecord] = {}
    for name in CELL_ASSETS:
        for record in _newest_events(
            instance, asset_key(experiment, name), DagsterEventType.ASSET_MATERIALIZATION_PLANNED, keys
        ):
            if (key := record.partition_key) is not None:
                planned[key] = max(planned.get(key, record), record, key=lambda one: one.storage_id)
    ids = {record.run_id for record in planned.values()}
    runs = {run.run_id: run for run in instance.get_runs(RunsFilter(run_ids=list(ids)))} if ids else {}
    return {key: runs[record.run_id] for key, record in planned.items() if record.run_id in runs}


def _newest_read(instance: dg.DagsterInstance, experiment: str, keys: set[str]) -> dict[str, EventLogRecord]:
    """The newest materialisation of pair_results of each partition, where this instance knows of one."""
    asset = asset_key(experiment, "pair_results")
    records = _newest_events(instance, asset, DagsterEventType.ASSET_MATERIALIZATION, keys)
    return {record.partition_key: record for record in records if record.partition_key is not None}


def _newest_events(
    instance: dg.DagsterInstance, asset: dg.AssetKey, kind: DagsterEventType, keys: set[str]
) -> Sequence[EventLogRecord]:
    """The newest event of a kind of each of these partitions of an asset."""
    ids = instance.get_latest_storage_id_by_partition(asset, kind, keys)
    if not ids:
        return []
    # The instance's own method of this name is deprecated, and those it names instead know no planned runs by id.
    wanted = dg.EventRecordsFilter(kind, asset, storage_ids=list(ids.values()))
    return instance.event_log_storage.get_event_records(wanted)


def _never_handed_over(run: DagsterRun) -> bool:
    return run.status == DagsterRunStatus.NOT_STARTED and FINGERPRINT_TAG in run.tags


def asked_for(instance: dg.DagsterInstance, cell: Cell, fingerprint: str) -> Asked:
    """What became of the runs that automation asked for of this cell in this very state."""
    tags = {FINGERPRINT_TAG: fingerprint, PARTITION_TAG: partition_key(cell)}
    records = instance.get_run_records(RunsFilter(tags=tags), limit=20)
    failed = [one for one in records if one.dagster_run.status == DagsterRunStatus.FAILURE]
    return Asked(
        over=sum(one.dagster_run.is_finished for one in records),
        failed=len(failed),
        newest_failure=max((_ended(one) for one in failed), default=None),
        succeeded=any(one.dagster_run.status == DagsterRunStatus.SUCCESS for one in records),
    )


def _ended(record: RunRecord) -> datetime:
    if record.end_time is None:
        return record.update_timestamp.astimezone(UTC).replace(tzinfo=None)
    return datetime.fromtimestamp(record.end_time, UTC).replace(tzinfo=None)


def failed_since(instance: dg.DagsterInstance, experiment: str, since: datetime) -> list[DagsterRun]:
    """Runs of an experiment that failed since then (UTC), the oldest first."""
    wanted = RunsFilter(statuses=[DagsterRunStatus.FAILURE], updated_after=since.replace(tzinfo=UTC))
    return [run for run in instance.get_runs(wanted, ascending=True) if concerns(run, experiment)]


def error_of(instance: dg.DagsterInstance, run_id: str) -> str:
    """What a run's first failed step raised, or why the run failed: Dagster's wrapping says nothing to a person."""
    wanted = {DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE}
    for entry in sorted(instance.all_logs(run_id, of_type=wanted), key=lambda entry: entry.timestamp):
        event = entry.dagster_event
        if event is None:
            continue
        # A run that was reported as failed has a message and no data.
        text = error_text(getattr(event.event_specific_data, "error", None)) or (event.message or "").strip()
        if text:
            return text
    return "no error is on record"


def error_text(error: Any) -> str:
    """What an error in Dagster's storage says to a person: neither its wrapping nor a class; empty where nothing."""
    while error is not None and error.cause is not None and (error.cls_name or "").startswith("Dagster"):
        error = error.cause
    if error is None:
        return ""
    return re.sub(rf"^[\w.]*\b{re.escape(error.cls_name or '')}: ", "", error.message.strip())
