"""import-bundle: take in what another machine exported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cooperbench_assets.commands.context import find_project, read_experiments
from cooperbench_assets.commands.output import note, warn
from cooperbench_assets.wording import count, some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cooperbench_assets.project import Project
    from cooperbench_assets.store.cells import Cell


@click.command("import-bundle")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def import_bundle(file: Path) -> None:
    """Take in the cells of a bundle that another machine exported.

    FILE is one that cooperbench-assets export wrote. Its cells join those of the same experiment here and are
    published, with its task images, gold baseline and second verdicts. A cell that is here already must hold the
    same; if it does not, nothing is imported. The report is made anew (cooperbench-assets report); raw logs stay in
    the bundle: unpack it to read them. Where all of it is here, the content hash equals the one that export printed.
    """
    from cooperbench_assets.sharing.bundle_import import import_bundle as take_in

    project = find_project()
    done = take_in(project, file)
    click.echo(f"{done.experiment}: {count(len(done.added), 'cell')} added, {len(done.unchanged)} unchanged")
    for cell in done.added:
        click.echo(f"  {cell.setting} seed {cell.seed}")
    click.echo(f"content hash {done.content[:16]}")
    for text in done.published.warnings:
        warn(text)
    if done.kept:
        warn(f"here already with other content, and left as they are: {some(done.kept)}")
    _mention_unplanned(project, done.experiment, done.added)
    note(f"analyses and figures: cooperbench-assets report {done.experiment}")


def _mention_unplanned(project: Project, experiment: str, added: Sequence[Cell]) -> None:
    """Say which new cells defs.yaml does not plan, and how one of them is taken out again."""
    spec = read_experiments(project).usable.get(experiment)
    if spec is None:
        return
    planned = {cell.cell for cell in spec.cells(experiment)}
    if lacking := [f"{cell.setting} seed {cell.seed}" for cell in added if cell not in planned]:
        note(
            f"not planned in defs.yaml: {some(lacking)}; they stay in the results store as imported. To take one out, "
            f"delete its folder below {project.relative(project.tables / experiment / 'cells')} and publish again"
        )
