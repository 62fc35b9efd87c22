"""The sandbox as a cell uses it: in a child of the harness server, from a request to eval.json."""

from __future__ import annotations

import json
import operator
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.execution.runner.harness_client import HarnessServer
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.execution.sandboxes.docker.ownership import PREFIX
from cooperbench_assets.execution.worker.protocol import ChildEnd, ChildRequest
from cooperbench_assets_tests.execution.toy import REPO, TASK, Toy

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HarnessServer]:
    environment = {"COOPERBENCH_ASSETS_AGENT": ""}  # None of upstream's own: they would import litellm.
    with HarnessServer(environment=environment, log=tmp_path_factory.mktemp("server") / "server.log") as server:
        yield server


class Evaluations:
    """Evaluations of solo patches on Docker, with labels of this test alone."""

    def __init__(self, engine: Engine, server: HarnessServer, toy: Toy, folder: Path, mark: str) -> None:
        self.mark = mark
        self.server = server
        self._engine = engine
        self._toy = toy
        self._folder = folder

    def request(self, patch: str, **sandbox: Any) -> ChildRequest:
        pair = self.pair_folder
        pair.mkdir(parents=True)
        (pair / "result.json").write_text("{}")
        (pair / "solo.patch").write_text(patch)
        return ChildRequest(
            key=self.mark,
            stage="eval",
            mode="solo",
            repo=REPO,
            task_id=TASK,
            features=(1, 2),
            run_name="run",
            staging=str(self._folder),
            dataset=str(self._toy.dataset),
            backend="docker",
            sandbox={"labels": {"pair": self.mark}, **sandbox},
        )

    @property
    def pair_folder(self) -> Path:
        return self._folder / "logs" / "run" / "solo" / REPO / str(TASK) / "f1_f2"

    def containers(self) -> list[dict[str, Any]]:
        return list(self._engine.api.containers(all=True, filters={"label": f"{PREFIX}.pair={self.mark}"}))

    def end(self, request: ChildRequest) -> ChildEnd:
        child = self.server.launch(request)
        while child.ended is None:
            self.server.wait(30)
        return child.ended

    def wait_for(self, *wanted: str) -> list[dict[str, Any]]:
        """The containers, as soon as each is in one of the states that are wanted for it ("created|running")."""
        end = time.monotonic() + 30
        while True:
            found = self.containers()
            states = [one["State"] for one in found]
            if len(states) == len(wanted) and all(map(operator.contains, wanted, states)):
                return found
            assert time.monotonic() < end, found
            time.sleep(0.02)


@pytest.fixture
def evaluations(
    engine: Engine, server: HarnessServer, toy: Toy, toy_image: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Evaluations:
    return Evaluations(engine, server, toy, tmp_path, request.node.name)


def test_a_child_evaluates_on_docker_and_says_so(evaluations: Evaluations, toy: Toy) -> None:
    end = evaluations.end(evaluations.request(toy.solo_gold(1, 2), memory_mb=256, test_timeout_seconds=60))
    assert (end.exit_code, end.error, end.isolation) == (0, None, "docker")
    content = json.loads((evaluations.pair_folder / "eval.json").read_text())
    assert (content["both_passed"], content["error"]) == (True, None)
    assert evaluations.containers() == []


def test_a_missing_image_ends_the_child_with_its_family(evaluations: Evaluations, toy: Toy, tmp_path: Path) -> None:
    elsewhere = tmp_path / "dataset" / "absent_task" / "task1"
    for feature in (1, 2):
        (elsewhere / f"feature{feature}").mkdir(parents=True)
        (elsewhere / f"feature{feature}" / "tests.patch").write_text("")
    request = evaluations.request(toy.gold(1))
    pair = Path(str(evaluations.pair_folder).replace(REPO, "absent_task"))
    pair.parent.mkdir(parents=True)
    evaluations.pair_folder.rename(pair)
    changed = {**json.loads(request.to_json()), "repo": "absent_task", "dataset": str(tmp_path / "dataset")}
    end = evaluations.end(ChildRequest.from_json(json.dumps(changed)))
    assert end.error is not None
    assert end.error.startswith("[infra:image_missing] could not create a container of akhatua/cooperbench-absent")
    assert not (pair / "eval.json").exists()


@pytest.mark.parametrize("grace_seconds", [0.0, 5.0])
def test_a_killed_child_takes_its_container_with_it(evaluations: Evaluations, toy: Toy, grace_seconds: float) -> None:
    child = evaluations.server.launch(evaluations.request(toy.at_import(1, "import time; time.sleep(60)")))
    (container,) = evaluations.wait_for("running")
    assert container["Labels"][f"{PREFIX}.owner"] == f"{child.pid}/{child.identity}"
    child.kill(grace_seconds)
    assert evaluations.wait_for() == []


def test_a_child_that_is_told_to_end_while_its_container_is_made_leaves_none(
    evaluations: Evaluations, toy: Toy
) -> None:
    child = evaluations.server.launch(evaluations.request(toy.gold(1)))
    evaluations.wait_for("created|running")
    child.kill(10)
    assert evaluations.wait_for() == []
