"""How agents write down what they do: one module for each format.

What belongs here: which format a file has, and what one record of it means (`events.Event`). What does not: files and
their damage (``transcripts.records``), and steps made of events (``transcripts.steps``).

A reader is a function of one record, so that reading can begin in the middle of a file. It never raises, and what it
does not know is a note that shows the record as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cooperbench_assets.transcripts.readers import chat, claude_code, codex, mini_swe_agent_v2, openhands

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cooperbench_assets.transcripts.readers.events import Event


class Reader(NamedTuple):
    """One format."""

    name: str
    """As in `model.Agent.format`."""

    event: Callable[[dict[str, Any], bool], Event]
    """What a record means, and whether the model has replied before it."""

    lines: bool
    """JSON Lines; else the elements of a list of messages."""

    hears: bool = False
    """Its inputs show every message that was read, so that one that they do not show was never read."""


READERS = {
    reader.name: reader
    for reader in (
        Reader("mini_swe_agent_v2", mini_swe_agent_v2.event, lines=False, hears=True),
        Reader("claude_code", claude_code.event, lines=True),
        Reader("codex", codex.event, lines=True),
        Reader("swe_agent", chat.event, lines=False),
        Reader("openhands", openhands.event, lines=False),
        Reader("chat", chat.event, lines=False),
    )
}


def of_messages(samples: Sequence[Any], framework: str | None) -> Reader | None:
    """The reader of a trajectory, by its first messages; None where they are of no format that is known.

    Args:
        samples: Some of the messages, decoded.
        framework: The agent that result.json names.
    """
    records = [one for one in samples if isinstance(one, dict)]
    if any(isinstance(one.get("event_type"), str) and "event" in one for one in records):
        return READERS["openhands"]
    roles = [one for one in records if isinstance(one.get("role"), str)]
    if not roles:
        return None
    if any("tool_calls" in one or isinstance(one.get("extra"), dict) for one in roles):
        return READERS["mini_swe_agent_v2"]
    return READERS["swe_agent" if framework == "swe_agent" else "chat"]


def of_lines(samples: Sequence[Any]) -> Reader | None:
    """The reader of a stream, by its first events; None where they are of no format that is known."""
    kinds = {one["type"] for one in samples if isinstance(one, dict) and isinstance(one.get("type"), str)}
    if any(kind.startswith(("thread.", "turn.", "item.")) for kind in kinds):
        return READERS["codex"]
    return READERS["claude_code"] if kinds & {"assistant", "user", "system", "result"} else None
