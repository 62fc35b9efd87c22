"""The code location: every experiment below defs/."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import dagster as dg

from cooperbench_assets.broken_experiment import broken_definitions
from cooperbench_assets.experiment import experiment_definitions
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.experiments import read_experiments
from cooperbench_assets.project import Project, named_project

if TYPE_CHECKING:
    from collections.abc import Callable

LOG = logging.getLogger(__name__)


@dg.definitions
def defs() -> dg.Definitions:
    """Load the defs folder; an experiment that cannot be used is one asset that says why, beside all others.

    It is that of the project that COOPERBENCH_ASSETS_ROOT names, else of the checkout that this code is part of.
    """
    return project_definitions(named_project() or Project(Path(__file__).parents[1]))


def project_definitions(project: Project) -> dg.Definitions:
    """The definitions of a project: of each experiment by itself, so that a mistake in one breaks no other.

    Folders are not left to ``load_from_defs_folder``: it fails as a whole.
    """
    found = read_experiments(project)
    broken = dict(found.broken)
    parts = [dg.Definitions(executor=dg.in_process_executor)]

    def add(name: str, build: Callable[[], dg.Definitions]) -> None:
        try:
            parts.append(build())
        except Exception as error:  # Whatever Dagster refuses that we did not foresee breaks this one alone.
            broken[name] = f"{project.relative(project.defs / name)}: {_innermost(error)}"

    for name, spec in found.usable.items():
        experiment = ExperimentContext(name, spec, project)
        add(name, partial(experiment_definitions, experiment))
    for folder in found.others:
        add(folder.name, partial(other_definitions, folder, project))
    for sentence in broken.values():
        LOG.warning("not loaded: %s", sentence)
    return dg.Definitions.merge(*parts, *([broken_definitions(broken)] if broken else []))


def other_definitions(folder: Path, project: Project) -> dg.Definitions:
    """What Dagster makes of a folder that holds no experiment of ours: other components, or Python files."""
    module = ModuleType(f"{__package__}.defs.{folder.name}")
    module.__file__, module.__path__ = None, [str(folder)]
    tree = dg.ComponentTree.from_module(module, project.root)
    loaded = tree.build_defs()
    # Two definitions that both hold a tree of components cannot be merged.
    return dg.Definitions(
        assets=loaded.assets,
        schedules=loaded.schedules,
        sensors=loaded.sensors,
        jobs=loaded.jobs,
        resources=loaded.resources,
        loggers=loaded.loggers,
        asset_checks=loaded.asset_checks,
    )


def _innermost(error: BaseException) -> str:
    """What was raised first, in one line: what wraps it only repeats where."""
    while (inner := error.__cause__) is not None:
        error = inner
    return " ".join(str(error).split()) or type(error).__name__
