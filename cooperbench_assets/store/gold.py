"""The table of the gold baseline: what became of each task's own solution.

What belongs here: its declaration. What does not: evaluating it (``execution.gold``).
"""

from __future__ import annotations

import polars as pl

from cooperbench_assets.store.schema import Column, Table

GOLD_BASELINE = Table(
    "gold_baseline",
    "One row for every planned pair and mode: the dataset's own patches, evaluated twice in the same sandbox.",
    (
        Column("experiment", pl.String, "Name of the experiment: the folder of its defs.yaml"),
        Column("mode", pl.String, "solo: the task's combined.patch; coop: the two features' patches, merged"),
        Column("pair", pl.String, "repo/task_id/f<a>_f<b>: the key of the pair in every table"),
        Column("repo", pl.String, "Repository of the task, as the dataset names it"),
        Column("task_id", pl.Int32, "Number of the task in its repository"),
        Column("first", pl.String, "Outcome of the first evaluation: pass, fail, infra_error, unevaluated, missing"),
        Column("first_reason", pl.String, "Its reason, or the family of an infra_error"),
        Column("second", pl.String, "Outcome of the second one; NULL where there is none yet"),
        Column("second_reason", pl.String, "Its reason, or the family of an infra_error"),
        Column("flaky", pl.Boolean, "The two verdicts differ; NULL without two clean ones"),
        Column("conflicts", pl.Boolean, "The two features' patches do not merge: on purpose, in this benchmark"),
        Column("sound", pl.Boolean, "Passes, or conflicts, both times; NULL where that is not known yet"),
        Column("accepted", pl.Boolean, "Named in gold_accepted: a person has looked at it"),
        Column("evidence", pl.String, "The text that shows a failure of infrastructure"),
    ),
    key=("experiment",),
)
