"""Whose a container is: the labels that we put on what we make, and whether its owner still lives.

What belongs here: label names and owners. What does not: removing anything (``leftovers``). Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from cooperbench_assets.execution.processes import MARK, is_alive, mark_of, process_identity

PREFIX = "cooperbench-assets"
OWNER = f"{PREFIX}.owner"
"""``<pid>/<identity>`` of the process that the container serves: without it, it serves nobody."""

HOST = f"{PREFIX}.host"
"""Where that pid means something: machine and pid namespace."""

CELL = f"{PREFIX}.cell"
"""The run folder that it works for, as `cell_of` says it: whoever holds that cell's lock may remove it."""

PURPOSE = f"{PREFIX}.purpose"

Purpose = Literal["evaluation", "agent"]
OwnerState = Literal["alive", "dead", "elsewhere"]

_OWNER = re.compile(r"(\d+)/(.+)")


def labels(purpose: Purpose, described: Mapping[str, str]) -> dict[str, str]:
    """Labels of something that this process makes, with what it is for (experiment, setting, seed, pair, attempt)."""
    return {**describing(purpose, described), OWNER: owner()}


def describing(purpose: Purpose, described: Mapping[str, str]) -> dict[str, str]:
    """The labels that are known before there is an owner."""
    return {**{f"{PREFIX}.{name}": str(value) for name, value in described.items()}, PURPOSE: purpose, HOST: host()}


def owner() -> str:
    """The owner that this process stands for: the child it runs in, or itself."""
    return os.environ.get(MARK) or mark_of(os.getpid(), process_identity(os.getpid()) or "")


@cache
def host() -> str:
    """This machine and pid namespace. Several containers on one machine share its engine, but not its pids."""
    try:
        machine = Path("/etc/machine-id").read_text().strip()[:12]
    except OSError:
        machine = ""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return "/".join((socket.gethostname(), machine, namespace))


def cell_of(run_dir: Path) -> str:
    """What tells a run folder from every other one, wherever it is mounted: its inode and its file system.

    A copy of a project has other inodes, so that nobody takes another project's containers for his own.
    """
    place = f"{run_dir.stat().st_ino}:{os.statvfs(run_dir).f_fsid}"
    return hashlib.sha256(place.encode()).hexdigest()[:24]


def owner_state(found: Mapping[str, str], *, is_local: bool = True) -> OwnerState:
    """What became of the owner that these labels name; one that cannot be looked for from here is elsewhere.

    Args:
        found: The labels.
        is_local: Whether the engine is this machine's. On another one, an owner of another boot of "this" machine may
            live on a copy of it.
    """
    named = _OWNER.fullmatch(found.get(OWNER, ""))
    if named is None or found.get(HOST) != host():
        return "elsewhere"
    of_this_boot = named[2].partition(":")[0] == (process_identity(os.getpid()) or "").partition(":")[0]
    if not (is_local or of_this_boot):
        return "elsewhere"
    return "alive" if is_alive(int(named[1]), named[2]) else "dead"
