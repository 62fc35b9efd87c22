"""What earlier tries cost and how long they took: of this cell, and of the experiment's other cells.

What belongs here: reading costs and times from result files and attempts, and expectations from them. What does not:
limits (``budget``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from statistics import fmean, median
from typing import TYPE_CHECKING, Final

import msgspec

from cooperbench_assets.benchmark.attempt_tree import pair_folders, plain_listing, scan_attempts
from cooperbench_assets.benchmark.attempts import ATTEMPTS, of_stage
from cooperbench_assets.benchmark.jsonfiles import BadFileError, decode, read_bytes
from cooperbench_assets.benchmark.pairfolder import MODES
from cooperbench_assets.execution.cell_lock import LOCK_FILE, holder

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.attempts.records import Attempt
    from cooperbench_assets.execution.job import CellJob
    from cooperbench_assets.execution.worker.protocol import Stage

ENOUGH_RUNS: Final = 8
"""Other cells from which expectations are made: more would tell little, and cost each cell a reading of all others."""

FRESH_SECONDS: Final = 600.0
"""How long what was read of a run that nobody works on is kept, where nothing shows that it has changed."""


class Usage(msgspec.Struct):
    """The few keys of result.json that tell cost and time."""

    total_cost: float | None = None
    total_steps: int | None = None
    duration_seconds: float | None = None


_USAGE: Final = msgspec.json.Decoder(Usage)


@dataclass(frozen=True, slots=True)
class Past:
    """What a run folder tells of its tries, by mode and pair."""

    results: Mapping[tuple[str, Pair], Usage]
    attempts: Mapping[tuple[str, Pair], list[Attempt]]
    busy: bool = False
    """Some launch holds the cell, so that tries without an end are running ones."""


_known: dict[Path, tuple[object, float, Past]] = {}
_guard = threading.Lock()


def read_past(run_dir: Path) -> Past:
    """What a run folder tells of its tries; read anew only where a launch may have changed it.

    A launch touches the cell's lock at its start and its end, so one that nobody holds and that has not been touched
    is as it was. What others put there is seen `FRESH_SECONDS` later at most.
    """
    marks, busy = _marks(run_dir), holder(run_dir) is not None
    with _guard:
        known = _known.get(run_dir)
    if known is not None and not busy and known[0] == marks and time.monotonic() - known[1] < FRESH_SECONDS:
        return known[2]
    results = {(mode, pair): usage for mode in MODES for pair, usage in scan_results(run_dir, mode)}
    attempts = {(mode, pair): tries for mode in MODES for pair, tries in scan_attempts(run_dir, mode).items()}
    past = Past(results, attempts, busy)
    if not busy:
        with _guard:
            _known[run_dir] = marks, time.monotonic(), past
    return past


def _marks(run_dir: Path) -> list[tuple[int, int, int] | None]:
    """What changes with each launch, and with each mode or repository that is new."""
    places = [run_dir, run_dir / LOCK_FILE, run_dir / "provenance.json"]
    places += [root / mode for root in (run_dir, run_dir / ATTEMPTS) for mode in MODES]
    found: list[tuple[int, int, int] | None] = []
    for place in places:
        try:
            status = place.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return found


@dataclass(frozen=True)
class History:
    """Earlier times and costs by pair."""

    seconds: Mapping[Stage, Mapping[Pair, tuple[float, ...]]] = field(default_factory=dict)
    costs: Mapping[Pair, tuple[float, ...]] = field(default_factory=dict)

    def expected_seconds(self, stage: Stage, pair: Pair) -> float | None:
        """Expected wall time: the pair's own mean, else the median of all; None where nothing is known."""
        own = self.seconds.get(stage, {}).get(pair)
        return fmean(own) if own else self._typical_seconds.get(stage)

    def expected_cost(self, pair: Pair) -> float | None:
        """Expected cost in USD, likewise."""
        own = self.costs.get(pair)
        return fmean(own) if own else self._typical_cost

    @cached_property
    def _typical_seconds(self) -> Mapping[Stage, float | None]:
        return {stage: _typical(known) for stage, known in self.seconds.items()}

    @cached_property
    def _typical_cost(self) -> float | None:
        return _typical(self.costs)


class LateHistory:
    """The history of a cell's experiment, read when something is first expected: often there is nothing to run."""

    def __init__(self, job: CellJob) -> None:
        self._job = job

    def expected_seconds(self, stage: Stage, pair: Pair) -> float | None:
        """See `History.expected_seconds`."""
        return self._history.expected_seconds(stage, pair)

    def expected_cost(self, pair: Pair) -> float | None:
        """See `History.expected_cost`."""
        return self._history.expected_cost(pair)

    @cached_property
    def _history(self) -> History:
        there = [run for run in self._job.siblings if run.is_dir()]
        return read_history([(self._job.run_dir, self._job.mode), *((run, None) for run in there[:ENOUGH_RUNS])])


def _typical(known: Mapping[Pair, tuple[float, ...]]) -> float | None:
    every = [value for values in known.values() for value in values]
    return median(every) if every else None


def read_history(run_dirs: Iterable[tuple[Path, str | None]]) -> History:
    """Times and costs of all tries in some run folders, each with its mode (all modes where None)."""
    seconds: dict[Stage, dict[Pair, tuple[float, ...]]] = {"agent": {}, "eval": {}}
    costs: dict[Pair, tuple[float, ...]] = {}
    for run_dir, only in run_dirs:
        past = read_past(run_dir)
        for (mode, pair), usage in past.results.items():
            if only in (None, mode) and usage.duration_seconds:
                _add(seconds["agent"], pair, usage.duration_seconds)
            if only in (None, mode) and usage.total_cost:
                _add(costs, pair, usage.total_cost)
        for (mode, pair), attempts in past.attempts.items():
            for attempt in of_stage(attempts, "eval") if only in (None, mode) else ():
                if attempt.outcome == "completed" and (took := duration(attempt)) is not None:
                    _add(seconds["eval"], pair, took)
    return History(seconds, costs)


def _add(known: dict[Pair, tuple[float, ...]], pair: Pair, value: float) -> None:
    known[pair] = (*known.get(pair, ()), value)


def duration(attempt: Attempt) -> float | None:
    """Wall time of a try in seconds; None where it has no end."""
    if attempt.ended_at is None:
        return None
    start, end = datetime.fromisoformat(attempt.started_at), datetime.fromisoformat(attempt.ended_at)
    return (end - start).total_seconds()


def scan_results(run_dir: Path, mode: str) -> list[tuple[Pair, Usage]]:
    """Cost and time of every result of a mode; what cannot be read is left to the log tree's reader."""
    found = []
    for pair, relative in pair_folders(plain_listing(run_dir), mode):
        try:
            usage = decode(read_bytes(f"{run_dir}/{relative}/result.json"), _USAGE)
        except BadFileError:
            continue
        found.append((pair, usage))
    return found
