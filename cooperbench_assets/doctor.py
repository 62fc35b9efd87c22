"""What is there and what is missing on this machine and for each experiment, and what a missing thing prevents.

What belongs here: looking, each look bounded by a short timeout, and none that changes anything. What does not:
printing (``commands.doctor``), fixing, and the value of any secret. Only the standard library is imported before a
look needs more, so that the doctor can also examine a broken installation.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from cooperbench_assets.execution.runner.message_server import ON_BRIDGE
from cooperbench_assets.wording import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cooperbench_assets.project import Project
    from cooperbench_assets.spec import ExperimentSpec

PATIENCE_SECONDS: Final = 5.0
"""How long one look may take."""

OLDEST_PYTHON: Final = (3, 11)
NEWEST_PYTHON: Final = (3, 13)

LARGEST_IMAGE_GB: Final = 16.5
"""Size of the largest task image of lite; below that much free disk an image cannot be pulled."""

State = Literal["ok", "problem", "absent"]


@dataclass(frozen=True, slots=True)
class Probe:
    """What one look found."""

    subject: str
    state: State
    """ok; problem: a configured experiment needs it; absent: not there, and nobody configured needs it."""

    detail: str
    prevents: str | None = None
    """What cannot be done without it; None where it is there."""

    needed_by: tuple[str, ...] = ()
    """Experiments that need it."""


@dataclass(frozen=True, slots=True)
class Need:
    """A thing that some experiments need, and what its absence prevents."""

    subject: str
    prevents: str
    needed_by: tuple[str, ...]

    def there(self, detail: str) -> Probe:
        """It is there."""
        return Probe(self.subject, "ok", detail, None, self.needed_by)

    def missing(self, detail: str) -> Probe:
        """It is not there: a problem if an experiment needs it."""
        return Probe(self.subject, "problem" if self.needed_by else "absent", detail, self.prevents, self.needed_by)


@dataclass(frozen=True)
class Examination:
    """One project with its experiments, as it is examined."""

    project: Project
    experiments: Mapping[str, ExperimentSpec]
    environment: Mapping[str, str]

    def who(self, needs: Callable[[ExperimentSpec], bool]) -> tuple[str, ...]:
        """Names of the experiments that need something."""
        return tuple(name for name, spec in self.experiments.items() if needs(spec))

    def machine(self) -> Iterator[Probe]:
        """What the machine and the project offer to every experiment."""
        yield look_at_python()
        yield look_at_project(self.project)
        yield look_at_store(self.project.database)
        running = self.who(lambda spec: spec.execution != "none" and spec.harness is None)
        yield look_at_harness(Need("harness", "running agents and tests", running))
        yield look_at_git(Need("git", "execution: process", self.who(_in_processes)))
        yield look_at_bubblewrap()
        docker = Need("Docker engine", "execution: docker", self.who(lambda spec: spec.execution == "docker"))
        yield from look_at_docker(docker)
        talking = self.who(lambda spec: needs_redis(spec) and spec.redis_url in (None, ON_BRIDGE))
        yield look_at_embedded_redis(
            Need("Redis, embedded", "coop with messages, and team, where redis_url names none", talking)
        )

    def each_experiment(self) -> Iterator[Probe]:
        """What each experiment needs for itself."""
        for name, spec in self.experiments.items():
            yield self._subset(name, spec)
            if spec.execution == "none":
                yield self._logs(name, spec)
            if spec.harness is not None:
                need = Need(f"{name}: harness", "running its agents and tests", (name,))
                yield look_at_other_harness(need, self.project.resolve(spec.harness.python))
            if spec.redis_url not in (None, ON_BRIDGE) and needs_redis(spec):
                need = Need(f"{name}: Redis", "its cells whose agents talk", (name,))
                yield look_at_redis(need, spec.redis_url)
            if spec.execution in ("modal", "gcp"):
                yield look_at_remote(Need(f"{name}: {spec.execution}", "running it", (name,)), self.environment)
            yield from self._secrets(name, spec)

    def _subset(self, name: str, spec: ExperimentSpec) -> Probe:
        from cooperbench_assets.experiment_context import ExperimentContext, MissingInputError

        need = Need(f"{name}: subset and dataset", "everything of this experiment", (name,))
        experiment = ExperimentContext(name, spec, self.project)
        try:
            subset = experiment.subset_at_hand()
        except MissingInputError as error:
            told = str(error).removeprefix(f"{name}: ")
            if spec.dataset_module is not None and not experiment.dataset.is_dir():
                return Probe(need.subject, "absent", told, None, (name,))
            return need.missing(told)
        detail = f"{subset.name}: {count(len(subset.pairs), 'pair')} in {count(len(subset.tasks), 'task')}"
        absent = [task.folder for task in subset.tasks if not (experiment.dataset / task.folder).is_dir()]
        if absent and spec.execution != "none":
            lacking = f"{detail}; {len(absent)} of them not in {self.project.relative(experiment.dataset)}"
            need = Need(need.subject, "running agents and tests of this experiment", (name,))
            return need.missing(f"{lacking} ({', '.join(absent[:3])}, …); get it with `cooperbench prepare`")
        return need.there(detail)

    def _logs(self, name: str, spec: ExperimentSpec) -> Probe:
        need = Need(f"{name}: logs", "reading its cells", (name,))
        logs = self.project.resolve(spec.logs)
        runs = [cell.run_name for cell in spec.cells(name)]
        absent = [run for run in runs if not (logs / run).is_dir()]
        if not absent:
            return need.there(f"{count(len(runs), 'run')} in {self.project.relative(logs)}")
        return need.missing(f"not in {self.project.relative(logs)}: {', '.join(absent)}; correct logs: or run_name:")

    def _secrets(self, name: str, spec: ExperimentSpec) -> Iterator[Probe]:
        for variable in spec.secrets:
            need = Need(f"{name}: {variable}", "agents that call the model", (name,))
            if self.environment.get(variable):
                yield need.there("set")
            else:
                yield need.missing("not set; export it, or put it into .env in the project's root")


def examine(project: Project, experiments: Mapping[str, ExperimentSpec], environment: Mapping[str, str]) -> list[Probe]:
    """Every look, the machine first."""
    examination = Examination(project, experiments, environment)
    return [*examination.machine(), *examination.each_experiment()]


def needs_redis(spec: ExperimentSpec) -> bool:
    """Whether agents of some cell talk over Redis: messages, or a team's task list."""
    if spec.execution == "none":
        return False
    return any(
        setting.mode == "team" or (setting.mode == "coop" and setting.messaging) for setting in spec.settings.values()
    )


