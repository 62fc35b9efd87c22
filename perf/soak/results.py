"""What a soak came to: one line of JSON a run, kept in a file, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

FILE: Final = Path(__file__).with_name("runs.jsonl")


class Injected(msgspec.Struct):
    """Faults of one kind in one run."""

    kind: str
    count: int = 0
    recovered: int = 0
    """After how many of them a try that was begun later completed, or nothing was left to run."""

    seconds: list[float] = msgspec.field(default_factory=list)
    """Time to recover, one a fault: from its end until the first try that was begun after it had completed."""


class SoakRun(msgspec.Struct):
    """One call of ``python -m perf.soak``."""

    date: str
    seed: int
    execution: str
    driver: str
    pairs: int
    """Pairs a cell."""

    passes: int
    """How often the experiment was run from nothing to its end."""

    verdicts: int
    """Verdicts compared with the undisturbed run's."""

    minutes: float
    faults: list[Injected]
    lost: list[str]
    leaked: list[str]
    wrong: list[str]


def read_runs(file: Path = FILE) -> list[SoakRun]:
    """All kept runs, in the order in which they were made."""
    if not file.exists():
        return []
    return [msgspec.json.decode(line, type=SoakRun) for line in file.read_bytes().splitlines() if line]


def keep(run: SoakRun, file: Path = FILE) -> None:
    """Add a run to the kept ones."""
    with file.open("ab") as stream:
        stream.write(msgspec.json.encode(run) + b"\n")


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value that a share of all do not exceed, by nearest rank; None if there is none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def merged(runs: Iterable[SoakRun]) -> list[Injected]:
    """Faults by kind over several runs."""
    found: dict[str, Injected] = {}
    for run in runs:
        for one in run.faults:
            total = found.setdefault(one.kind, Injected(one.kind))
            total.count += one.count
            total.recovered += one.recovered
            total.seconds = total.seconds + one.seconds
    return sorted(found.values(), key=lambda one: -one.count)
