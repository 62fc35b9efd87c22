"""The record of each try of a pair at a stage: written before a launch, completed after it.

What belongs here: writing the file `attempt.json`, and counting tries. What does not: what the record holds
(``benchmark.attempts``), finding it (``benchmark.attempt_tree``), what a try's files say (``benchmark.outcomes``), and
moving them (``promotion``).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from cooperbench_assets.benchmark.attempt_tree import scan_attempts as scan_attempts
from cooperbench_assets.benchmark.attempts import FILE, last
from cooperbench_assets.benchmark.attempts import Attempt as Attempt
from cooperbench_assets.benchmark.attempts import folder_name as folder_name
from cooperbench_assets.benchmark.attempts import of_stage as of_stage
from cooperbench_assets.benchmark.attempts import owner as owner
from cooperbench_assets.files import write_atomically
from cooperbench_assets.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cooperbench_assets.execution.worker.protocol import Stage

EVIDENCE_LENGTH: Final = 2000
"""Characters of a failure's text that are kept."""


def now() -> str:
    """The present time as attempts record it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def write_attempt(folder: Path, attempt: Attempt) -> None:
    """Write `attempt.json`, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    # One that a power cut empties counts as interrupted, which is what became of a try that was running.
    write_atomically(folder / FILE, msgspec.json.encode(attempt), durable=attempt.outcome != "running")


def next_number(attempts: Iterable[Attempt], stage: Stage) -> int:
    """Number of the next try at a stage."""
    latest = last(attempts, stage)
    return 1 if latest is None else latest.n + 1


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
