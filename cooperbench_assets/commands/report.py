"""report: figures and one page of the results store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from cooperbench_assets.cli import NOT_IN_ORDER
from cooperbench_assets.commands.context import NotLoadedError, check_known, find_project, read_experiments
from cooperbench_assets.commands.output import note, warn
from cooperbench_assets.viewer_links import viewer_address
from cooperbench_assets.wording import count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cooperbench_assets.experiments import Experiments
    from cooperbench_assets.project import Project
    from cooperbench_assets.report.build import Built


@click.command()
@click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]...")
def report(experiments: tuple[str, ...]) -> None:
    """Make figures and one self-contained page of the results.

    Writes data/report/EXPERIMENT: report.html (opens offline), figures as SVG, PDF and PNG, tables as CSV and LaTeX
    (paper_settings and paper_contrasts are made for a paper), numbers.tex and manifest.json, all from the results store
    as it is. Every experiment in the store without an EXPERIMENT; several that are named also get one page side by
    side, data/report/A+B. Exit code 1 if those differ in subset, harness version or merge policy, so that they have no
    page together.

    The assets `report` of these experiments count as materialised in the UI.
    """
    project = find_project()
    found = read_experiments(project)
    for name in experiments:
        check_known(project, found, name)
        if name in found.broken:
            if not (project.tables / name).is_dir():
                raise NotLoadedError(found.broken[name])
            warn(f"not loaded, so of its stored results as they are: {found.broken[name]}")
    started = time.monotonic()
    logs = {name: project.resolve(spec.logs) for name, spec in found.usable.items()}
    built, problem = _build(project, tuple(dict.fromkeys(experiments)), logs)
    for one in built:
        counts = ", ".join(count(n, level) for level, n in one.warnings.items() if n and level != "info")
        click.echo(f"{project.relative(one.page)}{f'  ({counts})' if counts else ''}")
    _record(project, found, built)
    note(f"{time.monotonic() - started:.0f} seconds")
    if problem:
        warn(problem)
        raise click.exceptions.Exit(NOT_IN_ORDER)


def _build(project: Project, experiments: Sequence[str], logs: Mapping[str, Path]) -> tuple[list[Built], str | None]:
    """Make the reports; also why there is no page of all of them."""
    from cooperbench_assets.report.build import build_reports, build_side_by_side

    place = (project.database, project.report, experiments, logs, viewer_address(project.root))
    if len(experiments) < 2:
        return build_reports(*place), None
    return build_side_by_side(*place)


def _record(project: Project, found: Experiments, built: Sequence[Built]) -> None:
    """Have the UI know of the reports of experiments that it shows."""
    single = [one for one in built if len(one.experiments) == 1 and one.experiments[0] in found.usable]
    if not single:
        return
    from cooperbench_assets.assets.report import report_metadata
    from cooperbench_assets.local_runs import record  # imports Dagster: seconds that --help need not cost

    record(project, {one.experiments[0]: report_metadata(project, one) for one in single}, "report")
