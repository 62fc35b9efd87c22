"""The line before a pool of slots: launches that wait, and which of them the next free slot is for.

What belongs here: standing in line, and looking who is first. What does not: the slots (``slots``).

A launch in line is a file that it holds a lock on, so one that is gone is out of the line however it went. The file
says how many slots the launch holds, since when it waits and when it last looked: one that has not looked for a
while (a stopped process, say) keeps nobody from a slot. Times are of the machine's monotonic clock, which all of its
processes share.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

FRESH_SECONDS: Final = 3.0
"""A launch that waits looks several times a second; one that has not for so long is passed over."""

_LENGTH: Final = 128
"""Bytes of a file: always the same, so that it is never read half old and half new."""


class Waiter(msgspec.Struct, frozen=True):
    """A launch in line."""

    held: int
    """Slots that it holds."""

    since: float
    """Since when it waits with no more slots than these."""

    seen: float
    """When it last looked."""

    def before(self, held: int, since: float) -> bool:
        """Whether the next slot is for this launch rather than for one that holds so many and waits since then."""
        return (self.held, self.since) < (held, since)


_WAITER: Final = msgspec.json.Decoder(Waiter)


class Line:
    """One launch's place in the line of a pool."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = ""
        self._descriptor: int | None = None
        self._held = 0
        self._since = float("inf")

    def join(self, held: int) -> None:
        """Stand in line, or say that this launch still does.

        Raises:
            OSError: if the folder cannot be used.
        """
        if self._descriptor is None:
            self._held, self._since = held, time.monotonic()
            self._descriptor = self._enter()
        self.tell(held)

    def tell(self, held: int) -> None:
        """Say how many slots this launch holds now, if it stands in line.

        Raises:
            OSError: if that cannot be written.
        """
        if self._descriptor is None:
            return
        if held != self._held:
            self._held, self._since = held, time.monotonic()
        os.pwrite(self._descriptor, self._content(), 0)

    def leave(self) -> None:
        """Stand in line no more. Does nothing if this launch does not."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            (self._folder / self._name).unlink()
        os.close(self._descriptor)
        self._descriptor, self._since = None, float("inf")

    def is_first(self, held: int) -> bool:
        """Whether a launch that holds so many slots may take the next one: nobody in line comes before it."""
        moment = time.monotonic()
        return not any(one.before(held, self._since) for one in self._others() if moment - one.seen <= FRESH_SECONDS)

    def _enter(self) -> int:
        """Make the file under a name that nobody looks at until its lock is held.

        Each time the name is a new one: who found the last file without its lock may be about to remove that name.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._name = f"{os.getpid()}-{uuid.uuid4().hex}"
        hidden = self._folder / f".{self._name}"
        descriptor = os.open(hidden, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(descriptor, self._content(), 0)
            hidden.rename(self._folder / self._name)
        except BaseException:
            os.close(descriptor)
            hidden.unlink(missing_ok=True)
            raise
        return descriptor

    def _content(self) -> bytes:
        return msgspec.json.encode(Waiter(self._held, self._since, time.monotonic())).ljust(_LENGTH)

    def _others(self) -> list[Waiter]:
        """Every other launch in line; files of those that are gone are removed."""
        try:
            names = [entry.name for entry in self._folder.iterdir()]
        except FileNotFoundError:
            return []
        found = (self._read(name) for name in names if not name.startswith(".") and name != self._name)
        return [one for one in found if one is not None]

    def _read(self, name: str) -> Waiter | None:
        try:
            descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            with contextlib.suppress(msgspec.DecodeError):
                return _WAITER.decode(os.pread(descriptor, _LENGTH, 0))
            return None
        else:
            with contextlib.suppress(FileNotFoundError):
                (self._folder / name).unlink()
            return None
        finally:
            os.close(descriptor)
