"""The folder beside a results store in which it is built, and the lock that lets one process build it.

What belongs here: ``.results.duckdb/`` (lock, name of the holder, unfinished builds, private snapshots), and
moving foreign files aside. What does not: what a build does (``store.publish``).
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from filelock import FileLock, Timeout

from cooperbench_assets.faultpoints import hit
from cooperbench_assets.store.errors import StoreLockedError
from cooperbench_assets.store.files import make_folders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAL_SUFFIXES: Final = (".wal", ".wal.checkpoint", ".wal.recovery")
"""Files that DuckDB keeps beside a database while somebody writes it, and that we never leave."""

SNAPSHOT_PREFIX: Final = "read-"
SNAPSHOT_SECONDS: Final = 600.0
"""Age from which a reader's private folder was left by a dead reader: it lives as long as opening a file takes."""


@dataclass(frozen=True, slots=True)
class BuildDir:
    """The hidden folder beside one database file."""

    database: Path

    @classmethod
    def of(cls, database: Path) -> BuildDir:
        """The build folder of a database; where `database` is a symbolic link, of the file that it leads to."""
        return cls(database.resolve())

    @property
    def folder(self) -> Path:
        """``.results.duckdb/`` beside ``results.duckdb``: on the same file system, so that renames are at once."""
        return self.database.with_name(f".{self.database.name}")

    @contextmanager
    def locked(self, timeout: float) -> Iterator[None]:
        """Be the only process that builds this database; what a killed one left is gone.

        Raises:
            StoreLockedError: if another process has held the lock for `timeout` seconds; names it.
        """
        make_folders(self.folder)
        lock = FileLock(self.folder / "lock", timeout=timeout, poll_interval=0.01)
        try:
            lock.acquire()
        except Timeout:
            raise StoreLockedError(
                f"{self.database} is being published by {self._holder()}; waited {timeout:.0f} s. Try again, or "
                "end that process: a killed publish leaves the store as it was"
            ) from None
        try:
            self._sweep()
            self._holder_file.write_text(_myself(), "utf-8", "replace")
            yield
        finally:
            self._holder_file.unlink(missing_ok=True)
            lock.release()

    @property
    def _holder_file(self) -> Path:
        return self.folder / "holder"

    def _holder(self) -> str:
        with suppress(OSError):
            return self._holder_file.read_text("utf-8", "replace") or "another process"
        return "another process"

    def _sweep(self) -> None:
        """Remove what killed publishes and killed readers left."""
        for path in self.folder.iterdir():
            if path.name == "lock" or (path.name.startswith(SNAPSHOT_PREFIX) and not _old(path)):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def build(self) -> Path:
        """A path for a new build; nothing is there."""
        return self.folder / f"build-{secrets.token_hex(4)}.duckdb"

    def move_foreign_files(self, *, whole: bool) -> str | None:
        """Move foreign write-ahead logs away, and keep the database file under another name.

        Whoever wrote into the published file finds file and log as a pair that DuckDB opens, under
        ``<name>.set-aside-<time>``. With `whole` the file is kept even if no log lies beside it.

        Returns:
            what was done, as a sentence; None if there was nothing to do.
        """
        logs = [suffix for suffix in WAL_SUFFIXES if self._beside(suffix).exists()]
        if not logs and not (whole and self.database.exists()):
            return None
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        kept = self.database.with_name(f"{self.database.name}.set-aside-{stamp}")
        if self.database.exists():
            os.link(self.database, kept)
            hit("publish:old-linked")
        for suffix in logs:
            with suppress(FileNotFoundError):  # its writer ended just now
                self._beside(suffix).replace(kept.with_name(kept.name + suffix))
        return (
            f"{self.database} was opened for writing, or is not as it was published; what was there is kept as "
            f"{kept.name}. Open it with: duckdb -readonly"
        )

    def _beside(self, suffix: str) -> Path:
        return self.database.with_name(self.database.name + suffix)


def _old(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > SNAPSHOT_SECONDS
    return False


def _myself() -> str:
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    command = " ".join(sys.argv[:2]) or "python"
    return f"process {os.getpid()} on {socket.gethostname()} since {since} ({command})"
