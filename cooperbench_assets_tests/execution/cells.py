"""Cells of the toy dataset for end-to-end tests of execution's core, and what they look like afterwards."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.benchmark.outcomes import judge
from cooperbench_assets.benchmark.pairs import Pair, Subset
from cooperbench_assets.execution.api import run_agents, run_evaluations
from cooperbench_assets.execution.job import CellJob, Limits
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.planning.budget import Ledger
from cooperbench_assets.execution.planning.usage import read_past
from cooperbench_assets.execution.runner.progress import StageReport
from cooperbench_assets_tests.execution.toy import REPO, TASK, Toy

ROOT = Path(__file__).parents[2]
AGENTS = "cooperbench_assets_tests.execution.core_agents"

PAIRS = tuple(Pair(REPO, TASK, two) for two in ((1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)))
"""The last one conflicts: both features change one line."""

PLENTY = Limits(concurrency=3, eval_concurrency=3, test_timeout_seconds=20)
LASTING = replace(PLENTY, agent_attempts=20, eval_attempts=20)
"""For cells that are killed over and over."""


def cell(
    toy: Toy,
    folder: Path,
    *,
    tries: Mapping[Pair, Sequence[str]] | None = None,
    limits: Limits | None = None,
    **changes: Any,
) -> CellJob:
    """A solo cell of the toy dataset, whose agents do what `tries` says and then the right thing."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "agent.yaml"
    content = {"tries": {pair.name: list(deeds) for pair, deeds in (tries or {}).items()}}
    if not config.exists() or tries is not None:
        config.write_text(json.dumps(content))
    state = folder / "state"
    state.mkdir(exist_ok=True)
    if not (state / "slots.toml").exists():
        (state / "slots.toml").write_text("agents = 3\nevaluations = 3\n")
    values: dict[str, Any] = {
        "experiment": "toy",
        "setting": "solo",
        "seed": 0,
        "mode": "solo",
        "run_name": "toy-solo",
        "logs": folder / "logs",
        "dataset": toy.dataset,
        "subset": Subset("six", PAIRS, toy.dataset / "subsets" / "six.json"),
        "model_name": "scripted/core",
        "agent": "core",
        "execution": "process",
        "agent_config": config,
        "limits": limits or PLENTY,
        "external_agents": (AGENTS,),
        "environment": {"TOY_TASK": str(toy.task), "PYTHONPATH": str(ROOT)},
        "state": state,
    }
    return CellJob(**{**values, **changes})


def run_both(job: CellJob, **options: Any) -> tuple[StageReport, StageReport]:
    """Agents, then evaluations."""
    asked = LaunchOptions(**options)
    return run_agents(job, asked), run_evaluations(job, asked)


def outcomes(job: CellJob) -> dict[str, str]:
    """The outcome of every planned pair, with its reason or stage and family, by the pair's folder name."""
    reading = read_run(job.run_dir, job.mode)
    found = {}
    for pair in job.subset.pairs:
        outcome = judge(reading.pairs.get(pair))
        why = outcome.reason or (f"{outcome.stage}/{outcome.family}" if outcome.family else "")
        found[pair.folder] = f"{outcome.outcome} {why}".strip()
    return found


def attempts(job: CellJob, pair: Pair) -> list[tuple[str, str, str | None]]:
    """The pair's recorded tries: folder, outcome, family."""
    found = []
    for file in sorted(job.attempts_dir(pair).glob("*/attempt.json")):
        content = json.loads(file.read_text())
        found.append((file.parent.name, content["outcome"], content["family"]))
    return found


def attempt(job: CellJob, pair: Pair, name: str) -> dict[str, Any]:
    """One recorded try."""
    content: dict[str, Any] = json.loads((job.attempts_dir(pair) / name / "attempt.json").read_text())
    return content


VOLATILE = ("run_id", "started_at", "ended_at", "duration_seconds", "evaluated_at")


def tree(job: CellJob) -> dict[str, Any]:
    """What lies in the pairs' folders, without times and ids: equal for two ways to the same results."""
    root = job.run_dir / job.mode
    found: dict[str, Any] = {}
    for file in sorted(root.rglob("*")):
        if not file.is_file():
            continue
        name = str(file.relative_to(root))
        if file.suffix != ".json":
            found[name] = file.read_text()
            continue
        content = json.loads(file.read_text())
        if isinstance(content, dict):
            content = {key: value for key, value in content.items() if key not in VOLATILE}
            for feature in ("feature1", "feature2"):
                if isinstance(content.get(feature), dict):
                    content[feature] = {**content[feature], "test_output": "…"}
        found[name] = content
    return found


def total_cost(run_dir: Path) -> float:
    """USD of all agent tries in a run folder; those of unknown cost count for the dearest one."""
    ledger = Ledger()
    ledger.add_past(read_past(run_dir))
    return ledger.total


def nothing_left(job: CellJob) -> None:
    """Assert that no staging, no journal and no unfinished record is left of any launch."""
    assert not (job.run_dir / ".staging").exists()
    assert not list(job.run_dir.rglob("promotion.json"))
    assert not list(job.run_dir.rglob("*.tmp"))
    for file in (job.run_dir / "attempts").rglob("attempt.json"):
        content = json.loads(file.read_text())
        assert content["outcome"] != "running", file
        assert content["ended_at"] is not None, file


def servers(pid: int | None = None) -> list[psutil.Process]:
    """The harness servers of a process, of this one if not given."""
    found = []
    for one in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):  # Others' children may have ended, and nobody has waited for them yet.
            if any("server.py" in word for word in one.cmdline()):
                found.append(one)
    return found
