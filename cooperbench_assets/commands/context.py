"""What every command needs first: the project, and the experiments that it is asked about.

What belongs here: finding them, and one clear error where they are not. What does not: doing anything with them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
from dotenv import dotenv_values

from cooperbench_assets.project import Project, find_project
from cooperbench_assets.spec import ExperimentSpec, load_experiments

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Project", "choose", "environment", "find_project", "load_experiments"]


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


def environment(project: Project) -> dict[str, str]:
    """Variables as they are here, and those of the project's .env that are not set: as the Dagster UI has them."""
    written = {name: value for name, value in dotenv_values(project.root / ".env").items() if value is not None}
    return {**written, **os.environ}
