"""The budget: what was spent, what unknown and running tries count for, and when launches wait or stop.

What belongs here: money of one launch, looked at before each pair. What does not: reading how much single pairs cost
for expectations (``usage``).

A try whose cost is not known, and one that runs, counts for the dearest known try of the experiment. Launches go on as
long as all of that is below the limit, so a limit is exceeded by less than one try, unless one is dearer than all
before it. Before any cost is known one pair runs at a time, in all cells together, unless a figure is given.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from cooperbench_assets.execution.attempts.records import of_stage
from cooperbench_assets.execution.errors import PricesUnknown
from cooperbench_assets.execution.planning.usage import read_past
from cooperbench_assets.execution.provenance import PROVENANCE_FILE, read_provenance

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.attempts.pair_state import PairState
    from cooperbench_assets.execution.attempts.records import Attempt
    from cooperbench_assets.execution.job import CellJob
    from cooperbench_assets.execution.planning.usage import Past

LOCK: Final = ".cooperbench-assets-budget-{experiment}.lock"
"""File beside the run folders: its lock is held from the look at the budget until the try is on record."""

UNTOLD: Final = 3
"""So many tries of unknown cost, and none of known cost, and launches stop."""

_CENT: Final = 1e-9
"""Sums of costs are this exact."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the budget says to the next launch."""

    kind: Literal["go", "wait", "stop"]
    reason: str | None = None
    """Why launches stop."""

    elsewhere: int = 0
    """Tries that other launches of the experiment run; with `wait`."""


class Ledger:
    """The costs of agent tries: known ones, and how many are not known or still running."""

    def __init__(self, *, zero_is_unknown: bool = False) -> None:
        """An empty one.

        Args:
            zero_is_unknown: A try that is done and is said to have cost nothing is one of unknown cost: its model has
                no prices.
        """
        self.known: float = 0.0
        self.dearest: float | None = None
        """Cost of the dearest known try; None where none that cost anything is known."""

        self.estimated: float = 0.0
        self.unknown = 0
        self.running = 0
        self._zero_is_unknown = zero_is_unknown

    def add(self, cost: float | None, *, estimated: bool = False, done: bool = False) -> None:
        """Enter one try that ended."""
        if cost is None or (self._zero_is_unknown and done and not cost):
            self.unknown += 1
        elif estimated:
            self.estimated += cost
        else:
            self.known += cost
            self.dearest = max(cost, self.dearest or 0.0) or None

    def add_pair(
        self, result_cost: float | None, has_result: bool, attempts: Sequence[Attempt], *, busy: bool = False
    ) -> None:
        """Enter a pair: its recorded tries, or its result where none is recorded.

        Args:
            result_cost: What its result says, USD.
            has_result: Whether there is one.
            attempts: Its recorded tries.
            busy: A launch works on its cell: a try without an end runs. Else it is over, at a cost that nobody knows.
        """
        tries = of_stage(attempts, "agent")
        for one in tries:
            if one.outcome == "running" and busy:
                self.running += 1
            else:
                self.add(one.cost_usd, estimated=one.cost_estimated, done=one.outcome == "completed")
        if not tries and has_result:
            self.add(result_cost, done=True)

    def add_past(self, past: Past) -> None:
        """Enter every pair of a run folder."""
        for pair in past.results.keys() | past.attempts.keys():
            usage = past.results.get(pair)
            cost = usage.total_cost if usage is not None else None
            self.add_pair(cost, usage is not None, past.attempts.get(pair, []), busy=past.busy)

    def add_ledger(self, other: Ledger) -> None:
        """Enter all that another one holds."""
        self.known += other.known
        self.estimated += other.estimated
        self.unknown += other.unknown
        self.running += other.running
        self.dearest = max(other.dearest or 0.0, self.dearest or 0.0) or None

    def spent(self, unit: float | None) -> float:
        """USD spent; tries of unknown cost count for `unit` each."""
        return self.known + self.estimated + self.unknown * (unit or 0.0)

    @property
    def total(self) -> float:
        """USD spent; tries of unknown cost count for the dearest one here."""
        return self.spent(self.dearest)


def is_unpriced(cost: float | None, steps: int | None, *, failed: bool) -> bool:
    """Whether a finished result shows that its model's prices are not known: it answered, and cost nothing."""
    return bool(steps) and not cost and not failed


