"""A small project and small log trees, for tests of the command line."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner, Result

from cooperbench_assets.cli import cli
from cooperbench_assets.project import Project

if TYPE_CHECKING:
    from collections.abc import Sequence

CHECKOUT = Path(__file__).parents[2]
REPO = "click_task"
PAIRS = ((1, 2), (1, 3), (2, 3))


@dataclass(frozen=True)
class Place:
    """A project, and a folder beside it in which somebody else's logs lie."""

    project: Project
    logs: Path
    subset: Path

    def run(self, *arguments: str | Path) -> Result:
        """Call the command line in this process."""
        return CliRunner().invoke(cli, [str(argument) for argument in arguments])

    def add_run(self, name: str, mode: str = "solo", pairs: Sequence[tuple[int, int]] = PAIRS, **more: Any) -> Path:
        """Write a run as upstream's harness would; returns its folder."""
        return write_run(self.logs / name, mode, pairs, **more)


def make_place(root: Path) -> Place:
    """A project without experiments, a subset of three pairs, and an empty folder for logs."""
    project = Project(root / "project")
    project.defs.mkdir(parents=True)
    shutil.copy(CHECKOUT / "dagster.yaml", project.root)
    subset = root / "theirs" / "three.json"
    logs = root / "theirs" / "logs"
    logs.mkdir(parents=True)
    tasks = [{"repo": REPO, "task_id": 7, "pairs": [list(pair) for pair in PAIRS]}]
    subset.write_text(json.dumps({"name": "three", "tasks": tasks}))
    return Place(project, logs, subset)


def write_run(
    folder: Path,
    mode: str,
    pairs: Sequence[tuple[int, int]],
    *,
    model: str = "a-model",
    agent: str = "an_agent",
    messages: int = 0,
    evaluated: bool = True,
    passed: bool = True,
    legacy: bool = False,
) -> Path:
    """A run folder with these pairs, all alike."""
    base = folder if legacy else folder / mode
    folder.mkdir(parents=True)
    config = {"run_name": folder.name, "model": model, "agent_framework": agent, "setting": mode}
    (folder / "config.json").write_text(json.dumps(config))
    for pair in pairs:
        place = base / REPO / "7" / f"f{pair[0]}_f{pair[1]}"
        place.mkdir(parents=True)
        common = {"repo": REPO, "task_id": 7, "features": list(pair), "setting": mode}
        result = {**common, "run_name": folder.name, "model": model, "agent_framework": agent, "total_cost": 0.25}
        result |= {"started_at": "2026-05-01T10:00:00", "ended_at": "2026-05-01T10:05:00", "total_steps": 3}
        (place / "result.json").write_text(json.dumps({**result, **_agents(mode, pair), "messages_sent": messages}))
        if mode != "solo":
            (place / "conversation.json").write_text(json.dumps([_message(n) for n in range(messages)]))
        if evaluated:
            (place / "eval.json").write_text(json.dumps({**common, **_verdict(mode, pair, passed=passed)}))
    return folder


def _agents(mode: str, pair: tuple[int, int]) -> dict[str, Any]:
    one = {"status": "Submitted", "cost": 0.125, "steps": 3, "patch_lines": 4, "error": None}
    if mode == "solo":
        return {"agent": one}
    return {"agents": {f"agent{n}": {"feature_id": feature, **one} for n, feature in enumerate(pair, 1)}}


def _message(n: int) -> dict[str, Any]:
    return {"from": "agent1", "to": "agent2", "message": f"message {n}", "timestamp": None, "feature_id": 1}


def _verdict(mode: str, pair: tuple[int, int], *, passed: bool) -> dict[str, Any]:
    verdict: dict[str, Any] = {"both_passed": passed, "error": None, "evaluated_at": "2026-05-01T11:00:00"}
    verdict["merge"] = None if mode == "solo" else {"status": "clean", "strategy": "naive", "diff": "a diff"}
    for n, feature in enumerate(pair, 1):
        verdict[f"feature{n}"] = {"feature_id": feature, "passed": passed, "test_output": "1 passed"}
    if mode != "solo":
        verdict["apply_status"] = {"agent1": "applied", "agent2": "applied"}
    return verdict
