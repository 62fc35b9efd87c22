"""materialize: what the UI's button does, in one process, recorded in the same Dagster instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cooperbench_assets.commands.context import choose, find_project, load_experiments
from cooperbench_assets.commands.output import console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from cooperbench_assets.launch import Launcher, Ran
    from cooperbench_assets.spec import CellSpec, ExperimentSpec


@click.command()
@click.argument("experiment")
@click.option("--setting", "settings", multiple=True, help="Only this setting; may be given again.")
@click.option("--seed", "seeds", multiple=True, type=int, help="Only this seed; may be given again.")
def materialize(experiment: str, settings: tuple[str, ...], seeds: tuple[int, ...]) -> None:
    """Bring an experiment's cells and its results store up to date.

    Does what is missing, reads every chosen cell, publishes it, and evaluates the checks. Failed checks are reported
    and are no error: they say something about the data. Exit code 3 if an asset could not be materialised.
    """
    project = find_project()
    spec = choose(load_experiments(project.defs), experiment)[experiment]
    cells = chosen_cells(experiment, spec, settings, seeds)
    from cooperbench_assets.launch import Launcher  # imports Dagster: seconds that --help need not cost

    out = console()
    with Launcher(project, experiment, spec) as launcher:
        failures = run_cells(launcher, cells, out)
        store = launcher.run_store()
    report(out, "results_store", store)
    failures += store.error is not None
    if failures:
        raise click.exceptions.Exit(3)


def chosen_cells(
    experiment: str, spec: ExperimentSpec, settings: Sequence[str], seeds: Sequence[int]
) -> tuple[CellSpec, ...]:
    """The planned cells of the named settings and seeds; all of them if none is named.

    Raises:
        click.BadParameter: if a setting is unknown, or no planned cell has the seed.
    """
    for setting in settings:
        if setting not in spec.settings:
            raise click.BadParameter(f"{experiment} has no setting {setting!r}; it has {', '.join(spec.settings)}")
    cells = tuple(
        cell
        for cell in spec.cells(experiment)
        if (not settings or cell.cell.setting in settings) and (not seeds or cell.cell.seed in seeds)
    )
    if not cells:
        raise click.BadParameter(f"{experiment} plans no cell with seed {', '.join(map(str, seeds))} there")
    return cells


def run_cells(launcher: Launcher, cells: Sequence[CellSpec], out: Console, config: dict[str, Any] | None = None) -> int:
    """Materialise the subset and the cells; returns how many could not be."""
    subset = launcher.run_subset()
    if subset.error:
        report(out, "subset_pairs", subset)
        return 1
    failures = 0
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        task = progress.add_task("cells", total=len(cells))
        for cell in cells:
            progress.update(task, description=f"{cell.cell.setting} seed {cell.cell.seed}")
            ran = launcher.run_cell(cell.cell, config)
            report(progress.console, f"{cell.cell.setting} seed {cell.cell.seed}", ran)
            failures += ran.error is not None
            progress.advance(task)
    return failures


def report(out: Console, what: str, ran: Ran) -> None:
    """One line a run: what came out, then its failed checks."""
    if ran.error:
        out.print(f"{what}: {ran.error}", style="red")
        return
    out.print(f"{what}: {_figures(ran)}")
    for name, found in ran.failed_checks:
        out.print(f"  check {name}: {found}", style="yellow")


def _figures(ran: Ran) -> str:
    if ran.skipped:
        return "not planned, nothing done"
    said = ran.metadata.get("results_store") or ran.metadata.get("pair_results") or {}
    outcomes = ("pass", "fail", "infra_error", "unevaluated", "missing")
    figures = ", ".join(f"{said[name]} {name}" for name in outcomes if said.get(name))
    unchanged = " (unchanged)" if said.get("changed") is False else ""
    return f"{figures or 'done'}{unchanged}"
