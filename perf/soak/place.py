"""The project that is disturbed: an experiment of its own, its folders, and what its pairs came to.

What belongs here: making it, reading it, starting anew. What does not: who runs it (``drivers``), and what must hold
(``invariants``).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from cooperbench_assets.demo import build_dataset
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.project import Project
from cooperbench_assets.spec import parse_experiment
from cooperbench_assets_tests.projects import CHECKOUT, environment, make_project

if TYPE_CHECKING:
    from collections.abc import Iterator

EXPERIMENT: Final = "soak"
LOGS_BYTES: Final = 512 * 2**20
"""Size of the file system that is filled up."""

SETTINGS: Final[dict[str, Any]] = {
    "solo": {"mode": "solo", "seeds": [0]},
    "coop-comm": {"mode": "coop", "seeds": [0]},
    "coop-nocomm": {"mode": "coop", "messaging": False, "seeds": [0]},
}
COMPARED: Final = ("outcome", "reason", "patch_sha256", "both_passed", "both_passed_strict")
"""Columns of a pair that must not depend on faults; times, costs and numbers of tries may."""

Verdicts = dict[tuple[str, str], tuple[Any, ...]]
"""By setting and pair: the values of `COMPARED`."""

Execution = Literal["process", "docker"]


@dataclass
class Place:
    """One project with one experiment, and how many of the demo's pairs it plans."""

    root: Path
    execution: Execution
    pairs: int
    project: Project = field(init=False)

    def __post_init__(self) -> None:
        dataset = build_dataset(self.root / "dataset")
        self.subset = self.root / "subset.json"
        self.subset.write_text(json.dumps(_first_pairs(dataset, self.pairs)))
        self.project = make_project(self.root / "project", {EXPERIMENT: self.attributes})
        self.state.mkdir()
        (self.state / "slots.toml").write_text("agents = 6\nevaluations = 3\n")
        self.logs.mkdir(exist_ok=True)

    @property
    def logs(self) -> Path:
        """Where runs are written: a file system of its own if `small_disk` could make one."""
        return self.root / "logs"

    @property
    def state(self) -> Path:
        """The machine's state folder, as far as this project knows."""
        return self.root / "state"

    @property
    def defs_file(self) -> Path:
        """The experiment's defs.yaml."""
        return self.project.defs / EXPERIMENT / "defs.yaml"

    @property
    def attributes(self) -> dict[str, Any]:
        """The experiment: limits that kills cannot exhaust, and agents slow enough to be hit."""
        return {
            "model_name": "scripted/demo",
            "agent": "scripted",
            "external_agents": ["cooperbench_assets.demo.agents"],
            "environment": {"PYTHONPATH": str(CHECKOUT)},
            "agent_config": {"pace_seconds": 0.05, "patience_seconds": 1200},
            "subset": str(self.subset),
            "dataset": str(self.root / "dataset"),
            "dataset_module": "cooperbench_assets.demo",
            "logs": str(self.logs),
            "execution": self.execution,
            "settings": SETTINGS,
            "preflight": {"free_gb": 0},
            "retry": {"backoff_minutes": 0, "every_seconds": 2},
            "nightly": "* * * * *",
            "limits": {
                "concurrency": 4,
                "eval_concurrency": 4,
                "agent_attempts": 10_000,
                "eval_attempts": 10_000,
                "pair_timeout_minutes": 30,
                "test_timeout_seconds": 600,
            },
        }

    @property
    def variables(self) -> dict[str, str]:
        """Variables of every process that works on the project."""
        return environment(self.project, COOPERBENCH_ASSETS_STATE=str(self.state), LITELLM_LOCAL_MODEL_COST_MAP="True")

    @property
    def experiment(self) -> ExperimentContext:
        """The experiment as it was made, whatever its file says now."""
        spec = parse_experiment(EXPERIMENT, self.attributes, self.defs_file)
        return ExperimentContext(EXPERIMENT, spec, self.project)

    @property
    def runs(self) -> list[Path]:
        """The run folders of the planned cells."""
        experiment = self.experiment
        return [experiment.run_dir(cell) for cell in experiment.cells]

    def pair_dir(self, setting: str, pair: str) -> Path:
        """The folder of a pair in the log tree."""
        (run,) = (run for run in self.runs if run.name.endswith(f"-{setting}"))
        return run.joinpath(SETTINGS[setting]["mode"], pair)

    def verdicts(self) -> Verdicts:
        """What each pair of each cell that has a run folder came to."""
        experiment, found = self.experiment, Verdicts()
        for cell in experiment.cells:
            if experiment.run_dir(cell).is_dir():
                pairs = experiment.view(cell).pairs
                found |= {(cell.cell.setting, row[0]): row[1:] for row in pairs.select("pair", *COMPARED).rows()}
        return found

    def finished(self) -> bool:
        """Whether every planned pair has its verdict on disk."""
        modes = {setting["mode"] for setting in SETTINGS.values()}
        verdicts = sum(1 for run in self.runs for mode in modes for _ in files(run / mode, "eval.json"))
        wanted = self.pairs * len(SETTINGS)
        return verdicts == wanted and all(row[0] in ("pass", "fail") for row in self.verdicts().values())

    def clear(self) -> None:
        """Forget every result and every table; what Dagster remembers stays."""
        for folder in (*self.logs.iterdir(), self.project.tables):
            if folder.is_dir():
                shutil.rmtree(folder)
        self.project.database.unlink(missing_ok=True)


def files(root: Path, name: str) -> Iterator[Path]:
    """Files of a name below a folder in which others write: folders that go meanwhile are no error."""
    for folder, _, names in os.walk(root):
        if name in names:
            yield Path(folder, name)


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small file system at a folder, as root; whether that could be done."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={LOGS_BYTES}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def _first_pairs(dataset: Path, count: int) -> dict[str, Any]:
    """A subset of the first pairs of every task in turn."""
    tasks = json.loads((dataset / "subsets" / "lite.json").read_text())["tasks"]
    longest = max(len(task["pairs"]) for task in tasks)
    turns = [(n, place) for place in range(longest) for n, task in enumerate(tasks) if place < len(task["pairs"])]
    chosen = sorted(turns[:count])
    kept = [
        {**task, "pairs": [task["pairs"][place] for n, place in chosen if n == number]}
        for number, task in enumerate(tasks)
    ]
    return {"name": EXPERIMENT, "tasks": [task for task in kept if task["pairs"]]}
