"""Running a stage of a cell from an asset: the job, the options of one launch, and live progress.

What belongs here: turning an experiment into a ``CellJob`` and reports into Dagster's events. What does not: how
pairs are run (``execution.api``).
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import dagster as dg
import polars as pl
import yaml
from pydantic import Field

from cooperbench_assets.assets.describe import table_value
from cooperbench_assets.assets.keys import partition_key
from cooperbench_assets.assets.progress import News, describe, describe_wait
from cooperbench_assets.dataset_module import eval_environment
from cooperbench_assets.execution.api import plan_stage, run_agents, run_evaluations
from cooperbench_assets.execution.job import CellJob
from cooperbench_assets.execution.options import LaunchOptions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cooperbench_assets.benchmark.pairs import Subset
    from cooperbench_assets.execution.planning.steps import Plan
    from cooperbench_assets.execution.runner.progress import Progress, StageReport
    from cooperbench_assets.execution.worker.protocol import Stage
    from cooperbench_assets.experiment_context import ExperimentContext
    from cooperbench_assets.spec import CellSpec

REDIS_VARIABLE = "COOPERBENCH_ASSETS_REDIS_URL"
"""Names the Redis of a deployment, for experiments that name none: its URL holds a password."""

SAY_SECONDS = 2.0
"""Shortest time between two observations: each is a row in Dagster's event log, and made where something changed."""

QUIET_SECONDS = 900.0
"""Longest time without one: a run of which nothing is heard for long looks dead from another machine."""

_LOG = logging.getLogger(__name__)

AGENT_CONFIG = "agent_config-{hash}.yaml"
"""The effective agent config, in the run folder: what the agents were really given. Another config is another file, so
that a launch that is refused takes nothing from the one that runs."""


class LaunchConfig(dg.Config):
    """What a person may want differently for one launch."""

    pairs: list[str] = Field(
        default=[], description="Only these pairs: repo/task_id/f1_f2. Empty: all that are still to run."
    )
    at_most: int | None = Field(default=None, description="At most this many pairs, over many repositories.")
    concurrency: int | None = Field(default=None, description="Pairs at once, instead of the experiment's limit.")
    reset_retries: bool = Field(default=False, description="Count tries anew: the cause of the failures is gone.")
    automatic: bool = Field(default=False, description="Set by the retry sensor: leave what only a person can fix.")

    def options(self) -> LaunchOptions:
        """The same for the executing room."""
        return LaunchOptions(
            pairs=tuple(self.pairs) or None,
            at_most=self.at_most,
            concurrency=self.concurrency,
            reset_retries=self.reset_retries,
            automatic=self.automatic,
        )


def job_of(experiment: ExperimentContext, cell: CellSpec, subset: Subset) -> CellJob:
    """The job of a cell of an experiment that runs pairs itself; nothing is written."""
    spec = experiment.spec
    assert spec.execution != "none"
    assert spec.agent is not None
    assert spec.model_name is not None
    assert cell.mode is not None
    config_file, config_text = _agent_config(experiment, cell)
    return CellJob(
        experiment=experiment.name,
        setting=cell.cell.setting,
        seed=cell.cell.seed,
        mode=cell.mode,
        run_name=cell.run_name,
        logs=experiment.logs,
        dataset=experiment.dataset,
        subset=subset,
        model_name=spec.model_name,
        agent=spec.agent,
        execution=spec.execution,
        messaging=cell.messaging and cell.mode != "solo",
        git=cell.git and cell.mode != "solo",
        agent_config=config_file,
        agent_config_text=config_text,
        limits=spec.limits,
        accepted=spec.accepted_in(cell.cell),
        analysis=spec.analysis.text() if spec.analysis else None,
        harness_python=experiment.project.resolve(spec.harness.python) if spec.harness else None,
        external_agents=tuple(spec.external_agents),
        environment=dict(spec.environment),
        secrets=tuple(spec.secrets),
        redis_url=spec.redis_url or os.environ.get(REDIS_VARIABLE) or None,
        sandbox=_sandbox(experiment, cell, subset),
        preflight=spec.preflight,
        image_lock=experiment.image_lock if spec.execution == "docker" else None,
        gold_accepted=frozenset(spec.gold_accepted),
        fleet=spec.fleet,
        siblings=_siblings(experiment, cell),
    )


def _siblings(experiment: ExperimentContext, cell: CellSpec) -> tuple[Path, ...]:
    """Run folders of the other cells; those that work alike first, because they tell most of what a pair takes."""
    others = [other for other in experiment.cells if other.cell != cell.cell]
    others.sort(key=lambda other: (other.cell.setting != cell.cell.setting, other.mode != cell.mode))
    return tuple(map(experiment.run_dir, others))


def _sandbox(experiment: ExperimentContext, cell: CellSpec, subset: Subset) -> dict[str, Any]:
    """What the sandbox of an evaluation is told, with the variables that the dataset's own module has for its tests."""
    limits = container_limits(experiment)
    if experiment.spec.dataset_module is None:
        return limits
    return {**limits, "environment": eval_environment(experiment.spec.dataset_module, experiment.spec, cell, subset)}


