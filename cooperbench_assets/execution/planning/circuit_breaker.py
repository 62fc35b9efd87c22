"""The circuit breaker: stops a cell whose tries all end the same dead way.

What belongs here: counting ends. What does not: what a single end means (``benchmark.outcomes``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cooperbench_assets.execution.worker.protocol import Stage

BROKEN_MACHINE: Final = frozenset({"engine", "container_start", "image_missing", "configuration", "disk", "network"})
"""Families that say of an evaluation that the machine, not the pair, is at fault."""


class Breaker:
    """Looks at each try that ended, and says when to stop launching."""

    def __init__(self, stage: Stage, limit: int) -> None:
        self._stage = stage
        self._limit = limit
        self._in_a_row = 0
        self._families: list[str] = []
        self.reason: str | None = None
        """Why the cell was stopped; None while it was not."""

    def note(self, *, family: str | None, replied: bool) -> None:
        """Enter a try that ended.

        Args:
            family: Family of the infrastructure failure that ended it, or None.
            replied: The model answered at least once (agents), or the tests ran (evaluations).
        """
        dead = not replied if self._stage == "agent" else family in BROKEN_MACHINE
        self._in_a_row = self._in_a_row + 1 if dead else 0
        self._families = [*self._families, family or "no reply"] if dead else []
        if self.reason is not None:
            return
        if family == "auth" and self._stage == "agent":
            self.reason = "the model's provider refused the key (auth); fix the key, and run the cell again"
        elif self._in_a_row >= self._limit:
            self.reason = self._tripped()

    def _tripped(self) -> str:
        kinds = ", ".join(sorted(set(self._families)))
        what = "without one reply of the model" if self._stage == "agent" else "on a machine that cannot test"
        return f"{self._in_a_row} tries in a row ended {what} ({kinds}); fix the cause, and run the cell again"
