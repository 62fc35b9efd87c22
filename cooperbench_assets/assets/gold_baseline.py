"""The asset gold_baseline: each task's own solution evaluated twice, with no agent, no model and no cost.

What belongs here: what a materialisation does and reports. What does not: seeding and reading the runs
(``execution.gold``). It answers whether a failure is the agent's or the benchmark's, and is the best first run on a
new machine.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of an op as they are.
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from cooperbench_assets.assets.check_events import check_results, check_specs
from cooperbench_assets.assets.describe import table_value
from cooperbench_assets.assets.execution import container_limits, job_of
from cooperbench_assets.assets.experiment_assets import asset_spec, look, write_table
from cooperbench_assets.assets.keys import asset_key, op_name
from cooperbench_assets.assets.redacted_steps import keeping_secrets
from cooperbench_assets.assets.tables import CELL_UNIT_TABLES
from cooperbench_assets.checks.gold_baseline import GOLD_BASELINE_CHECKS, GoldView
from cooperbench_assets.execution.api import plan_stage, run_evaluations, run_second_verdict
from cooperbench_assets.execution.gold import MODES, GoldRow, gold_job, read_gold, seed, to_judge
from cooperbench_assets.execution.job import CellJob
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.runner.progress import Progress
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.spec import CellSpec
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.gold import GOLD_BASELINE
from cooperbench_assets.store.partition_tables import write_unit
from cooperbench_assets.store.redacted_frames import without_secrets
from cooperbench_assets.store.units import cell_unit
from cooperbench_assets.wording import count

NAME = GOLD_BASELINE.name
SHOWN = 100
"""Pairs that the materialisation lists."""


class GoldConfig(dg.Config):
    """What a person may want differently for one materialisation."""

    reset_retries: bool = Field(default=False, description="Count tries anew: the cause of the failures is gone.")


def build_gold_baseline(experiment: ExperimentContext) -> dg.AssetsDefinition:
    """gold_baseline of one experiment."""
    key = asset_key(experiment.name, NAME)
    images = ["task_images"] if experiment.spec.execution == "docker" else []
    spec = asset_spec(
        experiment,
        GOLD_BASELINE,
        after=["subset_pairs", *images],
        description="Each task's own solution evaluated twice, solo and merged, with no model and no cost: "
        "what fails or flakes here is the benchmark's or the machine's doing.",
        kind="parquet",
    )

    @dg.multi_asset(
        name=op_name(experiment.name, NAME), specs=[spec], check_specs=check_specs(key, GOLD_BASELINE_CHECKS)
    )
    def gold_baseline(context: dg.AssetExecutionContext, config: GoldConfig) -> Iterator[dg.MaterializeResult[Any]]:
        with keeping_secrets(experiment, context.log):
            view = evaluate_gold(experiment, context, LaunchOptions(reset_retries=config.reset_retries))
        findings = look(experiment, GOLD_BASELINE, GOLD_BASELINE_CHECKS, view)
        yield dg.MaterializeResult(
            asset_key=key, metadata=_metadata(view.rows), check_results=check_results(key, findings)
        )

    return gold_baseline


def evaluate_gold(experiment: ExperimentContext, context: dg.AssetExecutionContext, options: LaunchOptions) -> GoldView:
    """Have what is still to run evaluated, and write the table and the two cells of it.

    Raises:
        LaunchError: if a person must fix something first: no engine, images that are not ready, a busy run.
    """
    rows: list[GoldRow] = []
    for mode in MODES:
        job = _job(experiment, mode)
        for pair, problem in seed(job).items():
            context.log.warning(f"{pair.name}: {problem}")
        _evaluate(experiment, job, options, context)
        rows += read_gold(job)
        _write_cell(experiment, job)
    frame = without_secrets(GOLD_BASELINE.frame([_row(experiment, row) for row in rows]), experiment.redactor)
    write_table(experiment, GOLD_BASELINE, frame)
    return GoldView(experiment.name, frame)


def _job(experiment: ExperimentContext, mode: Any) -> CellJob:
    first = job_of(experiment, experiment.cells[0], experiment.subset())
    # What the built-in benchmark injects on purpose is no part of its solutions.
    return replace(gold_job(first, mode), sandbox=container_limits(experiment))


def gold_plan(experiment: ExperimentContext) -> Iterator[tuple[str, int, int, dict[str, str]]]:
    """What a materialisation would do in each mode; nothing is written.

    Yields:
        The setting, how many first and how many second evaluations are missing (each first one is followed by a
        second), and pairs that have used up their tries, by name, with the reason.

    Raises:
        MissingInputError, LaunchError: if there is no subset, or a run folder cannot be read.
    """
    for mode in MODES:
        job = _job(experiment, mode)
        first, second = to_judge(job)
        steps = plan_stage("eval", job, LaunchOptions()).given_up if job.run_dir.is_dir() else ()
        blocked = {step.pair.name: step.sentence for step in steps}
        missing = len([pair for pair in first if pair.name not in blocked])
        yield job.setting, missing, missing + len(second), blocked


def _hears(experiment: ExperimentContext, job: CellJob) -> Callable[[Progress], None] | None:
    """Tells whoever listens to the experiment's cells of gold's too."""
    listener = experiment.listener
    return (
        None if listener is None else lambda progress: listener(Cell(experiment.name, job.setting, job.seed), progress)
    )


def _evaluate(
    experiment: ExperimentContext, job: CellJob, options: LaunchOptions, context: dg.AssetExecutionContext
) -> None:
    """First verdicts, with the tries that infrastructure needs; then second ones, where the first are clean."""
    hears = _hears(experiment, job)
    for _ in range(job.limits.eval_attempts):
        report = run_evaluations(job, options, hears, what=f"Dagster run {context.run.run_id[:8]}")
        for note in report.notes:
            context.log.warning(note)
        context.log.info(
            f"{job.label}: {report.done} evaluated, {sum(report.failed.values())} ended by infrastructure errors"
        )
        options = replace(options, reset_retries=False)
        if not report.failed:
            break
    open_ = [row.pair.name for row in read_gold(job) if row.first not in ("pass", "fail")]
    if open_:
        context.log.warning(f"{job.label}: {count(len(open_), 'pair')} without a verdict ({', '.join(open_[:3])})")
    if to_judge(job)[1]:
        # Pairs without a first verdict keep no other from its second one.
        second = run_second_verdict(
            replace(job, accepted=frozenset(open_)),
            LaunchOptions(),
            hears,
            what=f"Dagster run {context.run.run_id[:8]}",
        )
        context.log.info(
            f"{job.label}: {second.done} evaluated again, {sum(second.failed.values())} ended by infrastructure errors"
        )


def _write_cell(experiment: ExperimentContext, job: CellJob) -> None:
    """Gold stands in the store as a cell that nobody plans: the analyses show it beside the agents'."""
    cell = Cell(experiment.name, job.setting, job.seed)
    spec = CellSpec(cell, job.mode, job.messaging, job.git, job.run_name, gold=True)
    frames = experiment.view(spec, job.subset).frames
    write_unit(experiment.project.tables, cell_unit(spec.cell), frames, declared=CELL_UNIT_TABLES)


