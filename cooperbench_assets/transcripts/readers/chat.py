"""Roles and texts, and nothing else: what swe_agent's adapter writes, and any agent of unknown make.

What belongs here: the meaning of ``{"role", "content"}``. What does not: tool calls, times and costs
(``mini_swe_agent_v2``).

swe_agent keeps neither its prompt nor times, and joins thought and action in one text.
"""

from __future__ import annotations

from typing import Any

from cooperbench_assets.transcripts.readers.events import Event, message_in, moment, sending, shown, text, unknown


def event(record: dict[str, Any], begun: bool) -> Event:
    """What a message means; `begun`: the model has replied before it."""
    role, at = record.get("role"), moment(record.get("timestamp"))
    said = shown(record.get("content"))
    if role == "assistant":
        return Event("reply", text("thought", said), at=at, sent=sending(said))
    if role == "system" and not begun:
        return Event("prompt", text("system", said), at=at)
    if role not in ("user", "tool", "system"):
        return unknown(record)
    if (heard := message_in(said)) is not None:
        return Event("input", text("message", heard.text, heard.sender), at=at, heard=[heard])
    if not begun:
        return Event("prompt", text("task", said), at=at)
    return Event("output", text("output", said), at=at)
