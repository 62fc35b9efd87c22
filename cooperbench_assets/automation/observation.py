"""Looking at cells: the log tree, the tries on disk, the lock and Dagster's runs, as one ``CellState`` each.

What belongs here: reading. What does not: what follows from it (``cell_state``, ``policy``). Nothing is written, and
nothing is locked: a cell that is being worked on is left alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from cooperbench_assets.assets.execution import job_of
from cooperbench_assets.assets.keys import partition_key
from cooperbench_assets.automation.cell_state import PairsToRun, assess, fingerprint
from cooperbench_assets.automation.dagster_runs import Asked, CellRuns, asked_for, cell_runs
from cooperbench_assets.automation.policy import CellState
from cooperbench_assets.execution.api import check
from cooperbench_assets.execution.attempts.pair_state import read_states
from cooperbench_assets.execution.cell_lock import holder
from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.planning.budget import Budget
from cooperbench_assets.execution.provenance import read_provenance
from cooperbench_assets.experiment_context import MissingInputError, redactor_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import dagster as dg

    from cooperbench_assets.benchmark.pairs import Subset
    from cooperbench_assets.experiment_context import ExperimentContext
    from cooperbench_assets.spec import CellSpec

_LOG: Final = logging.getLogger(__name__)

READ_SLACK: Final = timedelta(seconds=1)
"""Clocks of a file system and of Dagster's storage may be apart by this much."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A launch that was stopped before it had run everything."""

    stage: str
    kind: str
    """budget or breaker."""

    reason: str
    started_at: str


@dataclass(frozen=True, slots=True)
class Observation:
    """One cell: the state that decisions are made from, and what alerts tell beside it."""

    spec: CellSpec
    state: CellState
    stops: tuple[Stop, ...] = ()
    """Of the last launch of each stage."""

    newest_run: str | None = None
    complete: bool = False
    """Every pair has its verdict or is accepted, and the tables say so."""

    families: Mapping[str, int] = field(default_factory=dict)
    """Waiting pairs by family."""

    tries: int = 0
    """Recorded tries, both stages."""


def observe(
    experiment: ExperimentContext,
    instance: dg.DagsterInstance,
    now: datetime,
    *,
    cells: Sequence[CellSpec] | None = None,
    backfilled: Mapping[str, str] | None = None,
) -> Iterator[Observation]:
    """Planned cells of an experiment, one after another.

    Args:
        experiment: The experiment.
        instance: Dagster's instance.
        now: The present time, UTC without a zone.
        cells: Only these cells, in this order; all planned ones if not given.
        backfilled: Partitions that a running backfill will still launch, with its id.

    Raises:
        MissingInputError: if there is no subset.
    """
    subset = experiment.subset()
    chosen = experiment.cells if cells is None else cells
    runs = cell_runs(instance, experiment, chosen)
    for cell in chosen:
        yield observe_cell(experiment, instance, cell, subset, now, runs[cell.cell], backfilled or {})


def observe_cell(
    experiment: ExperimentContext,
    instance: dg.DagsterInstance,
    cell: CellSpec,
    subset: Subset,
    now: datetime,
    runs: CellRuns,
    backfilled: Mapping[str, str],
) -> Observation:
    """One cell as it is; one that is being worked on is not read."""
    state = CellState(
        cell=cell.cell,
        now=now,
        executes=experiment.spec.execution != "none",
        active_run=runs.active or backfilled.get(partition_key(cell.cell)),
        launched=experiment.run_dir(cell).is_dir(),
        cancelled_run=runs.cancelled,
        backoff=timedelta(minutes=experiment.spec.retry.backoff_minutes),
    )
    seen = Observation(cell, state, newest_run=runs.newest)
    try:
        by = holder(experiment.run_dir(cell))
        if state.active_run is not None or by is not None:
            return replace(seen, state=replace(state, holder=str(by) if by is not None else None))
        return _read(experiment, instance, seen, subset, runs.read_at)
    except (LaunchError, MissingInputError) as error:
        return replace(seen, state=replace(state, problem=str(error)))
    except Exception as error:
        # One cell with a damaged file, or on a disk that is gone, must not stop the others' retries.
        _LOG.warning("%s cannot be looked at", cell.cell, exc_info=True)
        text = redactor_of(experiment.spec).text(f"{type(error).__name__}: {error}")
        return replace(seen, state=replace(state, problem=text))


