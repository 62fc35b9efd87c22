"""report: figures and one page of the results store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from cooperbench_assets.cli import NOT_IN_ORDER
from cooperbench_assets.commands.context import find_project, load_experiments
from cooperbench_assets.commands.output import count, note, warn

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cooperbench_assets.project import Project
    from cooperbench_assets.report.build import Built


@click.command()
@click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]...")
def report(experiments: tuple[str, ...]) -> None:
    """Make figures and one self-contained page of the results.

    Writes data/report/EXPERIMENT: report.html (opens offline), figures as SVG and PNG, tables as CSV and LaTeX,
    numbers.tex and manifest.json, all from the results store as it is. Every experiment in the store without an
    EXPERIMENT; several that are named also get one page side by side, data/report/A+B. Exit code 1 if those differ
    in subset, harness version or merge policy, so that they have no page together.
    """
    project = find_project()
    started = time.monotonic()
    problem, built = _build(project, tuple(dict.fromkeys(experiments)))
    for one in built:
        found = ", ".join(count(n, level) for level, n in one.warnings.items() if n and level != "info")
        click.echo(f"{project.relative(one.page)}{f'  ({found})' if found else ''}")
    note(f"{time.monotonic() - started:.0f} seconds")
    if problem:
        warn(problem)
        raise click.exceptions.Exit(NOT_IN_ORDER)


def _build(project: Project, experiments: Sequence[str]) -> tuple[str | None, list[Built]]:
    """Make the reports; also why there is no page of all of them."""
    from cooperbench_assets.analysis.comparability import NotComparable
    from cooperbench_assets.report.build import build_reports, build_side_by_side

    logs = logs_of(project)
    if len(experiments) < 2:
        return None, build_reports(project.database, project.report, experiments, logs)
    try:
        return None, build_side_by_side(project.database, project.report, experiments, logs)
    except NotComparable as error:
        return str(error), build_reports(project.database, project.report, experiments, logs)


def logs_of(project: Project) -> dict[str, Path]:
    """Roots of log trees by experiment, of those that the project defines."""
    return {name: project.resolve(spec.logs) for name, spec in load_experiments(project.defs).items()}
