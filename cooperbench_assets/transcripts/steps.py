"""Steps made of events: what an agent read, what it said, and what came of it.

What belongs here: where a step begins and ends, whatever the format. What does not: what a record means (``readers``)
and where records lie (``records``).

A step is a stretch of the file without gaps, so that it can be read again by itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cooperbench_assets.transcripts.model import StepEntry, Text
from cooperbench_assets.transcripts.readers.events import Event, Heard, unknown
from cooperbench_assets.transcripts.records import UNDECODABLE, Span, decoded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cooperbench_assets.transcripts.readers import Reader
    from cooperbench_assets.transcripts.records import Buffer

_GIT: dict[Literal["push", "fetch"], re.Pattern[str]] = {
    "push": re.compile(r"\bgit\b[^\n;&|]{0,80}?\s(?:push)\b|\bgh\s+pr\s+create\b"),
    "fetch": re.compile(r"\bgit\b[^\n;&|]{0,80}?\s(?:fetch|pull|clone)\b"),
}
_LONGEST_COMMAND = 1 << 16


@dataclass(slots=True)
class Draft:
    """A step while it is read, with its texts."""

    entry: StepEntry
    """What records say of it."""

    span: Span
    texts: list[Text] = field(default_factory=list)
    group: str | None = None
    closed: bool = False
    """No further reply belongs to it."""

    replied: bool = False
    waits: bool = False
    heard: list[Heard] = field(default_factory=list)
    told: list[Heard] = field(default_factory=list)
    """Messages in what its commands printed: the next step reads them."""

    sent: list[str] = field(default_factory=list)
    damaged: int = 0
    """Records that could not be decoded, and are shown as they are."""

    _open: dict[str, list[Text]] = field(default_factory=dict)

    def add(self, event: Event, span: Span) -> None:
        """Take in an event that belongs to this step."""
        self.span = Span(self.span.start, span.end)
        if event.closes is not None:
            announced = self._open.pop(event.closes, [])
            self.texts = [one for one in self.texts if not any(one is other for other in announced)]
        if event.opens is not None:
            announced = self._open.pop(event.opens, [])
            self.texts = [one for one in self.texts if not any(one is other for other in announced)]
            self._open[event.opens] = event.texts
        self.texts += event.texts
        self._add_facts(event)

    def _add_facts(self, event: Event) -> None:
        if event.role == "reply":
            self.entry.kind, self.replied = "step", True
            self.group, self.closed = event.group, self.closed or event.ends
            self.entry.at = event.at if self.entry.at is None else self.entry.at
            self.waits = self.waits or event.waits
        elif event.role == "output":
            self.entry.ended_at = event.at if event.at is not None else self.entry.ended_at
        for name in ("input_tokens", "output_tokens", "cost_usd", "exit_code"):
            value = getattr(event, name)
            if value is not None:
                setattr(self.entry, name, value)
        late = event.role == "output" or (event.role == "reply" and event.heard)
        (self.told if late else self.heard).extend(event.heard)
        self.sent += [command[:_LONGEST_COMMAND] for command in event.sent]

    @property
    def git(self) -> list[Literal["push", "fetch"]]:
        """What its commands do with a remote."""
        commands = [one.text[:_LONGEST_COMMAND] for one in self.texts if one.kind == "command"]
        return [what for what, pattern in _GIT.items() if any(pattern.search(command) for command in commands)]


def drafts(buffer: Buffer, spans: Iterable[Span], reader: Reader, *, begun: bool = False) -> Iterator[Draft]:
    """The steps of a stretch of records.

    Args:
        buffer: The file.
        spans: Where its records lie, in order.
        reader: Its format.
        begun: Whether a reply of the model stands before them.
    """
    current: Draft | None = None
    for span in spans:
        value = decoded(buffer[span.start : span.end])
        damaged = value is UNDECODABLE
        event = _raw(buffer, span) if damaged else _event(reader, value, begun)
        if current is None or _begins(current, event):
            if current is not None:
                yield current
            current = Draft(StepEntry(index=0, kind="prompt" if event.role == "prompt" else "note"), span)
        current.add(event, span)
        current.damaged += damaged
        begun = begun or current.replied
    if current is not None:
        yield current


def _begins(current: Draft, event: Event) -> bool:
    """Whether an event begins a new step."""
    if event.role == "prompt":
        return current.entry.kind != "prompt"
    if event.role == "input":
        return current.replied or current.entry.kind == "prompt"
    if event.role == "reply":
        same = event.group is not None and event.group == current.group and not current.closed
        return (current.replied and not same) or current.entry.kind == "prompt"
    return False


def _event(reader: Reader, value: Any, begun: bool) -> Event:
    if not isinstance(value, dict):
        return unknown(value)
    return reader.event(value, begun)


def _raw(buffer: Buffer, span: Span) -> Event:
    text = buffer[span.start : span.end].decode("utf-8", "replace")
    return Event("note", [Text(kind="raw", text=text)])
