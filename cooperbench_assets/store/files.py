"""Writing files that survive a power cut, and folders that nobody sweeps while they are in use.

What belongs here: fsync, copies, and shared locks on folders. What does not: what the files say.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cooperbench_assets.files import sync as sync
from cooperbench_assets.files import sync_all as sync_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def make_folders(folder: Path) -> None:
    """Make a folder and its parents, and have the disk hold the names of those that were new."""
    if folder.is_dir():
        return
    make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    sync(folder.parent)


def copy(source: Path, target: Path) -> None:
    """Copy a file's bytes within the kernel; a file system that can share blocks does."""
    with source.open("rb") as reader, target.open("xb") as writer:
        left = os.fstat(reader.fileno()).st_size
        try:
            while left > 0 and (done := os.copy_file_range(reader.fileno(), writer.fileno(), left)):
                left -= done
        except (AttributeError, OSError):  # macOS has no such call; some file systems refuse it
            reader.seek(0)
            writer.seek(0)
            shutil.copyfileobj(reader, writer, 1 << 20)


class FolderGoneError(FileNotFoundError):
    """A folder was removed before it could be held."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder: while any process does, nobody else gets `unheld`.

    A killed process lets go. Where the file system has no locks nothing is held, and nothing is unheld either.

    Raises:
        FolderGoneError: if the folder is not there.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError as error:
        raise FolderGoneError(*error.args) from None
    try:
        # Whoever has the exclusive lock is removing the folder: waiting for it and looking again is short.
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_SH)
        if not _still_there(folder, fd):
            raise FolderGoneError(f"{folder} was removed")
        yield
    finally:
        os.close(fd)


def _still_there(folder: Path, fd: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


@contextmanager
def unheld(folder: Path) -> Iterator[bool]:
    """Whether nobody holds a folder; while the block runs, nobody can come to."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(fd)
