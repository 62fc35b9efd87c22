"""What every command needs first: the project, and the experiments that it is asked about.

What belongs here: finding them, and one clear error where they are not. What does not: doing anything with them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
from dotenv import dotenv_values

from cooperbench_assets import project as projects
from cooperbench_assets.project import Project
from cooperbench_assets.spec import ExperimentSpec, load_experiments

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Project", "choose", "find_project", "load_experiments"]


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


def choose(experiments: Mapping[str, ExperimentSpec], name: str | None) -> dict[str, ExperimentSpec]:
    """The experiments a command is asked about: one by name, or all.

    Raises:
        click.BadParameter: if there is none of that name; the message lists those there are.
    """
    if name is None:
        return dict(experiments)
    if name not in experiments:
        there = f"there are: {', '.join(experiments)}" if experiments else "there is none yet"
        raise click.BadParameter(f"no experiment {name!r} ({there})", param_hint="EXPERIMENT")
    return {name: experiments[name]}
