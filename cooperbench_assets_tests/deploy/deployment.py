"""A deployment of a project in containers, as docs/deploy.md has people start it, for as long as a test needs it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import yaml

from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.spec import load_experiments
from cooperbench_assets.store.read import query
from cooperbench_assets_tests.deploy.images import build, compose_program, postgres_image, python_image, redis_image
from cooperbench_assets_tests.projects import CHECKOUT, environment, make_project
from cooperbench_assets_tests.ui import EVERY_SECOND, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cooperbench_assets.execution.sandboxes.docker.engine import Engine
    from cooperbench_assets.project import Project

BUILT_IN: Final = yaml.safe_load((CHECKOUT / "cooperbench_assets/defs/demo/defs.yaml").read_text())["attributes"]
"""The experiment demo, as it is shipped."""

OF_A_RUN: Final = ("started_at", "ended_at", "duration_seconds", "evaluated_at", "run_id")
"""What differs between two runs of the same pairs."""

UP_SECONDS: Final = 240.0
PATIENCE: Final = 600
"""Seconds that a wait may take on a machine with much else to do."""

ENDED: Final = ("SUCCESS", "FAILURE", "CANCELED")
CELL_ASSETS: Final = ("run_logs", "eval_outputs", "pair_results")
LABEL: Final = "cooperbench-assets.deployment"
RUN_LABEL: Final = "dagster/run_id"
"""As dagster-docker labels the container of a run."""
CODE: Final = {"repositoryName": "__repository__", "repositoryLocationName": "cooperbench_assets"}

BACKFILL: Final = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  }
}"""
LAUNCH: Final = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}"""
RUNS: Final = """
query Runs {
  runsOrError { ... on Runs { results { runId status jobName assetSelection { path } tags { key value } } } }
}"""
TERMINATE: Final = """
mutation End($id: String!) { terminateRun(runId: $id) { __typename } }"""
START_SENSOR: Final = """
mutation Start($selector: SensorSelector!) { startSensor(sensorSelector: $selector) { __typename } }"""
START_SCHEDULE: Final = """
mutation Start($selector: ScheduleSelector!) { startSchedule(scheduleSelector: $selector) { __typename } }"""
EVENTS: Final = """
query Logs($id: ID!) {
  logsForRun(runId: $id) {
    ... on EventConnection {
      events {
        ... on MessageEvent { message }
        ... on ErrorEvent { error { message errorChain { error { message } } } }
      }
    }
  }
}"""


@dataclass(frozen=True)
class Run:
    """A run as the UI shows it."""

    id: str
    status: str
    experiment: str
    partition: str | None
    tags: Mapping[str, str]


@dataclass
class Deployment:
    """A deployment whose image is built."""

    name: str
    project: Project
    engine: Engine
    ui: str

    def up(self) -> None:
        """Start every service, and wait until all that have a health check are healthy."""
        self.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", f"{UP_SECONDS:.0f}")

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Call Docker Compose in the deployment's folder; what it printed."""
        done = subprocess.run(
            [*compose_program(), *arguments],
            cwd=self.project.root / "deploy",
            env={name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_HOST") if name in os.environ},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, f"compose {arguments}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Call cooperbench-assets in the container of the code server."""
        return subprocess.run(
            [*compose_program(), "exec", "-T", "code", "cooperbench-assets", *arguments],
            cwd=self.project.root / "deploy",
            capture_output=True,
            text=True,
            check=False,
        )

    def script(self, name: str, *arguments: str) -> str:
        """Call one of the deployment's scripts; what it printed."""
        paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [self.project.root / "deploy" / name, *arguments],
            env={**os.environ, "PATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{name}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def upgrade(self) -> str:
        """Name an image of the next version, have every service use it, and return its name."""
        file = self.project.root / "deploy" / ".env"
        image = f"{self.name}:two"
        self.engine.api.tag(f"{self.name}:one", self.name, tag="two")
        file.write_text(file.read_text().replace(f"IMAGE={self.name}:one", f"IMAGE={image}"))
        self.compose("up", "--detach", "--no-build", "--wait")
        return image

    def ask(self, query: str, **variables: Any) -> Any:
        """What the UI's GraphQL says; it is asked again where the web server is gone for a moment."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"{self.ui}/graphql", body, {"Content-Type": "application/json", "Accept": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            said = json.load(answer)
        assert "errors" not in said, said
        (content,) = said["data"].values()
        return content

    def backfill(self, experiment: str, partitions: Sequence[str], assets: Sequence[str] = CELL_ASSETS) -> str:
        """Launch a backfill from the page of the assets; its id."""
        params = {
            "partitionNames": list(partitions),
            "assetSelection": [{"path": [experiment, asset]} for asset in assets],
        }
        said = self.ask(BACKFILL, params=params)
        assert said["__typename"] == "LaunchBackfillSuccess", said
        return str(said["backfillId"])

    def launch(self, job: str, partition: str) -> str:
        """Launch a job for one partition; the id of its run."""
        return self._launch({"pipelineName": job}, [{"key": "dagster/partition", "value": partition}])

    def materialize(self, experiment: str, asset: str) -> str:
        """Launch a run of an asset without partitions from its page; the run's id."""
        return self._launch({"pipelineName": "__ASSET_JOB", "assetSelection": [{"path": [experiment, asset]}]}, [])

    def _launch(self, selector: Mapping[str, Any], tags: Sequence[Mapping[str, str]]) -> str:
        params = {"selector": {**CODE, **selector}, "runConfigData": {}, "executionMetadata": {"tags": tags}}
        said = self.ask(LAUNCH, params=params)
        assert said["__typename"] == "LaunchRunSuccess", said
        return str(said["run"]["runId"])

    def runs(self, experiment: str | None = None) -> list[Run]:
        """All runs, the newest first; those of an experiment if one is given."""
        found = []
        for one in self.ask(RUNS)["results"]:
            tags = {tag["key"]: tag["value"] for tag in one["tags"]}
            assets = one["assetSelection"]
            of = assets[0]["path"][0] if assets else one["jobName"].removesuffix("_run_cell")
            found.append(Run(one["runId"], one["status"], of, tags.get("dagster/partition"), tags))
        return [run for run in found if experiment in (None, run.experiment)]

    def until(self, what: str, condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """Wait for something; what it is then.

        Raises:
            TimeoutError: if it does not come; with what the daemon and the code server said last.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(urllib.error.URLError, ConnectionError, AssertionError):
                if found := condition():
                    return found
            time.sleep(0.5)
        said = self.compose("logs", "--tail", "40", "daemon", "code", check=False)
        raise TimeoutError(f"{what} did not come within {seconds:.0f} s\n{said}")

    def reached(self, run: str, *states: str, seconds: float = PATIENCE) -> Run:
        """A run, once it is in one of these states."""

        def there() -> Run | None:
            return next((one for one in self.runs() if one.id == run and one.status in states), None)

        return self.until(f"run {run} in {states}", there, seconds)  # type: ignore[no-any-return]

    def experiment(self, name: str) -> ExperimentContext:
        """An experiment as its assets see it."""
        return experiment_of(self.project, name)

    def is_judged(self, name: str) -> bool:
        """Whether every pair of an experiment has its verdict, as its files say."""
        experiment = self.experiment(name)
        found = pl.concat([experiment.view(cell).pairs.select("outcome") for cell in experiment.cells])
        return set(found["outcome"]) <= {"pass", "fail"}

    def run_container(self, run: str) -> str | None:
        """The id of the container of a run, where there is one on the engine."""
        found = self.engine.api.containers(all=True, filters={"label": f"{RUN_LABEL}={run}"})
        return str(found[0]["Id"]) if found else None

    def said(self, run: str) -> str:
        """The messages of a run's events, and of their errors."""
        return json.dumps(self.ask(EVENTS, id=run)["events"])

    def start_sensor(self, name: str) -> None:
        """Turn on a sensor, as its switch in the UI does."""
        assert self.ask(START_SENSOR, selector={**CODE, "sensorName": name})["__typename"] == "Sensor"

    def start_schedule(self, name: str) -> None:
        """Turn on a schedule, as its switch in the UI does."""
        said = self.ask(START_SCHEDULE, selector={**CODE, "scheduleName": name})
        assert said["__typename"] == "ScheduleStateResult", said

    def left(self) -> list[str]:
        """Names of containers, volumes, networks and images of this deployment that are on the engine."""
        own = {"label": f"com.docker.compose.project={self.name}"}
        containers = self.engine.api.containers(all=True, filters={"label": f"{LABEL}={self.name}"})
        containers += self.engine.api.containers(all=True, filters=own)
        networks = self.engine.api.networks(filters=own)
        volumes = self.engine.api.volumes(filters=own)["Volumes"] or []
        images = [name for one in self.engine.api.images(name=self.name) for name in one["RepoTags"] or ()]
        return [one["Names"][0] for one in containers] + [one["Name"] for one in (*networks, *volumes)] + images


@contextlib.contextmanager
def deployed(engine: Engine, root: Path, experiments: Mapping[str, Mapping[str, Any]]) -> Iterator[Deployment]:
    """A deployment that is up, and whose daemon looks around often: a test waits for nothing but work."""
    with prepared(engine, root, experiments) as made:
        _look_often(made)
        made.up()
        yield made


@contextlib.contextmanager
def prepared(engine: Engine, root: Path, experiments: Mapping[str, Mapping[str, Any]]) -> Iterator[Deployment]:
    """A deployment on free ports, with its image built, as it is shipped; all of it is taken down in the end."""
    name = f"cbtest{secrets.token_hex(4)}"
    project = make_project(root, experiments)
    for folder in ("requirements.lock", "harness.lock"):
        shutil.copy(CHECKOUT / folder, project.root)
    shutil.copy(CHECKOUT / ".dockerignore", project.root)
    shutil.copytree(CHECKOUT / "deploy", project.root / "deploy", ignore=shutil.ignore_patterns(".env"))
    image = f"{name}:one"
    port = free_port()
    values = {
        "COMPOSE_PROJECT_NAME": name,
        "PROJECT": str(project.root),
        "POSTGRES_PASSWORD": secrets.token_hex(8),
        "REDIS_PASSWORD": secrets.token_hex(8),
        "UI_PORT": port,
        "VIEWER_PORT": free_port(),
        "IMAGE": image,
        "POSTGRES_IMAGE": postgres_image(engine),
        "REDIS_IMAGE": redis_image(engine),
    }
    (project.root / "deploy" / ".env").write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    state = project.data / "state"
    state.mkdir(parents=True)
    # Every pair of a cell at once, however small this machine is: most of an agent's time here is waiting.
    (state / "slots.toml").write_text("agents = 8\nevaluations = 4\n")
    made = Deployment(name, project, engine, f"http://127.0.0.1:{port}")
    try:
        build(engine, project.root, image, python_image(engine))
        yield made
    finally:
        _take_down(made)


def _look_often(made: Deployment) -> None:
    """Shorten what the daemon waits for between two looks at runs, the queue and backfills."""
    folder = made.project.root / "deploy"
    instance = yaml.safe_load((folder / "dagster.yaml").read_text())
    often = {"poll_interval_seconds": 2, "free_slots_after_run_end_seconds": 2}
    instance["run_monitoring"] |= {**often, "start_timeout_seconds": PATIENCE, "cancel_timeout_seconds": PATIENCE}
    instance["run_queue"] = {"dequeue_interval_seconds": 1}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(instance, sort_keys=False))
    shutil.copytree(EVERY_SECOND, folder / EVERY_SECOND.name, ignore=shutil.ignore_patterns("__pycache__"))
    daemon = {
        "command": ["python", "-m", "dagster._daemon", "run", "-w", f"{folder}/workspace.yaml"],
        "environment": {"PYTHONPATH": f"{folder}/{EVERY_SECOND.name}:/opt/cooperbench-assets"},
    }
    # Compose reads this file beside the other one by itself, also for the scripts of the deployment.
    (folder / "compose.override.yaml").write_text(yaml.safe_dump({"services": {"daemon": daemon}}))


def _take_down(made: Deployment) -> None:
    made.compose("down", "--volumes", "--timeout", "5", check=False)
    for one in made.engine.api.containers(all=True, filters={"label": f"{LABEL}={made.name}"}):
        made.engine.api.remove_container(one["Id"], force=True, v=True)
    made.compose("down", "--volumes", "--timeout", "5", check=False)
    for one in made.engine.api.images(name=made.name):
        made.engine.api.remove_image(one["Id"], force=True)


@contextlib.contextmanager
def in_one_process(project: Project, *arguments: str) -> Iterator[Callable[[], None]]:
    """Begin a command of cooperbench-assets in a project without containers; gives what waits for its good end."""
    folder = project.root / "state"
    with (project.root / "command.log").open("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cooperbench_assets.cli", *arguments],
            cwd=project.root,
            env=environment(project, COOPERBENCH_ASSETS_STATE=str(folder)),
            stdout=output,
            stderr=subprocess.STDOUT,
        )

        def wait() -> None:
            code = process.wait()
            output.seek(0)
            assert code == 0, f"exit code {code}: {output.read()[-3000:]}"

        try:
            yield wait
        finally:
            process.terminate()
            process.wait()


def experiment_of(project: Project, name: str) -> ExperimentContext:
    """An experiment of a project as its assets see it."""
    return ExperimentContext(name, load_experiments(project.defs)[name], project)


def pairs(project: Project, name: str, seed: int) -> pl.DataFrame:
    """The pairs of a solo cell, as its files say."""
    experiment = experiment_of(project, name)
    return experiment.view(experiment.spec.cell(name, "solo", seed)).pairs


def rows(project: Project, experiment: str) -> list[tuple[Any, ...]]:
    """The pairs of an experiment as its store has them, but for what differs between two runs of the same pairs."""
    columns = f"* EXCLUDE ({', '.join(OF_A_RUN)})"
    sql = f"SELECT {columns} FROM pairs WHERE experiment = '{experiment}' ORDER BY setting, seed, repo, task_id, pair"
    return query(project.database, sql).rows()
