"""One cell, one process at a time: a lock in the run folder that names its holder.

What belongs here: taking and probing the lock. What does not: what is done under it (``api``). The lock is a flock,
so it is free as soon as its holder is gone, however it went: also for the containers of one machine, which have one
kernel. Between machines that holds only where their file system carries locks from one to the other. So a holder of
another machine that the file still names on such a file system is never taken for dead: its tries may be running.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from cooperbench_assets.execution.errors import CellBusy, LaunchError
from cooperbench_assets.execution.processes import boot
from cooperbench_assets.execution.shared_folders import file_system_of_several_machines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_FILE: Final = ".cooperbench-assets.lock"
"""Name of the lock's file in the run folder; upstream's commands do not look at it."""

_PATIENCE_SECONDS: Final = 0.1
"""How long a probe of somebody else may make us wait before the cell counts as busy."""


class Holder(msgspec.Struct, frozen=True):
    """Who holds a cell."""

    pid: int
    host: str
    started_at: str
    """UTC, ISO 8601."""

    what: str
    """What the holder calls itself: a Dagster run, a command."""

    boot: str = ""
    """Boot of the kernel that it runs on, which the containers of a machine share; empty if it did not say."""

    def __str__(self) -> str:
        return f"{self.what} (process {self.pid} on {self.host}, since {self.started_at})"


_HOLDER: Final = msgspec.json.Decoder(Holder)


@contextlib.contextmanager
def cell_lock(run_dir: Path, what: str) -> Iterator[None]:
    """Hold a cell while a stage of it runs.

    Args:
        run_dir: The cell's run folder; made if it is missing.
        what: What to call this process when another one wants the cell.

    Raises:
        CellBusy: at once, if another process holds the cell, or may hold it on another machine; the message names it.
        LaunchError: if the folder's file system has no locks.
    """
    while (descriptor := _acquire(run_dir)) is None:
        pass
    try:
        _write(descriptor, what)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def holder(run_dir: Path) -> Holder | None:
    """Who holds a cell now; None if nobody does."""
    try:
        descriptor = os.open(run_dir / LOCK_FILE, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(descriptor) or Holder(0, "unknown", "", "another process")
    except OSError:  # Where there are no locks, nobody can hold one.
        return None
    else:
        return None
    finally:
        os.close(descriptor)


def _acquire(run_dir: Path) -> int | None:
    """Open and take the lock; None if another file took its place meanwhile: an adoption removes the one it holds."""
    run_dir.mkdir(parents=True, exist_ok=True)
    file = run_dir / LOCK_FILE
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:  # The folder was removed with it.
        return None
    try:
        try:
            if not _take(descriptor):
                raise CellBusy(_busy(run_dir, _read(descriptor)))
        except OSError as error:
            raise LaunchError(
                f"{run_dir} lies on a file system without locks ({error.strerror}), so that two runs of the cell could "
                "not tell of each other; put logs: on a local disk, or mount that file system with locks"
            ) from error
        _refuse_elsewhere(run_dir, _read(descriptor))
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _refuse_elsewhere(run_dir: Path, left: Holder | None) -> None:
    """Refuse a lock that was free to take and whose file names a holder on another machine.

    It was killed there, or it runs, and the file system tells this machine nothing of its locks.
    """
    if left is None or left.boot == boot() or left.host == socket.gethostname():
        return
    if (kind := file_system_of_several_machines(run_dir)) is not None:
        raise CellBusy(
            f"{run_dir.name} was begun by {left}, and lies on {kind}, which may keep that machine's lock from being "
            f"seen here; if that run is over, remove {run_dir / LOCK_FILE} and start again"
        )


def _take(descriptor: int) -> bool:
    """Take the lock; a short wait tells a holder from somebody who only probes."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        else:
            return True


def _write(descriptor: int, what: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, msgspec.json.encode(Holder(os.getpid(), socket.gethostname(), now, what, boot())), 0)


def _read(descriptor: int) -> Holder | None:
    """The holder that the file names; what a killed holder left there reads the same."""
    try:
        return _HOLDER.decode(os.pread(descriptor, 65536, 0))
    except msgspec.DecodeError:
        return None


def _busy(run_dir: Path, by: Holder | None) -> str:
    named = str(by) if by else "another process"
    return f"{run_dir.name} is being run by {named}; wait for it, or end it, and start again"
