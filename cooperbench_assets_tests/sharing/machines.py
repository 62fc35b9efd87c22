"""Machines on which cells were run, for tests of what is shared between them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cooperbench_assets.assets.tables import CELL_UNIT_TABLES, STORE_TABLES
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.project import Project
from cooperbench_assets.store.partition_tables import write_unit
from cooperbench_assets.store.publish import publish
from cooperbench_assets.store.units import cell_unit
from cooperbench_assets_tests import experiments

ALL = ("solo", 0), ("solo", 1), ("coop-comm", 0), ("coop-nocomm", 0)


def machine(root: Path, cells: tuple[tuple[str, int], ...] = ALL, **changes: Any) -> ExperimentContext:
    """A machine on which these cells of the experiment `made` were run, read and published."""
    settings: dict[str, Any] = {}
    for setting, seed in cells:
        settings.setdefault(setting, {**experiments.SETTINGS[setting], "seeds": []})["seeds"].append(seed)
    experiment = experiments.bind(root, settings=settings, logs="data/logs")
    for cell in experiment.cells:
        experiments.fill(experiment, cell.cell.setting, cell.cell.seed)
    for setting, seed in cells:
        if changes:
            experiments.tree(experiment, setting, seed).result(experiment.subset().pairs[0], **changes)
    read(experiment)
    return experiment


def read(experiment: ExperimentContext) -> None:
    for cell in experiment.cells:
        write_unit(
            experiment.project.tables, cell_unit(cell.cell), experiment.view(cell).frames, declared=CELL_UNIT_TABLES
        )
    publish(
        experiment.project.database,
        experiment.project.tables,
        declared=STORE_TABLES,
        planned={"made": experiment.planned},
    )


def blank(root: Path) -> Project:
    (root / "data").mkdir(parents=True)
    return Project(root)


def repacked(file: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The bundle with its files changed."""
    with tarfile.open(file) as archive:
        files = {one.name: stream.read() for one in archive if (stream := archive.extractfile(one)) is not None}
    change(files)
    with tarfile.open(target, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return target
