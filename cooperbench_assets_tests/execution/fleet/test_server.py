"""The driver without a cluster: a launch whose answer is lost may have begun, and is not begun anywhere else."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cooperbench_assets.execution.attempts.leases import FILE
from cooperbench_assets.execution.fleet import server
from cooperbench_assets.execution.fleet.messages import FleetConfig, NodeFacts
from cooperbench_assets.execution.worker import wire


class RayError(Exception):
    """Ray's own, where there is no Ray."""


RAY = SimpleNamespace(exceptions=SimpleNamespace(RayError=RayError))


async def no_answer() -> None:
    await asyncio.sleep(600)


async def broken() -> None:
    raise RayError


@pytest.mark.parametrize("answer", [no_answer, broken])
def test_a_child_whose_start_was_not_answered_counts_as_running_until_the_lease_of_its_node_is_over(
    answer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.1)
    config = FleetConfig("auto", 60.0, str(tmp_path), str(tmp_path), (), "process")
    staging = tmp_path / ".staging" / "pair"
    staging.mkdir(parents=True)
    actor = SimpleNamespace(launch=SimpleNamespace(remote=lambda *_: answer()))
    ours, theirs = socket.socketpair()

    async def run() -> None:
        driver = server.Driver(theirs, config, RAY)
        facts = NodeFacts({}, {}, 0.0, {})
        member = server.Member("n", "node", actor, facts, 0.0, time.monotonic() + 1)
        driver._members["n"] = member
        await driver._launch({"key": "pair agent-1", "staging": str(staging)}, None)
        assert member.lost is not None
        assert driver._place(None) is None, "nothing more is started there"
        assert json.loads((staging.parent / FILE).read_bytes())["until"] > time.time() + 60
        await driver._attend(member)
        assert time.monotonic() >= member.lease_ends

    with ours, theirs:
        asyncio.run(run())
        said = list(wire.Inbox().feed(ours.recv(2**16)))
    assert [message["type"] for message in said] == ["launched", "end"]
    assert "[infra:node_lost]" in said[1]["end"]["error"]
