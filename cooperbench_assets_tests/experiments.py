"""Experiments on generated log trees, bound to a project of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.project import Project
from cooperbench_assets.spec import COMPONENT, parse_experiment
from cooperbench_assets_tests import trees

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.checks.finding import CellView
    from cooperbench_assets.spec import CellSpec

SETTINGS: dict[str, Any] = {
    "solo": {"mode": "solo", "seeds": [0, 1]},
    "coop-comm": {"mode": "coop", "seeds": [0]},
    "coop-nocomm": {"mode": "coop", "messaging": False, "seeds": [0]},
}


def bind(root: Path, count: int = 4, **changes: Any) -> ExperimentContext:
    """A read-only experiment `made`, with its defs.yaml, over `count` pairs: 2 solo seeds, 2 coop settings, no log."""
    trees.write_subset(root / "data" / "dataset" / "subsets" / "some.json", trees.pairs(count))
    attributes = {"subset": "some", "settings": SETTINGS, "run_name": "{setting}{seed_suffix}", **changes}
    project = Project(root)
    file = project.defs / "made" / "defs.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({"type": COMPONENT, "attributes": attributes}))
    return ExperimentContext("made", parse_experiment("made", attributes, file), project)


def cell_spec(experiment: ExperimentContext, setting: str, seed: int = 0) -> CellSpec:
    """One cell of the experiment, planned or not."""
    return experiment.spec.cell(experiment.name, setting, seed)


def tree(experiment: ExperimentContext, setting: str, seed: int = 0) -> trees.Tree:
    """The log tree of a cell, to be built."""
    cell = cell_spec(experiment, setting, seed)
    return trees.Tree(experiment.run_dir(cell), cell.mode or "solo")


def fill(experiment: ExperimentContext, setting: str, seed: int = 0) -> tuple[Pair, ...]:
    """Write a finished tree: every pair with everything, the first one failed."""
    built = tree(experiment, setting, seed)
    built.config()
    planned = experiment.subset().pairs
    for n, pair in enumerate(planned):
        built.pair(pair, passed=(n > 0, True))
    return planned


def view(experiment: ExperimentContext, setting: str, seed: int = 0) -> CellView:
    """A cell as it is read."""
    return experiment.view(cell_spec(experiment, setting, seed))
