"""materialize: what the UI's button does, in one process, recorded in the same Dagster instance."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from cooperbench_assets.assets.progress import News, describe, describe_wait
from cooperbench_assets.cli import NOT_DONE, NOT_IN_ORDER
from cooperbench_assets.commands.context import choose, find_project, read_experiments, say_instance
from cooperbench_assets.commands.errors_left import described, errors_left
from cooperbench_assets.commands.output import console
from cooperbench_assets.execution.runner.progress import SlotWait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rich.console import Console

    from cooperbench_assets.execution.runner.progress import Progress as StageProgress
    from cooperbench_assets.experiment_context import ExperimentContext
    from cooperbench_assets.local_runs import Launcher
    from cooperbench_assets.run_results import CellRan, Ran
    from cooperbench_assets.spec import CellSpec, ExperimentSpec
    from cooperbench_assets.store.cells import Cell

GOLD_FIGURES = ("sound", "fails", "flaky", "conflicting", "not_judged")
STAGE_NAMES = {"agent": "agents", "eval": "evaluations"}


@click.command()
@click.argument("experiment")
@click.option("--setting", "settings", multiple=True, help="Only this setting; may be given again.")
@click.option("--seed", "seeds", multiple=True, type=int, help="Only this seed; may be given again.")
@click.option("--only", "only", multiple=True, metavar="PAIR", help="Only this pair (repo/task_id/f1_f2); again.")
@click.option("--pairs", "at_most", type=click.IntRange(1), help="A smoke run of at most N pairs a cell.")
@click.option("--concurrency", type=click.IntRange(1), help="Pairs at once, instead of the experiment's limit.")
@click.option("--cells", "at_once", type=click.IntRange(1), help="Cells side by side (4); they share the slots.")
@click.option("--reset-retries", is_flag=True, help="Reset the retry counters: the cause of the errors is fixed.")
@click.option("--no-retry", is_flag=True, help="One round: do not run again what a retry can help.")
@click.option("--gold", is_flag=True, help="The gold baseline instead of cells: no model and no cost.")
@click.option("--read-again", is_flag=True, help="Read every cell anew, in one run, and run none: after an upgrade.")
@click.option("--dry-run", is_flag=True, help="Print what would be run, and why; run nothing.")
def materialize(
    experiment: str,
    settings: tuple[str, ...],
    seeds: tuple[int, ...],
    *,
    only: tuple[str, ...],
    at_most: int | None,
    concurrency: int | None,
    at_once: int | None,
    reset_retries: bool,
    no_retry: bool,
    gold: bool,
    read_again: bool,
    dry_run: bool,
) -> None:
    """Bring an experiment's cells and its results store up to date.

    Runs what is missing or ended by an infrastructure error, reads every chosen cell, evaluates the checks and
    publishes. Nothing that has its verdict is run again. What a retry can help is run again at once, in rounds, up to
    limits.agent_attempts and limits.eval_attempts; with --only, --pairs or --no-retry there is one round. No further
    round follows where a person must fix the cause, the budget or the circuit breaker stopped launches, or a usage
    limit lasts for more than two minutes.

    Failed checks are reported and are no error: they say something about the data. Exit code 1 if infrastructure errors
    are left (listed by family, with what to do), 3 if an asset could not be materialised.

    --gold evaluates the dataset's own solutions twice, in the same sandbox: the best first run on a new machine.
    """
    project = find_project()
    spec = choose(read_experiments(project), experiment)
    cells = chosen_cells(experiment, spec, settings, seeds)
    config: dict[str, Any] = {
        "pairs": list(only),
        "at_most": at_most,
        "concurrency": concurrency,
        "reset_retries": reset_retries,
    }
    config = {name: value for name, value in config.items() if value}
    from cooperbench_assets.experiment_context import ExperimentContext
    from cooperbench_assets.local_runs import Launcher  # imports Dagster: seconds that --help need not cost

    out = console()
    if gold and spec.execution not in ("docker", "process"):
        raise click.BadParameter(f"--gold needs execution: docker or process; {experiment} has {spec.execution}")
    if dry_run and gold:
        print_gold_plan(ExperimentContext(experiment, spec, project), out)
        return
    if dry_run:
        print_plans(ExperimentContext(experiment, spec, project), cells, config, out)
        return
    say_instance(project)
    rounds = 1 if no_retry or only or at_most else spec.limits.agent_attempts + spec.limits.eval_attempts
    with Launcher(project, experiment, spec) as launcher:
        if gold:
            failures = run_gold(launcher, out, reset_retries=reset_retries)
        elif read_again:
            failures = read_cells(out, lambda tell: [launcher.read_again(tell)])
        else:
            failures = run_cells(launcher, cells, out, config, at_once=at_once, rounds=rounds)
        _end(launcher, out, failures, cells, only, gold=gold)


def _end(
    launcher: Launcher, out: Console, failures: int, cells: Sequence[CellSpec], only: Sequence[str], *, gold: bool
) -> None:
    """Publish, and say which infrastructure errors are left; the exit code tells whether all went well."""
    store = launcher.run_store()
    if store.error or not gold:  # Cells that are not in the store are none of the gold baseline's business.
        report(out, "results_store", store)
    none_run = gold or launcher.experiment.spec.execution == "none"
    left = 0 if none_run else report_errors_left(launcher, cells, only, out)
    if failures or store.error:
        raise click.exceptions.Exit(NOT_DONE)
    if left:
        raise click.exceptions.Exit(NOT_IN_ORDER)


def chosen_cells(
    experiment: str,
    spec: ExperimentSpec,
    settings: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> tuple[CellSpec, ...]:
    """The cells of the named settings and seeds; all planned ones if none is named.

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
        raise click.BadParameter(
            f"{experiment} plans no cell with seed {', '.join(map(str, seeds))} there; add it to seeds: in defs.yaml"
        )
    return cells


