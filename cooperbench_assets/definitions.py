"""The code location: every experiment below defs/."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from cooperbench_assets.project import Project
from cooperbench_assets.spec import check_run_names, load_experiments


@dg.definitions
def defs() -> dg.Definitions:
    """Load the defs folder; a mistake in a defs.yaml is one clear error before Dagster looks at it."""
    project = Project(Path(__file__).parents[1])
    experiments = load_experiments(project.defs)
    check_run_names(experiments, project)
    if not experiments:
        return dg.Definitions(executor=dg.in_process_executor)  # Dagster fails on an empty folder.
    return dg.Definitions.merge(
        dg.load_from_defs_folder(path_within_project=Path(__file__).parent),
        dg.Definitions(executor=dg.in_process_executor),
    )
