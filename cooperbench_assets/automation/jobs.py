"""The jobs of an experiment: what people do often enough to want a button for it.

What belongs here: names, selections and run config. What does not: what the assets do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from cooperbench_assets.analysis.registry import ANALYSES
from cooperbench_assets.assets.keys import asset_key, model_tag, op_name
from cooperbench_assets.automation.dagster_runs import CELL_ASSETS, job_name

if TYPE_CHECKING:
    from collections.abc import Collection

    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

    from cooperbench_assets.experiment_context import ExperimentContext

SMOKE_PAIRS: Final = 5

RUNS: Final = (
    "Everything that is still to be done for a cell: agents, evaluation, tables. The launchpad takes pairs, a number "
    "of pairs, another concurrency, and whether to reset the retry counters."
)
READS: Final = (
    "Reads cells, one or all of them in one run, writes their tables and evaluates their checks; it runs no pair."
)


def build_jobs(experiment: ExperimentContext) -> list[UnresolvedAssetJobDefinition]:
    """Jobs on assets: run_cell, refresh_results, and smoke where the experiment runs pairs itself."""
    executes = experiment.spec.execution != "none"
    jobs = [
        _job(experiment, "run_cell", CELL_ASSETS, RUNS if executes else READS),
        _job(
            experiment,
            "refresh_results",
            ("results_store", *(analysis.name for analysis in ANALYSES), "report"),
            "Publishes the cells as they are, and makes their analyses and the report.",
        ),
    ]
    if executes:
        config = {"at_most": SMOKE_PAIRS}
        ops = {op_name(experiment.name, name): {"config": dict(config)} for name in ("run_logs", "eval_outputs")}
        text = (
            f"At most {SMOKE_PAIRS} pairs of a cell, over as many repositories as possible: choose one cell of each "
            "setting. The sensor retries these pairs, and does not run the others."
        )
        jobs.append(_job(experiment, "smoke", CELL_ASSETS, text, {"ops": ops}))
    return jobs


def _job(
    experiment: ExperimentContext, name: str, assets: Collection[str], text: str, config: dict[str, Any] | None = None
) -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        job_name(experiment.name, name),
        selection=dg.AssetSelection.assets(*(asset_key(experiment.name, asset) for asset in assets)),
        description=text,
        config=config,
        tags=model_tag(experiment.spec) if "run_logs" in assets else None,
        executor_def=dg.in_process_executor,
    )