def print_plans(experiment: ExperimentContext, cells: Sequence[CellSpec], config: dict[str, Any], out: Console) -> None:
    """What a launch of each cell would run, and why, with the cost and time that earlier tries suggest."""
    from cooperbench_assets.assets.execution import LaunchConfig, plan_of

    if experiment.spec.execution == "none":
        out.print(f"{experiment.name} reads logs that are made elsewhere (execution: none): there is nothing to run")
        return
    for cell in cells:
        for asset, stage in (("run_logs", "agents"), ("eval_outputs", "evaluations")):
            plan = plan_of(experiment, cell, asset, LaunchConfig(**config))
            out.print(f"{cell.cell.setting} seed {cell.cell.seed}: {len(plan.runs)} {stage} to run{_expected(plan)}")
            for action in ("run", "blocked"):
                reasons = Counter(step.sentence for step in plan.having(action))
                for reason, count in reasons.most_common():
                    out.print(f"  {action} {count}: {reason}")


def print_gold_plan(experiment: ExperimentContext, out: Console) -> None:
    """How many evaluations a gold baseline would make in each mode."""
    from cooperbench_assets.assets.gold_baseline import gold_plan

    for setting, first, second, blocked in gold_plan(experiment):
        out.print(f"{setting}: {first} first and {second} second evaluations of the dataset's own solutions to run")
        for reason, count in Counter(blocked.values()).most_common():
            out.print(f"  blocked {count}: {reason}")


def _expected(plan: Any) -> str:
    """Cost and time from earlier tries, where they are known."""
    parts = []
    if plan.runs and plan.expected_cost_usd is not None:
        parts.append(f"{plan.expected_cost_usd:.2f} USD")
    if plan.runs and plan.expected_seconds is not None:
        parts.append(f"{plan.expected_seconds / 60:.1f} minutes one after another")
    return f" (expected: {', '.join(parts)})" if parts else ""


