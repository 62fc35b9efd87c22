"""What every sandbox of ours shares: upstream's protocol, spelled out, and the options of a request.

What belongs here: protocols and options. What does not: any one way of isolating.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cooperbench_assets.execution.infrastructure import InfrastructureError

REPO = "/workspace/repo"
PATCHES = "/patches"
RUNNER = "/usr/local/bin/runner.sh"


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended: upstream's ``ExecResult``."""

    returncode: int
    """128 + n where signal n ended it, as a shell says it."""

    stdout: str
    stderr: str = ""

    def stdout_read(self) -> str:
        """What it printed."""
        return self.stdout

    def stderr_read(self) -> str:
        """What it printed as errors, where that is kept apart."""
        return self.stderr


class Sandbox(Protocol):
    """Upstream's ``Sandbox``."""

    def exec(self, *args: str) -> Finished:
        """Run a command to its end."""
        ...

    def terminate(self) -> None:
        """End everything and remove what was made."""
        ...


class Backend(Protocol):
    """Upstream's ``EvalBackend``, which also says how it isolates."""

    isolation: str

    def create_sandbox(self, image: str, timeout: int = 600, workdir: str = "/workspace") -> Sandbox:
        """Make a sandbox of an image."""
        ...


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """What a request may say of its sandbox. A sandbox ignores what it has no use for."""

    test_timeout_seconds: float = 600
    """Deadline of one test run; upstream's own timeout of a sandbox is a cap above it."""

    isolation: str = "auto"
    """``auto``, or the one that must be used: ``bubblewrap`` or ``subprocess``."""

    network: bool = True
    """False: no network in bubblewrap. A plain subprocess cannot be kept from it."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that test programs see beside the few that every sandbox sets."""

    labels: Mapping[str, str] = field(default_factory=dict)
    memory_mb: int | None = None

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> SandboxOptions:
        """The options in a request.

        Raises:
            InfrastructureError: family ``configuration``, for an option or a value that is none.
        """
        unknown = sorted(set(content) - set(cls.__dataclass_fields__))
        if unknown:
            known = ", ".join(cls.__dataclass_fields__)
            raise InfrastructureError("configuration", f"sandbox option {unknown[0]!r} is unknown; there are {known}")
        options = cls(**content)
        if not options.test_timeout_seconds > 0:
            raise InfrastructureError(
                "configuration", f"test_timeout_seconds is {options.test_timeout_seconds!r}; write seconds above 0"
            )
        return options
