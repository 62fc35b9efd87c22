"""What every sandbox of ours shares: upstream's protocol, spelled out, and the options of a request.

What belongs here: protocols and options. What does not: any one way of isolating.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from cooperbench_assets.execution.infra_errors import InfrastructureError

REPO = "/workspace/repo"
PATCHES = "/patches"
RUNNER = "/usr/local/bin/runner.sh"
MEGABYTE = 2**20

TEST_RUNS = 2
"""Test runs of one evaluation: one a feature, on the merged tree or on the first agent's patch."""

OVERHEAD_SECONDS = {
    "process": 180.0,
    # Four calls of the engine for a container, each tried three times for two minutes, and its first command.
    "docker": 1680.0,
    # A sandbox that waits for a machine, which pulls its image: 16 GB are no rare size.
    "modal": 1800.0,
    # Eleven batch jobs, one a command, of 90 s and more before they start.
    "gcp": 5400.0,
}
"""What an evaluation may take beside its test runs, by execution: making the sandbox, applying and merging patches."""

OWN_BACKENDS = ("process", "docker")
"""Executions whose evaluations run in a sandbox of ours; upstream's own backends serve the others."""

WITHOUT_CONTAINERS = ("process",)
"""Executions that have no container for an agent to work in."""


def evaluation_seconds(execution: str, test_seconds: float) -> float:
    """Deadline of a whole evaluation whose test runs have a deadline of their own, in seconds."""
    return TEST_RUNS * test_seconds + OVERHEAD_SECONDS[execution]


_LIMITS = ("memory_mb", "cpus", "pids")
_POSITIVE = ("test_timeout_seconds", *_LIMITS, "output_limit_mb")


def note_of_cut(count: int) -> str:
    """What stands where so many bytes of an output are left out."""
    return f"\n[… {count} bytes of output left out …]\n"


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
    """What a request may say of its sandbox, the same for every kind of it. What a kind cannot do is refused."""

    test_timeout_seconds: float | None = None
    """Deadline of one test run; upstream's timeout of the sandbox, which other commands have, where not given."""

    memory_mb: int | None = None
    """Memory in MiB, without any swap beside it; as much as there is where not given."""

    cpus: float | None = None
    """CPUs that it may use at once."""

    pids: int | None = None
    """Processes and threads that it may have at once."""

    network: bool = True
    """False: no network at all. A plain subprocess cannot be kept from it."""

    output_limit_mb: float = 16
    """MiB of a command's output that are kept: its beginning and its end."""

    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables that test programs see beside those that every sandbox sets."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """What the sandbox is for: experiment, setting, seed, pair, attempt."""

    isolation: str = "auto"
    """``auto``, or the one that must be used."""

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Self:
        """The options in a request.

        Raises:
            InfrastructureError: family ``configuration``, for an option or a value that is none, or that this kind of
                sandbox cannot hold to.
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
        if problem := options.problem():
            raise InfrastructureError("configuration", problem)
        return options

    def problem(self) -> str:
        """What is asked for and cannot be had here, as a sentence; empty if nothing. Here: without a container."""
        held = next((name for name in _LIMITS if getattr(self, name) is not None), None)
        if held is None:
            return ""
        return f"{held} is a limit of containers, and execution: process has none; leave it out, or use docker"

    @property
    def output_limit(self) -> int:
        """Bytes of output that are kept."""
        return int(self.output_limit_mb * MEGABYTE)
