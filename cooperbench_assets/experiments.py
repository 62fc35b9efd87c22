"""All experiments of a project: those that can be used, and one sentence for each that cannot.

What belongs here: looking at every defs.yaml, at each for itself and at what would keep two of them from being used
together. What does not: what one of them means (``spec``), and Dagster. One mistake breaks one experiment: the command
line and the UI both go on with the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cooperbench_assets.spec import GOLD_SETTINGS, ExperimentError, ExperimentSpec, dagster_name, load_experiment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cooperbench_assets.project import Project

NOT_LOADED: Final = "not_loaded"
"""Begins the names of what Dagster shows of experiments that cannot be used."""


@dataclass(frozen=True)
class Experiments:
    """What the defs folder of a project holds."""

    usable: dict[str, ExperimentSpec] = field(default_factory=dict)
    """By name, sorted."""

    broken: dict[str, str] = field(default_factory=dict)
    """Why an experiment cannot be used, by the name of its folder: file, key and fix in one sentence."""

    others: tuple[Path, ...] = ()
    """Folders with something else than an experiment, for Dagster to load."""


def read_experiments(project: Project) -> Experiments:
    """Every experiment of a project. Reads the files of defs anew, and nothing else.

    Of two that cannot be used together, the one that has results already is kept: a new one must not take the place of
    what runs. Else it is the first by name.
    """
    usable: dict[str, ExperimentSpec] = {}
    broken: dict[str, str] = {}
    others = []
    for folder in sorted(entry for entry in project.defs.glob("[!._]*") if entry.is_dir()):
        file = folder / "defs.yaml"
        try:
            spec = load_experiment(file) if file.is_file() else None
        except ExperimentError as error:
            broken[folder.name] = _from_root(project, error)
            continue
        if spec is not None:
            usable[folder.name] = spec
        elif any(folder.iterdir()):
            others.append(folder)
    _keep_apart(project, usable, broken)
    return Experiments(usable, dict(sorted(broken.items())), tuple(others))


def _keep_apart(project: Project, usable: dict[str, ExperimentSpec], broken: dict[str, str]) -> None:
    """Take out what cannot be used beside the others."""
    kept: dict[str, ExperimentSpec] = {}
    for name in sorted(usable, key=lambda name: (not _has_begun(project, name, usable[name]), name)):
        try:
            for check in ACROSS:
                check({**kept, name: usable[name]}, project)
        except ExperimentError as error:
            broken[name] = _from_root(project, error)
        else:
            kept[name] = usable[name]
    for name in broken:
        usable.pop(name, None)


def _has_begun(project: Project, name: str, spec: ExperimentSpec) -> bool:
    """Whether anything was run or read for an experiment."""
    logs = project.resolve(spec.logs)
    return (project.tables / name).is_dir() or any((logs / cell.run_name).is_dir() for cell in spec.cells(name))


def check_names(experiments: Mapping[str, ExperimentSpec], project: Project) -> None:
    """Refuse two experiments that have one name in Dagster, and one with the name of what cannot be used.

    Raises:
        ExperimentError: naming both.
    """
    owner: dict[str, str] = {}
    for name in experiments:
        if dagster_name(name) == NOT_LOADED:
            raise ExperimentError(
                f"{project.defs / name}: {NOT_LOADED} is the group of experiments that cannot be used; "
                "rename the folder"
            )
        if (other := owner.setdefault(dagster_name(name), name)) != name:
            raise ExperimentError(
                f"{project.defs / name}: the experiments {other} and {name} are both called {dagster_name(name)} in "
                f"Dagster; rename the folder {name}"
            )


def check_run_names(experiments: Mapping[str, ExperimentSpec], project: Project) -> None:
    """Refuse two cells, of experiments or of gold_baseline, whose runs would lie in one folder.

    Raises:
        ExperimentError: naming both.
    """
    owner: dict[Path, str] = {}
    for name, spec in experiments.items():
        if spec.execution == "none":
            continue  # Reading the same logs twice, under two names, harms nothing.
        logs = project.resolve(spec.logs)
        runs = [(cell.run_name, f"{name} {cell.cell.setting} seed {cell.cell.seed}") for cell in spec.cells(name)]
        runs += [(f"{name}-{label}", f"{name} {label}") for label in GOLD_SETTINGS]
        for run_name, label in runs:
            # The same folder may be written in two ways.
            folder = (logs / run_name).resolve()
            if folder in owner:
                raise ExperimentError(
                    f"{folder}: {owner[folder]} and {label} would both write there; change run_name or logs"
                )
            owner[folder] = label


ACROSS: tuple[Callable[[Mapping[str, ExperimentSpec], Project], None], ...] = (check_names, check_run_names)
"""What must hold of all experiments together; each is asked with one experiment more, the new one last."""


def _from_root(project: Project, error: ExperimentError) -> str:
    """The sentence with the file as a person would write it from the project's root."""
    return str(error).removeprefix(f"{project.root}/")
