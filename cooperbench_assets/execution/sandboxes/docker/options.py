"""What an experiment may say of its containers.

What belongs here: what containers have beside the options of every sandbox. What does not: handing them to an engine.
Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass

from cooperbench_assets.execution.sandboxes.base import MEGABYTE, SandboxOptions

_SMALLEST_MEMORY = 6


@dataclass(frozen=True, slots=True)
class DockerOptions(SandboxOptions):
    """Deadline, limits, network and labels of the containers of one request."""

    def problem(self) -> str:
        """What no engine does of what is asked for, as a sentence; empty if nothing."""
        if self.memory_mb is not None and self.memory_mb < _SMALLEST_MEMORY:
            return f"memory_mb is {self.memory_mb}; no engine takes less than {_SMALLEST_MEMORY}"
        if self.isolation not in ("auto", "docker"):
            return f"isolation {self.isolation!r} is unknown to execution: docker; leave it out"
        return ""

    def limits(self) -> dict[str, int]:
        """The limits as the engine's API names them; swap is bounded to the same, so that it does not hide them."""
        found: dict[str, int] = {}
        if self.memory_mb is not None:
            found["mem_limit"] = found["memswap_limit"] = int(self.memory_mb) * MEGABYTE
        if self.cpus is not None:
            found["nano_cpus"] = int(self.cpus * 1e9)
        if self.pids is not None:
            found["pids_limit"] = int(self.pids)
        return found

    def arguments(self) -> list[str]:
        """The limits as the engine's command line names them."""
        found: list[str] = []
        if self.memory_mb is not None:
            found += [f"--memory={int(self.memory_mb)}m", f"--memory-swap={int(self.memory_mb)}m"]
        if self.cpus is not None:
            found.append(f"--cpus={self.cpus:g}")
        if self.pids is not None:
            found.append(f"--pids-limit={int(self.pids)}")
        return found
