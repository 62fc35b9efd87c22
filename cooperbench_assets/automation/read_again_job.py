"""The job read_again: every cell of an experiment that runs pairs, read and judged anew in one run that runs no pair.

What belongs here: the job. What does not: how a cell is read (``assets.reading``). Where logs are only read, there is
no such job: materialising all partitions is one run already.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of an op as they are.
import dagster as dg

from cooperbench_assets.assets.keys import asset_key, op_name
from cooperbench_assets.assets.reading import CELL_CHECKS, CellReader, sign
from cooperbench_assets.assets.redacted_steps import keeping_secrets
from cooperbench_assets.automation.dagster_runs import READ_AGAIN, job_name
from cooperbench_assets.execution.cell_lock import holder
from cooperbench_assets.experiment_context import ExperimentContext


def build_read_again_job(experiment: ExperimentContext) -> dg.JobDefinition:
    """The job of an experiment that runs pairs itself."""

    @dg.op(name=op_name(experiment.name, "read_cells"))
    def read_again(context: dg.OpExecutionContext) -> None:
        sign(context)
        with keeping_secrets(experiment, context.log):
            read_all(context, experiment)

    @dg.job(
        name=job_name(experiment.name, READ_AGAIN),
        executor_def=dg.in_process_executor,
        description="Reads every cell that was launched, writes its tables where they differ and evaluates all its "
        "checks, in one run that runs no pair: after an upgrade, or where outcomes are judged anew.",
    )
    def read_again_job() -> None:
        read_again()

    return read_again_job


def read_all(context: dg.OpExecutionContext, experiment: ExperimentContext) -> None:
    """Read every cell that has a run folder; one that is being run is read when it ends.

    Raises:
        dg.Failure: at the end, naming the cells that are blocked or could not be read.
    """
    cells = []
    for cell in sorted(experiment.cells, key=lambda one: one.cell):
        folder = experiment.run_dir(cell)
        if (by := holder(folder)) is not None:
            context.log.info(f"{cell.cell} is left alone: {by} works on it, and reads it at its end")
        elif folder.is_dir():
            cells.append(cell)
    checks = {
        dg.AssetCheckKey(asset_key(experiment.name, asset), check.name)
        for asset, asserted in CELL_CHECKS.items()
        for check in asserted
    }
    reader = CellReader(context, experiment, checks, len(cells), log_each=True)
    for cell in cells:
        reader.read(cell, ["pair_results"], list(CELL_CHECKS))
    tuple(reader.end())  # Everything was logged; what is wrong is raised here.
