"""mini-swe-agent v2: messages of a chat with tool calls, and ``extra`` with times, costs and exit codes.

What belongs here: the meaning of one message of its trajectory. What does not: plain chats (``chat``).

The model's only tool is ``bash``; the harness takes ``send_message`` out of its commands. What it puts before a call
(messages, departures, nudges) are user messages. A reply that could not be used leaves a FormatError in its place.
"""

from __future__ import annotations

import re
from typing import Any

from cooperbench_assets.transcripts.readers.events import (
    SUMMARY,
    Event,
    amount,
    mapping,
    message_in,
    moment,
    number,
    replies_in,
    sending,
    shown,
    text,
    unknown,
)
from cooperbench_assets.transcripts.records import decoded

_WRAPPED = re.compile(r"<returncode>(-?\d+)</returncode>\s*<output>\n?(.*?)\n?</output>\s*", re.DOTALL)
_WAITING = re.compile(r"send_message\s+(?:--wait\s+\w+|\w+\s+--wait)")


def event(record: dict[str, Any], begun: bool) -> Event:
    """What a message means; `begun`: the model has replied before it."""
    role, extra = record.get("role"), mapping(record.get("extra"))
    at, said = moment(extra.get("timestamp")), shown(record.get("content"))
    if role == "assistant":
        return _reply(record, extra, at, said)
    if role == "tool":
        return _output(record, extra, at, said)
    if role == "system" and not begun:
        return Event("prompt", text("system", said))
    if role == "exit":
        return Event("note", [*text("note", said, "exit"), *_ending(extra, said)], at=at)
    if role != "user":
        return unknown(record)
    if extra.get("interrupt_type") == "FormatError":
        return Event("reply", text("note", said, "FormatError"), at=at)
    if (heard := message_in(said)) is not None:
        return Event("input", text("message", heard.text, heard.sender), at=at, heard=[heard])
    if not begun:
        return Event("prompt", text("task", said))
    return Event("input", text("note", said), at=at)


def _reply(record: dict[str, Any], extra: dict[str, Any], at: float | None, said: str) -> Event:
    if extra.get("summary"):
        return Event("note", text("note", said, SUMMARY), at=at)
    usage = mapping(mapping(extra.get("response")).get("usage"))
    found = Event(
        "reply",
        [*text("thought", record.get("reasoning_content"), "reasoning"), *text("thought", said)],
        at=at,
        input_tokens=number(usage.get("prompt_tokens")),
        output_tokens=number(usage.get("completion_tokens")),
        cost_usd=amount(extra.get("cost")),
    )
    calls = record.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        function = mapping(mapping(call).get("function"))
        command = _command(function.get("arguments"))
        found.texts += text("command", command, shown(function.get("name")) or None)
        found.sent += sending(command if function.get("name") != "send_message" else f"send_message {command}")
        found.waits = bool(_WAITING.search(command))
    if not calls:
        found.sent += sending(said)
    return found


def _command(arguments: Any) -> str:
    """What a tool was called with: of ``bash`` the command, else all of it."""
    given = decoded(arguments.encode("utf-8", "replace")) if isinstance(arguments, str) else arguments
    if isinstance(given, dict) and set(given) == {"command"}:
        return shown(given["command"])
    return shown(given if isinstance(given, dict | list) else arguments)


def _output(record: dict[str, Any], extra: dict[str, Any], at: float | None, said: str) -> Event:
    code = number(extra.get("returncode"))
    seen = mapping(decoded(said.encode("utf-8", "replace"))) if said.lstrip().startswith("{") else {}
    whole, exception = extra.get("raw_output"), extra.get("exception_info")
    if isinstance(seen.get("output"), str):
        said, code = seen["output"], number(seen.get("returncode"))
    elif (match := _WRAPPED.fullmatch(said)) is not None and len(match[1]) < 12:
        said, code = match[2], int(match[1])
    texts = text("output", said, exit_code=code)
    if isinstance(whole, str) and whole.strip() not in said:
        # A long output is shown to the model by its two ends; a person gets all of it.
        texts = text("output", whole, "the model saw its beginning and its end", code)
    texts += text("note", exception or seen.get("exception_info"), "exception")
    return Event("output", texts, at=at, exit_code=code, heard=replies_in(said))


def _ending(extra: dict[str, Any], said: str) -> list[Any]:
    """What the record of the end says that its text does not."""
    status, trace = shown(extra.get("exit_status")), shown(extra.get("traceback"))
    return [*(text("note", status, "exit") if status not in said else []), *text("note", trace, "traceback")]
