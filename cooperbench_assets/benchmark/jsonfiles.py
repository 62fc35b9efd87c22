"""One JSON file of a log tree: to a record, or to a sentence about what is wrong with it.

What belongs here: opening and decoding one file, and the kinds of damage that are told apart. What does not:
which files there are and what their content means (``logtree``).
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

if TYPE_CHECKING:
    from cooperbench_assets.benchmark.pairs import Pair

T = TypeVar("T")

BOM = b"\xef\xbb\xbf"
_UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError, OverflowError)
_BYTE = re.compile(r"\(byte (\d+)\)")
_GROWN_BY = 1 << 16

LARGEST = 1 << 28
"""Bytes from which a file of a log tree is not read."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A file or folder that could not be used, and why."""

    path: str
    """Relative to the run folder."""

    pair: Pair | None
    """The pair that it belongs to by its place; None where the place names none."""

    kind: str
    """One of the words of the quarantine table's `kind` column."""

    message: str
    remedy: str


class BadFileError(Exception):
    """One file cannot be used: `kind` is a word of the quarantine table, the text a sentence."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def read_bytes(path: str, largest: int = LARGEST) -> bytes:
    """The content of a regular file.

    Raises:
        BadFileError: (unreadable) if it cannot be opened or read, is no regular file, or is larger than `largest`.
    """
    try:
        descriptor, size = open_regular(path)
        try:
            if size > largest:
                raise BadFileError("unreadable", f"it has {size:,} bytes, and a file of a log tree at most {largest:,}")
            # One buffer of the file's size: a larger one costs more than the reading.
            content = os.read(descriptor, size + 1)
            while size < len(content) <= largest and (more := os.read(descriptor, _GROWN_BY)):
                content += more
            return content
        finally:
            os.close(descriptor)
    except OSError as error:
        raise BadFileError("unreadable", f"it cannot be read: {error.strerror or error}") from error


def open_regular(path: str) -> tuple[int, int]:
    """A descriptor of a regular file, open for reading, and its size. It waits for nobody, and follows no link.

    Logs come from elsewhere: a named pipe would be waited for without end, a link may lead to any file of this machine.

    Raises:
        OSError: if it cannot be opened, or is no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link; put the file itself there") from error
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file")
    return descriptor, status.st_size


def decode(raw: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The record that a file's bytes hold.

    A file that is no JSON by the letter but was written by Python's own writer (NaN, Infinity, lone
    surrogates) is read a second time: such numbers become None, such characters U+FFFD.

    Raises:
        BadFileError: if it holds none; the kind is empty, cut, encoding, not_json or wrong_type.
    """
    if raw.startswith(BOM):
        raw = raw[len(BOM) :]
    try:
        return decoder.decode(raw)
    except _UNDECODABLE as error:
        plain = _as_plain_json(raw)
        if plain is None:
            raise _bad(raw, error) from error
    try:
        return decoder.decode(plain)
    except _UNDECODABLE as error:
        raise _bad(raw, error) from error


def _bad(raw: bytes, error: Exception) -> BadFileError:
    """The error that tells what is wrong with a file that does not decode."""
    if not raw.strip():
        return BadFileError("empty", "it is empty")
    if not raw.strip(b"\0"):
        return BadFileError("cut", "it holds nothing but zero bytes: its writer was killed")
    if isinstance(error, UnicodeDecodeError):
        return BadFileError("encoding", f"it is no UTF-8 text: {error.reason} at byte {error.start} of a field")
    if isinstance(error, msgspec.ValidationError):
        return BadFileError("wrong_type", f"it has a value of a wrong type: {error}")
    if isinstance(error, RecursionError):
        return BadFileError("not_json", "it is nested too deeply")
    if "truncated" in str(error) or _position(error) >= len(raw):
        return BadFileError("cut", "it ends in the middle: its writer was killed")
    return BadFileError("not_json", f"it is no JSON: {error}")


def _position(error: Exception) -> int:
    """Byte at which a decoder stopped; -1 where it does not say."""
    match = _BYTE.search(str(error))
    return int(match[1]) if match else -1


def _as_plain_json(raw: bytes) -> bytes | None:
    """The file as JSON by the letter, if Python's own reader can make sense of it; else None."""
    try:
        content = json.loads(raw, parse_constant=lambda _name: None)
        return msgspec.json.encode(_scrub(content))
    except (*_UNDECODABLE, TypeError):
        return None


def _scrub(value: Any) -> Any:
    """`value` without what JSON cannot say: numbers that are not finite, and lone surrogates."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, list):
        return [_scrub(item) for item in value]
    if isinstance(value, dict):
        return {_scrub(key): _scrub(item) for key, item in value.items()}
    return value


def printable(name: str) -> str:
    """A file's name as text that can be stored: bytes that are no UTF-8 become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
