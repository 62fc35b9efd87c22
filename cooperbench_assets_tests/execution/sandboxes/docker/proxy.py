"""A door to an engine that can be shut: what a stopped engine looks like, without stopping one that others use."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path


class EngineDoor:
    """Passes connections on to an engine's socket until it is shut."""

    def __init__(self, engine: Path, listening: socket.socket, instead: tuple[bytes, bytes] = (b"", b"")) -> None:
        self._engine = engine
        self._instead = instead
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listen(listening)

    def _listen(self, listening: socket.socket) -> None:
        self._listening = listening
        self._name = listening.getsockname()
        threading.Thread(target=self._serve, args=(listening,), daemon=True).start()

    @classmethod
    def at_path(cls, path: Path, engine: Path = Path("/var/run/docker.sock")) -> EngineDoor:
        """A door at a Unix socket, as a local engine has."""
        return cls(engine, _at_path(str(path)))

    @classmethod
    def at_port(cls, engine: Path = Path("/var/run/docker.sock")) -> EngineDoor:
        """A door at a free port of loopback, as another machine's engine has."""
        return cls(engine, socket.create_server(("127.0.0.1", 0)))

    @classmethod
    def of_another(
        cls, path: Path, identity: str, other: str, engine: Path = Path("/var/run/docker.sock")
    ) -> EngineDoor:
        """A door behind which the same engine is another one: it has another id, of the same length."""
        assert len(identity) == len(other)
        return cls(engine, _at_path(str(path)), (identity.encode(), other.encode()))

    @property
    def host(self) -> str:
        """What DOCKER_HOST has to be."""
        return f"unix://{self._name}" if isinstance(self._name, str) else f"tcp://127.0.0.1:{self._name[1]}"

    def shut(self) -> None:
        """Cut every connection, and take no more."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def open(self) -> None:
        """Take connections again, where it did before: the engine was started."""
        Path(self._name).unlink()
        self._listen(_at_path(self._name))

    def _serve(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                engine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                engine.connect(str(self._engine))
                with self._lock:
                    self._open += [client, engine]
                threading.Thread(target=_join, args=(client, engine, self._instead), daemon=True).start()


def _at_path(path: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(path)
    listening.listen()
    return listening


def _join(client: socket.socket, engine: socket.socket, instead: tuple[bytes, bytes]) -> None:
    with client, engine:
        back = threading.Thread(target=_copy, args=(engine, client, instead), daemon=True)
        back.start()
        _copy(client, engine)
        back.join()


def _copy(source: socket.socket, target: socket.socket, instead: tuple[bytes, bytes] = (b"", b"")) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(2**16):
            target.sendall(piece.replace(*instead) if instead[0] else piece)
    for one in (source, target):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
