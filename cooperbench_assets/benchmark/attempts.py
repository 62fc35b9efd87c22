"""The recorded tries of a pair at a stage, as execution wrote them beside upstream's files.

What belongs here: reading ``attempts/<mode>/<repo>/<task>/<pair>/<stage>-<n>/attempt.json``, and what a try that
has no end counts as. What does not: writing them (``execution``).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cooperbench_assets.benchmark.failures import Stage
    from cooperbench_assets.benchmark.records import AttemptRecord

ATTEMPTS = "attempts"
"""Folder in the run folder that holds every recorded try."""

FILE = "attempt.json"
_FOLDER = re.compile(r"(agent|eval)-(\d{1,9})")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one pair at one stage."""

    stage: Stage
    n: int
    """Number of the try at this stage, from 1."""

    record: AttemptRecord
    path: str
    """The try's folder, relative to the run folder."""

    outcome: str
    """completed, infra_error, interrupted, or running (its process is alive)."""

    @property
    def counted(self) -> bool:
        """Whether it counts towards the limit of tries: it ended as infrastructure, or without an end.

        Campaign 0 is what was there before this project ran anything, and counts for no limit.
        """
        return self.outcome in ("infra_error", "interrupted") and self.record.campaign != 0


def parse_folder(name: str) -> tuple[Stage, int] | None:
    """Stage and number that a try's folder stands for; None where it stands for none."""
    match = _FOLDER.fullmatch(name)
    if match is None:
        return None
    return ("agent" if match[1] == "agent" else "eval"), int(match[2])


def process_alive(record: AttemptRecord) -> bool:
    """Whether a process with the number that a try recorded is alive on this machine."""
    if record.pid is None or not 0 < record.pid < 2**31:
        return False
    try:
        os.kill(record.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def ended_as(record: AttemptRecord, alive: bool) -> str:
    """How a try ended: one that was never completed, and whose process is gone, was interrupted."""
    if record.outcome in ("completed", "infra_error", "interrupted"):
        return record.outcome
    return "running" if alive else "interrupted"


def last(attempts: Sequence[Attempt], stage: Stage) -> Attempt | None:
    """The latest try at a stage."""
    return max((attempt for attempt in attempts if attempt.stage == stage), key=lambda a: a.n, default=None)
