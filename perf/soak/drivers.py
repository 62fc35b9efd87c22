"""Who runs the experiment: the command line in one process, or Dagster's daemon with its run processes.

What belongs here: starting them, starting them again, finding their processes. What does not: disturbing them
(``faults``).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

import psutil

from perf.soak.place import EXPERIMENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perf.soak.place import Place

COMMAND: Final = [sys.executable, "-c", "from cooperbench_assets.cli import main; main()"]
STAGING: Final = "/.staging/"
END_SECONDS: Final = 60.0


def alive(process: psutil.Process) -> bool:
    """Whether a process is there, and is no zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@dataclass
class Driver(ABC):
    """Something that brings the experiment up to date, and is started again when it dies."""

    name: ClassVar[str]
    place: Place
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    others: list[subprocess.Popen[bytes]] = field(default_factory=list)
    """Commands that were started beside it."""

    @property
    @abstractmethod
    def command(self) -> list[str]:
        """What is started."""

    def keep_running(self) -> None:
        """Start it if it does not run."""
        if self.process is None or self.process.poll() is not None:
            self.process = self.start(self.command)
            self.starts += 1

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a command in the project, in a session of its own; what it prints goes to a file."""
        variables = {**self.place.variables, "DAGSTER_HOME": str(self.place.project.root)}
        with (self.place.root / "output.log").open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=self.place.project.root,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self) -> None:
        """End it as a person would, and wait."""
        for process in (self.process, *self.others):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(END_SECONDS)
                if process.poll() is None:
                    process.kill()
                    process.wait()
        self.process, self.others = None, []

    def tree(self) -> list[psutil.Process]:
        """The driver's process and all below it."""
        if self.process is None:
            return []
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(self.process.pid)
            return [one for one in (root, *root.children(recursive=True)) if alive(one)]
        return []

    def servers(self) -> list[psutil.Process]:
        """The harness servers: they are forked from by children of the same command line."""
        return [one for one in self.tree() if _is_server(one) and STAGING not in _cwd(one)]

    def children(self) -> list[psutil.Process]:
        """Processes that work on one pair each: leaders of a session whose working folder is a staging folder."""
        return [one for one in self.tree() if _is_server(one) and STAGING in _cwd(one) and _leads(one)]

    def working(self) -> bool:
        """Whether a pair is being worked on."""
        return bool(self.children())

    @abstractmethod
    def launchers(self) -> list[psutil.Process]:
        """The processes that launch pairs: the command, or run processes."""


@dataclass
class CommandLine(Driver):
    """``cooperbench-assets materialize``, again and again until every pair has its verdict."""

    name = "command line"

    @property
    def command(self) -> list[str]:
        """What is started."""
        return [*COMMAND, "materialize", EXPERIMENT]

    def launchers(self) -> list[psutil.Process]:
        """The command's own process."""
        return self.tree()[:1]


@dataclass
class Daemon(Driver):
    """Dagster's daemon with the retry sensor and the nightly schedule on; each run is a process of its own."""

    name = "daemon"

    @property
    def command(self) -> list[str]:
        """What is started."""
        return [_beside_python("dagster-daemon"), "run", "-w", "workspace.yaml"]

    def keep_running(self) -> None:
        """Start it if it does not run; the first time, switch on what asks for runs."""
        if self.starts == 0:
            for kind, name in (("sensor", "retry"), ("schedule", "nightly")):
                command = [_beside_python("dagster"), kind, "start", f"{EXPERIMENT}_{name}", "-w", "workspace.yaml"]
                if self.start(command).wait(120):
                    raise RuntimeError(f"{' '.join(command)} failed; see {self.place.root}/output.log")
        super().keep_running()

    def launchers(self) -> list[psutil.Process]:
        """The run processes: those that have a harness server, or hold a cell."""
        parents = {one.ppid(): one for one in self.servers()}
        return [one for one in self.tree() if one.pid in parents]

    def code_servers(self) -> list[psutil.Process]:
        """The processes that serve the code location to the daemon."""
        return [one for one in self.tree() if "grpc" in _words(one) and "api" in _words(one)]

    def stop(self) -> None:
        """End the daemon, then the run processes, which outlive it."""
        below = self.tree()
        super().stop()
        for process in below:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
        psutil.wait_procs(below, timeout=END_SECONDS)

    def tree(self) -> list[psutil.Process]:
        """Run processes outlive the daemon that started them: all that belong to the project."""
        return list(processes_of(self.place))


def processes_of(place: Place) -> Iterator[psutil.Process]:
    """Living processes that work in the project or below its folders, or name them; not this one."""
    root = str(place.root)
    for process in psutil.process_iter():
        if process.pid == os.getpid() or not alive(process):
            continue
        if _cwd(process).startswith(root) or root in " ".join(_words(process)):
            yield process


def wait_until(what: object, seconds: float, nap: float = 0.05) -> bool:
    """Call `what` until it is true; whether it was within the time."""
    assert callable(what)
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(nap)
    return True


def _is_server(process: psutil.Process) -> bool:
    return any("server.py" in word or word.endswith("execution.worker.server") for word in _words(process))


def _leads(process: psutil.Process) -> bool:
    """Whether a process leads its session. What a child forks has its command line until it becomes a program."""
    try:
        return os.getsid(process.pid) == process.pid
    except OSError:
        return False


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _cwd(process: psutil.Process) -> str:
    try:
        return f"{process.cwd()}/"
    except psutil.Error:
        return ""


def _beside_python(name: str) -> str:
    return os.path.join(os.path.dirname(sys.executable), name)  # noqa: PTH118, PTH120 - a link must not be resolved
