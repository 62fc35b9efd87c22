"""A password before a Redis that asks for none: no command of a client reaches it before the password was given.

What belongs here: the guard at the door. What does not: the server behind it, and when there is one
(``message_server``).
"""

from __future__ import annotations

import contextlib
import hmac
import select
import socket
import socketserver
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD_SECONDS: Final = 10.0
"""How long a client may take to give the password."""

_LONGEST: Final = 4096
_PIECE: Final = 2**16


@contextlib.contextmanager
def guarded(address: str, behind: tuple[str, int], password: str) -> Iterator[int]:
    """Listen on a free port of an address for clients that know the password; yields the port.

    Args:
        address: An address of this machine.
        behind: Address and port of the server that they reach then.
        password: What they must give first, by AUTH or HELLO.
    """

    class Door(_Door):
        server_behind = behind
        secret = password.encode()

    with socketserver.ThreadingTCPServer((address, 0), Door, bind_and_activate=False) as server:
        # A client that never says goodbye must not keep this process from ending.
        server.daemon_threads, server.block_on_close = True, False
        server.server_bind()
        server.server_activate()
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="redis door", daemon=True)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join(timeout=5)


class _Door(socketserver.BaseRequestHandler):
    server_behind: tuple[str, int]
    secret: bytes
    request: socket.socket

    def handle(self) -> None:
        """Hear one command; go on if it gave the password, else say what Redis says and hang up."""
        with contextlib.suppress(OSError, ValueError):
            self.request.settimeout(PASSWORD_SECONDS)
            command = _command(self.request)
            given, others = _password(command)
            if given is None or not hmac.compare_digest(given, self.secret):
                refusal = b"-NOAUTH Authentication required.\r\n"
                self.request.sendall(refusal if given is None else b"-WRONGPASS invalid username-password pair.\r\n")
                return
            with socket.create_connection(self.server_behind, PASSWORD_SECONDS) as inner:
                if others:
                    inner.sendall(_encoded(others))
                else:
                    self.request.sendall(b"+OK\r\n")
                _pass_on(self.request, inner)


def _command(client: socket.socket) -> list[bytes]:
    """The first command of a client, and not a byte more.

    Raises:
        ValueError: for what is no command, or one too long to give a password.
    """
    line = _line(client)
    if not line.startswith(b"*"):
        return line.split()
    words = []
    for _ in range(min(int(line[1:]), 16)):
        length = int(_line(client)[1:])
        if not 0 <= length <= _LONGEST:
            raise ValueError("too long")
        words.append(_exactly(client, length + 2)[:-2])
    return words


def _line(client: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\r\n"):
        line += _exactly(client, 1)
        if len(line) > _LONGEST:
            raise ValueError("too long")
    return line[:-2]


def _exactly(client: socket.socket, length: int) -> bytes:
    content = b""
    while len(content) < length:
        piece = client.recv(length - len(content))
        if not piece:
            raise ValueError("the client is gone")
        content += piece
    return content


def _password(command: list[bytes]) -> tuple[bytes | None, list[bytes]]:
    """The password that a command gives, and what is left of the command for the server behind."""
    words = [word.upper() for word in command]
    if words[:1] == [b"AUTH"] and len(words) in (2, 3):
        return command[-1], []
    if words[:1] == [b"HELLO"] and b"AUTH" in words and len(words) >= words.index(b"AUTH") + 3:
        at = words.index(b"AUTH")
        return command[at + 2], [*command[:at], *command[at + 3 :]]
    return None, []


def _encoded(command: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in command)


def _pass_on(client: socket.socket, inner: socket.socket) -> None:
    """Pass bytes to and fro until one side hangs up."""
    other = {client: inner, inner: client}
    for one in other:
        one.settimeout(None)
    while True:
        for one in select.select(list(other), [], [])[0]:
            piece = one.recv(_PIECE)
            if not piece:
                return
            other[one].sendall(piece)
