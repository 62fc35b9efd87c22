"""The parent's side of the harness server: start it, launch children, hear of their ends.

What belongs here: one object a server and one a child, without threads, polled from the parent's own loop. What does
not: when to launch what (``api``), and what a child's files say.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Self

from cooperbench_assets.errors import UserError
from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.processes import kill_recorded
from cooperbench_assets.execution.sandboxes import network
from cooperbench_assets.execution.sandboxes.docker.contexts import resolved
from cooperbench_assets.execution.worker import wire
from cooperbench_assets.execution.worker.protocol import ChildEnd, ChildRequest, HarnessInfo

SERVER = Path(__file__).parents[1] / "worker" / "server.py"

READY_SECONDS = 180.0
"""How long the import may take: seconds on a warm disk, a minute on a cold and busy one."""

_ANSWER_SECONDS = 30.0
_CLOSE_SECONDS = 8.0

_PASSED_ON = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "LD_LIBRARY_PATH"),
        *("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
        *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"),
        *network.VARIABLES,
        *("SSL_CERT_DIR", "AWS_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"),
    }
)
"""Variables of this process that the harness gets without being asked for: where things are, and no keys."""

_SET = {
    "TZ": "UTC",
    # Without it, importing litellm fetches a price list from the network.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    # Upstream reads .env files from wherever it finds one; the experiment names what the harness sees.
    "PYTHON_DOTENV_DISABLED": "1",
    "MSWEA_SILENT_STARTUP": "1",
    "PYTHONUNBUFFERED": "1",
}

if sys.platform == "darwin":
    # macOS ends a forked process that touches some of its libraries, unless it is told not to.
    _SET |= {"OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES"}


class HarnessError(UserError):
    """The harness cannot be used, or its server is gone; the text says what a person can do."""


class ChildRefused(HarnessError):
    """The system lets the server start no further child now: it has no process or memory left. What runs goes on."""


class Child:
    """One pair at one stage, in a process group and session of its own."""

    def __init__(self, server: HarnessServer, request: ChildRequest) -> None:
        self._server = server
        self._end: ChildEnd | None = None
        self.request = request
        self.pid = 0
        self.identity = ""
        """What tells the process from a later one with its number; goes into attempt.json with the pid."""

        self.started = time.monotonic()

    @property
    def key(self) -> str:
        """The parent's name of this try."""
        return self.request.key

    @property
    def ended(self) -> ChildEnd | None:
        """The end as far as it has been heard of."""
        return self._end

    def poll(self) -> ChildEnd | None:
        """How the child ended; None while it runs. Does not wait."""
        if self._end is None:
            self._server.listen()
        return self._end

    def kill(self, grace_seconds: float = 2.0) -> None:
        """End the child with all its kin: SIGTERM, and SIGKILL after the grace. Waits until it has ended."""
        self._server.kill([self], grace_seconds)

    def hear(self, end: ChildEnd) -> None:
        """Take note of the end; the server object calls this."""
        self._end = end