def _row(experiment: ExperimentContext, row: GoldRow) -> dict[str, object]:
    return {
        "experiment": experiment.name,
        "mode": row.mode,
        "pair": row.pair.name,
        "repo": row.pair.repo,
        "task_id": row.pair.task_id,
        "first": row.first,
        "first_reason": row.first_reason,
        "second": row.second,
        "second_reason": row.second_reason,
        "flaky": row.flaky,
        "conflicts": row.conflicts,
        "sound": row.sound,
        "accepted": row.pair.name in experiment.spec.gold_accepted,
        "evidence": row.evidence,
    }


def _metadata(rows: pl.DataFrame) -> dict[str, Any]:
    """Counts, and the pairs whose solution does not stand."""
    bad = rows.filter(~pl.col("sound").fill_null(False))
    metadata: dict[str, Any] = {
        "dagster/row_count": rows.height,
        "sound": rows.filter(pl.col("sound").fill_null(False)).height,
        "fails": rows.filter(pl.col("first") == "fail", ~pl.col("conflicts")).height,
        "flaky": rows.filter(pl.col("flaky").fill_null(False)).height,
        "conflicting": rows.filter("conflicts").height,
        "not_judged": rows.filter(pl.col("sound").is_null()).height,
    }
    if bad.height:
        shown = bad.select("pair", "mode", "first", "first_reason", "second", "second_reason", "accepted", "evidence")
        metadata["fails_or_flakes"] = table_value(shown.head(SHOWN))
    return metadata