def container_limits(experiment: ExperimentContext) -> dict[str, Any]:
    """What the experiment's sandboxes are held to, as they name it: limits of containers, and the network."""
    docker, network = experiment.spec.docker, experiment.spec.sandbox.network
    if experiment.spec.execution == "process":
        # A network that must not be there takes an isolation that can keep programs from it.
        return {"network": bool(network)} | ({"isolation": "bubblewrap"} if network is False else {})
    if experiment.spec.execution != "docker":
        return {}
    memory = None if docker.memory_gb is None else round(docker.memory_gb * 1024)
    given = {"memory_mb": memory, "cpus": docker.cpus, "pids": docker.pids, "network": network}
    return {name: value for name, value in given.items() if value is not None}


def _agent_config(experiment: ExperimentContext, cell: CellSpec) -> tuple[Path | None, str | None]:
    """The effective agent config file in the run folder and its text; None where the experiment gives none."""
    if experiment.spec.agent_config is None:
        return None, None
    text = yaml.safe_dump(experiment.spec.agent_config, sort_keys=True, allow_unicode=True)
    name = AGENT_CONFIG.format(hash=hashlib.sha256(text.encode()).hexdigest()[:12])
    return experiment.run_dir(cell) / name, text


STAGES: Mapping[str, Stage] = {"run_logs": "agent", "eval_outputs": "eval"}
"""The stage that each executing asset runs."""


def plan_of(experiment: ExperimentContext, cell: CellSpec, asset: str, config: LaunchConfig) -> Plan:
    """What a launch of run_logs or eval_outputs would do with each pair, and why. Nothing is run."""
    return plan_stage(STAGES[asset], job_of(experiment, cell, experiment.subset()), config.options())


def run_stage(
    context: dg.AssetExecutionContext,
    experiment: ExperimentContext,
    cell: CellSpec,
    key: dg.AssetKey,
    config: LaunchConfig,
) -> dict[str, Any]:
    """Run what is still to run at a stage of a cell; returns what the materialisation says of it.

    Raises:
        LaunchError: on what a person must fix; tries that infrastructure ended are recorded, and raise nothing.
    """
    work = run_agents if STAGES[key.path[-1]] == "agent" else run_evaluations
    job = job_of(experiment, cell, experiment.subset())
    with _ProgressEvents(context, experiment, cell, key) as events:
        report = work(job, config.options(), events.hear, what=f"run {context.run.run_id}")
    for note in report.notes:
        context.log.warning(note)
    if report.stopped:
        context.log.warning(f"{job.label}: launches were stopped: {report.stopped}")
    return _report_metadata(report)


class _ProgressEvents:
    """Says progress to the log, as observations that the UI plots, and to whoever listens in this process.

    Dagster's storage is written to from a thread of its own: one that is locked, slow or away holds up no launch. What
    could not be stored is said again later, as it stands then.
    """

    def __init__(
        self, context: dg.AssetExecutionContext, experiment: ExperimentContext, cell: CellSpec, key: dg.AssetKey
    ) -> None:
        self._context, self._experiment, self._cell, self._key = context, experiment, cell, key
        self._heard: Progress | None = None
        self._news = News()
        self._told_at = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        # Who cancels does not wait for a storage; a step that ended does, as with each of its own events.
        self._thread.join(None if kind is None else 1.0)

    def hear(self, progress: Progress) -> None:
        """Take note of where the launch stands; what the listener raises goes through."""
        self._heard = progress
        if self._experiment.listener is not None:
            self._experiment.listener(self._cell.cell, progress)

    def _work(self) -> None:
        failed = False
        while not self._over.wait(SAY_SECONDS):
            failed = not self._tell(quiet=failed)
        self._tell(quiet=failed)

    def _tell(self, *, quiet: bool) -> bool:
        """Say where the launch stands, if that is new; False if it could not be stored."""
        progress = self._heard
        quiet_for = time.monotonic() - self._told_at
        if progress is None or not (self._news.is_new(progress) or quiet_for > QUIET_SECONDS):
            return True
        try:
            self._context.log.info(describe(progress))
            self._context.log_event(self._observation(progress))
        except Exception as error:
            if not quiet:
                _LOG.warning("%s: progress could not be stored, and is said again later: %s", self._cell.cell, error)
            return False
        self._news.told(progress)
        self._told_at = time.monotonic()
        return True

    def _observation(self, progress: Progress) -> dg.AssetObservation:
        metadata: dict[str, Any] = {
            "done": progress.done,
            "running": progress.running,
            "failed": sum(progress.failed.values()),
            "of": progress.total,
            "cell_cost_usd": round(progress.cost_usd, 6),
            "seconds": round(progress.seconds, 3),
        }
        if progress.waiting is not None:
            metadata["waiting"] = describe_wait(progress.waiting)
        return dg.AssetObservation(self._key, partition=partition_key(self._cell.cell), metadata=metadata)


def _report_metadata(report: StageReport) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "launched": report.launched,
        "tries_done": report.done,
        "tries_failed": sum(report.failed.values()),
        "seconds": round(report.seconds, 3),
        "busy_seconds": round(report.busy_seconds, 3),
        "orchestration_seconds": round(report.orchestration_seconds, 3),
        "cell_cost_usd": round(report.cost_usd, 6),
        "truncated": report.truncated,
    }
    if report.failed:
        metadata["failed_by_family"] = dict(sorted(report.failed.items()))
    if report.isolation:
        metadata["isolation"] = report.isolation
    if report.stopped:
        metadata["stopped"] = report.stopped
    for name, reasons in (("blocked", report.blocked), ("not_evaluated", report.not_evaluated)):
        if reasons:
            rows = pl.DataFrame({"pair": list(reasons), "why": list(reasons.values())})
            metadata[name] = table_value(rows.head(25))
    return metadata