class HarnessServer:
    """A server process that has imported the harness and forks children from itself.

    Use it as a context manager, or `close` it: children do not outlive it.
    """

    def __init__(
        self, *, python: Path | None = None, environment: Mapping[str, str], log: Path, script: Path = SERVER
    ) -> None:
        """Prepare a server; `start` starts it.

        Args:
            python: An interpreter that has the harness; this one if not given.
            environment: Variables that the harness and all children see, beside the few of `base_environment`.
            log: File that gets what the server itself prints.
            script: What the server runs.
        """
        self._python = Path(sys.executable) if python is None else Path(os.path.abspath(python))  # noqa: PTH100
        self._environment = {**base_environment(os.environ), **environment}
        self._log = log
        self._script = script
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._inbox = wire.Inbox()
        self._info: HarnessInfo | None = None
        self._failure: str | None = None
        self._children: dict[str, Child] = {}
        self._fresh: list[Child] = []
        self._refusals: dict[str, str] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def info(self) -> HarnessInfo:
        """What was imported; waits for it.

        Raises:
            HarnessError: if the harness cannot be used.
        """
        return self.ready()

    @property
    def alive(self) -> bool:
        """Whether the server runs, as far as has been heard."""
        return self._connection is not None and self._failure is None

    @property
    def children(self) -> list[Child]:
        """The children that run."""
        return list(self._children.values())

    def fileno(self) -> int:
        """The socket, to wait on together with other things; `listen` when it is readable.

        Raises:
            HarnessError: if the server is not running.
        """
        return self._living().fileno()

    def start(self) -> None:
        """Start importing, and return at once; `ready` waits for it. Starts anew after a server has died.

        Raises:
            HarnessError: if the interpreter is not there.
        """
        if self.alive:
            return
        self._shut()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with theirs, self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [str(self._python), str(self._script), str(theirs.fileno())],
                    env=self._environment,
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[theirs.fileno()],
                    # An interrupt from the terminal is for the parent, which ends children in order.
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            raise HarnessError(
                f"the harness's interpreter {self._python} cannot be started: {error.strerror}; "
                f"correct harness: {{python: …}}"
            ) from error
        ours.settimeout(_ANSWER_SECONDS)
        self._connection, self._inbox = ours, wire.Inbox()
        self._info = self._failure = None

    def ready(self, timeout: float = READY_SECONDS) -> HarnessInfo:
        """Wait until the harness is imported.

        Raises:
            HarnessError: if it is not installed, cannot be imported, lacks an external agent, or takes too long.
        """
        if self._connection is None:
            self.start()
        end = time.monotonic() + timeout
        while self._info is None:
            self._living()
            if time.monotonic() >= end:
                raise HarnessError(f"importing the harness took more than {timeout:g} s; see {self._log}")
            self._listen(end - time.monotonic())
        return self._info

    def launch(self, request: ChildRequest, slot: int | None = None) -> Child:
        """Start a child; waits for its pid, not for its end.

        Args:
            request: What it does. Its key must differ from those of running children.
            slot: Descriptor of a file that the child keeps open as long as it runs.

        Raises:
            ChildRefused: if the server cannot fork now. The pair was not started.
            HarnessError: if the server is gone. The pair was not started.
        """
        message = {"type": "launch", "request": asdict(request)}
        return self._launched(message, request, () if slot is None else (slot,))

    def _launched(self, message: wire.Message, request: ChildRequest, descriptors: tuple[int, ...] = ()) -> Child:
        if request.key in self._children:
            raise ValueError(f"a child with the key {request.key!r} runs already")
        self.ready()
        child = Child(self, request)
        self._children[request.key] = child
        try:
            self._send(message, descriptors)
            self._await_pid(child)
        except BaseException:
            self._children.pop(request.key, None)
            self._fresh = [one for one in self._fresh if one is not child]
            raise
        return child

    def listen(self) -> list[Child]:
        """Take in what the server has said, without waiting.

        Returns:
            The children whose end is new since the last `listen` or `wait`.
        """
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> list[Child]:
        """Sleep until a child ends, the server dies or the time is over.

        Returns:
            The children whose end is new since the last `listen` or `wait`; none when the time is over.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            self._listen(0)
            left = None if end is None else end - time.monotonic()
            if self._fresh or not self.alive or (left is not None and left <= 0):
                fresh, self._fresh = self._fresh, []
                return fresh
            self._listen(left)

    def kill(self, children: Iterable[Child], grace_seconds: float = 2.0) -> None:
        """End several children at once, as `Child.kill` does one; waits until all have ended."""
        wanted = [child for child in children if child.ended is None]
        if not wanted:
            return
        with contextlib.suppress(HarnessError):
            keys = [child.key for child in wanted]
            self._send({"type": "kill", "keys": keys, "grace_seconds": grace_seconds})
        end = time.monotonic() + grace_seconds + _CLOSE_SECONDS
        while any(child.ended is None for child in wanted):
            if not self.alive or time.monotonic() > end:
                break
            self._listen(0.5)
        if any(child.ended is None for child in wanted):
            # It neither answers nor dies: then nobody must be left to its care.
            self._bury("it did not end its children when told to")

    def close(self) -> None:
        """End all children and the server. Does nothing if it is not running."""
        self._shut()
        # Nobody waits for them any more; the next to use this server may have children of the same names.
        self._fresh.clear()

    def _shut(self) -> None:
        if self._connection is not None and self._failure is None:
            self.kill(self.children)
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._end_process(self._process)
            self._process = None
        self._info = self._failure = None

    def _send(self, message: wire.Message, descriptors: tuple[int, ...] = ()) -> None:
        connection = self._living()
        try:
            wire.send(connection, message, descriptors)
        except OSError as error:
            self._bury(f"its socket failed: {error}")
            self._living()

    def _await_pid(self, child: Child) -> None:
        end = time.monotonic() + _ANSWER_SECONDS
        while child.pid == 0:
            self._living()
            if refusal := self._refusals.pop(child.key, None):
                raise ChildRefused(refusal)
            if time.monotonic() >= end:
                self._bury(f"it did not start a child within {_ANSWER_SECONDS:g} s")
            self._listen(end - time.monotonic())

    def _living(self) -> socket.socket:
        if self._connection is None:
            raise HarnessError("the harness server is not running; start it first")
        if self._failure is not None:
            raise HarnessError(self._failure)
        return self._connection

    def _listen(self, timeout: float | None) -> None:
        """Take in what comes within the time; return after the first piece."""
        if self._connection is None or self._failure is not None:
            return
        patience = None if timeout is None else max(timeout, 0)
        if not select.select([self._connection], [], [], patience)[0]:
            return
        try:
            piece = self._connection.recv(2**16)
        except OSError as error:
            self._bury(f"its socket failed: {error}")
            return
        try:
            for message in self._inbox.feed(piece):
                self._hear(message)
        except (wire.WireError, ValueError) as error:
            self._bury(f"it sent what is no message: {error}")
        if not piece:
            self._bury(None)

    def _hear(self, message: wire.Message) -> None:
        kind = message["type"]
        if kind == "ready":
            self._info = HarnessInfo.from_content(message["info"])
        elif kind == "failed":
            self._failure = message["error"]
        elif kind == "refused":
            self._refusals[message["key"]] = message["error"]
        elif kind == "launched" and (child := self._children.get(message["key"])):
            child.pid, child.identity = message["pid"], message["identity"] or ""
        elif kind == "end" and (child := self._children.pop(message["end"]["key"], None)):
            child.hear(ChildEnd(**message["end"]))
            self._fresh.append(child)

    def _bury(self, problem: str | None) -> None:
        """The server is gone, or must go: end it and what it left, and say so of each child."""
        if self._failure is not None or self._process is None:
            return
        if problem is not None:
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_SECONDS)
        code = self._process.returncode
        how = problem or (f"signal {-code} ended it" if code is not None and code < 0 else f"it ended with {code}")
        self._failure = f"the harness server is gone: {how}; see {self._log}, and start again"
        for child in self.children:
            if child.pid:
                kill_recorded(child.pid, child.identity, grace_seconds=0)
            child.hear(ChildEnd(child.key, child.pid, None, 9, error=self._failure))
            self._fresh.append(child)
        self._children.clear()

    def _end_process(self, process: subprocess.Popen[bytes]) -> None:
        # Its socket is closed: it ends by itself, after its children.
        try:
            process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def base_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What every harness gets of a process's variables, and what is set for all: no keys and no tokens.

    The engine is named in the one way that both its command line and its SDK understand.
    """
    passed_on = {name: environ[name] for name in sorted(_PASSED_ON & set(environ))}
    with contextlib.suppress(InfrastructureError):  # Who needs an engine is told by preflight.
        passed_on = resolved(passed_on)
    return passed_on | _SET
