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

from cooperbench_assets_tests.deploy.images import build, compose_program, postgres_image, python_image, redis_image
from cooperbench_assets_tests.projects import CHECKOUT, make_project
from cooperbench_assets_tests.ui import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cooperbench_assets.execution.sandboxes.docker.engine import Engine
    from cooperbench_assets.project import Project

UP_SECONDS: Final = 240.0
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
query Runs { runsOrError { ... on Runs { results { runId status tags { key value } } } } }"""
TERMINATE: Final = """
mutation End($id: String!) { terminateRun(runId: $id) { __typename } }"""
START_SENSOR: Final = """
mutation Start($selector: SensorSelector!) { startSensor(sensorSelector: $selector) { __typename } }"""
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
    partition: str | None
    tags: Mapping[str, str]


@dataclass
class Deployment:
    """A deployment that is up."""

    name: str
    project: Project
    engine: Engine
    ui: str

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
        params = {
            "selector": {**CODE, "pipelineName": job},
            "runConfigData": {},
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": partition}]},
        }
        said = self.ask(LAUNCH, params=params)
        assert said["__typename"] == "LaunchRunSuccess", said
        return str(said["run"]["runId"])

    def runs(self, partition: str | None = None) -> list[Run]:
        """All runs, the newest first; those of a partition if one is given."""
        found = []
        for one in self.ask(RUNS)["results"]:
            tags = {tag["key"]: tag["value"] for tag in one["tags"]}
            found.append(Run(one["runId"], one["status"], tags.get("dagster/partition"), tags))
        return [run for run in found if partition is None or run.partition == partition]

    def until(self, what: str, condition: Callable[[], Any], seconds: float = 300.0) -> Any:
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

    def left(self) -> list[str]:
        """Names of containers, volumes and networks of this deployment that are on the engine."""
        own = {"label": f"com.docker.compose.project={self.name}"}
        containers = self.engine.api.containers(all=True, filters={"label": f"{LABEL}={self.name}"})
        containers += self.engine.api.containers(all=True, filters=own)
        networks = self.engine.api.networks(filters=own)
        volumes = self.engine.api.volumes(filters=own)["Volumes"] or []
        return [one["Names"][0] for one in containers] + [one["Name"] for one in (*networks, *volumes)]


@contextlib.contextmanager
def deployed(engine: Engine, root: Path, experiments: Mapping[str, Mapping[str, Any]]) -> Iterator[Deployment]:
    """Build the image, start everything on free ports, and take it all down."""
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
    build(engine, project.root, image, python_image(engine))
    state = project.data / "state"
    state.mkdir(parents=True)
    # Every pair of a cell at once, however small this machine is: most of an agent's time here is waiting.
    (state / "slots.toml").write_text("agents = 8\nevaluations = 4\n")
    made = Deployment(name, project, engine, f"http://127.0.0.1:{port}")
    try:
        made.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", f"{UP_SECONDS:.0f}")
        yield made
    finally:
        _take_down(made)


def _take_down(made: Deployment) -> None:
    made.compose("down", "--volumes", "--timeout", "5", check=False)
    for one in made.engine.api.containers(all=True, filters={"label": f"{LABEL}={made.name}"}):
        made.engine.api.remove_container(one["Id"], force=True, v=True)
    made.compose("down", "--volumes", "--timeout", "5", check=False)
    for one in made.engine.api.images(name=made.name):
        made.engine.api.remove_image(one["Id"], force=True)
