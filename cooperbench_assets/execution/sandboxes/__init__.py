"""Sandboxes of our own for evaluations, each upstream's ``EvalBackend``, found by the name of the execution.

What belongs here: places in which test programs run. What does not: what is run in them, which upstream decides.
Standard library only: sandboxes run in the harness's environment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cooperbench_assets.execution.sandboxes.base import Backend, SandboxOptions

if TYPE_CHECKING:
    from cooperbench_assets.execution.protocol import ChildRequest

OWN_BACKENDS = ("process", "docker")
"""Executions whose evaluations run in a sandbox of ours; upstream's own backends serve the others."""

WITHOUT_CONTAINERS = ("process",)
"""Executions that have no container for an agent to work in."""


def open_backend(request: ChildRequest, slot_fd: int | None = None) -> Backend | None:
    """The backend of ours for an evaluation; None where upstream's own is meant.

    Raises:
        InfrastructureError: family ``configuration``, for options that are none or an isolation that is not to be had.
    """
    if request.backend == "process":
        from cooperbench_assets.execution.sandboxes.process import ProcessBackend

        return ProcessBackend.for_request(request, SandboxOptions.read(request.sandbox), slot_fd)
    if request.backend == "docker":
        from cooperbench_assets.execution.docker.sandbox import DockerBackend

        return DockerBackend.for_request(request)
    return None
