"""The record of each try of a pair at a stage: written before a launch, completed after it.

What belongs here: writing the file `attempt.json`, where it lies, and counting tries. What does not: what the record
holds (``benchmark.attempts``), what a try's files say (``benchmark.outcomes``), and moving them (``promotion``).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from cooperbench_assets.benchmark.attempts import ATTEMPT, ATTEMPTS, FILE, parse_folder, unreadable
from cooperbench_assets.benchmark.attempts import Attempt as Attempt
from cooperbench_assets.benchmark.jsonfiles import BadFileError, decode, read_bytes
from cooperbench_assets.execution.attempts.tree_scan import folders, pair_folders
from cooperbench_assets.files import write_atomically
from cooperbench_assets.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.worker.protocol import Stage

EVIDENCE_LENGTH: Final = 2000
"""Characters of a failure's text that are kept."""


def now() -> str:
    """The present time as attempts record it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def folder_name(stage: Stage, n: int) -> str:
    """Name of a try's folder below the pair's folder of attempts."""
    return f"{stage}-{n}"


def write_attempt(folder: Path, attempt: Attempt) -> None:
    """Write `attempt.json`, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    # One that a power cut empties counts as interrupted, which is what became of a try that was running.
    write_atomically(folder / FILE, msgspec.json.encode(attempt), durable=attempt.outcome != "running")


def read_attempt(folder: Path) -> Attempt | None:
    """The record in a try's folder; a folder whose record cannot be read counts as an interrupted try.

    Returns None for a folder that holds no try.
    """
    named = parse_folder(folder.name)
    if named is None:
        return None
    stage, n = named
    try:
        attempt = decode(read_bytes(str(folder / FILE)), ATTEMPT)
    except BadFileError:
        at = datetime.fromtimestamp(folder.stat().st_mtime, UTC).isoformat(timespec="milliseconds")
        return unreadable(stage, n, at)
    return msgspec.structs.replace(attempt, stage=stage, n=n)


def scan_attempts(run_dir: Path, mode: str) -> dict[Pair, list[Attempt]]:
    """Every recorded try below a run folder, in the order of stage and number."""
    found: dict[Pair, list[Attempt]] = {}
    for pair, pair_folder in pair_folders(run_dir / ATTEMPTS / mode):
        read = (read_attempt(folder) for folder in folders(pair_folder))
        found.setdefault(pair, []).extend(attempt for attempt in read if attempt is not None)
    for attempts in found.values():
        attempts.sort(key=lambda attempt: (attempt.stage, attempt.n))
    return found


def of_stage(attempts: Iterable[Attempt], stage: Stage) -> list[Attempt]:
    """The tries at one stage, in order."""
    return sorted((one for one in attempts if one.stage == stage), key=lambda one: one.n)


def next_number(attempts: Iterable[Attempt], stage: Stage) -> int:
    """Number of the next try at a stage."""
    return max((one.n for one in of_stage(attempts, stage)), default=0) + 1


def owner(attempts: Iterable[Attempt], stage: Stage) -> Attempt | None:
    """The try whose files lie in the pair's folder; None if no recorded try put any there."""
    promoted = [one for one in of_stage(attempts, stage) if one.promoted]
    return promoted[-1] if promoted else None


def tries_used(attempts: Iterable[Attempt], stage: Stage, retry_generation: int, patch: str | None = None) -> int:
    """Tries of a retry generation that count towards the limit; at the eval stage those of one patch."""
    return sum(
        one.counted and one.retry_generation == retry_generation and (stage == "agent" or one.patch_sha256 == patch)
        for one in of_stage(attempts, stage)
    )


def shorten(text: str) -> str:
    """A failure's text as it is kept: without what looks like a key, and its end, where the cause usually stands."""
    text = redact(text).strip()
    return text if len(text) <= EVIDENCE_LENGTH else f"…{text[1 - EVIDENCE_LENGTH :]}"
