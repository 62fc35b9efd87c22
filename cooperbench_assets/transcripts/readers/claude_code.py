"""Claude Code: the events of its stream or of its session file, one a line.

What belongs here: the meaning of one event. What does not: how the run ended (``benchmark.evidence``).

A session's events have times, a stream's have not; both hold a message's blocks one by one, under its id.
"""

from __future__ import annotations

import json
from typing import Any

from cooperbench_assets.transcripts.model import Text
from cooperbench_assets.transcripts.readers.events import (
    Event,
    Heard,
    mapping,
    moment,
    number,
    sending,
    shown,
    text,
    total,
    unknown,
)


def event(record: dict[str, Any], begun: bool) -> Event:
    """What an event means; `begun`: the model has replied before it."""
    kind, at = record.get("type"), moment(record.get("timestamp"))
    message = mapping(record.get("message"))
    if kind == "assistant":
        return _reply(message, at)
    if kind == "user":
        return _input(message, at, begun)
    if kind == "system":
        return Event("note" if begun else "prompt", text("note", record, shown(record.get("subtype")) or None), at=at)
    if kind == "result":
        return Event("note", text("note", record.get("result") or record, "result"), at=at)
    return unknown(record)


def _reply(message: dict[str, Any], at: float | None) -> Event:
    usage = mapping(message.get("usage"))
    asked = [usage.get(name) for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")]
    found = Event(
        "reply",
        at=at,
        group=shown(message.get("id")) or None,
        input_tokens=total(*asked),
        output_tokens=number(usage.get("output_tokens")),
    )
    for block in _blocks(message.get("content")):
        kind = block.get("type")
        if kind in ("text", "thinking"):
            label = "thinking" if kind == "thinking" else None
            found.texts += text("thought", block.get("thinking") or block.get("text"), label)
        elif kind == "tool_use":
            given = mapping(block.get("input"))
            command = shown(given["command"]) if "command" in given else shown(block.get("input"))
            found.texts += text("command", command, shown(block.get("name")) or None)
            found.sent += sending(command)
        else:
            found.texts += text("note", block, shown(kind) or None)
    return found


def _input(message: dict[str, Any], at: float | None, begun: bool) -> Event:
    outputs: list[Text] = []
    said: list[Text] = []
    heard: list[Heard] = []
    for block in _blocks(message.get("content")):
        if block.get("type") == "tool_result":
            output = _output(block.get("content"))
            outputs += text("output", output, "error" if block.get("is_error") else None)
            heard += received(output)
        elif block.get("type") == "text":
            said += text("note" if begun else "task", block.get("text"))
        else:
            said += text("note", block, shown(block.get("type")) or None)
    if outputs:
        return Event("output", [*outputs, *said], at=at, heard=heard)
    return Event("input" if begun else "prompt", said, at=at)


def _blocks(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, list):
        return [one if isinstance(one, dict) else {"type": "text", "text": one} for one in content]
    return [{"type": "text", "text": content}] if content else []


def _output(content: Any) -> str:
    if not isinstance(content, list):
        return shown(content)
    return "\n".join(shown(one["text"] if isinstance(one, dict) and "text" in one else one) for one in content)


def received(output: str) -> list[Heard]:
    """The messages that ``coop-recv`` printed."""
    if '"content"' not in output or '"from"' not in output:
        return []
    try:
        found = json.loads(output[output.index("[") : output.rindex("]") + 1])
    except (ValueError, RecursionError):
        return []
    records = [mapping(one) for one in found] if isinstance(found, list) else []
    return [Heard(shown(one["from"]), shown(one["content"])) for one in records if {"from", "content"} <= one.keys()]
