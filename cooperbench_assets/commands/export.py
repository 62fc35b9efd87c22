"""export: one experiment as one file for co-authors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cooperbench_assets.commands.context import check_known, choose, find_project, read_experiments
from cooperbench_assets.commands.output import note, warn
from cooperbench_assets.wording import count

if TYPE_CHECKING:
    from cooperbench_assets.project import Project
    from cooperbench_assets.sharing.bundle import LogRun
    from cooperbench_assets.spec import ExperimentSpec


@click.command()
@click.argument("experiment")
@click.option("--raw-logs", is_flag=True, help="Also the raw files of its runs, without what looks like a secret.")
@click.option(
    "-o", "--output", "target", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The .tar.gz file."
)
def export(experiment: str, raw_logs: bool, target: Path) -> None:
    """Write an experiment as one file for co-authors.

    The file holds its tables with provenance and checks, its task images, gold baseline and second verdicts, people's
    notes on its pairs and their steps, its report where one was made (make it first: cooperbench-assets report
    EXPERIMENT) and, with --raw-logs, the files of its runs. Keys, tokens and passwords are taken out of all of them, by
    their shape and by the values that are known here: of the variables that defs.yaml lists under secrets or whose
    names say so, and of its agent_config. A shape is no proof: look before you publish. import-bundle takes the file in
    on another machine, and prints the same content hash.
    """
    from cooperbench_assets.experiment_context import redactor_of
    from cooperbench_assets.redaction import Redactor, secret_variables
    from cooperbench_assets.sharing.bundle import export_bundle

    project = find_project()
    spec = _spec(project, experiment)
    if raw_logs and spec is None:
        raise click.BadParameter(f"{experiment} has no defs.yaml here, so that its raw logs are not known")
    runs = _runs(project, experiment, spec) if raw_logs and spec is not None else None
    redactor = Redactor(secret_variables(os.environ)) if spec is None else redactor_of(spec)
    done = export_bundle(project, experiment, target, runs=runs, redactor=redactor)
    parts = [count(len(done.cells), "cell"), "its report" if done.contents.report else "no report"]
    if raw_logs:
        parts.append(count(done.log_files, "raw file"))
    click.echo(f"{target}: {', '.join(parts)}, {done.bytes / 1e6:.1f} MB")
    click.echo(f"content hash {done.contents.content[:16]}")
    if done.contents.redacted:
        found = ", ".join(f"{kind} {times}" for kind, times in done.contents.redacted.items())
        click.echo(f"Taken out as secrets: {found}")
    if not done.contents.report:
        note(f"make the report first to have it along: cooperbench-assets report {experiment}")
    for left in done.left_out:
        warn(f"left out: {left}")


def _spec(project: Project, experiment: str) -> ExperimentSpec | None:
    """The experiment; None for one that another machine defines, and whose tables are here.

    Raises:
        NotLoadedError: if its defs.yaml cannot be used: nobody knows then which variables are its secrets.
        click.BadParameter: if there is neither an experiment nor a table of that name.
    """
    found = read_experiments(project)
    check_known(project, found, experiment)
    return choose(found, experiment) if experiment in {*found.usable, *found.broken} else None


def _runs(project: Project, name: str, spec: ExperimentSpec) -> list[LogRun]:
    """The run folders of an experiment's planned cells."""
    from cooperbench_assets.experiment_context import ExperimentContext
    from cooperbench_assets.sharing.bundle import LogRun

    experiment = ExperimentContext(name, spec, project)
    return [LogRun(experiment.run_dir(cell), experiment.logs) for cell in experiment.cells]
