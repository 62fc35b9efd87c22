"""Writing a file whole or not at all, for every room.

What belongs here: the one way in which a file is put in place of another. What does not: what files say.
"""

from __future__ import annotations

import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from cooperbench_assets.faultpoints import hit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

UNFINISHED: Final = ".tmp"
"""How the name of a file ends that is not yet in its place; it begins with a dot."""


def write_atomically(path: Path, content: bytes, *, durable: bool = True, mode: int | None = None) -> None:
    """Put `content` in place of a file, so that a reader sees the old one or the new one.

    Args:
        path: The file; any number of processes may write it at once, and the last one counts.
        content: What it holds.
        durable: Whether the disk must hold it before this returns. Otherwise a power cut may leave the file empty.
        mode: Its permissions; those of any new file if not given.
    """
    with replacing(path, durable=durable) as file:
        if mode is not None:
            os.fchmod(file.fileno(), mode)
        file.write(content)


@contextmanager
def replacing(path: Path, *, durable: bool = True, keep: bool = False) -> Iterator[BinaryIO]:
    """A new file to be filled, which takes the place of `path` when all went well.

    Args:
        path: The file, as `write_atomically` says.
        durable: As there.
        keep: Leave a file alone that is in the place by then.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        with temporary.open("xb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        hit("file:filled")
        if keep:
            # A link, unlike a rename, never replaces.
            with suppress(FileExistsError):
                os.link(temporary, path)
        else:
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync(path.parent)


def sync(path: Path) -> None:
    """Have the disk hold a file's bytes, or a folder's names; nothing else than these two is opened."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(paths: Sequence[Path]) -> None:
    """Have the disk hold the bytes of several files.

    At once: a journal takes them in together, in a fifth of the time that one after another needs.
    """
    with ThreadPoolExecutor(min(16, max(1, len(paths)))) as threads:
        list(threads.map(sync, paths))
