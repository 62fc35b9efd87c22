"""A child's staging folder as bytes that travel between nodes.

What belongs here: packing and unpacking. What does not: when (``node``, ``children``).
"""

from __future__ import annotations

import io
import tarfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

LARGEST_BYTES: Final = 512 * 2**20
"""Bytes of files that one archive holds; of more, the largest files stay behind and are named."""

LEFT_OUT: Final = "left-out.txt"
"""File in the archive that names what was left out of it, and why."""


class ArchiveError(ValueError):
    """An archive holds what is no regular file, or would be written outside its folder."""


def pack(folder: Path, largest: int = LARGEST_BYTES) -> bytes:
    """The regular files below a folder, as a compressed tar archive.

    Links and special files are left out: what an agent made may lead anywhere.

    Args:
        folder: The staging folder; nothing if it is not there.
        largest: Bytes of all files together; the largest are left out until the others fit.

    Returns:
        the archive; a file `LEFT_OUT` in it names what is not.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    sizes = {file: file.stat().st_size for file in files}
    left_out: list[str] = []
    total = sum(sizes.values())
    for file in sorted(files, key=lambda file: -sizes[file]):
        if total <= largest:
            break
        total -= sizes.pop(file)
        left_out.append(f"{file.relative_to(folder).as_posix()}: too large to be fetched from its node\n")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for file in sizes:
            archive.add(file, file.relative_to(folder).as_posix(), recursive=False)
        if left_out:
            text = "".join(left_out).encode()
            entry = tarfile.TarInfo(LEFT_OUT)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()


def unpack(content: bytes, folder: Path, largest: int = LARGEST_BYTES) -> None:
    """Write an archive's files below a folder, over what is there.

    Raises:
        ArchiveError: if a member is no regular file, leads out of the folder, or all are larger than `largest`.
    """
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        left = largest
        for member in archive:
            path = PurePosixPath(member.name)
            if not member.isreg() or path.is_absolute() or ".." in path.parts:
                raise ArchiveError(f"{member.name!r} of an archive is no file of its folder")
            left -= member.size
            if left < 0:
                raise ArchiveError(f"an archive holds more than {largest} bytes")
            target = folder.joinpath(*path.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            source = archive.extractfile(member)
            assert source is not None
            target.write_bytes(source.read())
