"""claude_code and codex in real containers at their deadline: what their streams say in there decides."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.benchmark.images import image_name
from cooperbench_assets.benchmark.pairs import Pair, Subset, Task
from cooperbench_assets.execution.api import run_agents
from cooperbench_assets.execution.job import CellJob
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.runner.harness_servers import close_servers
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.execution.worker.model_calls import FILE
from cooperbench_assets_tests.execution.cells import attempt, nothing_left, outcomes
from cooperbench_assets_tests.execution.sandboxes.docker.programs import make_programs
from cooperbench_assets_tests.execution.sandboxes.docker.upstreams_agents import (
    Clock,
    age,
    clock,
    meanwhile,
    upstream_cell,
    wait_for,
)
from cooperbench_assets_tests.execution.toy import Toy

__all__ = ["clock"]

pytestmark = [pytest.mark.engine, pytest.mark.slow]

MINUTES = 90.0


@pytest.fixture(scope="module")
def task(engine: Engine, toy: Toy, toy_image: str) -> Iterator[Task]:
    made = make_programs(engine, toy_image)
    yield made
    engine.api.remove_image(image_name(made), force=True)


@pytest.fixture(scope="module")
def dataset(toy: Toy, task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    shutil.copytree(toy.task, folder / task.folder, symlinks=True)
    return folder


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Slots and the command that makes containers: the same for all tests, which so share one harness."""
    yield tmp_path_factory.mktemp("state")
    close_servers()


@pytest.mark.parametrize(
    ("does", "lines", "expected"),
    [
        ("works", 8, "fail agent_timeout"),
        ("waits", 8, "fail agent_timeout"),
        ("hangs", 6, "infra_error agent/provider_timeout"),
        ("retries", 6, "infra_error agent/provider"),
    ],
)
@pytest.mark.parametrize("agent", ["claude_code", "codex"])
def test_an_agent_in_its_container_is_judged_by_the_replies_in_its_stream(
    agent: str,
    does: str,
    lines: int,
    expected: str,
    toy: Toy,
    task: Task,
    dataset: Path,
    state: Path,
    tmp_path: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(key, "sk-none")
    pair = Pair(task.repo, task.task_id, (1, 2))
    job = upstream_cell(
        replace(toy, dataset=dataset),
        tmp_path,
        MINUTES,
        agent=agent,
        model_name=f"any/{does}",
        secrets=("OPENAI_API_KEY", "ANTHROPIC_API_KEY"),
        subset=Subset("one", (pair,), tmp_path / "one.json"),
        state=state,
    )

    def let_time_pass() -> None:
        # Two lines of an answer; then a command runs, or the model is asked again.
        wait_for(lambda: _counted(job).get("replies", 0) >= lines)
        wait_for(lambda: does == "works" or (_counted(job)["waiting"] is None) == (does == "waits"))
        wait_for(lambda: does != "retries" or _counted(job)["problem"])
        age(job)
        clock.at_deadline(job, silent=does != "works")

    with meanwhile(let_time_pass):
        run_agents(job, LaunchOptions())
    assert outcomes(job) == {pair.folder: expected}
    tried = attempt(job, pair, "agent-1")
    assert tried["cost_usd"] is None, "its cost is told at its end only"
    written = json.loads((job.pair_dir(pair) / "result.json").read_text())
    assert "total_cost" not in written
    if agent == "claude_code":
        known = {name: written["agent"].get(name) for name in ("cache_read_tokens", "output_tokens")}
        answers = written["agent"]["input_tokens"] // 10
        assert known == {"cache_read_tokens": 1000 * answers, "output_tokens": None}
        assert answers >= 3
    nothing_left(job)


def _counted(job: CellJob) -> dict[str, Any]:
    """What the child has counted of its agent by now."""
    for file in job.run_dir.glob(f".staging/*/{FILE}"):
        agents: dict[str, Any] = json.loads(file.read_text())["agents"]
        return dict(agents.get("solo", {}))
    return {}
