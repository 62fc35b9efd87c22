"""A door to an engine that can be shut: what a stopped engine looks like, without stopping one that others use."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path


class EngineDoor:
    """Passes connections on to an engine's socket until it is shut."""

    def __init__(self, engine: Path, listening: socket.socket) -> None:
        self._engine = engine
        self._listening = listening
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, daemon=True).start()

    @classmethod
    def at_path(cls, path: Path, engine: Path = Path("/var/run/docker.sock")) -> EngineDoor:
        """A door at a Unix socket, as a local engine has."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(path))
        listening.listen()
        return cls(engine, listening)

    @classmethod
    def at_port(cls, engine: Path = Path("/var/run/docker.sock")) -> EngineDoor:
        """A door at a free port of loopback, as another machine's engine has."""
        return cls(engine, socket.create_server(("127.0.0.1", 0)))

    @property
    def host(self) -> str:
        """What DOCKER_HOST has to be."""
        name = self._listening.getsockname()
        return f"unix://{name}" if isinstance(name, str) else f"tcp://127.0.0.1:{name[1]}"

    def shut(self) -> None:
        """Cut every connection, and take no more."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                engine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                engine.connect(str(self._engine))
                with self._lock:
                    self._open += [client, engine]
                threading.Thread(target=_join, args=(client, engine), daemon=True).start()


def _join(client: socket.socket, engine: socket.socket) -> None:
    with client, engine:
        back = threading.Thread(target=_copy, args=(engine, client), daemon=True)
        back.start()
        _copy(client, engine)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(2**16):
            target.sendall(piece)
    for one in (source, target):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
