"""Children without a cluster: a launch whose answer is lost may have begun, and is not begun anywhere else."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cooperbench_assets.execution.attempts.leases import FILE
from cooperbench_assets.execution.fleet import children
from cooperbench_assets.execution.fleet.archive import pack
from cooperbench_assets.execution.fleet.children import Children
from cooperbench_assets.execution.fleet.cluster import Cluster, Member
from cooperbench_assets.execution.fleet.messages import FleetConfig, Heard, NodeFacts
from cooperbench_assets.execution.worker import wire
from cooperbench_assets.execution.worker.protocol import ChildEnd


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
    monkeypatch.setattr(children, "HEAD_SECONDS", 0.1)
    config = FleetConfig("auto", 60.0, str(tmp_path), str(tmp_path), (), "process")
    staging = tmp_path / ".staging" / "pair"
    staging.mkdir(parents=True)
    actor = SimpleNamespace(launch=SimpleNamespace(remote=lambda *_: answer()))
    said: list[wire.Message] = []

    async def run() -> None:
        cluster = Cluster(config, RAY, said.append, lambda work: None)
        ours = Children(config, RAY, said.append, cluster.members)
        cluster.members["n"] = member = Member("n", "node", actor, NodeFacts({}, {}, 0.0, {}), 0, time.monotonic() + 1)
        await ours.launch({"key": "pair agent-1", "staging": str(staging)}, cluster.place(None))
        assert member.lost is not None
        assert cluster.place(None) is None, "nothing more is started there"
        assert json.loads((staging.parent / FILE).read_bytes())["until"] > time.time() + 60
        await ours.attend(member)
        assert time.monotonic() >= member.lease_ends

    asyncio.run(run())
    assert [message["type"] for message in said] == ["launched", "end"]
    assert "[infra:node_lost]" in said[1]["end"]["error"]


def test_an_end_that_is_heard_of_before_the_start_is_told_after_it(tmp_path: Path) -> None:
    """A trivial child may have ended before the answer to its start has arrived; a launch waits for its pid first."""
    config = FleetConfig("auto", 60.0, str(tmp_path), str(tmp_path), (), "process")
    staging = tmp_path / ".staging" / "pair"
    staging.mkdir(parents=True)
    said: list[wire.Message] = []

    async def run() -> None:
        heard_of = asyncio.Event()
        confirmed: list[str] = []

        async def launch(*_: Any) -> dict[str, Any]:
            await heard_of.wait()
            return {"pid": 7, "identity": "seven"}

        async def heartbeat(clock: float, keys: list[str], patience: float) -> Heard:
            confirmed.extend(keys)
            if confirmed:
                raise RayError  # The node goes, and with it the loop of this test.
            if clock == 2.0:
                heard_of.set()
            await asyncio.sleep(0)
            end = ChildEnd("pair agent-1", 7, 0, None)
            return Heard(clock + 1, [(asdict(end), pack(tmp_path / "nothing"))])

        actor = SimpleNamespace(launch=SimpleNamespace(remote=launch), heartbeat=SimpleNamespace(remote=heartbeat))
        member = Member("n", "node", actor, NodeFacts({}, {}, 0.0, {}), 0, time.monotonic() + 60)
        ours = Children(replace(config, lost_after_seconds=-15.0), RAY, said.append, {"n": member})
        started = asyncio.create_task(ours.launch({"key": "pair agent-1", "staging": str(staging)}, member))
        await asyncio.sleep(0)
        await ours.attend(member)
        await started

    asyncio.run(run())
    assert [message["type"] for message in said] == ["launched", "end"]
    assert said[1]["end"]["exit_code"] == 0
