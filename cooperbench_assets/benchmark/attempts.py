"""The recorded tries of a pair at a stage, as execution wrote them beside upstream's files.

What belongs here: what ``attempt.json`` holds, and what a try that has no end counts as. What does not: finding the
records (``attempt_tree``) and writing them (``execution``).
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Literal

import msgspec

from cooperbench_assets.benchmark.records import Int32, Int64

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cooperbench_assets.benchmark.failures import Stage
    from cooperbench_assets.benchmark.pairs import Pair

ATTEMPTS = "attempts"
"""Folder in the run folder that holds every recorded try."""

FILE = "attempt.json"
_FOLDER = re.compile(r"(agent|eval)-([1-9]\d{0,8})")


class Attempt(msgspec.Struct, kw_only=True, frozen=True):
    """One try of one pair at one stage, as ``attempt.json`` holds it."""

    n: Int32
    """Number of the try at this stage, from 1."""

    retry_generation: Int32 = msgspec.field(name="campaign")
    """How often a person had reset the retry counters, counted from 1: limits count the tries of one generation.

    0 for files that were there before tries were recorded. On disk it has the name of the first release.
    """

    stage: Literal["agent", "eval"]
    outcome: Literal["running", "completed", "infra_error", "interrupted"] = "running"
    family: str | None = None
    evidence: str | None = None
    retryable: bool | None = None
    started_at: str
    """UTC, ISO 8601 with offset."""

    ended_at: str | None = None
    cost_usd: float | None = None
    cost_estimated: bool = False
    patch_sha256: str | None = None
    """Hash of the patch that the try made (agent) or judges (eval)."""

    isolation: str | None = None
    pid: Int64 | None = None
    identity: str | None = None
    """What tells the process from a later one of the same number."""

    promoted: bool = False
    """The try's files went to the pair's folder; they lie there until a later try's files push them out."""

    @property
    def failed(self) -> bool:
        """Whether it ended as infrastructure, or without an end."""
        return self.outcome in ("infra_error", "interrupted")

    @property
    def counted(self) -> bool:
        """Whether it counts towards the limit of tries: it failed, and this project launched it."""
        return self.failed and self.retry_generation != 0


ATTEMPT = msgspec.json.Decoder(Attempt)


def unreadable(stage: Stage, n: int, started_at: str = "") -> Attempt:
    """What a try whose record cannot be read counts as: interrupted, in the first retry generation."""
    return Attempt(
        n=n,
        retry_generation=1,
        stage=stage,
        outcome="interrupted",
        started_at=started_at,
        family="interrupted",
        evidence=f"{FILE} is missing or cannot be read",
        retryable=True,
    )


def folder_name(stage: Stage, n: int) -> str:
    """Name of a try's folder below the pair's folder of attempts."""
    return f"{stage}-{n}"


def place_of(pair: Pair, mode: str | None, attempt: Attempt) -> str:
    """A try's folder, relative to the run folder."""
    return f"{ATTEMPTS}/{mode}/{pair.name}/{folder_name(attempt.stage, attempt.n)}"


def parse_folder(name: str) -> tuple[Stage, int] | None:
    """Stage and number that a try's folder stands for; None where it stands for none."""
    match = _FOLDER.fullmatch(name)
    if match is None:
        return None
    return ("agent" if match[1] == "agent" else "eval"), int(match[2])


def process_alive(record: Attempt) -> bool:
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


def ended(attempt: Attempt, *, alive: bool) -> Attempt:
    """A try as it stands: one that was never completed, and whose process is gone, was interrupted."""
    if attempt.outcome != "running" or alive:
        return attempt
    return msgspec.structs.replace(attempt, outcome="interrupted")


def of_stage(attempts: Iterable[Attempt], stage: Stage) -> list[Attempt]:
    """The tries at one stage, in order."""
    return sorted((one for one in attempts if one.stage == stage), key=lambda one: one.n)


def last(attempts: Iterable[Attempt], stage: Stage) -> Attempt | None:
    """The latest try at a stage."""
    return max((one for one in attempts if one.stage == stage), key=lambda one: one.n, default=None)


def owner(attempts: Iterable[Attempt], stage: Stage) -> Attempt | None:
    """The try whose files lie in the pair's folder; None if no recorded try put any there."""
    return last((one for one in attempts if one.promoted), stage)
