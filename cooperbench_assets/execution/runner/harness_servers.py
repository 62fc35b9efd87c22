"""A process's harness servers: one for each thread, shared by the stages and cells that it runs one after another.

What belongs here: making, keeping and closing it. What does not: what it does (``harness_client``, ``worker.server``).
Importing the harness takes seconds, a child of it milliseconds.
"""

from __future__ import annotations

import atexit
import shutil
import threading
from typing import TYPE_CHECKING, Any, Final

from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.job import GOLD
from cooperbench_assets.execution.runner.harness_client import HarnessError, HarnessServer
from cooperbench_assets.execution.runner.slots import state_folder
from cooperbench_assets.execution.secret_values import open_environment
from cooperbench_assets.execution.worker.protocol import EXTERNAL_AGENTS, WANTED_AGENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cooperbench_assets.execution.job import CellJob
    from cooperbench_assets.execution.worker.protocol import HarnessInfo

MODEL_CALLS: Final = {
    # Ten calls of three requests each, and 273 s, are what a dead endpoint costs otherwise.
    "MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT": "5",
    # Seconds; litellm's own is 6000: an endpoint that hangs would be waited for until the pair's deadline.
    "REQUEST_TIMEOUT": "600",
}
"""Retries and time limit of model calls, unless the experiment's environment or agent config says otherwise."""

_Key = tuple["Path | None", tuple[tuple[str, str], ...], str]


class HarnessServers:
    """Harness servers that outlive a launch. A server is for one loop at a time, so each thread has its own."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[_Key, HarnessServer]] = {}
        self.answered: dict[tuple[str, ...], float] = {}
        """When a model last answered their children, by whatever the answer depends on; see `preflight`."""

    def server(self, job: CellJob) -> HarnessServer:
        """A server for a cell's harness and variables, importing or ready. It has no secrets: its children are told.

        Raises:
            LaunchError: if the interpreter is not there.
        """
        environment = harness_environment(
            open_environment(job), job.external_agents, wanted_agent(job), job.execution, job.sandbox, job.state
        )
        key = (job.harness_python, tuple(sorted(environment.items())), _fleet_key(job))
        thread = threading.get_ident()
        self._close_left_behind()
        kept, server = self._kept.get(thread, (None, None))
        if server is None or kept != key:
            if server is not None:
                server.close()
            server = _new_server(job, environment)
            self._kept[thread] = (key, server)
        try:
            server.start()
        except HarnessError as error:
            raise LaunchError(f"{job.label}: {error}") from error
        return server

    def close(self) -> None:
        """Close them all, with their children."""
        while self._kept:
            _, (_, server) = self._kept.popitem()
            server.close()

    def _close_left_behind(self) -> None:
        """Close the servers of threads that have ended: nobody would use them again, and each holds the harness."""
        living = {thread.ident for thread in threading.enumerate()}
        for thread in [one for one in self._kept.copy() if one not in living]:
            if (left := self._kept.pop(thread, None)) is not None:
                left[1].close()


OF_THIS_PROCESS: Final = HarnessServers()
"""Those that launches use unless told otherwise: Dagster calls our assets, and has no place for what outlives a run."""

close_servers: Final = OF_THIS_PROCESS.close
atexit.register(close_servers)


def imported(job: CellJob, server: HarnessServer, *, agents: bool = True) -> HarnessInfo:
    """What the server has imported; waits for it.

    Args:
        job: The cell.
        server: Its server.
        agents: Whether agents are to be run, so that the harness must know the cell's.

    Raises:
        LaunchError: if the harness cannot be used, or does not know the cell's agent.
    """
    try:
        info = server.ready()
    except HarnessError as error:
        server.close()
        raise LaunchError(f"{job.label}: {error}") from error
    if agents and job.agent not in info.agents:
        raise LaunchError(
            f"{job.label}: the harness knows no agent {job.agent!r}; it knows {', '.join(info.agents)}: "
            "correct agent:, or name the module that registers it in external_agents:"
        )
    return info


def _new_server(job: CellJob, environment: Mapping[str, str]) -> HarnessServer:
    state = job.state or state_folder()
    if job.fleet is None:
        return HarnessServer(python=job.harness_python, environment=environment, log=state / "harness.log")
    from cooperbench_assets.execution.fleet.client import FleetDriver, fleet_config

    return FleetDriver(fleet_config(job, open_environment(job)), state / "fleet.log")


def _fleet_key(job: CellJob) -> str:
    """What a driver of a cluster depends on beside the environment; empty for this machine's own server."""
    if job.fleet is None:
        return ""
    from cooperbench_assets.execution.fleet.client import fleet_config

    return fleet_config(job, {}).to_json()


def harness_environment(
    environment: Mapping[str, str],
    external_agents: Sequence[str],
    agent: str,
    execution: str,
    sandbox: Mapping[str, Any],
    state: Path | None = None,
) -> dict[str, str]:
    """The variables that a harness server is given for an experiment.

    Args:
        environment: What the experiment sets, without secrets.
        external_agents: Modules that register agents.
        agent: What `wanted_agent` says.
        execution: Where pairs run.
        sandbox: Limits of containers.
        state: The machine's state folder; the user's own if not given.
    """
    wrapper = _wrapper(execution, sandbox, state or state_folder())
    variables = {**MODEL_CALLS, **wrapper, **environment, WANTED_AGENT: agent}
    if external_agents:
        variables[EXTERNAL_AGENTS] = ",".join(external_agents)
    return variables


def wanted_agent(job: CellJob) -> str:
    """The agent for which the harness is imported; empty where none is to be run."""
    return "" if job.agent == GOLD else job.agent


def _wrapper(execution: str, sandbox: Mapping[str, Any], state: Path) -> dict[str, str]:
    """Variables under which agents' containers get labels and limits; none where no agent can have a container.

    Without the command docker evaluations still work, and preflight tells of agents that need it.
    """
    if execution != "docker":
        return {}
    from cooperbench_assets.execution.sandboxes.docker.agent_cli import wrapper_environment
    from cooperbench_assets.execution.sandboxes.docker.options import DockerOptions

    if shutil.which("docker") is None:
        return {}
    # Labels differ from child to child, and the server is the same for all of them.
    options = DockerOptions.read({name: value for name, value in sandbox.items() if name != "environment"})
    return wrapper_environment(state / "docker", options)