def _read(
    experiment: ExperimentContext,
    instance: dg.DagsterInstance,
    seen: Observation,
    subset: Subset,
    tables: datetime | None,
) -> Observation:
    run_dir = experiment.run_dir(seen.spec)
    changed = newest_change(run_dir)
    unread = changed is not None and (tables is None or changed > tables + READ_SLACK)
    if not seen.state.executes:
        state = replace(seen.state, launched=changed is not None, unread=unread)
        return replace(seen, state=state)
    job = job_of(experiment, seen.spec, subset)
    check(job)
    states = read_states(job)
    record = read_provenance(run_dir)
    whole = bool(record.get("asked_whole"))
    to_run = assess(job, states, _retry_generations(record), whole=whole, now=seen.state.now)
    tries = sum(to_run.tries.values())
    launched = bool(tries or record.get("launches") or any(one.has_result for one in states.values()))
    unread = unread and launched
    mark = fingerprint(seen.spec.cell, experiment.spec, subset.sha256, to_run, changed if unread else None)
    money = Budget(job, states).stop_reason() if to_run.agents else None
    to_do = bool(to_run.agents or to_run.evaluations or unread)
    asked = asked_for(instance, seen.spec.cell, mark) if to_do else Asked()
    state = with_pairs_to_run(seen.state, to_run, asked, fingerprint=mark)
    state = replace(state, launched=launched, whole=whole, unread=unread, money=money)
    return replace(
        seen,
        state=state,
        stops=tuple(stops_of(record)),
        complete=launched and to_run.complete and not unread,
        families=_counted(to_run),
        tries=tries,
    )


def with_pairs_to_run(state: CellState, to_run: PairsToRun, asked: Asked, *, fingerprint: str) -> CellState:
    """A cell's state with what is still to run, and what became of runs that were asked for it as it stands."""
    return replace(
        state,
        fingerprint=fingerprint,
        asked=asked.over,
        fruitless=asked.failed,
        newest_failure=asked.newest_failure,
        done_already=asked.succeeded,
        agents=to_run.agents,
        evaluations=to_run.evaluations,
        unwanted=len(to_run.unwanted),
        exhausted=to_run.exhausted,
        waiting=to_run.waiting,
        rounds=to_run.rounds,
        newest_end=to_run.newest_end,
        not_before=to_run.not_before,
    )


def _retry_generations(record: Mapping[str, Any]) -> dict[str, int]:
    found = record.get("campaigns")
    return {str(stage): int(number) for stage, number in found.items()} if isinstance(found, dict) else {}


def _counted(to_run: PairsToRun) -> dict[str, int]:
    families = list(to_run.waiting.values())
    return {family: families.count(family) for family in sorted(set(families))}


def stops_of(record: Mapping[str, Any]) -> Iterator[Stop]:
    """Why the last launch of each stage was stopped, where it was."""
    launches = record.get("launches")
    last = {one.get("stage"): one for one in launches if isinstance(one, dict)} if isinstance(launches, list) else {}
    for stage, launch in last.items():
        if reason := launch.get("stopped"):
            # Release 0.1 did not record it with the launch.
            money = launch.get("over_budget", record.get("truncated_reason") == reason)
            kind = "budget" if money else "breaker"
            yield Stop(str(stage), kind, str(reason), str(launch.get("started_at")))


def newest_change(run_dir: Path, *, hidden: bool = False) -> datetime | None:
    """When anything in a run folder last changed, UTC; None where there is no file.

    Files and folders with a leading dot (the lock, staging) count only where `hidden` ones are asked for.
    """
    newest = 0.0
    for folder, names, files in os.walk(run_dir):
        names[:] = [name for name in names if hidden or not name.startswith(".")]
        for name in files:
            if name.startswith(".") and not hidden:
                continue
            try:
                newest = max(newest, os.stat(f"{folder}/{name}").st_mtime)  # noqa: PTH116 - thousands of files
            except FileNotFoundError:
                continue
    return datetime.fromtimestamp(newest, UTC).replace(tzinfo=None) if newest else None
