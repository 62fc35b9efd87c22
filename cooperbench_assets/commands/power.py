"""power: how many tasks, pairs and seeds a difference needs, from an experiment's variances or given ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cooperbench_assets.commands.context import find_project
from cooperbench_assets.commands.output import UNKNOWN, emit, emit_json, new_table, rows_to

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cooperbench_assets.analysis.power import Variances

TASKS = (6, 8, 12, 20, 26)
SEEDS = (1, 2, 3, 5)
PAIRS = (1, 2, 4, 8)


@click.command()
@click.argument("experiment", required=False)
@click.option("--contrast", nargs=2, metavar="A B", help="Two settings of EXPERIMENT; its first two if not given.")
@click.option(
    "--variances",
    nargs=3,
    type=click.FloatRange(min=0),
    metavar="TASK PAIR SEED",
    help="Variances of the difference, given: between tasks, between pairs of a task, between seeds.",
)
@click.option(
    "--difference",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.1,
    show_default=True,
    help="The true difference to be found, as a share: 0.1 is ten points.",
)
@click.option("--contrasts", type=click.IntRange(1), default=1, show_default=True, help="Planned contrasts.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def power(
    experiment: str | None,
    contrast: tuple[str, str] | None,
    variances: tuple[float, float, float] | None,
    difference: float,
    contrasts: int,
    as_json: bool,
) -> None:
    """Say how many tasks, pairs and seeds a difference needs.

    How much results vary is taken from EXPERIMENT's strict verdicts over clean pairs in the results store, or given
    with --variances. A design finds a difference if four of five such studies would claim it, at 5 % divided by the
    planned contrasts.

    \b
      cooperbench-assets power command_a --contrast solo coop-comm --difference 0.2
      cooperbench-assets power --variances 0.05 0.1 0.2
    """
    from cooperbench_assets.analysis import power as formulas

    if (experiment is None) == (variances is None):
        raise click.UsageError("name an experiment, or give --variances TASK PAIR SEED")
    if experiment is None:
        assert variances is not None
        found, what = formulas.Variances(*variances), "the given variances"
    else:
        found, what = _measured(experiment, contrast)
    needed = [[formulas.tasks_needed(found, difference, pairs, seeds, contrasts) for pairs in PAIRS] for seeds in SEEDS]
    least = [[formulas.detectable(found, tasks, found.pairs, seeds, contrasts) for tasks in TASKS] for seeds in SEEDS]
    if as_json:
        emit_json({
            "what": what, "task": found.task, "pair": found.pair, "seed": found.seed, "pairs_per_task": found.pairs,
            "difference": difference, "contrasts": contrasts, "tasks_needed": _by_seeds(needed, PAIRS),
            "detectable": _by_seeds(least, TASKS),
        })  # fmt: skip
        return
    click.echo(f"Variance of the difference, {what}: between tasks {found.task:.3g}, between pairs of a task "
               f"{found.pair:.3g}, between seeds {found.seed:.3g}.")  # fmt: skip
    if not found.seeds_known:
        click.echo("No pair has two seeds in both settings: what seeds would gain cannot be told.")
    click.echo(f"\nTasks that find {100 * difference:g} points (planned contrasts: {contrasts}), by pairs of a task:")
    _show(PAIRS, "{} a task", [[UNKNOWN if n is None else str(n) for n in row] for row in needed])
    click.echo(f"\nPoints that are found, with {found.pairs:.2g} pairs of a task:")
    _show(TASKS, "{} tasks", [[_points(share) for share in row] for row in least])


def _points(share: float | None) -> str:
    """Points; a design that cannot find any difference says so."""
    return "none" if share is None or share > 1 else f"{100 * share:.0f}"


def _by_seeds(rows: Sequence[Sequence[float | None]], columns: tuple[int, ...]) -> object:
    return {seeds: dict(zip(columns, row, strict=True)) for seeds, row in zip(SEEDS, rows, strict=True)}


def _show(columns: tuple[int, ...], head: str, rows: list[list[str]]) -> None:
    table = new_table("seeds", *(head.format(n) for n in columns))
    emit(rows_to(table, ([str(seeds), *row] for seeds, row in zip(SEEDS, rows, strict=True))))


def _measured(experiment: str, contrast: tuple[str, str] | None) -> tuple[Variances, str]:
    """The variances of a contrast of an experiment in the store, and what they are of."""
    from cooperbench_assets.analysis.frames import cells_of, compared_cells, scores_of, settings_of
    from cooperbench_assets.analysis.power import variances
    from cooperbench_assets.store.read import snapshot

    with snapshot(find_project().database) as store:
        frames = {name: store.table(name, experiment) for name in ("pairs", "provenance")}
    cells = cells_of(frames)
    settings = settings_of(compared_cells(cells))["setting"].to_list()
    chosen = contrast or tuple(settings[:2])
    lacking = [name for name in chosen if name not in settings]
    if lacking or len(chosen) < 2:
        there = ", ".join(settings) or "none; make it with: cooperbench-assets materialize " + experiment
        raise click.BadParameter(f"two settings of {experiment} are needed; in the results store are: {there}")
    found = variances(scores_of(frames, cells), *chosen)
    if found is None:
        raise click.BadParameter(f"{experiment} has fewer than two tasks judged in both {chosen[0]} and {chosen[1]}")
    return found, f"{chosen[0]} − {chosen[1]} in {experiment}"
