"""How messages travel between parent and harness server: length-prefixed JSON, with file descriptors.

What belongs here: framing on one Unix stream socket, standard library only. What does not: what the messages
mean (``server``, ``runner.harness_client``, ``protocol``).

`multiprocessing.connection` frames bytes too (in 21 µs a message, where this takes 16). It reads a message to its end
or waits: a server that is stopped in the middle of one would hold up the loop of all others; and descriptors, such as
that of a slot's lock, would have to follow in messages of their own.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

_HEADER = struct.Struct("!I")
_LONGEST = 64 * 2**20

Message = dict[str, Any]


class WireError(RuntimeError):
    """The other side sent something that is no message."""


def send(connection: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send one message, with file descriptors that the receiver gets copies of."""
    payload = json.dumps(message, separators=(",", ":")).encode()
    header = _HEADER.pack(len(payload))
    if descriptors:
        socket.send_fds(connection, [header], list(descriptors))
        connection.sendall(payload)
    else:
        connection.sendall(header + payload)


def receive(connection: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message and its descriptors (not inheritable); None when the other side is gone."""
    header, descriptors = _receive_header(connection)
    if header is None:
        return None
    (length,) = _HEADER.unpack(header)
    if length > _LONGEST:
        raise WireError(f"a message of {length} bytes")
    payload = _receive_exactly(connection, length)
    if payload is None:
        _close(descriptors)
        return None
    return json.loads(payload), descriptors


def _receive_header(connection: socket.socket) -> tuple[bytes | None, list[int]]:
    # Descriptors come with the first byte of the header, so no more than the header may be read here.
    header = b""
    descriptors: list[int] = []
    while len(header) < _HEADER.size:
        part, got, _flags, _address = socket.recv_fds(connection, _HEADER.size - len(header), 4)
        for descriptor in got:
            os.set_inheritable(descriptor, False)
        descriptors += got
        if not part:
            _close(descriptors)
            return None, []
        header += part
    return header, descriptors


def _receive_exactly(connection: socket.socket, length: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < length:
        part = connection.recv(length - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class Inbox:
    """Puts messages together from whatever pieces a non-blocking reader gets."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, piece: bytes) -> Iterator[Message]:
        """Take a piece; yield the messages that it completes."""
        self._bytes += piece
        while len(self._bytes) >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._bytes)
            if length > _LONGEST:
                raise WireError(f"a message of {length} bytes")
            end = _HEADER.size + length
            if len(self._bytes) < end:
                return
            payload = bytes(self._bytes[_HEADER.size : end])
            del self._bytes[:end]
            yield json.loads(payload)
