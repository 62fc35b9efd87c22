"""What a dead launch of a cell left: its processes ended, its promotions finished, its tries settled.

What belongs here: putting the cell right before anything is planned, under its lock. What does not: containers
(``sandboxes``), and how a single try is settled (``lifecycle``).
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cooperbench_assets.benchmark.attempt_tree import attempt_folders, plain_listing
from cooperbench_assets.benchmark.attempts import ATTEMPTS, parse_folder
from cooperbench_assets.execution.attempts import promotion, staging
from cooperbench_assets.execution.attempts.leases import wait_for_lease
from cooperbench_assets.execution.attempts.lifecycle import left_behind, settle
from cooperbench_assets.execution.attempts.records import folder_name, of_stage, scan_attempts
from cooperbench_assets.execution.job import STAGING
from cooperbench_assets.execution.processes import kill_recorded, process_identity
from cooperbench_assets.files import UNFINISHED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.attempts.records import Attempt
    from cooperbench_assets.execution.job import CellJob


@dataclass(slots=True)
class Recovered:
    """What was put right."""

    attempts: dict[Pair, list[Attempt]] = field(default_factory=dict)
    """Every recorded try of the run, as it stands now."""

    reaped: int = 0
    """Processes of dead launches that were ended."""

    repaired: Counter[str] = field(default_factory=Counter)
    """promotions finished, tries completed (their files were whole), tries interrupted."""


def recover(job: CellJob) -> Recovered:
    """Put a cell right; called under its lock, so whatever runs there has lost its launch."""
    attempts = scan_attempts(job.run_dir, job.mode)
    swept = Recovered(attempts)
    _remove_unfinished_writes(job.run_dir.glob(f".*{UNFINISHED}"))
    # A launch removes its staging folder last: without one, and with an end in every record, nothing is amiss.
    staged = (job.run_dir / STAGING).is_dir()
    if staged:
        wait_for_lease(job.run_dir / STAGING)
    if not staged and all(one.ended_at is not None for tries in attempts.values() for one in tries):
        return swept
    if staged:
        swept.reaped = _reap(job, attempts)
    _remove_never_recorded(job)
    estimate = _estimate(attempts)
    for pair, tries in attempts.items():
        _finish_promotions(job, pair, tries, swept)
        for attempt in [one for one in tries if one.outcome == "running"]:
            before = tuple(one for one in tries if one is not attempt)
            settled = settle(left_behind(job, pair, attempt, before), "interrupted", estimate)
            tries[tries.index(attempt)] = settled.attempt
            swept.repaired["interrupted" if settled.attempt.outcome == "interrupted" else "completed"] += 1
    staging.clear(job.run_dir)
    _remove_unfinished_writes((job.run_dir / ATTEMPTS).rglob(f".*{UNFINISHED}"))
    return swept


def _remove_unfinished_writes(files: Iterable[Path]) -> None:
    """Remove what a process that was killed in the middle of `write_atomically` left beside the file."""
    for file in files:
        file.unlink(missing_ok=True)


def _reap(job: CellJob, attempts: Mapping[Pair, Iterable[Attempt]]) -> int:
    """End the processes that running tries recorded, and those that work in the staging folder unrecorded."""
    reaped = 0
    for tries in attempts.values():
        for attempt in tries:
            if attempt.outcome == "running" and attempt.pid and attempt.identity:
                reaped += kill_recorded(attempt.pid, attempt.identity, grace_seconds=1.0)
    for pid in _working_below(job.run_dir / STAGING):
        if (identity := process_identity(pid)) is not None:
            reaped += kill_recorded(pid, identity, grace_seconds=1.0)
    return reaped


def _working_below(folder: Path) -> list[int]:
    """Processes whose working folder lies in `folder`: children whose launch died before it could record them."""
    import psutil

    root = os.path.realpath(folder)
    found = []
    for process in psutil.process_iter(["cwd"]):
        cwd = process.info["cwd"]
        if cwd and (cwd == root or cwd.startswith(f"{root}/")):
            found.append(process.pid)
    return found


def _remove_never_recorded(job: CellJob) -> None:
    """Remove the folders of tries that died before their record was written: nothing of them was launched."""
    listed = plain_listing(job.run_dir)
    for _, relative in list(attempt_folders(listed, job.mode)):
        if parse_folder(relative.rpartition("/")[2]) is not None and not listed(relative):
            shutil.rmtree(job.run_dir / relative)


def _finish_promotions(job: CellJob, pair: Pair, tries: list[Attempt], swept: Recovered) -> None:
    for attempt in (*of_stage(tries, "agent")[-1:], *of_stage(tries, "eval")[-1:]):
        folder = job.attempts_dir(pair) / folder_name(attempt.stage, attempt.n)
        finished = promotion.finish(job.run_dir, folder)
        if finished is not None:
            tries[tries.index(attempt)] = finished
            swept.repaired["promoted"] += 1


def _estimate(attempts: Mapping[Pair, Iterable[Attempt]]) -> float | None:
    """What a try of unknown cost counts for: the dearest known one."""
    tries = (one for several in attempts.values() for one in several)
    return max((one.cost_usd for one in tries if one.cost_usd and not one.cost_estimated), default=None)
