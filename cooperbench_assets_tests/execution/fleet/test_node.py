"""A node without its cluster: children in another folder, ends that are kept until they are confirmed, and leases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.execution.fleet.archive import pack, unpack
from cooperbench_assets.execution.fleet.messages import FleetConfig
from cooperbench_assets.execution.fleet.node import Node
from cooperbench_assets.execution.processes import is_alive
from cooperbench_assets.execution.worker.protocol import LOG, ChildRequest
from cooperbench_assets_tests.execution.toy import REPO, TASK, Toy, make_toy
from cooperbench_assets_tests.execution.worker.harnesses import toy_environment

LEASE_SECONDS = 5.0
"""Long enough for a busy machine to be heard of within it."""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"))


def config(toy: Toy, **changes: Any) -> str:
    values: dict[str, Any] = {
        "address": "auto",
        "lost_after_seconds": 60.0,
        "dataset": "/elsewhere/dataset",
        "dataset_on_nodes": str(toy.dataset),
        "pairs": ((REPO, TASK, (1, 2)),),
        "execution": "process",
        "environment": toy_environment(toy),
    }
    return FleetConfig(**{**values, **changes}).to_json()


def request(toy: Toy, model: str = "gold") -> dict[str, Any]:
    return asdict(
        ChildRequest(
            key="pair agent-1",
            stage="agent",
            mode="solo",
            repo=REPO,
            task_id=TASK,
            features=(1, 2),
            run_name="run",
            staging="/elsewhere/staging",
            dataset="/elsewhere/dataset",
            backend="process",
            agent="toy",
            model_name=model,
        )
    )


def on_node(toy: Toy, work: Callable[[Node], Awaitable[None]], **changes: Any) -> None:
    async def run() -> None:
        node = Node(config(toy, **changes), on_expiry=lambda: None)
        facts = await node.facts()
        assert facts.problem is None
        try:
            await work(node)
        finally:
            await node.close()

    asyncio.run(run())


@pytest.mark.slow
def test_a_child_works_in_the_nodes_folder_and_its_end_is_told_until_it_is_confirmed(toy: Toy, tmp_path: Path) -> None:
    async def work(node: Node) -> None:
        assert "pid" in await node.launch(request(toy), pack(tmp_path / "nothing"))
        first = await node.heartbeat(0.0, [], 30.0)
        while not first.ends:
            first = await node.heartbeat(first.clock, [], 30.0)
        again = await node.heartbeat(first.clock, [], 0.0)
        [(end, files)] = again.ends
        assert again.ends == first.ends, "an answer may be lost on its way"
        assert (end["exit_code"], end["error"]) == (0, None)
        unpack(files, tmp_path)
        assert (tmp_path / "logs" / "run" / "solo" / REPO / str(TASK) / "f1_f2" / "solo.patch").read_text()
        assert (await node.heartbeat(again.clock, ["pair agent-1"], 0.0)).ends == []

        started = await node.launch(request(toy, "sleep:600"), pack(tmp_path / "nothing"))
        heard = await node.heartbeat(again.clock, [], 0.1)
        assert LOG in heard.files["pair agent-1"]
        await node.kill(["pair agent-1"], 1.0)
        heard = await node.heartbeat(heard.clock, [], 10.0)
        [(end, _)] = heard.ends
        assert (end["key"], end["signal"]) == ("pair agent-1", 15)
        assert not is_alive(started["pid"], started["identity"])

    on_node(toy, work)


@pytest.mark.slow
def test_a_node_keeps_its_children_while_it_hears_its_own_clock_and_ends_them_when_it_hears_nothing_new(
    toy: Toy, tmp_path: Path
) -> None:
    async def work(node: Node) -> None:
        heard = await node.heartbeat(0.0, [], 0.0)
        started = await node.launch(request(toy, "sleep:600"), pack(tmp_path))
        kept = time.monotonic() + 1.3 * LEASE_SECONDS
        while time.monotonic() < kept:
            heard = await node.heartbeat(heard.clock, [], 0.1)
            assert is_alive(started["pid"], started["identity"])
        end = time.monotonic() + 30
        while is_alive(started["pid"], started["identity"]):
            assert time.monotonic() < end
            # Heartbeats that were sent before, and come late: they carry what the driver knew then.
            await node.heartbeat(heard.clock, [], 0.0)
            await asyncio.sleep(0.05)

    on_node(toy, work, lost_after_seconds=LEASE_SECONDS)


@pytest.mark.slow
def test_a_node_whose_harness_cannot_be_used_says_so(toy: Toy) -> None:
    facts = asyncio.run(Node(config(toy, python="/no/such/python")).facts())
    assert facts.problem is not None
    assert "/no/such/python" in facts.problem
