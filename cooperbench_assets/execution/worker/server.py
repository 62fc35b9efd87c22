"""The harness server: imports upstream once, then forks one child for each request.

What belongs here: requests in, forks, reaping, killing, ends out. What does not: what a child does (``child``), and who
asks (``runner.harness_client``). Run as a file by the interpreter that has the harness, which may have nothing of ours:
it uses the standard library and the harness only.

It is single-threaded, so that forking is safe; it ends when the other end of its socket is closed, which it takes as
its parent's death, and takes its children with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

if __name__ == "__main__":
    # Our package is made known under its name without putting on the path what lies beside it: that is all that our own
    # environment has installed, and the harness would import it in other versions than its own. ``-m`` and PYTHONPATH
    # both do that; the interpreter may have no package of ours to find.
    _here = Path(__file__).resolve()
    _package = ModuleType("cooperbench_assets")
    _package.__path__ = [str(_here.parents[2])]
    sys.modules["cooperbench_assets"] = _package
    sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != _here.parent]

from cooperbench_assets.execution.processes import adopt_orphans, process_identity, reap_strangers
from cooperbench_assets.execution.worker import child, harness, wire
from cooperbench_assets.execution.worker.agent_monitor import WATCHED
from cooperbench_assets.execution.worker.protocol import ChildEnd, ChildRequest

GRACE_SECONDS = 2.0
"""Between SIGTERM and SIGKILL, when the parent is gone."""

_LONGEST_REPORT = 2**17


@dataclass(slots=True)
class _Running:
    key: str
    pid: int
    report: int
    kill_at: float | None = None


class Server:
    """Children by pid, and the socket to the parent."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._running: dict[int, _Running] = {}
        self._told_to_end = False
        self._wakeup, self._alarm = os.pipe()
        for end in (self._wakeup, self._alarm):
            os.set_blocking(end, False)

    def serve(self) -> None:
        """Serve until the parent is gone, or SIGTERM comes; then end every child."""
        signal.set_wakeup_fd(self._alarm, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._end_soon)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        adopt_orphans()
        with contextlib.suppress(ConnectionError, BrokenPipeError):
            while not self._told_to_end and self._take_one_turn():
                pass
        self._end_all()

    def _take_one_turn(self) -> bool:
        sources: list[Any] = [self._connection, self._wakeup]
        ready, _, _ = select.select(sources, [], [], self._patience())
        self._drain_wakeups()
        self._kill_overdue()
        for end in self._reap():
            wire.send(self._connection, {"type": "end", "end": asdict(end)})
        if self._connection not in ready:
            return True
        received = wire.receive(self._connection)
        if received is None:
            return False
        self._obey(*received)
        return True

    def _obey(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if message["type"] == "launch":
            self._launch(ChildRequest.from_json(json.dumps(message["request"])), descriptors)
        elif message["type"] == "kill":
            for running in list(self._running.values()):
                if running.key in message["keys"]:
                    self._ask_to_end(running, message["grace_seconds"])

    def _launch(self, request: ChildRequest, descriptors: list[int]) -> None:
        slot = descriptors[0] if descriptors else None
        harness.import_for_children_like(request, WATCHED)
        try:
            running = self._fork(request, slot)
        except OSError as error:
            reply = {"type": "refused", "key": request.key, "error": f"no child could be started: {error.strerror}"}
            wire.send(self._connection, reply)
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._running[running.pid] = running
        identity = process_identity(running.pid)
        wire.send(self._connection, {"type": "launched", "key": request.key, "pid": running.pid, "identity": identity})

    def _fork(self, request: ChildRequest, slot: int | None) -> _Running:
        report, report_end = os.pipe()
        server = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            pid = os.fork()
            if pid == 0:
                self._become_child(request, server, report_end, slot)
        except OSError:
            os.close(report)
            raise
        finally:
            os.close(report_end)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        os.set_blocking(report, False)
        return _Running(request.key, pid, report)

    def _become_child(self, request: ChildRequest, server: int, report_end: int, slot: int | None) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            self._connection.close()
            for descriptor in (self._wakeup, self._alarm, *(one.report for one in self._running.values())):
                os.close(descriptor)
            child.live(request, server=server, report_fd=report_end, slot_fd=slot)
        finally:
            os._exit(1)

    def _reap(self) -> list[ChildEnd]:
        """Ends of the children that have ended, each after whatever it left behind was killed."""
        ends = []
        for running in list(self._running.values()):
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(running.pid, os.WNOHANG)
                if pid:
                    ends.append(self._end(running, status))
        return ends

    def _end(self, running: _Running, status: int) -> ChildEnd:
        del self._running[running.pid]
        reap_strangers(self._running)
        report = _read_report(running.report)
        return ChildEnd(
            key=running.key,
            pid=running.pid,
            exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
            error=report.get("error"),
            isolation=report.get("isolation"),
        )

    def _ask_to_end(self, running: _Running, grace_seconds: float) -> None:
        _signal_group(running.pid, signal.SIGTERM if grace_seconds > 0 else signal.SIGKILL)
        at = time.monotonic() + max(grace_seconds, 0.0)
        running.kill_at = at if running.kill_at is None else min(running.kill_at, at)

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for running in self._running.values():
            if running.kill_at is not None and running.kill_at <= now:
                _signal_group(running.pid, signal.SIGKILL)

    def _patience(self) -> float | None:
        times = [running.kill_at for running in self._running.values() if running.kill_at is not None]
        return max(min(times) - time.monotonic(), 0.01) if times else None

    def _drain_wakeups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wakeup, 512):
                pass

    def _end_soon(self, *_: object) -> None:
        self._told_to_end = True

    def _end_all(self) -> None:
        for running in self._running.values():
            self._ask_to_end(running, GRACE_SECONDS)
        while self._running:
            self._kill_overdue()
            self._reap()
            time.sleep(0.01)


def _signal_group(pid: int, number: signal.Signals) -> None:
    # The child is not reaped yet, so its number is its own. Before its setsid it has no group yet.
    for send in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            send(pid, number)
            return


def _read_report(descriptor: int) -> dict[str, Any]:
    """What the child wrote before it ended; nothing where it was killed."""
    text = b""
    with contextlib.suppress(BlockingIOError):
        while part := os.read(descriptor, _LONGEST_REPORT):
            text += part
    os.close(descriptor)
    try:
        content: dict[str, Any] = json.loads(text)
    except ValueError:
        return {}
    return content


def main(arguments: list[str]) -> int:
    """Serve on the inherited socket whose descriptor is the only argument."""
    if len(arguments) != 1 or not arguments[0].isdecimal():
        print("this is started by cooperbench-assets, with the number of a socket", file=sys.stderr)
        return 2
    connection = socket.socket(fileno=int(arguments[0]))
    connection.set_inheritable(False)
    try:
        info = harness.import_harness()
    except harness.HarnessImportError as error:
        with contextlib.suppress(OSError):
            wire.send(connection, {"type": "failed", "error": str(error)})
        return 1
    with contextlib.suppress(OSError):
        wire.send(connection, harness.to_message(info))
        Server(connection).serve()
    return 0


if __name__ == "__main__":
    # Not through sys.exit: what the harness registered to run at exit is not for us.
    _code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_code)
