"""demo: the built-in experiment from set-up to results, in one command."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click

from cooperbench_assets.commands.context import Experiments, choose, find_project, read_experiments, say_instance
from cooperbench_assets.commands.materialize import chosen_cells, report, run_cells
from cooperbench_assets.commands.output import console
from cooperbench_assets.commands.status import look, show, stored
from cooperbench_assets.wording import count

if TYPE_CHECKING:
    from rich.console import Console

    from cooperbench_assets.project import Project
    from cooperbench_assets.run_results import Ran
    from cooperbench_assets.spec import ExperimentSpec

EXPERIMENT: Final = "demo"


@click.command()
def demo() -> None:
    """Run the built-in experiment: scripted agents, real tests, no engine, key or network.

    Builds its dataset, materialises its five cells, retries what the scripted infrastructure broke, publishes the
    results store, draws the report and prints the cells. Running it again continues where it stopped. Exit code 3 if
    an asset could not be materialised.
    """
    started = time.monotonic()
    project = find_project()
    spec = choose(read_experiments(project), EXPERIMENT)
    out = console()
    say_instance(project)
    out.print("The agents of this experiment are scripted: its figures say nothing about any model.")

    from cooperbench_assets.local_runs import Launcher  # imports Dagster: seconds that --help need not cost

    limits = spec.limits
    with Launcher(project, EXPERIMENT, spec) as launcher:
        # What infrastructure errors ended is tried again, as the retry sensor would.
        rounds = limits.agent_attempts + limits.eval_attempts
        failures = run_cells(launcher, chosen_cells(EXPERIMENT, spec), out, rounds=rounds)
        last = {"results_store": launcher.run_store(), "report": launcher.run_report()}
    broken = {what: ran for what, ran in last.items() if ran.error}
    for what, ran in broken.items():
        report(out, what, ran)
    if failures or broken:
        raise click.exceptions.Exit(3)
    _end(project, spec, time.monotonic() - started, last["results_store"], out)


def _end(project: Project, spec: ExperimentSpec, seconds: float, store: Ran, out: Console) -> None:
    out.print()
    cells = look(project, Experiments({EXPERIMENT: spec}), stored(project), EXPERIMENT)
    show(cells)
    failed = len(store.failed_checks) + sum(cell.as_dict()["checks_failed"] or 0 for cell in cells)
    found = f"{count(failed, 'check')} failed" if failed else "all checks are green"
    out.print(f"\n{seconds:.0f} seconds; {found}.")
    out.print(f"The results:  duckdb -readonly {project.relative(project.database)}")
    out.print('              .venv/bin/cooperbench-assets query "SELECT * FROM cells"')
    out.print(f"The report:   {project.relative(project.report / EXPERIMENT / 'report.html')}")
    out.print("The UI:       make ui, then http://127.0.0.1:3000")
