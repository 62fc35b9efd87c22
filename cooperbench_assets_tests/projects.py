"""Projects for tests: a copy of this one in a folder of its own, with experiments that the test gives it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cooperbench_assets.project import ROOT_VARIABLE, Project
from cooperbench_assets.spec import COMPONENT

if TYPE_CHECKING:
    from collections.abc import Mapping

CHECKOUT = Path(__file__).parents[1]
SETTINGS_FILES = ("pyproject.toml", "dagster.yaml", "workspace.yaml")


def make_project(root: Path, experiments: Mapping[str, Mapping[str, Any]]) -> Project:
    """A project at `root` with the package's code and these experiments (attributes by name), and no others."""
    root.mkdir(parents=True, exist_ok=True)
    for name in SETTINGS_FILES:
        shutil.copy(CHECKOUT / name, root)
    shutil.copytree(
        CHECKOUT / "cooperbench_assets",
        root / "cooperbench_assets",
        # With the bytecode, so that no process compiles it anew, but for files that somebody writes just now.
        ignore=shutil.ignore_patterns("*.pyc.*", "defs"),
    )
    project = Project(root)
    project.defs.mkdir()
    for name, attributes in experiments.items():
        add_experiment(project, name, attributes)
    return project


def add_experiment(project: Project, name: str, attributes: Mapping[str, Any]) -> Path:
    """Write an experiment's defs.yaml; returns the file."""
    file = project.defs / name / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump({"type": COMPONENT, "attributes": dict(attributes)}, sort_keys=False))
    return file


def environment(project: Project, **more: str) -> dict[str, str]:
    """The variables for a process that works in `project` with the project's own copy of the code."""
    kept = {name: value for name, value in os.environ.items() if name not in ("DAGSTER_HOME", ROOT_VARIABLE)}
    return {**kept, "PYTHONPATH": str(project.root), **more}
