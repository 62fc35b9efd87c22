"""doctor: what is there, what is missing, and what that prevents."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click
from rich.text import Text

from cooperbench_assets.cli import NOT_IN_ORDER
from cooperbench_assets.commands.context import find_project, read_experiments
from cooperbench_assets.commands.output import emit, emit_json, new_table, rows_to
from cooperbench_assets.doctor import Probe, examine
from cooperbench_assets.wording import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cooperbench_assets.project import Project

STYLES: Final = {"ok": "green", "problem": "red", "absent": "yellow"}


@click.command()
@click.option("--deploy", is_flag=True, help="Look at the deployment, too, from within its code server.")
@click.option("--json", "as_json", is_flag=True, help="One object: ok, and a list of looks.")
def doctor(*, deploy: bool, as_json: bool) -> None:
    """Say what is there, what is missing, and what that prevents.

    Looks at Python, the harness, Docker and the disk below its images, Redis, git, bubblewrap, the project's folders
    and results store, and at what each experiment needs: its subset and dataset, its logs, its keys (set or not set;
    a value is never shown). Nothing is changed.

    A thing is "ok", "absent" (not there, and no configured experiment needs it) or a "problem": one does. Exit code
    1 if there is a problem.
    """
    project = find_project()
    looks = look(project)
    if deploy:
        from cooperbench_assets.deployment import examine_deployment  # imports Dagster

        looks += examine_deployment(project, os.environ)
    ok = all(look.state != "problem" for look in looks)
    if as_json:
        emit_json({"ok": ok, "looks": [asdict(look) for look in looks]})
    else:
        show(looks)
    if not ok:
        raise click.exceptions.Exit(NOT_IN_ORDER)


def look(project: Project) -> list[Probe]:
    """Every look; an experiment that cannot be loaded is a problem, and all else is looked at all the same."""
    found = read_experiments(project)
    broken = [
        Probe(
            f"{name}: defs.yaml", "problem", sentence, "everything of this experiment but its stored results", (name,)
        )
        for name, sentence in found.broken.items()
    ]
    return [*examine(project, found.usable, os.environ), *broken]


def show(looks: Sequence[Probe]) -> None:
    """A line a look, then what the missing things prevent."""
    table = new_table("", "what", "found")
    rows_to(table, [(Text(look.state, style=STYLES[look.state]), look.subject, look.detail) for look in looks])
    emit(table)
    click.echo("")
    for state in ("problem", "absent"):
        for one in (one for one in looks if one.state == state and one.prevents):
            own = one.needed_by and one.subject.startswith(f"{one.needed_by[0]}:")
            who = f" (needed by {', '.join(one.needed_by)})" if one.needed_by and not own else ""
            click.echo(f"{state}: {one.subject}: prevents {one.prevents}{who}")
    problems = sum(look.state == "problem" for look in looks)
    click.echo(count(problems, "problem") if problems else "No problem for the experiments that are configured.")
