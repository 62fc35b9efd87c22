"""What is certain of a pair while it is evaluated: nothing that happens later may hide it.

What belongs here: a verdict so far, the same for every kind of sandbox. What does not: running commands, and what an
output means (``infra_errors``). Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cooperbench_assets.benchmark.failures import REPEAT_FAILS
from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.sandboxes.base import RUNNER, Finished

_NO_MERGE = re.compile(r"^(?:MERGE_STATUS=conflicts|PATCH[12]_FAILED)$", re.MULTILINE)
_REPORTS = ('echo "MERGE_STATUS=conflicts"', "apply_patch()")
"""What upstream's commands hold that apply the patches and merge them, whose output says how that went."""

_TESTED_ALL_THE_SAME = ("merge=union", "identical-merge")
"""What its commands hold that make a tree of such patches after all, whose tests decide: older versions take both
sides of a conflict, and two equal patches are applied once more."""


def is_test_run(args: Sequence[str]) -> bool:
    """Whether a command is a test run: it names the runner."""
    return any(RUNNER in arg for arg in args)


class Grading:
    """What is certain of one pair so far."""

    def __init__(self) -> None:
        self._failed = False
        self.conflicting = False
        """The patches do not merge, or one does not apply: upstream then tests the first agent's alone."""

    def saw(self, args: Sequence[str], finished: Finished) -> Finished:
        """Take note of a command that ended by itself."""
        text = args[-1] if args else ""
        if is_test_run(args):
            self._failed |= finished.returncode != 0
        elif any(mark in text for mark in _TESTED_ALL_THE_SAME):
            self.conflicting = False
        elif any(mark in text for mark in _REPORTS):
            self.conflicting |= bool(_NO_MERGE.search(finished.stdout + finished.stderr))
        return finished

    def resolve_failure(self, args: Sequence[str], error: InfrastructureError, code: int, output: str = "") -> Finished:
        """What a command that infrastructure ended counts as, where the pair fails all the same.

        That is so where an earlier test run has failed by itself, and where the patches conflict and the first
        agent's alone, which then could only be counted beside, did not end its tests by its own doing.

        Raises:
            InfrastructureError: `error`, where nothing is certain yet.
        """
        beside = self.conflicting and error.family in REPEAT_FAILS
        if not (is_test_run(args) and (self._failed or beside)):
            raise error
        return Finished(code, f"{output}\n{error}" if output else str(error))