class Budget:
    """The money of one launch, in its cell and in the whole experiment."""

    def __init__(self, job: CellJob, states: Mapping[Pair, PairState]) -> None:
        self._job = job
        self._given = job.limits.expected_cost_usd
        self._own = self._ledger()
        self._others = self._ledger()
        self._read: dict[Path, tuple[Past, Ledger]] = {}
        self._unpriced = False
        for state in states.values():
            self._own.add_pair(state.cost_usd, state.has_result, state.attempts)
            if state.has_result:
                self._note_price(state.cost_usd, state.steps, failed=state.agents_failed)
        if self.is_set:
            self._read_others()

    @property
    def is_set(self) -> bool:
        """Whether there is any limit."""
        limits = self._job.limits
        return limits.max_cost_usd is not None or limits.cell_max_cost_usd is not None

    @property
    def cell_usd(self) -> float:
        """What the cell has cost so far, estimates included."""
        return self._own.spent(self.estimate)

    @property
    def estimate(self) -> float | None:
        """What a try of unknown cost counts for, and one that runs; None while nothing is known, and nothing given."""
        known = [one for one in (self._own.dearest, self._others.dearest) if one is not None]
        return max(known, default=self._given)

    def add(self, attempt: Attempt) -> None:
        """Enter a try that ended."""
        done = attempt.outcome == "completed"
        self._own.add(attempt.cost_usd, estimated=attempt.cost_estimated, done=done)

    def note_result(self, state: PairState) -> None:
        """Look whether a finished result names a price."""
        self._note_price(state.cost_usd, state.steps, failed=state.agents_failed)

    def check_prices(self) -> None:
        """Refuse a budget that cannot be kept.

        Raises:
            PricesUnknown: if a limit is set, no figure is given, and a result shows that the model's prices are not
                known, or some tries have ended and none told its cost.
        """
        if not self.is_set or self._given is not None:
            return
        instead = "or give limits.expected_cost_usd (USD of one try), or take the budget out of limits"
        if self._unpriced:
            raise PricesUnknown(
                f"{self._job.label}: a budget is set, and the harness reports no cost for model "
                f"{self._job.model_name}: give it prices (agent_config: config.model, or a litellm model "
                f"registry), {instead} (max_cost_usd, cell_max_cost_usd)"
            )
        if (reason := self._untold()) is not None:
            raise PricesUnknown(f"{self._job.label}: a budget is set, and {reason}")

    def stop_reason(self) -> str | None:
        """Why no further pair may be launched; None while money is left."""
        return self.decide(0).reason

    @contextlib.contextmanager
    def turn(self, running: int) -> Iterator[Decision]:
        """What holds for the next pair, which is to be put on record before the end: no other cell decides meanwhile.

        Args:
            running: Tries that this launch runs.

        Raises:
            OSError: if what other cells cost cannot be read.
        """
        if not self.is_set:
            yield Decision("go")
            return
        with self._alone() as alone:
            yield self.decide(running) if alone else Decision("wait")

    def decide(self, running: int) -> Decision:
        """What holds for the next pair as things stand; see `turn`."""
        if not self.is_set:
            return Decision("go")
        self._read_others()
        if self._unpriced and self._given is None:
            return Decision("stop", "the model's prices are not known")
        unit, elsewhere = self.estimate, self._others.running
        if unit is None:
            if (reason := self._untold()) is not None:
                return Decision("stop", reason)
            return Decision("wait", elsewhere=elsewhere) if running + elsewhere else Decision("go")
        own, limits = self._own.spent(unit), self._job.limits
        every = own + self._others.spent(unit)
        waits = False
        for what, spent, reserved, limit in (
            ("cell's", own, running * unit, limits.cell_max_cost_usd),
            ("experiment's", every, (running + elsewhere) * unit, limits.max_cost_usd),
        ):
            if limit is not None and spent >= limit - _CENT:
                return Decision("stop", f"the {what} budget is reached: {spent:.2f} of {limit:.2f} USD")
            waits = waits or (limit is not None and spent + reserved >= limit - _CENT)
        return Decision("wait", elsewhere=elsewhere) if waits else Decision("go")

    def _untold(self) -> str | None:
        """That tries have ended and none told its cost, with what to give; None where one did, or few have ended."""
        unknown = self._own.unknown + self._others.unknown
        if self.estimate is not None or unknown < UNTOLD:
            return None
        return f"none of the first {unknown} tries told its cost: give limits.expected_cost_usd (USD of one try)"

    def _note_price(self, cost: float | None, steps: int | None, *, failed: bool) -> None:
        self._unpriced = self._unpriced or is_unpriced(cost, steps, failed=failed)

    def _ledger(self) -> Ledger:
        return Ledger(zero_is_unknown=self._given is not None)

    def _read_others(self) -> None:
        """What the other cells cost and run; those that were dropped or renamed spent money of the experiment too."""
        others = self._ledger()
        for run_dir in (*self._job.siblings, *dropped_runs(self._job)):
            others.add_ledger(self._ledger_of(run_dir))
        self._others = others

    def _ledger_of(self, run_dir: Path) -> Ledger:
        """The costs of another cell, added up anew only where it was read anew."""
        past = read_past(run_dir)
        known = self._read.get(run_dir)
        if known is not None and known[0] is past:
            return known[1]
        ledger = self._ledger()
        ledger.add_past(past)
        self._read[run_dir] = past, ledger
        if run_dir in self._job.siblings:
            for usage in past.results.values():
                self._note_price(usage.total_cost, usage.total_steps, failed=False)
        return ledger

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Keep the experiment's other cells from deciding; False if one of them does just now."""
        self._job.logs.mkdir(parents=True, exist_ok=True)
        file = self._job.logs / LOCK.format(experiment=self._job.experiment)
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)


_experiments: dict[Path, tuple[tuple[int, int, int], Any]] = {}
"""Which experiment a run is of, by its provenance and when that was written."""


def dropped_runs(job: CellJob) -> list[Path]:
    """Run folders of the experiment that no planned cell has any more: of cells that were dropped or renamed."""
    planned = {job.run_dir, *job.siblings}
    try:
        there = sorted(entry for entry in job.logs.iterdir() if entry not in planned)
    except FileNotFoundError:
        return []
    return [run_dir for run_dir in there if _experiment_of(run_dir) == job.experiment]


def _experiment_of(run_dir: Path) -> Any:
    try:
        status = (run_dir / PROVENANCE_FILE).stat()
    except OSError:
        return None
    mark = (status.st_mtime_ns, status.st_size, status.st_ino)
    known = _experiments.get(run_dir)
    if known is None or known[0] != mark:
        known = _experiments[run_dir] = (mark, read_provenance(run_dir).get("experiment"))
    return known[1]
