"""What a run's agents were told before they began, by the prompts in their trajectories.

What belongs here: reading a fact of a run out of upstream's own sentences. What does not: facts that a file records
(``provenance``), and what agents say (``steps``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cooperbench_assets.benchmark.jsonfiles import BadFileError, decode, read_bytes
from cooperbench_assets.benchmark.records import TRAJECTORY, TRAJECTORY_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cooperbench_assets.benchmark.logtree import RunReading

SHARED_GIT = (
    b"A shared git remote is also available if you need it",
    b"A shared git remote named `team` is already configured in this repo.",
)
"""What mini_swe_agent_v2, and claude_code and codex, are told where they share a git server; from 0.0.19 to 0.0.29."""

_LARGEST = 1 << 27


def shared_git(reading: RunReading) -> bool | None:
    """True if a run's agents were told of a git server that they share; None where nothing says so.

    One flag decides it for a whole run, so that the first trajectory speaks for all. That a prompt has none of these
    sentences says nothing: an agent config can replace it, other versions and agents word it in another way, and
    some trajectories begin after it.
    """
    if reading.mode == "solo":
        return None
    begun = next((messages for messages in _trajectories(reading) if messages), [])
    opening = []
    for raw in begun:
        if _role(raw) == "assistant":
            break
        opening.append(raw)
    return any(sentence in raw for raw in opening for sentence in SHARED_GIT) or None


def _trajectories(reading: RunReading) -> Iterator[list[bytes]]:
    """The messages of each agent of a run, as far as its trajectory can be read."""
    for pair in reading.pairs.values():
        for agent in pair.agents:
            try:
                content = read_bytes(f"{pair.folder}/agent{agent.feature}_traj.json", _LARGEST)
                yield [bytes(raw) for raw in decode(content, TRAJECTORY).messages]
            except (BadFileError, OSError):
                continue


def _role(raw: bytes) -> str | None:
    try:
        return TRAJECTORY_MESSAGE.decode(raw).role
    except (msgspec.MsgspecError, ValueError):
        return None
