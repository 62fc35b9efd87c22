"""The job second_verdict: the patches of a whole cell evaluated afresh, and how many verdicts that changes.

What belongs here: the job, its table and what it says. What does not: the evaluations
(``execution.runner.further_verdicts``). It is a job and no asset: "materialise all" must not evaluate everything
once more. The first verdict stays what counts.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of an op as they are.
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import polars as pl

from cooperbench_assets.analysis.intervals import wilson
from cooperbench_assets.assets.describe import table_value
from cooperbench_assets.assets.execution import job_of
from cooperbench_assets.assets.keys import HOST_TAG, asset_key, cell_of, op_name, partition_key
from cooperbench_assets.assets.progress import News, describe
from cooperbench_assets.assets.publishing import publish_tables
from cooperbench_assets.assets.redacted_steps import keeping_secrets
from cooperbench_assets.automation.dagster_runs import job_name
from cooperbench_assets.execution.api import run_second_verdict
from cooperbench_assets.execution.attempts.pair_state import read_states
from cooperbench_assets.execution.job import CellJob
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.processes import namespace
from cooperbench_assets.execution.runner.further_verdicts import Verdict, read_verdicts
from cooperbench_assets.execution.runner.progress import Progress
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.partition_tables import write_unit
from cooperbench_assets.store.verdicts import SECOND_VERDICTS, verdicts_unit

SHOWN = 25
"""Pairs with differing verdicts that the run lists."""


class SecondVerdictConfig(dg.Config):
    """What a person may want differently for one round."""

    concurrency: int | None = None


def build_second_verdict_job(
    experiment: ExperimentContext, partitions: dg.StaticPartitionsDefinition
) -> dg.JobDefinition:
    """The job of an experiment that evaluates pairs itself."""

    @dg.op(name=op_name(experiment.name, "evaluate_again"))
    def second_verdict(context: dg.OpExecutionContext, config: SecondVerdictConfig) -> None:
        context.instance.add_run_tags(context.run_id, {HOST_TAG: namespace()})
        cell = cell_of(experiment.name, context.partition_key)
        with keeping_secrets(experiment, context.log):
            metadata = evaluate_again(experiment, cell, config.concurrency, context)
        context.log_event(
            dg.AssetMaterialization(
                asset_key=asset_key(experiment.name, SECOND_VERDICTS.name),
                partition=partition_key(cell),
                description="Fresh verdicts on a cell's patches; the first ones stay the outcomes of record.",
                metadata=metadata,
            )
        )

    @dg.job(
        name=job_name(experiment.name, "second_verdict"),
        partitions_def=partitions,
        executor_def=dg.in_process_executor,
        description="Evaluates every patch of a finished cell once more, beside the first verdict, which stays the "
        "outcome of record; the table second_verdicts of the results store has both, and the run the flake rate.",
    )
    def second_verdict_job() -> None:
        second_verdict()

    return second_verdict_job


def evaluate_again(
    experiment: ExperimentContext, cell: Cell, concurrency: int | None, context: dg.OpExecutionContext
) -> dict[str, Any]:
    """One round of fresh verdicts on a cell, written and published; returns what the run says of it.

    Raises:
        LaunchError: if the cell is not finished, or on what a person must fix.
    """
    spec = experiment.spec.cell(experiment.name, cell.setting, cell.seed)
    job = job_of(experiment, spec, experiment.subset())

    news = News()

    def tell(progress: Progress) -> None:
        if news.is_new(progress):
            context.log.info(describe(progress))
            news.told(progress)

    report = run_second_verdict(
        job, LaunchOptions(concurrency=concurrency), tell, what=f"Dagster run {context.run.run_id[:8]}"
    )
    rows = verdict_rows(job, cell)
    write_unit(
        experiment.project.tables, verdicts_unit(cell), {SECOND_VERDICTS.name: rows}, declared=(SECOND_VERDICTS,)
    )
    publish_tables(experiment)
    return {
        **flake_rate(rows),
        "rounds": rows["round"].n_unique(),
        "launched": report.launched,
        "infra_errors": sum(report.failed.values()),
        "differing": table_value(
            rows.filter("flaky").select("pair", "round", "first", "first_reason", "verdict", "reason").head(SHOWN)
        ),
    }


def flake_rate(rows: pl.DataFrame) -> dict[str, Any]:
    """How many pairs got another verdict in any round, of those with a fresh one; with Wilson's interval."""
    pairs = rows.drop_nulls("flaky").group_by("pair").agg(pl.col("flaky").any())
    low, high = wilson(pl.col("flaky"), pl.col("compared"))
    counts = pairs.select(flaky=pl.col("flaky").sum(), compared=pl.len())
    found = counts.with_columns(flake_low=low, flake_high=high).row(0, named=True)
    rate = found["flaky"] / found["compared"] if found["compared"] else None
    return {name: value for name, value in {**found, "flake_rate": rate}.items() if value is not None}


def verdict_rows(job: CellJob, cell: Cell) -> pl.DataFrame:
    """Every fresh verdict of a cell beside the one of record."""
    states = read_states(job)
    rows = []
    for pair, rounds in sorted(read_verdicts(job.run_dir, job.mode).items()):
        state = states.get(pair)
        if state is None or not state.settled:
            continue
        for number, one in sorted(rounds.items()):
            same_patch = one.patch_sha256 == state.patch_sha256
            rows.append(
                {
                    "experiment": cell.experiment,
                    "setting": cell.setting,
                    "seed": cell.seed,
                    "pair": pair.name,
                    "round": number,
                    "first": state.outcome,
                    "first_reason": state.reason,
                    "verdict": one.verdict,
                    "reason": one.reason,
                    "flaky": one.verdict != state.outcome if one.done and same_patch else None,
                    "family": one.family,
                    "evidence": one.evidence,
                    "tries": one.n,
                    "evaluated_at": _ended(one),
                }
            )
    return SECOND_VERDICTS.frame(rows)


def _ended(verdict: Verdict) -> datetime | None:
    if verdict.ended_at is None:
        return None
    return datetime.fromisoformat(verdict.ended_at).astimezone(UTC).replace(tzinfo=None)
