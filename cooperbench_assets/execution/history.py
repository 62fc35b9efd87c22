"""What earlier tries cost and how long they took: of this cell, and of the experiment's other cells.

What belongs here: reading costs and times from result files and attempts, and expectations from them. What does not:
limits (``budget``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean, median
from typing import TYPE_CHECKING

import msgspec

from cooperbench_assets.execution.attempts import of_stage, scan_attempts
from cooperbench_assets.execution.walk import pair_folders

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.attempts import Attempt
    from cooperbench_assets.execution.protocol import Stage

MODES = ("solo", "coop", "team")


class Usage(msgspec.Struct):
    """The few keys of result.json that tell cost and time."""

    total_cost: float | None = None
    total_steps: int | None = None
    duration_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class History:
    """Earlier times and costs by pair."""

    seconds: Mapping[Stage, Mapping[Pair, tuple[float, ...]]] = field(default_factory=dict)
    costs: Mapping[Pair, tuple[float, ...]] = field(default_factory=dict)

    def expected_seconds(self, stage: Stage, pair: Pair) -> float | None:
        """Expected wall time: the pair's own mean, else the median of all; None where nothing is known."""
        return _expected(self.seconds.get(stage, {}), pair)

    def expected_cost(self, pair: Pair) -> float | None:
        """Expected cost in USD, likewise."""
        return _expected(self.costs, pair)


def _expected(known: Mapping[Pair, tuple[float, ...]], pair: Pair) -> float | None:
    if own := known.get(pair):
        return fmean(own)
    every = [value for values in known.values() for value in values]
    return median(every) if every else None


def percentile_95(values: Sequence[float]) -> float | None:
    """The 95th percentile by nearest rank: the smallest value that 95 % of all do not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(0.95 * len(ordered)) - 1] if ordered else None


def read_history(run_dirs: Iterable[tuple[Path, str | None]]) -> History:
    """Times and costs of all tries in some run folders, each with its mode (all modes where None)."""
    seconds: dict[Stage, dict[Pair, tuple[float, ...]]] = {"agent": {}, "eval": {}}
    costs: dict[Pair, tuple[float, ...]] = {}
    for run_dir, only in run_dirs:
        for mode in (only,) if only else MODES:
            for pair, usage in scan_results(run_dir, mode):
                if usage.duration_seconds:
                    _add(seconds["agent"], pair, usage.duration_seconds)
                if usage.total_cost:
                    _add(costs, pair, usage.total_cost)
            for pair, attempts in scan_attempts(run_dir, mode).items():
                for attempt in of_stage(attempts, "eval"):
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
    for pair, folder in pair_folders(run_dir / mode):
        try:
            usage = msgspec.json.decode((folder / "result.json").read_bytes(), type=Usage)
        except (OSError, msgspec.DecodeError):
            continue
        found.append((pair, usage))
    return found
