"""How many CPUs and how much memory this process may use: the machine's, or less where a container is held to less.

What belongs here: what the kernel says, cgroups of both versions included. What does not: how many slots that makes
(``slots``).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 2**60
"""Version 1 says "no limit" with a number near 2**63."""


@dataclass(frozen=True, slots=True)
class MachineSize:
    """What a process may use. The folders are those of the kernel, unless a test has others."""

    cgroups: Path = Path("/sys/fs/cgroup")
    own: Path = Path("/proc/self/cgroup")

    def cpus(self) -> int | None:
        """CPUs, a quota rounded down and at least 1; None where nothing is known."""
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        quotas = [max(1, int(quota)) for quota in (*self._quotas(), *self._old_quotas())]
        return min([*quotas, *([count] if count else [])], default=None)

    def memory(self) -> int | None:
        """Bytes of memory; None where nothing is known."""
        limits = [limit for limit in self._memory_limits() if limit < _UNLIMITED]
        with contextlib.suppress(ValueError, OSError):
            limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        return min(limits, default=None)

    def _quotas(self) -> Iterator[float]:
        for folder in self._folders(""):
            quota, _, period = _read(folder / "cpu.max").partition(" ")
            if quota.isdecimal() and period.isdecimal() and int(period):
                yield int(quota) / int(period)

    def _old_quotas(self) -> Iterator[float]:
        for folder in self._folders("cpu"):
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
            if quota.isdecimal() and period.isdecimal() and int(period):
                yield int(quota) / int(period)

    def _memory_limits(self) -> Iterator[int]:
        files = [folder / "memory.max" for folder in self._folders("")]
        files += [folder / "memory.limit_in_bytes" for folder in self._folders("memory")]
        yield from (int(said) for said in map(_read, files) if said.isdecimal())

    def _folders(self, controller: str) -> Iterator[Path]:
        """The own cgroup of a controller (version 2: of the empty one) and those above it, as far as they are seen.

        A container may see its own cgroup as the root, or the machine's whole tree: what is not there is looked over,
        and the root is looked at in any case.
        """
        root = self.cgroups / controller
        for line in _read(self.own).splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if controller in controllers.split(","):
                place = root / path.lstrip("/")
                yield from (folder for folder in (place, *place.parents) if folder.is_relative_to(root))
                return
        yield root


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
