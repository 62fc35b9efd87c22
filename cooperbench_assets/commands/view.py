"""view: pages of experiments, pairs and transcripts, in the browser or as files."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cooperbench_assets.commands.context import ProjectError, find_project
from cooperbench_assets.commands.output import note
from cooperbench_assets.wording import count

if TYPE_CHECKING:
    from cooperbench_assets.project import Project


@click.command()
@click.argument("target", required=False, metavar="[EXPERIMENT|LOGS]")
@click.option("--port", type=click.IntRange(1, 65535), help="Listen on this port of 127.0.0.1.")
@click.option(
    "--bundle",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write the same pages as files, for any static host or to be opened from disk, and end.",
)
def view(target: str | None, port: int | None, bundle: Path | None) -> None:
    """Show experiments, pairs and transcripts in the browser, or write them as files.

    EXPERIMENT is one of this project, LOGS a folder of runs that anybody's cooperbench made; all experiments without
    either. The pages are served on loopback only, at the address in COOPERBENCH_ASSETS_VIEWER_URL (environment or
    .env; http://127.0.0.1:3001 if it is not set), which is where links in the Dagster UI, in alerts and in the report
    lead. `make ui` starts them beside the Dagster UI. Keys, e-mail addresses and users' names in home paths are taken
    out of all they show, by their shape and by the values that are known here.

    With --bundle, FOLDER gets index.html and its data, without raw files: a shape is no proof, so look before you
    publish it.
    """
    project = _project()
    from cooperbench_assets.viewer.shelves import library_of

    folder = None if target is None else Path(target)
    library, name = library_of(project, target, folder if folder is not None and folder.is_dir() else None)
    if bundle is not None:
        from cooperbench_assets.viewer.bundle import write_bundle

        written = write_bundle(library, bundle)
        click.echo(f"{bundle}/index.html: {count(written.pairs, 'pair')}, {written.bytes / 1e6:.1f} MB")
        for problem in written.problems:
            note(problem)
        return
    from cooperbench_assets.viewer.server import serve
    from cooperbench_assets.viewer_links import experiment_page, viewer_address

    root = project.root if project is not None else Path.cwd()
    address = viewer_address(root) if port is None else f"http://127.0.0.1:{port}"
    serve(
        library,
        address,
        lambda: click.echo(f"{address}{'' if name is None else experiment_page(name)} (Ctrl-C ends it)"),
    )


def _project() -> Project | None:
    """The project that this is called in; a folder of logs needs none."""
    with contextlib.suppress(ProjectError):
        return find_project()
    return None
