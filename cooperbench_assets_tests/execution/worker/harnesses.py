"""Harness servers for tests: what they are started with, and children of one test.

What belongs here: starting and asking them. What does not: asserting what they do.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cooperbench_assets.execution.worker.protocol import ChildRequest
from cooperbench_assets_tests.execution.toy import REPO, TASK, Toy

if TYPE_CHECKING:
    from cooperbench_assets.execution.runner.harness_client import HarnessServer
    from cooperbench_assets.execution.worker.protocol import ChildEnd

ROOT = Path(__file__).parents[3]


def toy_environment(toy: Toy) -> dict[str, str]:
    return {
        "COOPERBENCH_EXTERNAL_AGENTS": "cooperbench_assets_tests.execution.toy_agents",
        "COOPERBENCH_ASSETS_AGENT": "toy",
        "PYTHONPATH": str(ROOT),
        "TOY_TASK": str(toy.task),
    }


def own_agents_environment(module: str, folder: Path, wanted: str = "") -> dict[str, str]:
    """Variables for external agents in a module of a folder; `wanted`: the agent that is to be run, if any."""
    return {"COOPERBENCH_EXTERNAL_AGENTS": module, "PYTHONPATH": str(folder), "COOPERBENCH_ASSETS_AGENT": wanted}


class Runs:
    """Children of one test, each with a staging folder of its own."""

    def __init__(self, server: HarnessServer, toy: Toy, folder: Path) -> None:
        self.server = server
        self.toy = toy
        self.folder = folder
        self._numbers = itertools.count(1)

    def request(self, model: str = "gold", **changes: Any) -> ChildRequest:
        staging = self.folder / f"staging-{next(self._numbers)}"
        staging.mkdir()
        request = ChildRequest(
            key=str(staging),
            stage="agent",
            mode="solo",
            repo=REPO,
            task_id=TASK,
            features=(1, 2),
            run_name="run",
            staging=str(staging),
            dataset=str(self.toy.dataset),
            backend="process",
            agent="toy",
            model_name=model,
        )
        return replace(request, **changes)

    def end(self, request: ChildRequest) -> ChildEnd:
        child = self.server.launch(request)
        while child.ended is None:
            self.server.wait(30)
        return child.ended

    def pair_folder(self, request: ChildRequest) -> Path:
        a, b = request.features
        return Path(request.staging, "logs", "run", request.mode, REPO, str(TASK), f"f{a}_f{b}")


def server_pid(server: HarnessServer) -> int:
    assert server._process is not None
    return server._process.pid


def eventually(question: Any, seconds: float = 8) -> bool:
    end = time.monotonic() + seconds
    while not question() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(question())
