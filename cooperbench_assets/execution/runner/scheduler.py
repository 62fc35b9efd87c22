"""The loop of a launch: children are started while there is room, heard of as they end, and killed when late.

What belongs here: when which child starts and stops. What does not: what a single try is on disk
(``attempts.lifecycle``), and what is done before and after the loop (``api``). One thread, no polling but for slots
that other launches hold.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cooperbench_assets.execution.attempts import deadlines, staging
from cooperbench_assets.execution.attempts.lifecycle import begin, record_process, settle, withdraw
from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.job import STAGING
from cooperbench_assets.execution.runner.child_requests import child_request
from cooperbench_assets.execution.runner.harness_client import ChildRefused, HarnessError
from cooperbench_assets.execution.runner.progress import BudgetWait, SlotWait, StartWait
from cooperbench_assets.execution.runner.slots import SlotsError
from cooperbench_assets.execution.sandboxes.base import evaluation_seconds

if TYPE_CHECKING:
    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.attempts.lifecycle import How, Settled, Try
    from cooperbench_assets.execution.attempts.pair_state import PairState
    from cooperbench_assets.execution.fleet.client import ClusterSlots, NodeSlot
    from cooperbench_assets.execution.job import CellJob
    from cooperbench_assets.execution.planning.budget import Budget, Decision
    from cooperbench_assets.execution.planning.circuit_breaker import Breaker
    from cooperbench_assets.execution.planning.steps import Step
    from cooperbench_assets.execution.runner.harness_client import Child, HarnessServer
    from cooperbench_assets.execution.runner.progress import Meter, Waiting
    from cooperbench_assets.execution.runner.slots import Slot, SlotPool
    from cooperbench_assets.execution.worker.protocol import ChildEnd, Stage

LONGEST_NAP_SECONDS: Final = 0.5
SLOT_NAP_SECONDS: Final = 0.03
"""Between two looks at slots that other processes hold."""

BUDGET_NAP_SECONDS: Final = 0.2
"""Between two looks at what other cells of the experiment have spent."""

KILL_GRACE_SECONDS: Final = 2.0
RESTARTS: Final = 2
"""How often a launch starts a harness server anew that died."""

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 30.0
"""Pause after the system refused to start a child: it doubles with each refusal in a row."""

REFUSALS: Final = 8
"""Refusals in a row, while nothing runs that could make room, after which a launch gives up: a minute."""


@dataclass(slots=True)
class _Running:
    made: Try
    child: Child
    slot: Slot | NodeSlot
    deadline: float
    how: How = "ended"


@dataclass(slots=True)
class _Refusals:
    """Starts of children that the system refused in a row, and how long nothing is launched for them."""

    count: int = 0
    reason: str | None = None
    until: float = 0.0

    def add(self, reason: str) -> None:
        pause = min(FIRST_PAUSE_SECONDS * 2**self.count, LONGEST_PAUSE_SECONDS)
        self.count, self.reason, self.until = self.count + 1, reason, time.monotonic() + pause

    @property
    def pausing(self) -> bool:
        return time.monotonic() < self.until


@dataclass
class Loop:
    """One launch of one stage of a cell, from the first child to the last."""

    job: CellJob
    stage: Stage
    server: HarnessServer
    pool: SlotPool | ClusterSlots
    cap: int
    states: dict[Pair, PairState]
    """Every planned pair as it stands; kept up to date."""

    budget: Budget
    breaker: Breaker
    meter: Meter
    redis_url: str | None = None
    begin: Callable[[CellJob, Stage, PairState, int], Try] = begin
    """Records a try: as the first verdict's, unless it is a further one (``further_verdicts``)."""

    settle: Callable[[Try, How, float | None], Settled] = settle
    """Completes its record when its child has ended."""

    ended: Callable[[], None] = lambda: None
    """Called when a child has ended: it may have left a container."""

    pending: deque[Step] = field(default_factory=deque)
    running: dict[str, _Running] = field(default_factory=dict)
    launched: int = 0
    busy_seconds: float = 0.0
    waited_seconds: float = 0.0
    """Time in which there was nothing to do but wait: for a child's end, or for a slot that others hold."""

    stopped: str | None = None
    """Why no further pair is launched: a budget or the breaker."""

    over_budget: bool = False
    isolations: set[str] = field(default_factory=set)
    _restarts: int = 0
    _janitor: staging.Janitor = field(default_factory=staging.Janitor)
    _trouble: Exception | None = None
    """What keeps this process from recording or launching anything further; what runs goes on to its end."""

    _refusals: _Refusals = field(default_factory=_Refusals)
    _lacks_slot: bool = False
    """There was a pair to launch, and no slot for it."""

    _lacks_money: Decision | None = None
    """There was a pair to launch, and the budget says to wait."""

    def run(self, steps: Iterable[Step]) -> None:
        """Run the steps in their order.

        Raises:
            LaunchError: if the harness cannot be kept running; what had finished is recorded.
            OSError: if a try could not be recorded, or its files not put away. What ran went on to its end first; a
                try that is not recorded yet is at the next start.
            SlotsError: if slots cannot be had; likewise.
            BaseException: whatever interrupted it; children are ended and recorded first.
        """
        self.pending.extend(steps)
        self.meter.waiting = self._waiting
        try:
            while self.running or (self.pending and self._may_go_on()):
                self._fill()
                self._wait()
                self._kill_late()
                self.meter.say()
        except HarnessError as error:
            self._abort()
            raise LaunchError(f"{self.job.label}: {error}") from error
        except BaseException:
            self._abort()
            raise
        finally:
            self.pool.leave()
            self._janitor.close()
            with contextlib.suppress(OSError):  # What could not be settled stays for the next start.
                (self.job.run_dir / STAGING).rmdir()
        if self._trouble is not None:
            raise self._trouble

    def _fill(self) -> None:
        """Launch while there is a pair, room, and no reason to stop."""
        self._lacks_slot, self._lacks_money = False, None
        try:
            while self._has_room() and self._may_go_on() and self._launch_next():
                pass
            if self._lacks_slot:
                self.pool.wait()
            else:
                self.pool.leave()
        except (OSError, SlotsError) as error:
            self._trouble = self._trouble or error

    def _has_room(self) -> bool:
        return bool(self.pending) and len(self.running) < self.cap and not self._refusals.pausing

    def _may_go_on(self) -> bool:
        if self.stopped is None:
            self.stopped = self.breaker.reason
        return self.stopped is None and self._trouble is None

    def _launch_next(self) -> bool:
        """Launch the next pair; False if that cannot be done now."""
        if (taken := self._take_next()) is None:
            return False
        made, slot = taken
        try:
            child = self._start(made, slot)
        except BaseException as error:
            slot.close()
            if isinstance(error, HarnessError) and not self.server.alive:
                return False  # `_wait` hears of what ran, and starts the server anew.
            raise
        if child is None:
            slot.close()
            return False
        self.pending.popleft()
        self.launched += 1
        self.running[child.key] = _Running(made, child, slot, time.monotonic() + self._deadline_seconds())
        self.meter.launched(len(self.running))
        record_process(made, child.pid, child.identity)
        return True

    def _take_next(self) -> tuple[Try, Slot | NodeSlot] | None:
        """A slot and a record for the next pair's try; None if the budget or the slots have no room for it now."""
        step = self.pending[0]
        with self._may_spend() as may:
            if not may:
                return None
            slot = self.pool.acquire(self.cap, step.pair.name)
            if slot is None:
                self._lacks_slot = True
                return None
            try:
                return self.begin(self.job, self.stage, self.states[step.pair], step.retry_generation), slot
            except BaseException:
                slot.close()
                raise

    @contextlib.contextmanager
    def _may_spend(self) -> Iterator[bool]:
        """Whether the budget lets a further pair be launched, which is put on record meanwhile."""
        if self.stage != "agent":
            yield True
            return
        with self.budget.turn(len(self.running)) as decision:
            if decision.kind == "stop":
                self.stopped, self.over_budget = decision.reason, True
            elif decision.kind == "wait":
                self._lacks_money = decision
            yield decision.kind == "go"

    def _start(self, made: Try, slot: Slot | NodeSlot) -> Child | None:
        """The child of a try; None if the system refuses one now: then the try was none."""
        try:
            child = self.server.launch(child_request(made, self.redis_url), slot.handle)
        except ChildRefused as error:
            withdraw(made)
            self._refusals.add(str(error))
            if not self.running and self._refusals.count >= REFUSALS:
                raise HarnessError(
                    f"{error}; free processes, open files or memory on this machine, and run the cell again"
                ) from error
            return None
        except BaseException as error:
            if not isinstance(error, HarnessError):
                self.server.close()  # Interrupted halfway: a child may run of which nothing was heard.
            # The try is on record, and must not stay there without an end.
            made.said = f"[infra:interrupted] no child could be started: {error}"
            self._take_in(self.settle(made, "interrupted", None), made)
            self._janitor.discard(made.place)
            raise
        self._refusals = _Refusals()
        return child

    def _waiting(self) -> Waiting | None:
        """What keeps this launch from starting a further pair, where its own limits do not."""
        if self._refusals.reason is not None and self._refusals.pausing and self.pending:
            return StartWait(self._refusals.reason)
        if (decision := self._lacks_money) is not None:
            return BudgetWait(len(self.running), decision.elsewhere, self.budget.estimate is not None)
        if not self._lacks_slot or self.pool.held >= self.pool.size:
            return None
        return SlotWait(self.pool.name, self.pool.size, self.pool.held, self.pool.others())

    def _deadline_seconds(self) -> float:
        limits = self.job.limits
        if self.stage == "agent":
            return limits.pair_timeout_minutes * 60
        return evaluation_seconds(self.job.execution, limits.test_timeout_seconds)

    def _wait(self) -> None:
        """Sleep until a child ends, a deadline is near, or a slot may have become free; settle what ended."""
        began = time.monotonic()
        ended = self.server.wait(self._nap(began))
        self.waited_seconds += time.monotonic() - began
        alive = self.server.alive
        for child in ended:
            self._settle(child, alive)
        if not alive:
            self._restart()

    def _nap(self, moment: float) -> float:
        if not self.running and not self.pending:
            return 0.0
        longest = SLOT_NAP_SECONDS if self._lacks_slot else LONGEST_NAP_SECONDS
        if self._lacks_money is not None:
            longest = BUDGET_NAP_SECONDS
        nearest = min((one.deadline for one in self.running.values()), default=moment + longest)
        return max(0.0, min(longest, nearest - moment))

    def _settle(self, child: Child, alive: bool) -> None:
        running = self.running.pop(child.key, None)
        if running is None:
            return
        self.busy_seconds += time.monotonic() - child.started
        self.meter.running = len(self.running)
        try:
            assert child.ended is not None
            _note_end(running.made, child.ended)
            how = running.how if alive or running.how != "ended" else "interrupted"
            self._take_in(self.settle(running.made, how, self.budget.estimate), running.made)
            self._janitor.discard(running.made.place)
        except OSError as error:
            # It lies in its staging folder as it was left, and is put away at the next start.
            self._trouble = self._trouble or error
        finally:
            running.slot.close()
            self.ended()

    def _take_in(self, settled: Settled, made: Try) -> None:
        """Enter what a try came to in everything that counts."""
        attempt = settled.attempt
        self.states[made.pair] = settled.state
        if made.isolation:
            self.isolations.add(made.isolation)
        if self.stage == "agent":
            self.budget.add(attempt)
            if attempt.promoted:
                self.budget.note_result(settled.state)
        if attempt.outcome != "interrupted":
            self.breaker.note(family=settled.failed, replied=settled.replied)
        self.meter.cost_usd = self.budget.cell_usd
        self.meter.ended(settled.failed)

    def _kill_late(self) -> None:
        moment = time.monotonic()
        late = [one for one in self.running.values() if one.deadline <= moment and one.how == "ended"]
        for one in late:
            one.made.sight = deadlines.observe_activity(one.made.place)
            one.how = "deadline"
        if late:
            self.server.kill([one.child for one in late], KILL_GRACE_SECONDS)

    def _restart(self) -> None:
        """Start a harness server anew that died.

        Raises:
            HarnessError: if that was done too often, or does not work.
        """
        self._restarts += 1
        if self._restarts > RESTARTS:
            raise HarnessError(f"the harness server died {self._restarts} times; its log says why")
        self.server.start()
        self.server.ready()

    def _abort(self) -> None:
        """End all children within seconds and record their tries; a second signal does not cut this short."""
        with _undisturbed():
            for one in self.running.values():
                one.how = "interrupted" if one.how == "ended" else one.how
            with contextlib.suppress(HarnessError):
                self.server.kill([one.child for one in self.running.values()], KILL_GRACE_SECONDS)
            self.server.close()
            for one in list(self.running.values()):
                self._settle(one.child, alive=True)


def _note_end(made: Try, end: ChildEnd) -> None:
    """Keep what the server said of a child's end."""
    made.isolation = end.isolation or made.isolation
    made.said = end.error
    if made.said is None and end.signal is not None:
        made.said = f"its process was ended by {_signal_name(end.signal)}"
    elif made.said is None and end.exit_code:
        made.said = f"its process ended with exit code {end.exit_code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # Most of the real-time signals have no name.


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore SIGINT and SIGTERM for a moment, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, handler in before:
            if handler is not None:
                signal.signal(number, handler)
