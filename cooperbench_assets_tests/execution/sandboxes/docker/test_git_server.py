"""The git server that upstream makes for agents who share code: whose it is, what it may use, and that it goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.runner.harness_client import HarnessServer
from cooperbench_assets.execution.sandboxes.docker import git_server
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.execution.sandboxes.docker.leftovers import Belonging, belongings, remove_leftovers
from cooperbench_assets.execution.sandboxes.docker.options import DockerOptions
from cooperbench_assets.execution.worker.protocol import ChildRequest
from cooperbench_assets_tests.execution.sandboxes.docker.images import git_server_image
from cooperbench_assets_tests.execution.toy import REPO, TASK, Toy
from cooperbench_assets_tests.projects import CHECKOUT


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def server(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HarnessServer]:
    environment = {
        "PYTHONPATH": str(CHECKOUT),
        "COOPERBENCH_EXTERNAL_AGENTS": "cooperbench_assets_tests.execution.sandboxes.docker.git_agents",
        "COOPERBENCH_ASSETS_AGENT": "sharing",
        "GIT_IMAGE": git_server_image(engine),
    }
    with HarnessServer(environment=environment, log=tmp_path_factory.mktemp("server") / "server.log") as server:
        yield server


@pytest.mark.engine
@pytest.mark.parametrize("killed", [False, True])
def test_agents_git_server_is_labelled_and_limited_and_goes_with_its_child(
    killed: bool,
    server: HarnessServer,
    engine: Engine,
    toy: Toy,
    toy_image: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    mark = request.node.name
    asked = ChildRequest(
        key=mark,
        stage="agent",
        mode="coop",
        repo=REPO,
        task_id=TASK,
        features=(1, 2),
        run_name="run",
        staging=str(tmp_path),
        dataset=str(toy.dataset),
        backend="docker",
        agent="sharing",
        model_name="scripted/sharing",
        git=True,
        sandbox={"labels": {"pair": mark}, "memory_mb": 200, "cpus": 1, "pids": 100},
    )

    def mine() -> list[Belonging]:
        return [one for one in belongings(engine) if one.described.get("pair") == mark]

    child = server.launch(asked)
    pushed = [tmp_path / f"agent{n}.pushed" for n in (1, 2)]
    until(lambda: child.poll() is not None or all(file.exists() for file in pushed))
    assert child.poll() is None, child.ended
    found = mine()
    # Both agents' containers have ended; the server, its network and its volume are there.
    assert sorted(one.kind for one in found) == ["container", "network", "volume"]
    assert {one.owner_state for one in found} == {"alive"}
    assert {(one.described["purpose"], one.name) for one in found} == {("agent", found[0].name)}
    assert found[0].name.startswith("cooperbench-assets-git-")
    limits = engine.api.inspect_container(found[0].id)["HostConfig"]
    assert (limits["Memory"], limits["NanoCpus"], limits["PidsLimit"]) == (200 * 2**20, 10**9, 100)
    assert limits["Init"] is True
    assert not [one for one in remove_leftovers(engine).removed if one.described.get("pair") == mark]
    until(lambda: all(f"refs/heads/{file.stem}" in file.read_text() for file in pushed))
    if killed:
        child.kill(0)
    (tmp_path / "go").touch()
    until(lambda: child.poll() is not None)
    assert child.ended is not None
    assert (child.ended.exit_code, child.ended.error) == ((None, None) if killed else (0, None))
    # What is swept beside this test may be swept by another one.
    remove_leftovers(engine)
    until(lambda: mine() == [])


def test_a_harness_that_makes_its_server_elsewhere_is_refused_and_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_server, "MODULE", "cooperbench_assets_tests.execution.sandboxes.docker.images")
    with pytest.raises(InfrastructureError, match=r"_CONTAINER_NAME\); take git: out of the setting") as error:
        git_server.own_git_server(DockerOptions())
    assert error.value.family == "configuration"
