"""Keeping an engine clean while a launch runs: a sweep at its start, at its end, and after children have ended.

What belongs here: when sweeps are made. What does not: what a sweep removes (``leftovers``). An agent's container
outlives its child as a rule: upstream removes it in the background, and is ended before it has.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Self

from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.execution.sandboxes.docker.leftovers import remove_leftovers

if TYPE_CHECKING:
    from collections.abc import Mapping

PAUSE_SECONDS: Final = 1.0
"""Between two sweeps while a launch runs."""

_END_SECONDS: Final = 60.0


class EngineCleanup:
    """Sweeps in a thread of its own, so that no launch waits for it but at its two ends. A context manager."""

    def __init__(self, environment: Mapping[str, str] | None = None, *, cell: str | None = None) -> None:
        """Remember the engine: the one that `environment` names, this process's own if not given.

        Args:
            environment: Names the engine.
            cell: The cell (`ownership.cell_of`) whose lock is held meanwhile.
        """
        self._environment = environment
        self._cell = cell
        self._due = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="containers", daemon=True)
        self.removed = 0
        """Containers, networks and volumes that were removed."""

        self.problem: str | None = None
        """Why the last sweep did not do all that it should; None if it did."""

    def __enter__(self) -> Self:
        self.sweep(self._cell)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._due.set()
        self._thread.join(_END_SECONDS)
        self.sweep(self._cell)

    def look(self) -> None:
        """A child has ended: what it left may go."""
        self._due.set()

    def sweep(self, cell: str | None = None) -> None:
        """Sweep now. An engine that does not answer is no error of the launch: what it holds is left to the next.

        Args:
            cell: A cell whose lock is held and none of whose children runs: all that was made for it goes.
        """
        try:
            with Engine.connect(self._environment) as engine:
                swept = remove_leftovers(engine, cell=cell)
        except InfrastructureError as error:
            self.problem = error.text
            return
        self.removed += len(swept.removed)
        self.problem = f"{swept.failed[0][0].name}: {swept.failed[0][1]}" if swept.failed else None

    def _work(self) -> None:
        while not self._over.is_set():
            self._due.wait()
            self._due.clear()
            if not self._over.is_set():
                self.sweep()
                self._over.wait(PAUSE_SECONDS)