@contextlib.contextmanager
def progress_bars(out: Console, launcher: Launcher) -> Iterator[Progress]:
    """A bar for each cell that runs now, following its stages; where nobody watches, a line on whom it waits for."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        bars: dict[tuple[Cell, str], TaskID] = {}
        waits: dict[tuple[Cell, str], News] = defaultdict(News)

        def follow(cell: Cell, stage: StageProgress) -> None:
            bar = bars.get((cell, stage.stage))
            if bar is None:
                bar = bars[cell, stage.stage] = progress.add_task("starting", total=None)
            failed = sum(stage.failed.values())
            infra_failed = f", {failed} ended by infrastructure errors" if failed else ""
            name = f"{cell.setting} seed {cell.seed} {STAGE_NAMES[stage.stage]}"
            waiting = f", {describe_wait(stage.waiting)}" if stage.waiting is not None else ""
            # The line tells no counts, and is not to be repeated for each pair that had its turn.
            wait = replace(stage, done=0, total=0, failed={})
            lasts = not isinstance(stage.waiting, SlotWait) or stage.waiting.held_by
            silent = out.is_terminal or stage.running or not (waiting and lasts)
            if not silent and waits[cell, stage.stage].is_new(wait):
                out.print(f"{name}{waiting}")
                waits[cell, stage.stage].told(wait)
            progress.update(
                bar,
                description=f"{name}{infra_failed}{waiting}",
                total=stage.total,
                completed=stage.ended,
                visible=stage.ended < stage.total,
            )

        launcher.listen(follow)
        yield progress


@contextlib.contextmanager
def gold_progress(out: Console, launcher: Launcher) -> Iterator[None]:
    """Bars on a terminal; elsewhere a line at the start and after each tenth of the pairs."""
    if out.is_terminal:
        with progress_bars(out, launcher):
            yield
        return
    told: dict[Cell, tuple[int, int]] = {}

    def follow(cell: Cell, stage: StageProgress) -> None:
        now = (stage.total, 10 * stage.ended // stage.total if stage.total else 10)
        if told.get(cell) != now:
            told[cell] = now
            out.print(f"{cell.setting}: {describe(stage)}")

    launcher.listen(follow)
    yield


def run_first(launcher: Launcher, out: Console) -> bool:
    """Materialise what cells wait for: the subset and, on Docker, its images. Whether that went well."""
    first = launcher.run_subset()
    if first.error:
        report(out, "task_images" if "subset_pairs" in first.materialized else "subset_pairs", first)
        return False
    for name, found in first.failed_checks:
        out.print(f"check {name}: {found}", style="yellow")
    return True


def run_gold(launcher: Launcher, out: Console, *, reset_retries: bool) -> int:
    """Materialise the gold baseline; 1 if it could not be."""
    if not run_first(launcher, out):
        return 1
    with gold_progress(out, launcher):
        ran = launcher.run_gold(reset_retries=reset_retries)
    said = ran.metadata.get("gold_baseline") or {}
    figures = ", ".join(f"{said[name]} {name.replace('_', ' ')}" for name in GOLD_FIGURES if said.get(name))
    if ran.error:
        report(out, "gold_baseline", ran)
        return 1
    out.print(f"gold_baseline: {figures}")
    for name, found in ran.failed_checks:
        out.print(f"  check {name}: {found}", style="yellow")
    return 0


def run_cells(
    launcher: Launcher,
    cells: Sequence[CellSpec],
    out: Console,
    config: dict[str, Any] | None = None,
    *,
    at_once: int | None = None,
    rounds: int = 1,
) -> int:
    """Materialise the subset and the cells, some at a time; returns how many could not be.

    Args:
        launcher: Of the experiment.
        cells: The cells.
        out: Gets one line a run, and the bars.
        config: Run config of each launch.
        at_once: Cells side by side, instead of the usual number.
        rounds: How often a cell is run at most where there are infrastructure errors and a retry can help.
    """
    if launcher.experiment.spec.execution == "none":
        return read_cells(out, lambda tell: launcher.read_cells(cells, tell))
    if not run_first(launcher, out):
        return 1
    failures = 0
    with progress_bars(out, launcher) as progress:
        for one in launcher.run_cells(cells, config, at_once=at_once, rounds=rounds):
            name = f"{one.cell.cell.setting} seed {one.cell.cell.seed}"
            report(progress.console, name, one.ran)
            if one.again:
                after = f" after {one.pause_seconds:.0f} seconds" if one.pause_seconds else ""
                progress.console.print(f"  infrastructure errors in {name}: what a retry can help is run again{after}")
            failures += one.ran.error is not None
    return failures


def report_errors_left(launcher: Launcher, cells: Sequence[CellSpec], only: Sequence[str], out: Console) -> int:
    """Say which pairs have an infrastructure error in place of a verdict, and what to do; how many there are."""
    from cooperbench_assets.automation.dagster_runs import job_name

    experiment = launcher.experiment
    looks = launcher.observe_cells(cells)
    left = errors_left(experiment, looks, only)
    for line in described(experiment.name, job_name(experiment.name, "retry"), looks, left):
        out.print(line, style="yellow")
    return len(left)


def read_cells(out: Console, read: Callable[[Callable[[CellRan], None]], Iterable[Ran]]) -> int:
    """Read cells in one pass, a line for each as it is read; returns how many could not be."""
    failures = 0

    def tell(one: CellRan) -> None:
        nonlocal failures
        report(out, f"{one.cell.cell.setting} seed {one.cell.cell.seed}", one.ran)
        failures += one.ran.error is not None

    for ran in read(tell):
        if ran.error and not failures:  # It failed before it came to its cells.
            report(out, "cells" if "subset_pairs" in ran.materialized else "subset_pairs", ran)
            failures += 1
    return failures


def report(out: Console, what: str, ran: Ran) -> None:
    """One line a run: what came out, then its failed checks."""
    if ran.error:
        out.print(f"{what}: {ran.error}", style="red")
    else:
        out.print(f"{what}: {_figures(ran)}")
    for name, found in ran.failed_checks:
        out.print(f"  check {name}: {found}", style="yellow")


def _figures(ran: Ran) -> str:
    said = ran.metadata.get("results_store") or ran.metadata.get("pair_results") or {}
    outcomes = ("pass", "fail", "infra_error", "unevaluated", "missing")
    figures = ", ".join(f"{said[name]} {name}" for name in outcomes if said.get(name))
    unchanged = " (unchanged)" if said.get("changed") is False else ""
    return f"{figures or 'done'}{unchanged}"
