"""Processes that were started here: who they are, whether they live, how they are ended with all their kin.

What belongs here: identity and killing by pid, session and mark, and the two Linux calls that tie processes to
each other. What does not: starting anything. Standard library only (psutil where ``/proc`` is missing): the
harness server uses it in environments that have nothing of ours.

psutil is no match where ``/proc`` is. Its creation times are wall clock, and move as the clock is set, so that a
process would not be known again; the children of one take it 1.7 ms, as it looks through all processes (20 µs here, and
that for each child that ends), and finding a mark in all environments twice as long. It does not kill by session or
mark.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

MARK = "COOPERBENCH_ASSETS_CHILD"
"""Variable that every program started below a child carries: ``<pid>/<identity>`` of that child."""

_PROC = Path("/proc")
_HAS_PROC = Path("/proc/self/stat").exists()
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_KILL_SECONDS = 5.0


def process_identity(pid: int) -> str | None:
    """What tells this process from a later one with the same number; None when there is none.

    Linux: boot id and start time in clock ticks since boot. Elsewhere: creation time from psutil.
    """
    if _HAS_PROC:
        fields = _stat(pid)
        return f"{boot()}:{fields[19]}" if fields else None
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.6f}"
    except psutil.Error:
        return None


@cache
def namespace() -> str:
    """Where the numbers of processes that this one sees mean something: ``host name/boot/pid namespace``.

    A container has a namespace of its own; after a restart of the machine the boot is another.
    """
    try:
        own = str((_PROC / "self/ns/pid").readlink())
    except OSError:
        own = ""
    return "/".join((socket.gethostname(), boot(), own))


@cache
def boot() -> str:
    """Id of the kernel's present boot, the same in every container of a machine; empty where there is no /proc."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip() if _HAS_PROC else ""


def is_alive(pid: int, identity: str | None = None) -> bool:
    """Whether the process runs, and is the one of that identity. One that only waits to be reaped does not.

    One that cannot be looked at may run: another user's, where /proc hides these.
    """
    if _is_hidden(pid):
        return True
    if identity is not None and process_identity(pid) != identity:
        return False
    if _HAS_PROC:
        fields = _stat(pid)
        return fields is not None and fields[0] not in ("Z", "X")
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _is_hidden(pid: int) -> bool:
    """Whether a process is there and /proc does not show it."""
    if not _HAS_PROC or (_PROC / str(pid)).exists():
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return False


def mark_of(pid: int, identity: str) -> str:
    """The value of `MARK` for programs started below this process."""
    return f"{pid}/{identity}"


def session_members(session: int) -> list[int]:
    """Pids of all processes in this session."""
    return [pid for pid in _pids() if _session(pid) == session]


def children_of(parent: int) -> list[int]:
    """Pids of the processes whose parent this one is, those that wait to be reaped included."""
    if not _HAS_PROC:
        return []
    kernels_list = _PROC / str(parent) / "task" / str(parent) / "children"
    with contextlib.suppress(OSError):
        return [int(pid) for pid in kernels_list.read_text().split()]
    return [pid for pid in _pids() if (fields := _stat(pid)) and int(fields[1]) == parent]


def kill_recorded(pid: int, identity: str, grace_seconds: float = 2.0) -> int:
    """End a child that an earlier process recorded, its session, and every program that carries its mark.

    A process that has the number but not the identity is somebody else's: neither it nor its session is
    touched. Programs that outlived the child are known by their mark.

    Returns:
        How many processes were found alive.
    """
    mark = mark_of(pid, identity)

    def kin() -> set[int]:
        members = session_members(pid) if process_identity(pid) == identity else []
        return {member for member in {*members, *_marked(mark)} if is_alive(member)} - {os.getpid()}

    found = len(kin())
    if found:
        _end(kin, grace_seconds)
    return found


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent` dies (Linux; elsewhere nothing happens).

    Raises:
        SystemExit: if the parent is gone already.
    """
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        raise SystemExit("the parent died first")


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, so that none is lost (Linux)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def close_to_others() -> None:
    """Keep this user's other processes from reading what this one's variables were and its memory (Linux).

    Root reads them all the same. Programs that it starts are open again: they are told what they need.
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def reap_strangers(known: Iterable[int], seconds: float = _KILL_SECONDS) -> int:
    """Kill and reap this process's children that are not `known`: kin that a dead child left.

    Returns:
        How many were killed.
    """
    kept = set(known)
    killed: set[int] = set()
    end = time.monotonic() + seconds
    # Killing one hands its children to us: look again until there is none.
    while strangers := [pid for pid in children_of(os.getpid()) if pid not in kept]:
        for pid in strangers:
            _signal(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        killed.update(strangers)
        if time.monotonic() > end:
            break
        time.sleep(0.001)
    return len(killed)


def _end(members: Callable[[], Iterable[int]], grace_seconds: float) -> None:
    """SIGTERM, and SIGKILL for what is left after the grace."""
    if not (grace_seconds > 0 and _until_gone(members, signal.SIGTERM, grace_seconds, again=False)):
        _until_gone(members, signal.SIGKILL, _KILL_SECONDS, again=True)


def _until_gone(members: Callable[[], Iterable[int]], number: signal.Signals, seconds: float, again: bool) -> bool:
    end = time.monotonic() + seconds
    signalled: set[int] = set()
    while living := [pid for pid in members() if pid != os.getpid() and is_alive(pid)]:
        for pid in living:
            if again or pid not in signalled:
                _signal(pid, number)
        signalled.update(living)
        if time.monotonic() >= end:
            return False
        time.sleep(0.01)
    return True


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _pids() -> list[int]:
    if _HAS_PROC:
        return [int(name) for name in os.listdir(_PROC) if name.isdecimal()]  # noqa: PTH208
    import psutil

    return psutil.pids()


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _marked(mark: str) -> list[int]:
    wanted = f"{MARK}={mark}".encode()
    return [pid for pid in _pids() if wanted in _environment(pid)]


def _environment(pid: int) -> list[bytes]:
    if _HAS_PROC:
        try:
            return (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        except OSError:
            return []
    import psutil

    try:
        return [f"{name}={value}".encode() for name, value in psutil.Process(pid).environ().items()]
    except (psutil.Error, OSError):
        return []


def _stat(pid: int) -> list[str] | None:
    # Fields from the third on: the second, the name, may hold blanks and brackets.
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
