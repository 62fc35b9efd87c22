"""Doing in this process what the UI would do: runs of an experiment's assets, in the same Dagster instance.

What belongs here: finding the instance, and runs of one cell or of the assets beside the cells. What does not:
which cells to run and how that is shown (``commands``).
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from cooperbench_assets.analysis.registry import ANALYSES
from cooperbench_assets.assets.execution import owes
from cooperbench_assets.assets.keys import asset_key, op_name, partition_key
from cooperbench_assets.automation.runs import report_dead_runs
from cooperbench_assets.bound import BoundExperiment
from cooperbench_assets.experiment import experiment_definitions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from cooperbench_assets.execution.progress import Progress
    from cooperbench_assets.project import Project
    from cooperbench_assets.spec import CellSpec, ExperimentSpec
    from cooperbench_assets.store.cells import Cell

CELL_ASSETS = ("run_logs", "eval_outputs", "pair_results")
"""What a run of a cell materialises."""

QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}
"""Events go to the instance, where the UI shows them; the terminal shows what the command prints."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How one run ended."""

    run_id: str
    materialized: tuple[str, ...]
    skipped: bool
    """Nothing was materialised, and nothing failed: the cell is not planned."""

    error: str | None
    """What a person must mend; None if the run succeeded."""

    failed_checks: tuple[tuple[str, str], ...] = field(default=())
    """Asset and check, with what was found."""

    metadata: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """What each asset said of itself, plain values only."""


class Launcher:
    """Runs of one experiment, recorded in the project's Dagster instance. A context manager."""

    def __init__(self, project: Project, name: str, spec: ExperimentSpec) -> None:
        self._listener: Callable[[Progress], None] | None = None
        self.now = ""
        """The cell that runs now, for people."""

        self.bound = BoundExperiment(name, spec, project, listener=self._tell)
        self._stack = contextlib.ExitStack()
        self._instance: dg.DagsterInstance | None = None
        self._definitions = experiment_definitions(self.bound)

    def __enter__(self) -> Self:
        # dagster.yaml's folders are relative to the current folder: anywhere else they would be a second instance.
        self._stack.enter_context(contextlib.chdir(self.bound.project.root))
        self.bound.project.dagster.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("DAGSTER_HOME", str(self.bound.project.root))
        reference = InstanceRef.from_dir(str(self.bound.project.root))
        self._instance = self._stack.enter_context(dg.DagsterInstance.from_ref(reference))
        report_dead_runs(self._instance, self.bound)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def listen(self, listener: Callable[[Progress], None]) -> None:
        """Have `listener` told of the progress of each stage that runs."""
        self._listener = listener

    def _tell(self, progress: Progress) -> None:
        if self._listener is not None:
            self._listener(progress)

    def run_subset(self) -> Ran:
        """Materialise subset_pairs, and task_images where the experiment runs on Docker: cells wait for both."""
        images = ["task_images"] if self.bound.spec.execution == "docker" else []
        return self._run(["subset_pairs", *images])

    def run_gold(self) -> Ran:
        """Materialise gold_baseline."""
        return self._run(["gold_baseline"])

    def run_cell(self, cell: Cell, config: Mapping[str, Any] | None = None) -> Ran:
        """Materialise run_logs, eval_outputs and pair_results of a cell.

        Args:
            cell: The cell, planned or not.
            config: Run config of its launch, for those assets that take one.
        """
        ops = {op_name(self.bound.name, asset): {"config": dict(config)} for asset in CELL_ASSETS} if config else {}
        self.now = f"{cell.setting} seed {cell.seed}"
        return self._run(CELL_ASSETS, cell, ops)

    def owes(self, cell: CellSpec) -> bool:
        """Whether a retry that can help is owed to a cell."""
        return owes(self.bound, cell)

    def run_store(self) -> Ran:
        """Materialise results_store and every analysis of it."""
        return self._run(["results_store", *(analysis.name for analysis in ANALYSES)])

    def run_report(self) -> Ran:
        """Materialise the report."""
        return self._run(["report"])

    def _run(self, assets: Sequence[str], cell: Cell | None = None, ops: Mapping[str, Any] | None = None) -> Ran:
        job = self._definitions.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            run_config={"ops": dict(ops or {}), "loggers": QUIET},
            instance=self._instance,
            partition_key=None if cell is None else partition_key(cell),
            asset_selection=[asset_key(self.bound.name, asset) for asset in assets],
            raise_on_error=False,
            tags={"cooperbench-assets/launched-by": "command line"},
        )
        return _summarise(result)


def _summarise(result: dg.ExecuteInProcessResult) -> Ran:
    events = result.get_asset_materialization_events()
    materializations = [event.step_materialization_data.materialization for event in events]
    evaluations = result.get_asset_check_evaluations()
    return Ran(
        result.run_id,
        tuple(found.asset_key.path[-1] for found in materializations),
        skipped=result.success and not materializations,
        error=None if result.success else "; ".join(_errors(result)),
        failed_checks=tuple(
            (f"{check.asset_key.path[-1]}.{check.check_name}", check.description or "")
            for check in evaluations
            if not check.passed
        ),
        metadata={
            found.asset_key.path[-1]: {name: value.value for name, value in found.metadata.items()}
            for found in materializations
        },
    )


def _errors(result: dg.ExecuteInProcessResult) -> Iterator[str]:
    """What each failed step raised: Dagster's wrapping says nothing to a person, and neither do the causes below."""
    for event in result.all_events:
        if not event.is_step_failure:
            continue
        error = event.step_failure_data.error
        while error is not None and error.cause is not None and (error.cls_name or "").startswith("Dagster"):
            error = error.cause
        if error is None:
            yield "unknown error"
        else:
            yield re.sub(rf"^[\w.]*\b{re.escape(error.cls_name or '')}: ", "", error.message.strip())
