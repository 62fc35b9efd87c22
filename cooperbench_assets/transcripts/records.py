"""The records of a transcript's file, found without reading it into memory.

What belongs here: where the records of a JSON or JSON Lines file begin and end, and decoding one of them, damaged or
not. What does not: what a record means (``readers``).

A file is mapped, not read, and a record is a stretch of it, so that a file of any size costs no more memory than its
largest record.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from mmap import mmap

    Buffer = bytes | mmap

_BLANK = re.compile(rb"[\s,]*")
_COLON = re.compile(rb"\s*:\s*")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_BRACKET = re.compile(rb'[^"\[\]{}]*+(?:"(?:[^"\\]++|\\.)*+"[^"\[\]{}]*+)*+([\[\]{}])', re.DOTALL)
_SCALAR = re.compile(rb"[^\s,\[\]{}\"]++")
_LARGEST_FIELD = 1 << 16


class Span(NamedTuple):
    """A stretch of a file: bytes `start` to `end`."""

    start: int
    end: int


class Document(NamedTuple):
    """What a JSON file holds: its small fields, and where its messages are."""

    fields: dict[str, Any]
    """Top-level fields but the messages, up to the first that is damaged."""

    messages: list[Span]
    """The elements of ``messages`` that are whole."""

    rest: Span | None
    """From the first byte that makes no sense to the end; None for a whole file."""


def document(buffer: Buffer, most: int | None = None) -> Document | None:
    """A JSON object with a list of messages; None if the file is none.

    Args:
        buffer: The file.
        most: Look no further than so many messages.
    """
    fields: dict[str, Any] = {}
    messages: list[Span] = []
    place = _skip(buffer, 3 if buffer[:3] == b"\xef\xbb\xbf" else 0)
    if buffer[place : place + 1] != b"{":
        return None
    place = _skip(buffer, place + 1)
    while buffer[place : place + 1] != b"}":
        key, colon = _STRING.match(buffer, place), None
        if key is not None:
            colon = _COLON.match(buffer, key.end())
        if key is None or colon is None:
            return Document(fields, messages, Span(place, len(buffer)))
        name, start = decoded(key[0]), colon.end()
        if name == "messages" and buffer[start : start + 1] == b"[":
            end = _elements(buffer, start + 1, messages, most)
            if most is not None and len(messages) >= most:
                return Document(fields, messages, None)
        else:
            end = value_end(buffer, start)
            if end is not None and end - start <= _LARGEST_FIELD:
                fields[str(name)] = decoded(buffer[start:end])
        if end is None:
            return Document(fields, messages, Span(messages[-1].end if messages else place, len(buffer)))
        place = _skip(buffer, end)
    end = _skip(buffer, place + 1)
    return Document(fields, messages, Span(end, len(buffer)) if end < len(buffer) else None)


def lines(buffer: Buffer) -> Iterator[Span]:
    """The lines of a file that are not blank, without their ends."""
    place = 0
    while place < len(buffer):
        end = buffer.find(b"\n", place)
        end = len(buffer) if end < 0 else end
        if buffer[place:end].strip():
            yield Span(place, end)
        place = end + 1


def elements(stretch: bytes) -> list[Span]:
    """The values in a stretch of an array."""
    found: list[Span] = []
    _elements(stretch, 0, found, None)
    return found


def _elements(buffer: Buffer, place: int, found: list[Span], most: int | None) -> int | None:
    """Find the elements of an array from behind its bracket; where it ends, None if it does not."""
    place = _skip(buffer, place)
    while buffer[place : place + 1] != b"]" and (most is None or len(found) < most):
        end = value_end(buffer, place)
        if end is None:
            return None
        found.append(Span(place, end))
        place = _skip(buffer, end)
    return place + 1


def value_end(buffer: Buffer, place: int) -> int | None:
    """The end of the JSON value that begins at a byte; None if it has none."""
    first = buffer[place : place + 1]
    if first not in (b"{", b"["):
        match = (_STRING if first == b'"' else _SCALAR).match(buffer, place)
        return None if match is None else match.end()
    depth = 0
    while True:
        bracket = _BRACKET.match(buffer, place)
        if bracket is None:
            return None
        depth += 1 if bracket[1] in b"{[" else -1
        place = bracket.end()
        if depth == 0:
            return place


def _skip(buffer: Buffer, place: int) -> int:
    match = _BLANK.match(buffer, place)
    return place if match is None else match.end()


def decoded(raw: bytes) -> Any:
    """The value that JSON stands for, with what is no text replaced by U+FFFD; `UNDECODABLE` if it stands for none."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    try:
        return _scrubbed(json.loads(raw.decode("utf-8", "replace"), strict=False))
    except (ValueError, RecursionError):
        return UNDECODABLE


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_scrubbed(one) for one in value]
    if isinstance(value, dict):
        return {_scrubbed(key): _scrubbed(one) for key, one in value.items()}
    return value


class _Undecodable:
    """Stands for bytes that are no JSON."""


UNDECODABLE = _Undecodable()
