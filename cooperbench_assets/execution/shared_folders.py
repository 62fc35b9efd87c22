"""Whether several machines may share a folder: there, a lock that one of them holds may be unknown to the others.

What belongs here: what the kernel says of a folder's file system. What does not: locks (``cell_lock``). Standard
library only.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mountinfo")

# fmt: off
_SHARED: Final = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "orangefs",
    "smb3", "smbfs", "virtiofs",
})
# fmt: on
_LOCAL_FUSE: Final = frozenset({"fuse.fuse-overlayfs", "fuse.ntfs-3g"})
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def file_system_of_several_machines(folder: Path) -> str | None:
    """The kind of file system that a folder lies on if several machines can mount it at once; None if one alone can.

    Where the kernel does not say (no Linux), it is taken for local.
    """
    kind = _kind(folder.resolve())
    if kind in _SHARED or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE):
        return kind
    return None


def _kind(folder: Path) -> str:
    """The file system of the innermost mount that a folder lies in; of several at one place, of the last one."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    found, kind = Path("/"), ""
    for line in lines:
        mount, _, described = line.partition(" - ")
        words = mount.split(" ")
        if len(words) < 5 or not described:
            continue
        place = Path(_OCTAL.sub(lambda digits: chr(int(digits[1], 8)), words[4]))
        if folder.is_relative_to(place) and len(place.parts) >= len(found.parts):
            found, kind = place, described.split(" ")[0]
    return kind
