"""What every command needs first: the project, and the experiments that it is asked about.

What belongs here: finding them, and one clear error where they are not. What does not: doing anything with them.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, ClassVar

import click
from dotenv import dotenv_values

from cooperbench_assets import project as projects
from cooperbench_assets.commands.output import note
from cooperbench_assets.experiments import Experiments, read_experiments
from cooperbench_assets.project import Project, ProjectError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cooperbench_assets.spec import ExperimentSpec

__all__ = [
    "Experiments",
    "NotLoadedError",
    "Project",
    "ProjectError",
    "check_known",
    "choose",
    "find_project",
    "read_experiments",
    "say_instance",
]


class NotLoadedError(click.ClickException):
    """The experiment that a command is asked about has a mistake in its defs.yaml."""

    exit_code: ClassVar[int] = 2


def find_project() -> Project:
    """The project; from here on, what its .env sets is set in this process too, as the Dagster UI does it.

    Raises:
        ProjectError: if there is none.
    """
    project = projects.find_project()
    for name, value in dotenv_values(project.root / ".env").items():
        if value is not None:
            os.environ.setdefault(name, value)
    return project


def say_instance(project: Project) -> None:
    """Say which Dagster instance a command records its runs in, where that is not the project's own.

    Raises:
        ProjectError: if the one that a variable names is not there.
    """
    if project.instance != project.root:
        note(f"Dagster instance: {project.instance} ({projects.INSTANCE_VARIABLE})")


def choose(found: Experiments, name: str) -> ExperimentSpec:
    """The experiment of a name.

    Raises:
        NotLoadedError: if its defs.yaml has a mistake; the message is that sentence.
        click.BadParameter: if there is none of that name; the message lists those there are.
    """
    if name in found.broken:
        raise NotLoadedError(found.broken[name])
    if name not in found.usable:
        raise no_such(name, [*found.usable, *found.broken])
    return found.usable[name]


def check_known(project: Project, found: Experiments, name: str) -> None:
    """Refuse a name that neither an experiment has nor results here: those may be of another machine's experiment.

    Raises:
        click.BadParameter: if there is none of that name; the message lists those there are.
    """
    if name in found.usable or name in found.broken:
        return
    known = {*found.usable, *found.broken, *_with_results(project)}
    if name not in known:
        raise no_such(name, known)


def _with_results(project: Project) -> Iterator[str]:
    """Names under which there are partition tables, or rows in the results store."""
    from cooperbench_assets.store.errors import StoreError
    from cooperbench_assets.store.read import query

    yield from (folder.name for folder in project.tables.glob("[!.]*") if folder.is_dir())
    with contextlib.suppress(StoreError):
        yield from query(project.database, "SELECT DISTINCT experiment FROM provenance")["experiment"]


def no_such(name: str, names: Collection[str]) -> click.BadParameter:
    """The error for a name that no experiment has."""
    there = f"there are: {', '.join(sorted(names))}" if names else "there is none yet"
    return click.BadParameter(f"no experiment {name!r} ({there})", param_hint="EXPERIMENT")
