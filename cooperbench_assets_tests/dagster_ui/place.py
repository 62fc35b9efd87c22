"""The place that all tests of Dagster's UI share: one project, one `dagster dev`, one browser.

What belongs here: starting them as people do, and what several tests look at. What does not: asserting what a test is
about. Each test has experiments of its own: what it does to them is seen in no other's.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from playwright.sync_api import Page, expect

from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.spec import load_experiments
from cooperbench_assets.viewer.shelves import library_of_project
from cooperbench_assets_tests import trees
from cooperbench_assets_tests.automation.driving import demo_attributes
from cooperbench_assets_tests.automation.ui_actions import until as until_true
from cooperbench_assets_tests.dagster_ui.pages import runs
from cooperbench_assets_tests.experiments import SETTINGS, bind, fill, tree
from cooperbench_assets_tests.projects import CHECKOUT, environment, make_project
from cooperbench_assets_tests.ui import browser, dagster_dev
from cooperbench_assets_tests.viewer.places import serving
from perf import inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cooperbench_assets.project import Project

PAIRS = 3
CELLS = {"read": 4, "wide": 12, "long": 100}
"""Experiments of generated logs that are only read, with their cells."""

BLOCKED = "coop-comm/4"
"""The cell of `wide` that has a pair which nobody planned."""

WAIT_SECONDS = 300.0
"""Within which every backfill is over, or has begun, on a busy machine: four runs work at once, the others wait."""

SOLO = {"solo": {"mode": "solo", "seeds": [0]}}
SOLO_AND_COOP = {**SOLO, "coop-comm": {"mode": "coop", "seeds": [0]}}
FILLED: dict[str, Any] = {"subset": "some", "run_name": "{setting}{seed_suffix}", "settings": SETTINGS}
SOON = {"backoff_minutes": 0, "every_seconds": 2}

EXPERIMENTS: dict[str, dict[str, Any]] = {
    # The command line reads its cells; one pair of solo/1 died.
    "made": FILLED,
    # Its history has keys of partitions as they were.
    "old": {**FILLED, "logs": "data/old"},
    # Its defs.yaml is broken, and repaired.
    "edited": demo_attributes(retry={"every_seconds": 2}, nightly="0 2 * * *"),
    # Runs pairs when a person materialises everything.
    "drill": demo_attributes(SOLO_AND_COOP),
    # Left to its sensor and its nights.
    "unattended": demo_attributes(
        {"solo": {"mode": "solo", "seeds": [0, 1]}}, {"rate": 0.5, "most": 1}, retry=SOON, nightly="* * * * *"
    ),
    # Dagster is stopped while it runs.
    "stopped": demo_attributes(
        faults={"rate": 0.4, "eval_rate": 0.0, "most": 1},
        limits={"concurrency": 1, "pair_timeout_minutes": 1, "test_timeout_seconds": 30},
        retry=SOON,
    ),
    **{
        name: {
            "subset": "planned",
            "logs": f"data/{name}",
            "run_name": "{setting}-seed{seed}",
            "settings": {label: {**one, "seeds": list(range(cells // 2))} for label, one in SOLO_AND_COOP.items()},
        }
        for name, cells in CELLS.items()
    },
}


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Place:
    """A project, its UI, and a person's browser."""

    project: Project
    address: str
    page: Page
    first: tuple[Ended, ...]
    """The two commands that were the first ones in the project, while `dagster dev` started for the first time."""

    said: str
    """What `dagster dev` had printed when they had ended."""

    stop: Callable[[], None]
    """Stop `dagster dev`, as it is stopped at a terminal."""

    def experiment(self, name: str) -> ExperimentContext:
        return ExperimentContext(name, load_experiments(self.project.defs)[name], self.project)

    def until(self, holds: Callable[[], bool], saw: Callable[[], object] = lambda: "") -> None:
        """Wait for something to come true, while the browser draws nothing."""
        self.page.goto("about:blank")
        until_true(holds, saw, WAIT_SECONDS)

    def statuses(self, run_ids: set[str]) -> set[object]:
        """The statuses of these runs."""
        return {run["status"] for run in runs(self.address) if run["runId"] in run_ids}


@contextmanager
def made_place(root: Path) -> Iterator[Place]:
    """Start everything as people do: `make ui` in a project that is new, and meanwhile their first two commands."""
    project = make_project(root / "project", EXPERIMENTS)
    write_logs(project)
    options, variables = as_make_starts_it(project)
    with serving(library_of_project(project, "made")) as viewer, browser() as page, ExitStack() as stack:
        commands = [
            materialize_made(project, viewer, settings) for settings in (("solo",), ("coop-comm", "coop-nocomm"))
        ]
        address = stack.enter_context(dagster_dev(project, options, **variables))
        ended = [(*command.communicate(), command.returncode) for command in commands]
        # Read before it is stopped: while it shuts down, Dagster may warn that its code server has ended.
        said = (project.root / "dagster-dev.log").read_text()
        expect.set_options(timeout=120_000)
        first = tuple(Ended(code, stdout, stderr) for stdout, stderr, code in ended)
        yield Place(project, address, page, first, said, stack.close)


def write_logs(project: Project) -> None:
    """The subsets and the logs of the experiments that only read."""
    made = bind(project.root)
    for cell in made.cells:
        first, *_ = fill(made, cell.cell.setting, cell.cell.seed)
    dead = trees.agent(status="Error", error="litellm.RateLimitError: 429 too many requests")
    tree(made, "solo", 1).result(first, agents=[dead])
    fill(ExperimentContext("old", load_experiments(project.defs)["old"], project), "solo")
    trees.write_subset(project.root / "data" / "dataset" / "subsets" / "planned.json", inputs.planned(PAIRS))
    for name, cells in CELLS.items():
        inputs.generate(project.root / "data" / name, cells, PAIRS)
    setting, seed = BLOCKED.split("/")
    trees.Tree(project.root / "data" / "wide" / f"{setting}-seed{seed}", "coop").pair(Pair("other_task", 1, (1, 2)))


def as_make_starts_it(project: Project) -> tuple[list[str], dict[str, str]]:
    """Options of Python and variables with which `make ui` starts `dagster dev`, for another project."""
    shown = subprocess.run(["make", "-n", "ui"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    (command,) = (line for line in shown.replace("\\\n", " ").splitlines() if "dagster dev" in line)
    words = shlex.split(command)
    first, dashes = words.index(".venv/bin/python"), words.index("--")
    assert words[first + 1 : dashes] == ["-m", "cooperbench_assets.viewer.beside"]
    python, module = dashes + 1, words.index("-m", dashes)
    variables = dict(word.split("=", 1) for word in words[:first])
    return words[python + 1 : module], {
        name: value.replace(str(CHECKOUT), str(project.root)) for name, value in variables.items()
    }


def materialize_made(project: Project, viewer: str, settings: tuple[str, ...]) -> subprocess.Popen[str]:
    """Begin the command that reads these settings of `made`."""
    chosen = [word for setting in settings for word in ("--setting", setting)]
    return subprocess.Popen(
        [sys.executable, "-m", "cooperbench_assets.cli", "materialize", "made", *chosen],
        cwd=project.root,
        env=environment(project, COOPERBENCH_ASSETS_VIEWER_URL=viewer),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
