"""cleanup: removing by hand what dead runs have left on the Docker engine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import click

from cooperbench_assets.cli import NOT_IN_ORDER, CannotError
from cooperbench_assets.commands.context import find_project
from cooperbench_assets.commands.output import emit, new_table, note, rows_to
from cooperbench_assets.project import INSTANCE_VARIABLE
from cooperbench_assets.wording import count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cooperbench_assets.execution.sandboxes.docker.engine import Engine
    from cooperbench_assets.execution.sandboxes.docker.leftovers import Belonging, CleanupResult

WHY: Final = {
    "dead": "the process that it served is gone",
    "alive": "the process that it serves runs",
    "elsewhere": "it belongs to another machine or container, which cannot be looked into from here",
}


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
def cleanup(dry_run: bool) -> None:
    """Remove what dead runs have left on the Docker engine.

    Looks at containers, networks and volumes with the labels of cooperbench-assets, and removes those whose run is
    gone. Every run does that by itself at its start and end, so this is for runs that were killed and that nobody
    starts again. In a deployment, the containers of runs that have ended go, too. What has no such label is never
    touched, nor are the images. Exit code 1 if something could not be removed, 3 if no engine answers.
    """
    from cooperbench_assets.execution.infra_errors import InfrastructureError
    from cooperbench_assets.execution.sandboxes.docker.engine import Engine
    from cooperbench_assets.execution.sandboxes.docker.leftovers import remove_leftovers

    try:
        with Engine.connect() as engine:
            swept = remove_leftovers(engine, dry_run=dry_run)
            sweep_runs(engine, dry_run=dry_run)
    except InfrastructureError as error:
        raise CannotError(error.text) from error
    show(swept, dry_run=dry_run)
    if swept.failed:
        raise click.exceptions.Exit(NOT_IN_ORDER)


def sweep_runs(engine: Engine, *, dry_run: bool) -> None:
    """Remove the containers of a deployment's runs whose end its Dagster instance knows, and say how many."""
    if not os.environ.get(INSTANCE_VARIABLE):
        return
    from cooperbench_assets.container_runs import remove_ended_runs  # imports Dagster
    from cooperbench_assets.local_runs import open_instance

    with open_instance(find_project()) as instance:
        ended = remove_ended_runs(engine, instance, dry_run=dry_run)
    note(f"{count(len(ended), 'container')} of ended runs {'would be removed' if dry_run else 'removed'}")


def show(swept: CleanupResult, *, dry_run: bool) -> None:
    """A line for each thing with our labels: what became of it, what it was for, and why."""
    done = "would go" if dry_run else "removed"
    rows = [(done, one, WHY[one.owner_state]) for one in swept.removed]
    rows += [("not removed", one, problem) for one, problem in swept.failed]
    rows += [("kept", one, WHY[one.owner_state]) for one in swept.kept]
    if rows:
        table = new_table("", "what", "name", "for", "why")
        emit(rows_to(table, [(what, one.kind, one.name, purpose(one), why) for what, one, why in rows]))
    verb = "would be removed" if dry_run else "removed"
    note(f"{count(len(swept.removed), 'thing')} {verb}, {len(swept.kept)} kept, {len(swept.failed)} not removed")


def purpose(one: Belonging) -> str:
    """What it was made for: experiment, setting, seed, pair and attempt, as far as its labels say."""
    said: Mapping[str, str] = one.described
    seed = f"seed {said['seed']}" if "seed" in said else ""
    parts = (said.get("experiment"), said.get("setting"), seed, said.get("pair"), said.get("attempt"))
    return " ".join(part for part in parts if part) or said.get("purpose", "")
