"""What the viewer was asked to show: all experiments of a project, one of them, or a folder of logs.

What belongs here: from a name or a folder to a `Shelf`. What does not: what is asked of it (``library``).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from cooperbench_assets.errors import UserError
from cooperbench_assets.experiment_context import ExperimentContext, MissingInputError
from cooperbench_assets.experiments import read_experiments
from cooperbench_assets.transcripts.sources import Source, SourceCell, source_of_logs
from cooperbench_assets.viewer import experiment_page
from cooperbench_assets.viewer.library import Library, Shelf

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.experiments import Experiments
    from cooperbench_assets.project import Project
    from cooperbench_assets.spec import ExperimentSpec


def library_of_logs(folder: Path) -> Library:
    """A folder of runs that anybody made.

    Raises:
        SourceError: if there is no run in it.
    """
    source = source_of_logs(folder)
    name = folder.resolve().name
    shelf = Shelf(
        name,
        source,
        lambda rows: experiment_page.overview(name, source, rows, None),
        experiment_page.no_headline,
        "logs",
    )
    return Library(lambda: {name: shelf})


def library_of_project(project: Project, only: str | None = None) -> Library:
    """The experiments of a project, or one of them; what is edited meanwhile is shown from then on."""
    kept: dict[str, tuple[str, Shelf]] = {}

    def shelves() -> dict[str, Shelf]:
        found = _chosen(read_experiments(project), only)
        for name, spec in found.usable.items():
            said = repr(spec)
            if name not in kept or kept[name][0] != said:
                kept[name] = (said, _shelf(project, name, spec))
        return {name: kept[name][1] for name in found.usable}

    return Library(shelves, lambda: _chosen(read_experiments(project), only).broken)


def _chosen(found: Experiments, only: str | None) -> Experiments:
    if only is None:
        return found
    from cooperbench_assets.experiments import Experiments

    return Experiments(
        {name: spec for name, spec in found.usable.items() if name == only},
        {name: why for name, why in found.broken.items() if name == only},
    )


def _shelf(project: Project, name: str, spec: ExperimentSpec) -> Shelf:
    source = source_of_experiment(ExperimentContext(name, spec, project))
    return Shelf(
        name,
        source,
        lambda rows: experiment_page.overview(name, source, rows, project),
        functools.partial(experiment_page.headline, name, project),
        report=project.report / name,
    )


def source_of_experiment(experiment: ExperimentContext) -> Source:
    """The planned cells of an experiment."""
    pairs: tuple[Pair, ...] | None
    try:
        pairs = experiment.subset_at_hand().pairs
    except MissingInputError:
        pairs = None
    project, spec = experiment.project, experiment.spec
    cells = tuple(
        SourceCell(
            experiment.run_dir(cell), cell.cell.setting, cell.cell.seed, cell.mode, experiment.name, pairs,
            spec.accepted_in(cell.cell),
        )
        for cell in experiment.cells
    )  # fmt: skip
    return Source(
        experiment.logs,
        cells,
        project.data / "transcripts",
        experiment.redactor.personal(),
        project.tables,
        project.data / "notes" / f"{experiment.name}.jsonl",
    )


class ViewError(UserError):
    """What the viewer was asked for cannot be shown; says what can."""


def library_of(project: Project | None, target: str | None, folder: Path | None) -> tuple[Library, str | None]:
    """What a person asked for, and the name of the one thing that is shown, if it is one.

    Args:
        project: The project that the command runs in, if it runs in one.
        target: The argument as it was given: an experiment's name, or a folder.
        folder: The folder that the argument names, if there is one.

    Raises:
        ViewError: if it is neither.
    """
    known = () if project is None else (*(found := read_experiments(project)).usable, *found.broken)
    if project is not None and (target is None or target in known):
        return library_of_project(project, target), target
    if folder is not None:
        return library_of_logs(folder), folder.resolve().name
    there = f"experiments here: {', '.join(known)}" if known else "there is no experiment here"
    raise ViewError(f"{target!r} is neither an experiment ({there}) nor a folder of logs")
