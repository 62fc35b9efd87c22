"""Codex: the events of ``codex exec --json``, one a line.

What belongs here: the meaning of one event (``codex-rs/exec/src/exec_events.rs`` in openai/codex). What does not: how
the run ended (``benchmark.evidence``).

There are no times, and calls of the model are not told apart: a step is what leads up to one command, and has a number
all the same.
"""

from __future__ import annotations

from typing import Any

from cooperbench_assets.transcripts.readers.claude_code import received
from cooperbench_assets.transcripts.readers.events import (
    Event,
    mapping,
    moment,
    number,
    sending,
    shown,
    text,
    unknown,
)

_SAYS = {"agent_message": None, "reasoning": "reasoning"}


def event(record: dict[str, Any], begun: bool) -> Event:
    """What an event means; `begun`: the model has replied before it."""
    kind, at = shown(record.get("type")), moment(record.get("timestamp"))
    if kind in ("item.completed", "item.started", "item.updated"):
        return _item(mapping(record.get("item")), kind, at)
    if kind == "turn.completed":
        usage = mapping(record.get("usage"))
        return Event(
            "note",
            text("note", usage, "usage of the turn"),
            at=at,
            input_tokens=number(usage.get("input_tokens")),
            output_tokens=number(usage.get("output_tokens")),
        )
    if kind in ("thread.started", "turn.started", "turn.failed", "error"):
        return Event("note" if begun else "prompt", text("note", record, kind), at=at)
    return unknown(record)


def _item(item: dict[str, Any], kind: str, at: float | None) -> Event:
    what, name = shown(item.get("type")), shown(item.get("id")) or None
    if kind != "item.completed":
        return Event("reply", text("command", item, kind), at=at, group="codex", opens=name)
    if what in _SAYS:
        return Event("reply", text("thought", item.get("text"), _SAYS[what]), at=at, group="codex", closes=name)
    if what == "command_execution":
        command, output = shown(item.get("command")), shown(item.get("aggregated_output"))
        code = number(item.get("exit_code"))
        texts = [*text("command", command, "shell"), *text("output", output, exit_code=code)]
        return Event(
            "reply",
            texts,
            at=at,
            group="codex",
            ends=True,
            closes=name,
            exit_code=code,
            sent=sending(command),
            heard=received(output),
        )
    return Event("reply", text("command", item, what or None), at=at, group="codex", closes=name)
