"""What a launch says of itself: progress while it runs, a report when it has ended.

What belongs here: plain data and the clockwork that says it not too often. What does not: showing it (assets, cli).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cooperbench_assets.execution.plan import Plan
    from cooperbench_assets.execution.protocol import Stage

INTERVAL_SECONDS: Final = 0.5
"""Shortest time between two reports of progress."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a launch stands."""

    stage: Stage
    total: int
    """Pairs that this launch runs."""

    done: int
    """Of them, pairs whose try ended without an infrastructure failure."""

    running: int
    failed: Mapping[str, int]
    """Tries that infrastructure ended, by family."""

    cost_usd: float
    """Cost of the cell so far, estimates included, USD."""

    seconds: float
    """Since the launch began."""

    expected_end: datetime | None
    """UTC; None while nothing is known."""

    @property
    def ended(self) -> int:
        """Tries that ended, whichever way."""
        return self.done + sum(self.failed.values())


@dataclass(frozen=True, slots=True)
class StageReport:
    """What one launch of one stage of a cell did, and how the cell stands after it."""

    stage: Stage
    plan: Plan
    planned: int
    """Pairs of the subset."""

    launched: int
    done: int
    """Tries of this launch that ended without an infrastructure failure."""

    failed: Mapping[str, int]
    """Tries of this launch that infrastructure ended, by family."""

    skipped: int
    """Pairs to which nothing was owed, or that this launch was not about."""

    blocked: Mapping[str, str]
    """Pairs that are owed something that this launch could not give, by name, with the reason."""

    not_evaluated: Mapping[str, str]
    """Pairs without an evaluation because their agents failed or have not run, by name, with the reason."""

    left: int
    """Pairs that were to be run and were not launched, because the launch was stopped."""

    cost_usd: float
    """Cost of the cell so far, estimates included, USD."""

    truncated: bool
    """A budget stopped the cell before all pairs were bought."""

    stopped: str | None
    """Why launches were stopped: budget or breaker; None if they were not."""

    breaker: str | None
    """What tripped the circuit breaker, if it did."""

    seconds: float
    busy_seconds: float
    """Wall time of all children, added up."""

    orchestration_seconds: float
    """Wall time in which the launch worked itself: all of it, less the import and the time in which it waited, for
    children or for slots that others hold. Children run meanwhile, so not all of it is lost."""

    import_seconds: float = 0.0
    """Time that this launch waited for the harness to be imported; the next one in this process need not."""

    cpu_seconds: float = 0.0
    """CPU time of the launch's thread, children and harness server apart."""

    reaped: int = 0
    """Processes of an earlier, dead launch that were ended at the start."""

    repaired: Mapping[str, int] = field(default_factory=dict)
    """What was put right at the start: interrupted tries, finished promotions, tries that had ended unseen."""

    isolation: str | None = None
    notes: tuple[str, ...] = ()
    """What a person should know beside the numbers."""


class Meter:
    """Counts what happens in a launch and says so a few times a second at most, and at the end."""

    def __init__(self, stage: Stage, total: int, say: Callable[[Progress], None] | None) -> None:
        self._stage = stage
        self._total = total
        self._say = say
        self._started = time.monotonic()
        self._said = float("-inf")
        self.done = 0
        self.failed: Counter[str] = Counter()
        self.running = 0
        self.cost_usd = 0.0
        self.expected_seconds: float | None = None
        """Expected time of the whole launch, before anything of it is known."""

    @property
    def seconds(self) -> float:
        """Since the launch began."""
        return time.monotonic() - self._started

    def ended(self, family: str | None) -> None:
        """Enter a try that ended; `family` is None unless infrastructure ended it."""
        if family is None:
            self.done += 1
        else:
            self.failed[family] += 1

    def say(self, *, at_once: bool = False) -> None:
        """Report where the launch stands, unless that was done a moment ago."""
        moment = time.monotonic()
        if self._say is None or (not at_once and moment - self._said < INTERVAL_SECONDS):
            return
        self._said = moment
        self._say(self.progress())

    def progress(self) -> Progress:
        """Where the launch stands."""
        return Progress(
            stage=self._stage,
            total=self._total,
            done=self.done,
            running=self.running,
            failed=dict(self.failed),
            cost_usd=self.cost_usd,
            seconds=self.seconds,
            expected_end=self._expected_end(),
        )

    def _expected_end(self) -> datetime | None:
        ended = self.done + self.failed.total()
        if ended:
            left = (self._total - ended) * self.seconds / ended
        elif self.expected_seconds is not None:
            left = max(0.0, self.expected_seconds - self.seconds)
        else:
            return None
        return datetime.now(UTC) + timedelta(seconds=left)
