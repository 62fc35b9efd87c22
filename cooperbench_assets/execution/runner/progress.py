"""What a launch says of itself: progress while it runs, a report when it has ended.

What belongs here: plain data and the clockwork that says it not too often. What does not: showing it (assets, cli).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cooperbench_assets.execution.planning.steps import Plan
    from cooperbench_assets.execution.runner.slots import PoolName, SlotUser
    from cooperbench_assets.execution.worker.protocol import Stage

INTERVAL_SECONDS: Final = 0.5
"""Shortest time between two reports of progress."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SlotWait:
    """A launch waits for a slot of the machine that other launches hold."""

    pool: PoolName
    size: int
    """Slots of the pool."""

    own: int
    """Of them, those that the waiting launch holds."""

    held_by: tuple[tuple[SlotUser, int], ...]
    """The other launches that hold slots, each with their number; none where a slot is about to change hands."""


@dataclass(frozen=True, slots=True)
class StartWait:
    """A launch waits before it starts a further child, because the system refused the last one."""

    reason: str
    """What the system said."""


@dataclass(frozen=True, slots=True)
class BudgetWait:
    """A launch waits until it is known what running pairs cost, because more might exceed the budget."""

    own: int
    """Pairs that the waiting launch runs."""

    elsewhere: int
    """Pairs that other launches of the experiment run."""

    cost_known: bool
    """The cost of a try is known: what runs has reserved the rest. Else one pair is to tell it first."""


Waiting = SlotWait | StartWait | BudgetWait
"""What a launch waits for that has room for a further pair."""


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
    """UTC; None unless pairs have ended and others run."""

    waiting: Waiting | None = None
    """What keeps the launch from starting a further pair, where its own limits do not."""

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
    """Pairs of which nothing was left to run, or that this launch was not about."""

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

    @property
    def blocked(self) -> dict[str, str]:
        """Pairs of which something is left to run that this launch could not run, by name, with the reason."""
        return {step.pair.name: step.sentence for step in self.plan.having("blocked")}

    @property
    def not_evaluated(self) -> dict[str, str]:
        """Pairs without an evaluation because their agents failed or have not run, by name, with the reason."""
        return {step.pair.name: step.sentence for step in self.plan.steps if step.code == "not_evaluated"}


class Meter:
    """Counts what happens in a launch and says so a few times a second at most, and at the end."""

    def __init__(self, stage: Stage, total: int, say: Callable[[Progress], None] | None) -> None:
        self._stage = stage
        self._total = total
        self._say = say
        self._started = time.monotonic()
        self._first_launch: float | None = None
        self._said = float("-inf")
        self._fails = False
        self.done = 0
        self.failed: Counter[str] = Counter()
        self.running = 0
        self.cost_usd = 0.0
        self.waiting: Callable[[], Waiting | None] = lambda: None
        """Says what the launch waits for; asked whenever progress is reported."""

    @property
    def seconds(self) -> float:
        """Since the launch began."""
        return time.monotonic() - self._started

    def launched(self, running: int) -> None:
        """Enter a try that was launched; so many run now."""
        self.running = running
        if self._first_launch is None:
            self._first_launch = time.monotonic()

    def ended(self, family: str | None) -> None:
        """Enter a try that ended; `family` is None unless infrastructure ended it."""
        if family is None:
            self.done += 1
        else:
            self.failed[family] += 1

    def say(self, *, at_once: bool = False) -> None:
        """Report where the launch stands, unless that was done a moment ago.

        A report that fails (a storage that is locked, full or away) ends nothing: it is logged, and made again later.
        What is no `Exception`, such as a cancellation, goes through.
        """
        moment = time.monotonic()
        if self._say is None or (not at_once and moment - self._said < INTERVAL_SECONDS):
            return
        self._said = moment
        try:
            self._say(self.progress())
        except Exception as error:
            if not self._fails:
                _LOG.warning("progress could not be reported, and is reported again later: %s", error)
            self._fails = True
        else:
            self._fails = False

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
            waiting=self.waiting(),
        )

    def _expected_end(self) -> datetime | None:
        ended = self.done + self.failed.total()
        if not ended or not self.running or self._first_launch is None:
            return None
        # What was waited for before the first launch says nothing of how long pairs take.
        left = (self._total - ended) * (time.monotonic() - self._first_launch) / ended
        return datetime.now(UTC) + timedelta(seconds=left)