def _in_processes(spec: ExperimentSpec) -> bool:
    return spec.execution == "process"


def look_at_python() -> Probe:
    """The interpreter that runs this."""
    running = sys.version_info[:2]
    detail = f"{platform.python_version()} at {sys.executable}"
    if OLDEST_PYTHON <= running <= NEWEST_PYTHON:
        return Probe("Python", "ok", detail)
    return Probe("Python", "problem", f"{detail}; 3.11, 3.12 and 3.13 are supported", "everything")


def look_at_project(project: Project) -> Probe:
    """Whether run-time files can be written, and how much room there is."""
    folder = project.data if project.data.is_dir() else project.root
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        detail = f"{folder} cannot be written: {error.strerror}"
        return Probe("project", "problem", detail, "everything but status and query")
    return Probe("project", "ok", f"{project.root}, {_gigabytes(shutil.disk_usage(folder).free)} free")


def look_at_store(database: Path) -> Probe:
    """Whether the results store is there, and of this version."""
    from cooperbench_assets.store.errors import StoreError

    if not database.exists():
        return Probe("results store", "absent", "not made yet: materialise an experiment", "query")
    try:
        from cooperbench_assets.store.read import connect

        with connect(database) as connection:
            row = connection.execute("SELECT max(version) FROM schema_migrations").fetchone()
    except StoreError as error:
        return Probe("results store", "problem", str(error), "status and query")
    size = f"{database.stat().st_size / 1e6:.1f} MB"
    return Probe("results store", "ok", f"{database.name}, layout {row[0] if row else 0}, {size}")


def look_at_git(need: Need) -> Probe:
    """The git command."""
    said = _run("git", "--version")
    return need.missing("not on the PATH") if said is None else need.there(said.removeprefix("git version "))


def look_at_bubblewrap() -> Probe:
    """Whether bubblewrap can make a sandbox here: inside many containers it is there and cannot."""
    without = "isolation of execution: process, which then runs tests as plain subprocesses"
    need = Need("bubblewrap", without, ())
    if shutil.which("bwrap") is None:
        return need.missing("not on the PATH")
    sandbox = ("bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all", "true")
    if _run(*sandbox) is None:
        return need.missing("installed, but this kernel or container does not let it make a sandbox")
    return need.there(f"{(_run('bwrap', '--version') or '').removeprefix('bubblewrap ')}, a sandbox can be made")


def look_at_harness(need: Need) -> Probe:
    """The harness in our own environment; found by its metadata, because importing it takes seconds."""
    try:
        version = importlib.metadata.version("cooperbench")
    except importlib.metadata.PackageNotFoundError:
        return need.missing("cooperbench is not installed; `make .venv` installs it, or name one in harness:")
    return need.there(f"cooperbench {version}")


