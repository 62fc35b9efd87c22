"""Whose a container is: the labels that we put on what we make, and whether its owner still lives.

What belongs here: label names and owners. What does not: removing anything (``sweep``). Standard library only.
"""

from __future__ import annotations

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

PURPOSE = f"{PREFIX}.purpose"

Purpose = Literal["evaluation", "agent"]
Fate = Literal["alive", "dead", "elsewhere"]

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


def fate(found: Mapping[str, str]) -> Fate:
    """What became of the owner that these labels name; one that cannot be looked for from here is elsewhere."""
    named = _OWNER.fullmatch(found.get(OWNER, ""))
    if named is None or found.get(HOST) != host():
        return "elsewhere"
    return "alive" if is_alive(int(named[1]), named[2]) else "dead"
