"""What one record of a transcript means, whatever its format.

What belongs here: the record that readers make, and small helpers that take values of any type. What does not: any one
format.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, Literal, NamedTuple

from cooperbench_assets.benchmark.records import parse_time
from cooperbench_assets.transcripts.model import Text, TextKind

Role = Literal["prompt", "input", "reply", "output", "note"]
"""prompt: before the first reply; input: read before the next reply; reply: the model's; output: what came of it;
note: goes with whatever stands before it."""

_MESSAGE = re.compile(r"\[Message from (\w+)[^\]\n]*\]:\s?(.*)", re.DOTALL)
_REPLY = re.compile(r"\[Reply from (\w+)\]:\s?(.*?)(?=\n\n\[Reply from \w+\]:|\Z)", re.DOTALL)
SENDING = ("send_message", "coop-send", "coop-broadcast", "SendMessageAction")
"""What stands in a command that sends a message."""

SUMMARY = "summary of what went before"
"""Label of what stands in place of a context that was cut."""


class Heard(NamedTuple):
    """A message as an agent read it."""

    sender: str | None
    text: str


@dataclass(slots=True)
class Event:
    """What one record means."""

    role: Role
    texts: list[Text] = field(default_factory=list)
    at: float | None = None
    group: str | None = None
    """Replies of one group are one call of the model."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    exit_code: int | None = None
    heard: list[Heard] = field(default_factory=list)
    """Of an input: what it tells. Of an output: what the next input tells."""

    sent: list[str] = field(default_factory=list)
    """Commands that send."""

    ends: bool = False
    """Of a reply: no later one belongs to its step."""

    opens: str | None = None
    """It announces what an event that `closes` it will tell in full."""

    closes: str | None = None
    waits: bool = False
    """It does nothing but wait for the other agent."""


def unknown(record: Any) -> Event:
    """A record that no reader knows, as it is."""
    return Event("note", [Text(kind="raw", text=shown(record))])


def shown(value: Any) -> str:
    """Any value as text: a text as it is, nothing as nothing, anything else as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, indent=1, default=str)


def text(kind: TextKind, value: Any, label: str | None = None, exit_code: int | None = None) -> list[Text]:
    """A value as a list of one text; of none where it is empty."""
    said = shown(value)
    return [Text(kind=kind, text=said, label=label, exit_code=exit_code)] if said else []


def mapping(value: Any) -> dict[str, Any]:
    """A JSON object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def number(value: Any) -> int | None:
    """A whole number; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53 else None


def amount(value: Any) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15:
        return float(value)
    return None


def moment(value: Any) -> float | None:
    """A recorded time as seconds since 1970; None where it is none."""
    when = parse_time(value)
    return None if when is None else when.replace(tzinfo=UTC).timestamp()


def total(*values: Any) -> int | None:
    """The sum of what is known; None where nothing is."""
    known = [one for one in map(number, values) if one is not None]
    return sum(known) if known else None


def message_in(said: str) -> Heard | None:
    """The message that the harness put before a call of the model; None where it is none."""
    match = _MESSAGE.match(said)
    return None if match is None else Heard(match[1], match[2])


def replies_in(said: str) -> list[Heard]:
    """The replies in what a command printed that waited for them."""
    return [Heard(match[1], match[2].strip()) for match in _REPLY.finditer(said)] if "[Reply from" in said else []


def sending(command: str) -> list[str]:
    """The command, if it sends a message."""
    return [command] if any(word in command for word in SENDING) else []
