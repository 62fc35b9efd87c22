"""What an experiment may say of its containers.

What belongs here: the options and reading them. What does not: handing them to an engine. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cooperbench_assets.execution.infrastructure import InfrastructureError

_MEGABYTE = 2**20
_SMALLEST_MEMORY = 6
_POSITIVE = ("test_timeout_seconds", "memory_mb", "cpus", "pids", "output_limit_mb")


@dataclass(frozen=True, slots=True)
class DockerOptions:
    """Deadline, limits, network and labels of the containers of one request."""

    test_timeout_seconds: float | None = None
    """Deadline of one test run; upstream's timeout of the sandbox where not given."""

    memory_mb: int | None = None
    """Memory in MiB, without any swap beside it; as much as there is where not given."""

    cpus: float | None = None
    """CPUs that it may use at once."""

    pids: int | None = None
    """Processes and threads that it may have at once."""

    network: bool = True
    """False: no network at all."""

    output_limit_mb: float = 16
    """MiB of a command's output that are kept: its beginning and its end."""

    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables that programs inside see."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """What the container is for: experiment, setting, seed, pair, attempt."""

    isolation: str = "auto"
    """Only ``auto`` and ``docker`` mean anything here."""

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> DockerOptions:
        """The options in a request.

        Raises:
            InfrastructureError: family ``configuration``, for an option or a value that is none.
        """
        unknown = sorted(set(content) - set(cls.__dataclass_fields__))
        if unknown:
            known = ", ".join(cls.__dataclass_fields__)
            raise InfrastructureError("configuration", f"sandbox option {unknown[0]!r} is unknown; there are {known}")
        options = cls(**content)
        for name in _POSITIVE:
            value = getattr(options, name)
            if value is not None and not (isinstance(value, int | float) and value > 0):
                raise InfrastructureError("configuration", f"{name} is {value!r}; write a number above 0")
        if options.memory_mb is not None and options.memory_mb < _SMALLEST_MEMORY:
            raise InfrastructureError(
                "configuration", f"memory_mb is {options.memory_mb}; no engine takes less than {_SMALLEST_MEMORY}"
            )
        if options.isolation not in ("auto", "docker"):
            raise InfrastructureError(
                "configuration", f"isolation {options.isolation!r} is unknown to execution: docker; leave it out"
            )
        return options

    @property
    def output_limit(self) -> int:
        """Bytes of output that are kept."""
        return int(self.output_limit_mb * _MEGABYTE)

    def limits(self) -> dict[str, int]:
        """The limits as the engine's API names them; swap is bounded to the same, so that it does not hide them."""
        found: dict[str, int] = {}
        if self.memory_mb is not None:
            found["mem_limit"] = found["memswap_limit"] = int(self.memory_mb) * _MEGABYTE
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
