"""What a deployment in containers has and lacks (``deploy/``), looked at from within: from the code server's container.

What belongs here: looks, none of which changes anything. What does not: what one machine has (``doctor``).
"""

from __future__ import annotations

import fcntl
import tempfile
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
from dagster_docker import DockerRunLauncher

from cooperbench_assets.container_runs import run_containers
from cooperbench_assets.doctor import Need, Probe
from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.execution.shared_folders import file_system_of_several_machines
from cooperbench_assets.local_runs import open_instance
from cooperbench_assets.project import ROOT_VARIABLE
from cooperbench_assets.wording import count

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cooperbench_assets.project import Project

STATE_VARIABLE: Final = "COOPERBENCH_ASSETS_STATE"
WHO: Final = ("deployment",)


def examine_deployment(project: Project, environment: Mapping[str, str]) -> Iterator[Probe]:
    """Every look at a deployment of a project.

    Args:
        project: The project.
        environment: Variables of this process, which are those of the daemon.
    """
    yield _root(project, environment)
    yield _locks(project)
    yield _state(project, environment)
    need = Need("Dagster instance", "everything", WHO)
    try:
        with open_instance(project) as instance:
            runs = instance.get_runs_count()
            yield need.there(f"{_storage(instance)}, {count(runs, 'run')}, of {project.instance}/dagster.yaml")
            yield _daemon(instance)
            yield from _launcher(instance, environment)
    except Exception as error:  # Whatever a database or its configuration says: it is what was looked for.
        yield need.missing(" ".join(str(error).split())[:300])


def _root(project: Project, environment: Mapping[str, str]) -> Probe:
    need = Need("project's path", "runs in containers: they would work on another project", WHO)
    if environment.get(ROOT_VARIABLE) != str(project.root):
        return need.missing(f"{ROOT_VARIABLE} does not name {project.root}; set it, the same in every container")
    return need.there(str(project.root))


def _locks(project: Project) -> Probe:
    need = Need("locks", "two runs of a cell from being kept apart", WHO)
    folder = project.data if project.data.is_dir() else project.root
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return need.missing(f"{folder}: {error.strerror}; use a file system with locks")
    if (kind := file_system_of_several_machines(folder)) is not None:
        return need.there(f"{folder} lies on {kind}: see that its locks hold between machines")
    return need.there(f"{folder} is this machine's own")


def _state(project: Project, environment: Mapping[str, str]) -> Probe:
    need = Need("slots", "counting agents and tests over all runs", WHO)
    folder = environment.get(STATE_VARIABLE, "")
    if not folder.startswith(f"{project.root}/"):
        return need.missing(f"{STATE_VARIABLE} names no folder of the project; each container would count its own")
    return need.there(folder)


def _storage(instance: dg.DagsterInstance) -> str:
    return type(instance.run_storage).__name__.removesuffix("RunStorage")


def _daemon(instance: dg.DagsterInstance) -> Probe:
    need = Need("daemon", "launching runs, sensors and schedules", WHO)
    statuses = instance.get_daemon_statuses()
    silent = sorted(name for name, status in statuses.items() if status.required and not status.healthy)
    if silent:
        return need.missing(f"nothing is heard of {', '.join(silent)}; see `docker compose logs daemon`")
    return need.there(f"{len(statuses)} parts are heard of")


def _launcher(instance: dg.DagsterInstance, environment: Mapping[str, str]) -> Iterator[Probe]:
    launcher: Any = instance.run_launcher
    need = Need("run launcher", "runs in containers", WHO)
    if not isinstance(launcher, DockerRunLauncher):
        yield need.missing(f"{type(launcher).__name__} starts runs as processes; see run_launcher in dagster.yaml")
        return
    yield need.there(type(launcher).__name__)
    unset = [name for name in launcher.env_vars or () if "=" not in name and name not in environment]
    named = Need("variables of runs", "every run: none starts while one is not set", WHO)
    yield named.missing(f"{', '.join(unset)}: put it into deploy/.env") if unset else named.there("all are set")
    try:
        with Engine.connect() as engine:
            yield _network(engine, launcher)
            found = run_containers(engine)
    except InfrastructureError as error:
        yield Need("engine", "runs in containers", WHO).missing(error.text)
        return
    running = sum(one.is_running for one in found)
    yield Probe("containers of runs", "ok", f"{running} running, {len(found) - running} ended and not yet removed")


def _network(engine: Engine, launcher: Any) -> Probe:
    need = Need("network of runs", "runs in containers: they would not reach Postgres", WHO)
    for name in launcher.networks:
        if not engine.call("look at networks", engine.api.networks, names=[name]):
            return need.missing(f"the engine has no network {name}; see COOPERBENCH_ASSETS_NETWORK")
    return need.there(", ".join(launcher.networks) or "the engine's usual one")
