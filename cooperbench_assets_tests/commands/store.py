"""Bringing a project's cells into its results store without Dagster, for tests of what reads it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from cooperbench_assets.assets.tables import CELL_UNIT_TABLES, STORE_TABLES
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.spec import load_experiments
from cooperbench_assets.store.partition_tables import write_unit
from cooperbench_assets.store.publish import publish
from cooperbench_assets.store.schema import CHECK_RESULTS
from cooperbench_assets.store.units import cell_unit, check_unit

NOON = datetime.fromisoformat("2026-05-01T12:00:00")

if TYPE_CHECKING:
    from cooperbench_assets.project import Project
    from cooperbench_assets.store.cells import Cell


def read_into_store(project: Project, name: str) -> None:
    """Read every planned cell of an experiment, write its tables, and publish them."""
    experiment = ExperimentContext(name, load_experiments(project.defs)[name], project)
    subset = experiment.subset()
    for cell in experiment.cells:
        write_unit(
            project.tables, cell_unit(cell.cell), experiment.view(cell, subset).frames, declared=CELL_UNIT_TABLES
        )
    publish(project.database, project.tables, declared=STORE_TABLES, planned={name: experiment.planned})


def fail_a_check(project: Project, cell: Cell) -> None:
    """Store one check of a cell that failed and one that passed."""
    row = {"experiment": cell.experiment, "setting": cell.setting, "seed": cell.seed, "asset": "run_logs"}
    rows = [
        {**row, "check_name": name, "passed": passed, "blocking": False, "checked_at": NOON}
        for name, passed in (("counts", False), ("times", True))
    ]
    unit = check_unit(cell.experiment, "run_logs", cell)
    write_unit(project.tables, unit, {CHECK_RESULTS.name: CHECK_RESULTS.frame(rows)}, declared=(CHECK_RESULTS,))
    publish(project.database, project.tables, declared=STORE_TABLES)
