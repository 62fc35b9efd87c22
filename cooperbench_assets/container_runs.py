"""Runs in containers: Dagster's launcher for Docker, with what a deployment needs beside it (``deploy/dagster.yaml``).

What belongs here: how the daemon of a deployment starts, judges and clears away the containers of runs. What does not:
containers of agents and tests (``execution.sandboxes.docker``), which belong to a cell.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

# A launcher is a plug-in of Dagster, and what it answers with has no public names.
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster_docker import DockerRunLauncher
from dagster_docker.docker_run_launcher import DOCKER_CONTAINER_ID_TAG

from cooperbench_assets.assets.keys import HOST_TAG
from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.sandboxes.docker.engine import TRIES, Engine
from cooperbench_assets.redaction import redact

if TYPE_CHECKING:
    import dagster as dg
    from dagster._core.launcher import LaunchRunContext

RUN_LABEL: Final = "dagster/run_id"
"""Label that dagster-docker puts on the container of a run."""

LAST_LINES: Final = 20
"""Lines of its output that are told of a container that did not come to start its run."""

_LOG: Final = logging.getLogger(__name__)


class ContainerRunLauncher(DockerRunLauncher):  # type: ignore[misc, unused-ignore]
    """A container a run, removed once its run has ended and a later one is launched.

    Dagster never removes them, and Docker's own removal would take the exit code along, by which a run that was killed
    is known: so they go only when the run's end stands in Dagster's storage.
    """

    def launch_run(self, context: LaunchRunContext) -> None:
        """Launch a run; what earlier runs left goes first."""
        try:
            with Engine.connect() as engine:
                remove_ended_runs(engine, self._instance)
        except InfrastructureError as error:  # The launch itself will say so, where it matters.
            _LOG.warning("containers of ended runs were left: %s", error.text)
        super().launch_run(context)

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether a run's container runs.

        A run of the command line has none, and works in the command's own process: to call it dead for that would end
        it in the middle. Automation reports it once nothing is heard of it (``automation.dead_runs``).
        """
        if DOCKER_CONTAINER_ID_TAG not in run.tags and HOST_TAG in run.tags:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "It was not launched in a container.")
        return super().check_run_worker_health(run)  # type: ignore[no-any-return, no-untyped-call, unused-ignore]

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """How the container of a run that did not start in time ended, and what it printed last."""
        container = run.tags.get(DOCKER_CONTAINER_ID_TAG)
        if container is None or not include_container_logs:
            return None
        try:
            with Engine.connect() as engine:
                state: dict[str, Any] = engine.call("inspect it", engine.api.inspect_container, container)["State"]
                said: Any = engine.call("read its output", engine.api.logs, container, tail=LAST_LINES)
        except InfrastructureError as error:
            return f"Nothing is known of its container {container[:12]}: {error.text}"
        ended = f"Its container {container[:12]} is {state['Status']} (exit code {state['ExitCode']}"
        memory = ", killed for want of memory" if state.get("OOMKilled") else ""
        return f"{ended}{memory}). Its last lines:\n{redact(said.decode(errors='replace'))}"


@dataclass(frozen=True, slots=True)
class RunContainer:
    """A container of a run on the engine."""

    id: str
    run_id: str
    is_running: bool


def run_containers(engine: Engine) -> list[RunContainer]:
    """Containers of Dagster's runs on the engine, whichever deployment's they are.

    Raises:
        InfrastructureError: family ``engine``, if it cannot be asked.
    """
    found = engine.call("list containers", engine.api.containers, all=True, filters={"label": RUN_LABEL}, tries=TRIES)
    return [
        RunContainer(one["Id"], one["Labels"][RUN_LABEL], one["State"] not in ("exited", "dead", "created"))
        for one in found
    ]


def remove_ended_runs(engine: Engine, instance: dg.DagsterInstance, *, dry_run: bool = False) -> list[str]:
    """Remove containers that have ended, of runs whose end this instance knows; returns the runs.

    Args:
        engine: Where they are.
        instance: Which knows its own runs; those of other deployments stay.
        dry_run: Only say which would be removed.

    Raises:
        InfrastructureError: family ``engine``, if it cannot be asked or does not remove one.
    """
    removed = []
    for one in run_containers(engine):
        run = None if one.is_running else instance.get_run_by_id(one.run_id)
        if run is not None and run.is_finished:
            removed.append(one.run_id)
            if not dry_run:
                _remove(engine, one)
    return removed


def _remove(engine: Engine, one: RunContainer) -> None:
    try:
        engine.call("remove the container of a run", engine.api.remove_container, one.id, v=True)
    except InfrastructureError as error:
        if error.family != "container_died":  # Somebody else has removed it meanwhile.
            raise
