"""OpenHands: events as upstream's adapter keeps them, which is the text that Python prints for each.

What belongs here: the meaning of ``{"step", "event_type", "event"}``. What does not: the SDK's own event files, which
upstream does not keep.

Nothing inside the text is taken apart: it is a rendering, and may be cut. There are no times.
"""

from __future__ import annotations

from typing import Any

from cooperbench_assets.transcripts.readers.events import Event, sending, shown, text, unknown


def event(record: dict[str, Any], begun: bool) -> Event:
    """What an event means; `begun`: the model has replied before it."""
    kind, said = shown(record.get("event_type")), shown(record.get("event"))
    if not kind:
        return unknown(record)
    if kind == "SystemPromptEvent":
        return Event("note" if begun else "prompt", text("system", said, kind))
    if kind == "ActionEvent":
        message = shown(record.get("msg"))
        sent = sending(f"SendMessageAction {message}") if message else []
        return Event("reply", [*text("command", said, kind), *text("message", message, record.get("to"))], sent=sent)
    if kind in ("ObservationEvent", "AgentErrorEvent", "UserRejectObservation"):
        return Event("output", text("output", said, kind))
    if kind == "MessageEvent":
        by_agent = "(agent)" in said[:80]
        if by_agent:
            return Event("reply", text("thought", said, kind))
        return Event("input" if begun else "prompt", text("note" if begun else "task", said, kind))
    return Event("note" if begun else "prompt", text("note", said, kind))
