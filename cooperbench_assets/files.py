"""Writing a file whole or not at all, for every room.

What belongs here: the one way in which a file is put in place of another. What does not: what files say.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Put `content` in place of a file, so that a reader sees the old one or the new one.

    Args:
        path: The file; any number of processes may write it at once, and the last one counts.
        content: What it holds.
        durable: Whether the disk must hold it before this returns. Otherwise a power cut may leave the file empty.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
