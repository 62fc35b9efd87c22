"""The typed error by which a sandbox says that the machinery failed, and not the tested code.

What belongs here: the error that travels through upstream's error strings, and looking at a finished test run.
What does not: the families and their signs (``benchmark.failures``, which trusts the prefix made here). Standard
library only, that module included: sandboxes run in the harness's environment.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cooperbench_assets.benchmark.failures import Failure, classify_output, excerpt, says_disk_is_full
from cooperbench_assets.errors import UserError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_EXCERPT = 500
_ROOM = 2**30
"""Free bytes with which a disk counts as full for tests: what they could not write they have removed again."""

_FILES = 1000
"""Free inodes likewise."""


class InfrastructureError(UserError):
    """Something around the work failed; its text starts with ``[infra:<family>]``."""

    def __init__(self, family: str, text: str) -> None:
        super().__init__(f"[infra:{family}] {text}")
        self.family = family
        self.text = text


def from_exception(error: BaseException) -> InfrastructureError | None:
    """The typed error that `error` is or stands for (a full disk); None where it is of another kind."""
    if isinstance(error, InfrastructureError):
        return error
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        where = f": {error.filename}" if error.filename else ""
        return InfrastructureError("disk", f"{error.strerror}{where}")
    return None


@dataclass(frozen=True, slots=True)
class Around:
    """What a sandbox knows of its surroundings when a test run has ended. None: not known."""

    disk_full: bool | None = None
    memory_short: bool | None = None
    """Something other than a limit of the sandbox itself had the kernel kill processes for want of memory."""


def classify_test_run(exit_code: int, output: str, around: Callable[[], Around] = Around) -> InfrastructureError | None:
    """The infrastructure failure that a finished test run shows; None for one that can be graded.

    Args:
        exit_code: The shell's: 128 + n for a death by signal n. A crash of the tested code (SIGSEGV, SIGABRT) is its
            own; SIGKILL and SIGTERM came from outside, or were its own as well.
        output: What it printed: the tested code can print anything.
        around: Looks at the surroundings; asked only where they matter.
    """
    infra_failed = classify_output(output, exit_code) if exit_code != 0 else None
    if infra_failed is None and not (exit_code != 0 and says_disk_is_full(output)):
        return None
    family, why = _held_against(infra_failed, around())
    if family is None:
        return None
    said = excerpt(output, _EXCERPT)
    text = f"test run ended with exit code {exit_code}{why}"
    return InfrastructureError(family, f"{text}: {said}" if said else text)


def _held_against(infra_failed: Failure | None, known: Around) -> tuple[str | None, str]:
    """Family of what an output shows, held against what is known, and what to say of that."""
    if infra_failed is None:
        return ("disk" if known.disk_full else None), ""
    if infra_failed.family == "disk" and known.disk_full is False:
        return "tests_aborted", " and names a full disk, but there is room"
    if infra_failed.family in ("oom", "container_died") and known.memory_short is False:
        return "tests_aborted", ", killed in a sandbox that was well"
    return infra_failed.family, ""


def is_full(free_bytes: int, free_files: int, all_files: int) -> bool:
    """Whether a file system with so much left may have kept tests from writing.

    Some file systems count no inodes: then all and free ones are 0.
    """
    return free_bytes < _ROOM or (all_files > 0 and free_files < _FILES)


def disk_is_full(folder: str | os.PathLike[str]) -> bool | None:
    """Whether the file system of a folder of this machine is full; None where that cannot be seen."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return None
    return is_full(status.f_bavail * status.f_frsize, status.f_favail, status.f_files)


def memory_kills() -> int | None:
    """How many processes the kernel has killed for want of memory on this machine; None where it does not say."""
    try:
        counts = Path("/proc/vmstat").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^oom_kill (\d+)$", counts, re.MULTILINE)
    return int(found[1]) if found else None
