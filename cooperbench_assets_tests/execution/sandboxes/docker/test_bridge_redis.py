"""The embedded Redis on Docker's bridge: reached from containers, and from nowhere that was not asked for."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cooperbench_assets.execution.api import run_agents
from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.runner.harness_servers import close_servers
from cooperbench_assets.execution.runner.message_server import ON_BRIDGE, answers, bridge_address, message_server
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets_tests.execution.cells import PAIRS, cell
from cooperbench_assets_tests.execution.sandboxes.docker.proxy import EngineDoor
from cooperbench_assets_tests.execution.toy import Toy
from cooperbench_assets_tests.services import missing

pytestmark = pytest.mark.engine


@pytest.fixture
def gateway(engine: Engine) -> str:
    return engine.gateway() or missing("docker bridge", "this machine has no address on it")


def test_agents_in_containers_are_told_of_a_redis_that_they_reach(
    gateway: str, toy: Toy, toy_image: str, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"mode": "coop", "setting": "coop-comm", "run_name": "toy-coop", "messaging": True}
    tries = {PAIRS[0]: [f"ping:{toy_image}"]}
    job = cell(toy, tmp_path, tries=tries, execution="docker", redis_url=ON_BRIDGE, **changes)
    assert run_agents(job, LaunchOptions(pairs=(PAIRS[0].name,))).done == 1
    close_servers()
    patches = [file.read_text().split() for file in job.pair_dir(PAIRS[0]).glob("agent*.patch")]
    # With the password of its launch a container is answered, and without it is not.
    assert patches == 2 * [[gateway, "+PONG", "-NOAUTH", "Authentication", "required."]]


def test_it_listens_on_the_bridge_and_nowhere_else(gateway: str) -> None:
    with message_server(ON_BRIDGE) as url:
        where = urlsplit(url)
        assert where.hostname == gateway
        assert answers(url), "agents that talk from this machine reach it too"
        assert where.port is not None
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", where.port), 5)
    assert not answers(url)
    with message_server(None) as url:
        assert urlsplit(url).hostname == "127.0.0.1"


def test_an_engine_without_a_bridge_here_is_one_clear_error(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    far = EngineDoor.at_port()
    monkeypatch.setenv("DOCKER_HOST", far.host)
    with pytest.raises(LaunchError, match=r"docker-bridge: this machine has no address .* name it in redis_url"):
        bridge_address()
    far.shut()
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with (
        pytest.raises(LaunchError, match="redis_url: docker-bridge: no Docker engine answers"),
        message_server(ON_BRIDGE),
    ):
        pass
