"""A container that runs commands for as long as we hold on to it: made, talked to, and removed.

What belongs here: the engine's calls for one container, the socket, and deadlines. What does not: upstream's protocol
and what a test run means (``sandbox``). Standard library and the Docker SDK only.
"""

from __future__ import annotations

import io
import re
import secrets
import socket
import tarfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docker.errors import APIError, NotFound
from docker.types import LogConfig, Mount

from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.sandboxes.commands import DeadlineError
from cooperbench_assets.execution.sandboxes.docker.engine import TROUBLE, Engine, innermost
from cooperbench_assets.execution.sandboxes.docker.shell_driver import COMMAND, ERR, OUT, Frames, Output, request

START_SECONDS = 60
"""How long a new container may take to run its first command."""

UNDO_SECONDS = 1.0
"""How long an interrupted call is waited for, to undo what it makes; a child is killed 2 s after its SIGTERM."""

_PIECE = 2**18
_NO_SOURCE = re.compile(r"bind source path does not exist|mounts denied|is not shared", re.IGNORECASE)
_NAME_TAKEN = 409
_EVENTS_SECONDS = 1


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container to be made."""

    image: str
    workdir: str
    labels: Mapping[str, str]
    limits: Mapping[str, int] = field(default_factory=dict)
    network: bool = True
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, Path] = field(default_factory=dict)
    """Path in the container → file of the host, to be read there."""

    output_limit: int = 2**24


@dataclass(frozen=True, slots=True)
class Answer:
    """A command that has ended."""

    code: int
    """128 + n where signal n ended it."""

    out_of_memory: int | None
    """Processes in the container that the kernel killed meanwhile for want of memory; None where it does not say."""

    at_limit: bool
    """The container's own memory limit was reached meanwhile."""

    stdout: str
    stderr: str


class ContainerGoneError(RuntimeError):
    """The connection to the container ended while a command ran, or before."""

    def __init__(self, output: str) -> None:
        super().__init__("the connection to the container ended")
        self.output = output


class Session:
    """One running container."""

    def __init__(self, engine: Engine, wanted: ContainerSpec) -> None:
        """Make and start it.

        Raises:
            InfrastructureError: of the family that the engine's answer belongs to, ``container_start`` if of none.
                Nothing is left of the container then.
        """
        self._engine = engine
        self._limit = wanted.output_limit
        self._frames = Frames()
        self._holder: Any = None
        self._removed = False
        self.id = _create_or_undo(engine, wanted, f"cooperbench-assets-{secrets.token_hex(8)}")
        try:
            self._holder = engine.call("attach to the container", engine.api.attach_socket, self.id, _STREAMS, tries=1)
            self._socket: socket.socket = getattr(self._holder, "_sock", self._holder)
            _start(engine, self.id)
            self._see_it_work(wanted.image)
        except BaseException:
            with suppress(InfrastructureError):
                self.remove()
            raise

    def run(self, args: Sequence[str], seconds: float, *, together: bool) -> Answer:
        """Run a command to its end.

        Args:
            args: Program and arguments.
            seconds: Deadline. A container that has reached one is of no more use: remove it.
            together: Put both streams into `stdout`, in the order of printing.

        Raises:
            DeadlineError: when the deadline was reached.
            ContainerGoneError: if the container is not there any more, or the engine.
        """
        token = secrets.token_hex(16)
        out, err = Output(token, self._limit), Output(token, self._limit)
        streams = {OUT: out} if together else {OUT: out, ERR: err}
        end = time.monotonic() + seconds
        try:
            self._wait_until(end)
            self._socket.sendall(request(token, args, together=together))
            while any(stream.said is None for stream in streams.values()):
                self._receive(streams, end)
        except TimeoutError as error:
            raise DeadlineError(seconds, out.text() + err.text()) from error
        except (OSError, EOFError) as error:
            raise ContainerGoneError(out.text() + err.text()) from error
        code, killed, at_limit = out.said or (1, 0, 0)
        return Answer(code, None if killed < 0 else killed, at_limit > 0, out.text(), err.text())

    def remove(self) -> None:
        """Kill and remove the container, with its volumes.

        Raises:
            InfrastructureError: family ``engine``, if the engine does not do it. The container then ends by itself
                as the connection does, or is swept.
        """
        if self._removed:
            return
        try:
            _remove(self._engine, self.id)
            self._removed = True
        finally:
            self._let_go()

    def why_gone(self) -> InfrastructureError:
        """What ended the container, as far as the engine knows."""
        if not self._engine.answers():
            return InfrastructureError("engine", "the Docker engine went away while a command ran")
        happened = {event["Action"]: event["Actor"]["Attributes"] for event in self._events()}
        name = f"container {self.id[:12]}"
        if "oom" in happened:
            return InfrastructureError("oom", f"{name} is not running: the kernel killed it for want of memory")
        if "die" not in happened and self._runs():
            return InfrastructureError("engine", f"the connection to {name} was lost while a command ran")
        code = happened.get("die", {}).get("exitCode", "unknown")
        return InfrastructureError(
            "container_died", f"{name} is not running: it ended (exit code {code}) under a command"
        )

    def _see_it_work(self, image: str) -> None:
        try:
            self.run(("true",), START_SECONDS, together=True)
        except (ContainerGoneError, DeadlineError) as error:
            said = " ".join(error.output.split()) or str(error)
            raise InfrastructureError("container_start", f"no shell (bash) starts in {image}: {said}") from error

    def _runs(self) -> bool:
        try:
            return bool(self._engine.api.inspect_container(self.id)["State"]["Running"])
        except TROUBLE:
            return False

    def _events(self) -> list[dict[str, Any]]:
        # A container that removes itself cannot be inspected; the engine remembers its last events for a while.
        filters = {"container": self.id, "event": ["oom", "die"]}
        until = int(time.time()) + _EVENTS_SECONDS
        try:
            return list(self._engine.api.events(since=0, until=until, filters=filters, decode=True))
        except TROUBLE:
            return []

    def _wait_until(self, end: float) -> None:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)

    def _receive(self, streams: Mapping[int, Output], end: float) -> None:
        self._wait_until(end)
        piece = self._socket.recv(_PIECE)
        if not piece:
            raise EOFError
        for stream, content in self._frames.feed(piece):
            if stream in streams:
                streams[stream].feed(content)

    def _let_go(self) -> None:
        if self._holder is None:
            return
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with suppress(OSError, ValueError):
            self._socket.close()
            # Docker's client keeps the response with it, which would fail later to close what is closed already.
            if (response := getattr(self._holder, "_response", None)) is not None:
                response.close()
            self._holder.close()
        self._holder = None


