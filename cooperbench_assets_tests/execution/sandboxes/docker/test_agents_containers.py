"""Upstream's own containers of agents, watched: a command that fails in one that is gone ends the pair's agents."""

from __future__ import annotations

import contextlib
import importlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError

from cooperbench_assets.benchmark.failures import classify
from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.execution.worker import agent_containers
from cooperbench_assets.execution.worker.agent_containers import ContainerLimit, Containers
from cooperbench_assets_tests.execution.sandboxes.docker.proxy import EngineDoor
from cooperbench_assets_tests.execution.sandboxes.docker.upstreams_agents import meanwhile, wait_for

pytestmark = pytest.mark.engine


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Containers:
    """Upstream's containers, watched as long as the test lasts."""
    kind: Any = importlib.import_module(agent_containers.MODULE).DockerEnvironment
    for name in ("_start_container", "execute", "cleanup"):
        monkeypatch.setattr(kind, name, getattr(kind, name))
    made = Containers()
    made.watch()
    return made


@pytest.fixture
def start(watched: Containers, toy_image: str, engine: Engine) -> Iterator[Callable[..., Any]]:
    """Starts containers as upstream does, and removes them."""
    kind: Any = importlib.import_module(agent_containers.MODULE).DockerEnvironment
    made: list[Any] = []

    def begin(**changes: Any) -> Any:
        given = {"image": toy_image, "cwd": "/workspace/repo", "executable": shutil.which("docker")}
        made.append(kind(**{**given, **changes}))
        return made[-1]

    yield begin
    for environment in made:
        environment.watched_since = None
        with contextlib.suppress(APIError):  # It is going, or has gone.
            engine.api.remove_container(environment.container_id, force=True)
        environment.container_id = None


def _is_there(engine: Engine, environment: Any) -> bool:
    return bool(engine.api.containers(all=True, filters={"id": environment.container_id}))


def run(environment: Any, command: str) -> Any:
    return environment.execute({"command": command})


def test_a_command_that_fails_in_a_living_container_is_the_agent_s_own(
    watched: Containers, start: Callable[..., Any]
) -> None:
    environment = start()
    assert run(environment, "exit 137")["returncode"] == 137
    assert run(environment, "echo 'No such container'; false")["returncode"] == 1
    assert watched.lost is None


def test_a_container_that_is_gone_ends_every_agent_of_the_pair(
    watched: Containers, start: Callable[..., Any], engine: Engine
) -> None:
    first, second = start(), start()
    engine.api.kill(first.container_id)
    for environment in (first, second, second):
        with pytest.raises(InfrastructureError, match=r"^\[infra:container_died\] the container [0-9a-f]{12} of an"):
            run(environment, "true")
    assert watched.lost is not None


@pytest.mark.parametrize("late", [0, 2], ids=["known at once", "said to run twice more"])
def test_a_container_that_dies_under_a_command_is_noticed_with_it(
    start: Callable[..., Any], engine: Engine, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    environment, inspect = start(), agent_containers._inspect
    answers = iter([SimpleNamespace(returncode=0, stdout="true\n", stderr="")] * late)
    monkeypatch.setattr(agent_containers, "_inspect", lambda one: next(answers, None) or inspect(one))

    def kill() -> None:
        wait_for(lambda: "sleep 1234" in str(engine.api.top(environment.container_id, "-eww -o pid,args")))
        engine.api.kill(environment.container_id)

    with meanwhile(kill), pytest.raises(InfrastructureError, match=r"^\[infra:container_died\]"):
        run(environment, "sleep 1234")


# Upstream lets its last command go without waiting for it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_container_that_its_agent_gave_up_is_no_loss(
    watched: Containers, start: Callable[..., Any], engine: Engine
) -> None:
    first, second = start(), start()
    first.cleanup()
    engine.api.remove_container(first.container_id, force=True)
    assert run(first, "true")["returncode"] != 0
    assert run(second, "true")["returncode"] == 0
    assert watched.lost is None


def test_an_agent_whose_container_lived_as_long_as_upstream_lets_it_used_up_its_time(
    start: Callable[..., Any], engine: Engine
) -> None:
    environment = start(container_timeout="1s")
    wait_for(lambda: not _is_there(engine, environment))
    with pytest.raises(ContainerLimit) as raised:
        run(environment, "true")
    failure = classify(str(raised.value))
    assert failure is not None
    assert failure.kind == "agent_timeout"


def test_an_engine_that_is_away_for_good_is_named_and_one_that_comes_back_is_forgiven(
    watched: Containers, start: Callable[..., Any], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A short path: a socket's has no room for a test's long name.
    with TemporaryDirectory() as short:
        door = EngineDoor.at_path(Path(short) / "engine.sock")
        monkeypatch.setenv("DOCKER_HOST", door.host)
        environment = start()
        assert run(environment, "true")["returncode"] == 0
        door.shut()
        open_again = iter([lambda: None, door.open])

        def sleep(_seconds: float) -> None:
            next(open_again, lambda: None)()

        monkeypatch.setattr(agent_containers, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
        assert run(environment, "true")["returncode"] != 0
        assert watched.lost is None
        assert run(environment, "true")["returncode"] == 0
        door.shut()
        with pytest.raises(InfrastructureError, match=r"^\[infra:engine\] the engine does not answer"):
            run(environment, "true")


def test_a_result_that_hides_a_lost_container_is_taken_back(tmp_path: Path) -> None:
    watch, result = Containers(), tmp_path / "result.json"
    result.write_text(json.dumps({"agent": {"status": "Submitted", "error": None}}))
    watch.raise_if_untold(result)
    watch.lost = ContainerLimit("[agent_timeout] the agent's time was over")
    watch.raise_if_untold(result)
    watch.lost = InfrastructureError("container_died", 'the container "x" is gone')
    result.write_text(json.dumps({"agent": {"status": "Error", "error": str(watch.lost)}}))
    watch.raise_if_untold(result)
    assert result.exists()
    result.write_text(json.dumps({"agent": {"status": "Submitted", "error": None}}))
    with pytest.raises(InfrastructureError):
        watch.raise_if_untold(result)
    assert not result.exists()
    watch.raise_if_untold(result)
