"""The budget: what was spent, what unknown tries count for, and when launches stop.

What belongs here: money of one launch, looked at before each pair. What does not: reading how much single pairs cost
for expectations (``history``).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from cooperbench_assets.execution.attempts import of_stage, scan_attempts
from cooperbench_assets.execution.errors import PricesUnknown
from cooperbench_assets.execution.history import MODES, percentile_95, scan_results

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.attempts import Attempt
    from cooperbench_assets.execution.history import Usage
    from cooperbench_assets.execution.job import CellJob
    from cooperbench_assets.execution.state import PairState

SIBLINGS_SECONDS: Final = 5.0
"""How old the sum over the experiment's other cells may be when a launch is decided."""

FREE_FAMILIES: Final = frozenset(
    {
        "auth",
        "quota",
        "configuration",
        "container_start",
        "agent_install",
        "engine",
        "image_missing",
        "redis",
    }
)
"""Failures that strike before a model has answered: a recorded cost of 0 is right for them."""


class Ledger:
    """The costs of a run's agent tries: known ones, and how many are not known."""

    def __init__(self) -> None:
        self.known: list[float] = []
        self.estimated: float = 0.0
        self.unknown = 0

    def add(self, cost: float | None, *, estimated: bool = False) -> None:
        """Enter one try."""
        if cost is None:
            self.unknown += 1
        elif estimated:
            self.estimated += cost
        else:
            self.known.append(cost)

    def add_pair(self, result_cost: float | None, has_result: bool, attempts: Sequence[Attempt]) -> None:
        """Enter a pair: its recorded tries, or its result where none is recorded."""
        tries = [one for one in of_stage(attempts, "agent") if one.outcome != "running"]
        for one in tries:
            self.add(one.cost_usd, estimated=one.cost_estimated)
        if not tries and has_result:
            self.add(result_cost)

    @property
    def percentile(self) -> float | None:
        """What a try of unknown cost counts for: the 95th percentile of the known ones that cost anything."""
        return percentile_95([cost for cost in self.known if cost > 0])

    @property
    def total(self) -> float:
        """USD spent, tries of unknown cost included at the percentile."""
        return sum(self.known) + self.estimated + self.unknown * (self.percentile or 0.0)


def read_ledger(run_dir: Path) -> Ledger:
    """The costs of all agent tries in a run folder."""
    ledger = Ledger()
    for mode in MODES:
        results = dict(scan_results(run_dir, mode))
        attempts = scan_attempts(run_dir, mode)
        for pair in results.keys() | attempts.keys():
            usage = results.get(pair)
            cost = usage.total_cost if usage is not None else None
            ledger.add_pair(cost, usage is not None, attempts.get(pair, []))
    return ledger


def is_unpriced(cost: float | None, steps: int | None, *, failed: bool) -> bool:
    """Whether a finished result shows that its model's prices are not known: it answered, and cost nothing."""
    return bool(steps) and not cost and not failed


class Budget:
    """The money of one launch, in its cell and in the whole experiment."""

    def __init__(self, job: CellJob, states: Mapping[Pair, PairState]) -> None:
        self._job = job
        self._own = Ledger()
        self._unpriced = False
        for state in states.values():
            self._own.add_pair(state.cost_usd, state.has_result, state.attempts)
            if state.has_result:
                self._note_price(state.cost_usd, state.steps, failed=state.agents_failed)
        self._others = 0.0
        self._read_at = float("-inf")
        if self.is_set and not self._unpriced:
            self._unpriced = any(map(has_unpriced, job.siblings))

    @property
    def is_set(self) -> bool:
        """Whether there is any limit."""
        limits = self._job.limits
        return limits.max_cost_usd is not None or limits.cell_max_cost_usd is not None

    @property
    def cell_usd(self) -> float:
        """What the cell has cost so far, estimates included."""
        return self._own.total

    @property
    def estimate(self) -> float | None:
        """What a try of unknown cost counts for."""
        return self._own.percentile

    def add(self, cost: float | None, *, estimated: bool) -> None:
        """Enter a try that ended."""
        self._own.add(cost, estimated=estimated)

    def note_result(self, state: PairState) -> None:
        """Look whether a finished result names a price."""
        self._note_price(state.cost_usd, state.steps, failed=state.agents_failed)

    def _note_price(self, cost: float | None, steps: int | None, *, failed: bool) -> None:
        self._unpriced = self._unpriced or is_unpriced(cost, steps, failed=failed)

    def check_prices(self) -> None:
        """Refuse a budget that cannot be kept.

        Raises:
            PricesUnknown: if a limit is set and a result shows that the model's prices are not known.
        """
        if self.is_set and self._unpriced:
            raise PricesUnknown(
                f"{self._job.label}: a budget is set, and the harness reports no cost for model "
                f"{self._job.model_name}: give it prices (agent_config: config.model, or a litellm model "
                "registry), or take max_cost_usd out of limits"
            )

    def stop_reason(self) -> str | None:
        """Why no further pair may be launched; None while money is left."""
        if not self.is_set:
            return None
        limits, own = self._job.limits, self._own.total
        if self._unpriced:
            return "the model's prices are not known"
        if limits.cell_max_cost_usd is not None and own >= limits.cell_max_cost_usd:
            return f"the cell's budget is reached: {own:.2f} of {limits.cell_max_cost_usd:.2f} USD"
        if limits.max_cost_usd is None:
            return None
        total = own + self._siblings_usd()
        if total >= limits.max_cost_usd:
            return f"the experiment's budget is reached: {total:.2f} of {limits.max_cost_usd:.2f} USD"
        return None

    def _siblings_usd(self) -> float:
        """What the other cells cost so far; other processes may be running them, so it is read again."""
        if time.monotonic() - self._read_at > SIBLINGS_SECONDS:
            self._others = sum(read_ledger(run).total for run in self._job.siblings)
            self._read_at = time.monotonic()
        return self._others


def has_unpriced(run_dir: Path) -> bool:
    """Whether a result in a run folder shows that its model's prices are not known."""
    return any(_unpriced_in(scan_results(run_dir, mode)) for mode in MODES)


def _unpriced_in(results: Iterable[tuple[Pair, Usage]]) -> bool:
    return any(is_unpriced(usage.total_cost, usage.total_steps, failed=False) for _, usage in results)
