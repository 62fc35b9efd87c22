"""A launch's progress in words, and whether it tells anything new.

What belongs here: sentences about progress that a person reads, in the UI and on the command line. What does not:
counting (``execution.runner.progress``), and where a sentence is shown.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cooperbench_assets.execution.runner.progress import BudgetWait, SlotWait, StartWait

if TYPE_CHECKING:
    from cooperbench_assets.execution.runner.progress import Progress, Waiting
    from cooperbench_assets.execution.runner.slots import SlotUser

_SLOT: Final = {"agents": "agent slot", "evaluations": "evaluation slot"}
_RUN_ID: Final = re.compile(r"\b([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")


def describe(progress: Progress) -> str:
    """Where a launch stands, in one line."""
    failed = ", ".join(f"{count} {family}" for family, count in sorted(progress.failed.items()))
    parts = [
        f"{progress.done} of {progress.total} pairs done",
        f"{progress.running} running",
        f"{failed or 'none'} failed",
        f"{progress.cost_usd:.2f} USD",
    ]
    if progress.expected_end is not None:
        parts.append(f"expected to end at {progress.expected_end:%H:%M:%S} UTC")
    if progress.waiting is not None:
        parts.append(describe_wait(progress.waiting))
    return ", ".join(parts)


def describe_wait(waiting: Waiting) -> str:
    """What a launch waits for, and who holds it."""
    if isinstance(waiting, StartWait):
        return f"waits before it starts a further child: {waiting.reason}"
    if isinstance(waiting, BudgetWait):
        running = f"{waiting.own} running here, {waiting.elsewhere} in other cells"
        if waiting.cost_known:
            return f"waits for the cost of running pairs, which have reserved the rest of the budget ({running})"
        return f"waits for the cost of a first pair, or for limits.expected_cost_usd ({running})"
    slot = _SLOT[waiting.pool]
    which = f"a further {slot}" if waiting.own else f"an {slot}"
    if not waiting.held_by:
        return f"waits for {which}"
    (first, count), *rest = waiting.held_by
    holders = [f"{count} of {waiting.size} held by {_named(first)}", *(f"{n} by {_named(user)}" for user, n in rest)]
    return f"waits for {which}: {', '.join(holders)}"


def _named(user: SlotUser) -> str:
    what = _RUN_ID.sub(r"\1", user.what)
    return f"{user.experiment} {user.cell} ({what}, PID {user.pid})" if user.experiment else what


class News:
    """Remembers what was told of a launch's progress, so that only what changed is told again."""

    def __init__(self) -> None:
        self._told: Progress | None = None

    def is_new(self, progress: Progress) -> bool:
        """Whether anything but time has changed since what was last told."""
        old = self._told
        if old is None:
            return True
        counts = [(one.done, one.running, one.total, one.failed) for one in (old, progress)]
        return counts[0] != counts[1] or _waits_anew(old.waiting, progress.waiting)

    def told(self, progress: Progress) -> None:
        """This was told."""
        self._told = progress


def _waits_anew(old: Waiting | None, new: Waiting | None) -> bool:
    """Whether a launch waits for something else, or for somebody else; a slot that changes hands is neither."""
    if isinstance(old, SlotWait) and isinstance(new, SlotWait):
        return bool(new.held_by) and {user for user, _ in old.held_by} != {user for user, _ in new.held_by}
    return old != new
