"""The sandbox of an evaluation, found by the name of the experiment's execution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cooperbench_assets.execution.sandboxes.base import SandboxOptions

if TYPE_CHECKING:
    from cooperbench_assets.execution.sandboxes.base import Backend
    from cooperbench_assets.execution.worker.protocol import ChildRequest


def open_backend(request: ChildRequest, slot_fd: int | None = None) -> Backend | None:
    """The backend of ours for an evaluation; None where upstream's own is meant.

    Raises:
        InfrastructureError: family ``configuration``, for options that are none or an isolation that is not to be had.
    """
    if request.backend == "process":
        from cooperbench_assets.execution.sandboxes.process.backend import ProcessBackend

        return ProcessBackend.for_request(request, SandboxOptions.read(request.sandbox), slot_fd)
    if request.backend == "docker":
        from cooperbench_assets.execution.sandboxes.docker.sandbox import DockerBackend

        return DockerBackend.for_request(request)
    return None