def look_at_other_harness(need: Need, python: Path) -> Probe:
    """The harness in another virtual environment."""
    if not python.is_file():
        return need.missing(f"no interpreter at {python}; correct harness.python")
    ask = "import importlib.metadata as m, platform as p; print(m.version('cooperbench'), p.python_version())"
    said = _run(str(python), "-c", ask)
    if said is None:
        return need.missing(f"{python} has no cooperbench, or does not run")
    version, _, running = said.partition(" ")
    return need.there(f"cooperbench {version} on Python {running} at {python}")


def look_at_docker(need: Need) -> Iterator[Probe]:
    """The engine that the environment names, and the disk that its images lie on."""
    info = _ask_engine()
    if isinstance(info, str):
        yield need.missing(f"not reachable: {info}")
        return
    yield need.there(f"{info.get('ServerVersion')}, {info.get('Images')} images")
    root = Path(str(info.get("DockerRootDir")))
    disk = Need("Docker disk", "pulling task images", need.needed_by)
    if not (info["on this machine"] and root.is_dir()):
        yield disk.there(f"{root} is not on this machine; its free space is not known")
    elif (free := shutil.disk_usage(root).free) < LARGEST_IMAGE_GB * 1e9:
        yield disk.missing(f"{_gigabytes(free)} free at {root}; the largest image of lite has {LARGEST_IMAGE_GB} GB")
    else:
        yield disk.there(f"{_gigabytes(free)} free at {root}")


def _ask_engine() -> dict[str, Any] | str:
    """What the Docker engine says of itself, or why it says nothing."""
    import docker
    from docker.errors import DockerException

    from cooperbench_assets.execution.infra_errors import InfrastructureError
    from cooperbench_assets.execution.sandboxes.docker.contexts import resolved

    try:
        environment = resolved(os.environ)
    except InfrastructureError as error:
        return error.text
    address = environment.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if address.startswith("unix://"):
        # Asked first by ourselves: the SDK leaks the socket that it cannot connect.
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(PATIENCE_SECONDS)
                probe.connect(address.removeprefix("unix://"))
        except OSError as error:
            return f"{address}: {error.strerror or error}"
    try:
        with contextlib.closing(docker.from_env(timeout=int(PATIENCE_SECONDS), environment=environment)) as client:
            return {**client.info(), "on this machine": address.startswith("unix://")}
    except (DockerException, OSError) as error:
        return f"{address}: {_last_cause(error)}"


def look_at_embedded_redis(need: Need) -> Probe:
    """The Redis that runs inside our own process."""
    if importlib.util.find_spec("fakeredis") is None:
        return need.missing("fakeredis is not installed; install the extra `harness`, or give redis_url:")
    return need.there(f"fakeredis {importlib.metadata.version('fakeredis')}")


def look_at_redis(need: Need, url: str) -> Probe:
    """A Redis server at a URL; a password in it is not repeated."""
    if importlib.util.find_spec("redis") is None:
        return need.missing("the redis package is not installed; install the extra `harness`")
    import redis

    try:
        parts = urlsplit(url)
        place = f"{parts.hostname}:{parts.port or 6379}"
        with redis.Redis.from_url(
            url, socket_connect_timeout=PATIENCE_SECONDS, socket_timeout=PATIENCE_SECONDS
        ) as server:
            server.ping()
    except ValueError:
        return need.missing("redis_url is no URL of a Redis server; write redis://host:6379")
    except (redis.RedisError, OSError) as error:
        return need.missing(f"{place} does not answer: {type(error).__name__}; start it, or correct redis_url:")
    return need.there(f"{place} answers")


def look_at_remote(need: Need, environment: Mapping[str, str]) -> Probe:
    """Whether there are credentials for a remote sandbox; they are not tried."""
    if need.subject.endswith("modal"):
        if environment.get("MODAL_TOKEN_ID") or Path("~/.modal.toml").expanduser().is_file():
            return need.there("a token is there (not tried)")
        return need.missing("no token: run `modal token new`, or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET")
    if environment.get("GOOGLE_APPLICATION_CREDENTIALS") or shutil.which("gcloud"):
        return need.there("credentials or gcloud are there (not tried)")
    return need.missing("no gcloud on the PATH and GOOGLE_APPLICATION_CREDENTIALS not set")


def _run(*command: str) -> str | None:
    """First line that a command prints; None where it is not there, fails, or takes too long."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next(iter(done.stdout.splitlines()), "") if done.returncode == 0 else None


def _last_cause(error: BaseException) -> str:
    """The innermost reason in one line: what wraps it only repeats it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.0f} GB"