_STREAMS = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}


def _create_or_undo(engine: Engine, wanted: ContainerSpec, name: str) -> str:
    """The id of a new container that was not started."""
    try:
        return _create(engine, wanted, name)
    except BaseException as error:
        with suppress(InfrastructureError):
            # The engine goes on with a call that was interrupted here: by SIGTERM, say.
            patience = 0.0 if isinstance(error, InfrastructureError) else UNDO_SECONDS
            end = time.monotonic() + patience
            while not _remove(engine, name) and time.monotonic() < end:
                time.sleep(UNDO_SECONDS / 20)
        raise


def _create(engine: Engine, wanted: ContainerSpec, name: str) -> str:
    """The id of a new container that was not started; its files are in place."""
    mounted = dict(wanted.files) if engine.is_local else {}
    try:
        made = _create_with(engine, wanted, name, mounted)
    except InfrastructureError as error:
        # The engine runs on another machine, or we run in a container: its files are not ours.
        if not mounted or not _NO_SOURCE.search(error.text):
            raise
        mounted = {}
        made = _create_with(engine, wanted, name, mounted)
    if wanted.files and not mounted:
        content = _archive(wanted.files)
        engine.call("copy certificates into the container", engine.api.put_archive, made, "/", content)
    return made


def _create_with(engine: Engine, wanted: ContainerSpec, name: str, mounted: Mapping[str, Path]) -> str:
    limits: dict[str, Any] = dict(wanted.limits)
    host_config = engine.api.create_host_config(
        init=True,
        auto_remove=True,
        log_config=LogConfig(type="none"),
        network_mode=None if wanted.network else "none",
        mounts=[Mount(inside, str(file), type="bind", read_only=True) for inside, file in mounted.items()],
        **limits,
    )

    def create() -> str:
        try:
            made = engine.api.create_container(
                wanted.image,
                list(COMMAND),
                name=name,
                entrypoint="",
                stdin_open=True,
                detach=False,
                working_dir=wanted.workdir,
                environment=dict(wanted.environment),
                labels=dict(wanted.labels),
                host_config=host_config,
            )
        except APIError as error:
            # An earlier try of this very call has made it, and its answer was lost.
            if error.response is None or error.response.status_code != _NAME_TAKEN:
                raise
            made = engine.api.inspect_container(name)
        return str(made["Id"])

    return engine.call(f"create a container of {wanted.image}", create, family="container_start")


def _start(engine: Engine, container: str) -> None:
    engine.call("start the container", engine.api.start, container, family="container_start")


def _remove(engine: Engine, container: str) -> bool:
    """Remove it; whether it was there."""

    def remove() -> bool:
        try:
            engine.api.remove_container(container, force=True, v=True)
        except NotFound:
            return False
        except APIError as error:
            if "already in progress" not in innermost(error):
                raise
        return True

    return engine.call("remove the container", remove)


def _archive(files: Mapping[str, Path]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for inside, file in files.items():
            tar.add(file, inside.lstrip("/"))
    return content.getvalue()
