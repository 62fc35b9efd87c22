"""``outcome_funnel`` and ``funnel_losses``: how far the planned pairs came, and what stopped the others.

What belongs here: stages of a pair, each a subset of the one before. What does not: conflict rates (``merges``).
"""

from __future__ import annotations

import polars as pl

from cooperbench_assets.analysis.frames import (
    CELL,
    UNIT,
    VERDICT,
    VERDICTS,
    Frames,
    cells_and_settings,
    cells_of,
    conform,
    outcome_column,
    pairs_of,
    reason_column,
    result_table,
    settings_of,
)
from cooperbench_assets.analysis.merges import merge_kind

STAGES = {
    "planned": "planned pairs",
    "result": "a readable result",
    "submitted": "every agent submitted, or ended at its limit: none has status Error",
    "patches": "every agent's patch is not empty",
    "judged": "a clean verdict",
    "applied": "every patch applied",
    "merged": "merged: by the strict verdict clean or identical, by upstream's also rescued by agent 1 alone or union",
    "passed": "both features pass",
}
"""Stages in order. A pair that passed came through all of them, whatever its files say of a stage."""

OUTCOME_FUNNEL = result_table(
    "outcome_funnel",
    "Pairs that came to each stage, of all planned; within `merged` also by the kind of merge.",
    *UNIT,
    *VERDICT,
    ("position", pl.Int32, "Place of the stage, from 0"),
    ("stage", pl.String, "Stage: " + "; ".join(f"{name} ({text})" for name, text in STAGES.items())),
    ("detail", pl.String, "Kind of merge, for a part of stage merged; NULL for the whole stage"),
    ("pairs", pl.Int64, "Pairs, over seeds, that came to the stage"),
    ("share", pl.Float64, "pairs over the planned pairs"),
    ("lost", pl.Int64, "Pairs that came to the stage before, and not to this one; NULL for a part"),
)

FUNNEL_LOSSES = result_table(
    "funnel_losses",
    "Every pair that did not pass, once: the stage that it did not come to, and why.",
    *UNIT,
    *VERDICT,
    ("position", pl.Int32, "Place of the stage that the pairs did not come to"),
    ("stage", pl.String, "That stage"),
    ("loss", pl.String, "missing, unevaluated, infra_agent, infra_eval, or the reason of the fail: conflict, tests, …"),
    ("pairs", pl.Int64, "Pairs"),
    ("share", pl.Float64, "pairs over the planned pairs"),
)


def outcome_funnel(frames: Frames) -> dict[str, pl.DataFrame]:
    """How far the planned pairs came, and what stopped the others."""
    cells = cells_of(frames)
    places = settings_of(cells).select("experiment", "setting", "place", "mode")
    pairs = pairs_of(frames).join(places, on=["experiment", "setting"])
    staged = pl.concat(_staged(pairs, verdict) for verdict in VERDICTS)
    units = cells_and_settings(staged, cells)
    order = ["experiment", "place", "setting", "seed", "verdict", "position"]
    funnel = _stages(units).sort(*order, pl.col("detail").is_not_null(), "detail")
    losses = _losses(units).sort(*order, "loss")
    return {
        OUTCOME_FUNNEL.name: conform(OUTCOME_FUNNEL, funnel),
        FUNNEL_LOSSES.name: conform(FUNNEL_LOSSES, losses),
    }


def _staged(pairs: pl.DataFrame, verdict: str) -> pl.DataFrame:
    """Pairs with ``reached`` (the last stage they came to), ``loss`` and ``kind`` of merge."""
    outcome, reason = pl.col(outcome_column(verdict)), pl.col(reason_column(verdict))
    solo, passed = pl.col("mode") == "solo", outcome == "pass"
    applied = ~pl.any_horizontal(pl.col("apply_a", "apply_b").is_in(["failed", "skipped"]).fill_null(False))
    kinds = ["clean", "identical", *(["agent1_alone", "union"] if verdict == "upstream" else [])]
    flags = [
        pl.lit(True),
        pl.col("has_result").fill_null(False),
        pl.col("agents_failed").fill_null(0) == 0,
        (pl.col("patches") >= pl.col("agents")).fill_null(True),  # not known: nothing says that it stopped here
        outcome.is_in(["pass", "fail"]),
        solo | (applied & ~reason.fill_null("").is_in(["not_applied", "empty_patch"])),
        solo | pl.col("kind").is_in(kinds),
        passed,
    ]
    came = [flags[0]]
    for flag in flags[1:]:
        came.append(came[-1] & flag)
    last = pl.sum_horizontal((stage | passed).cast(pl.Int32) for stage in came) - 1
    infra = pl.concat_str(pl.lit("infra_"), pl.col("stage").fill_null("agent"))
    # Whatever its tests said, a pair whose agent wrote nothing was lost there: funnel and losses tell one story.
    unwritten = (last == list(STAGES).index("submitted")) & (reason == "tests")
    why = pl.when(unwritten).then(pl.lit("empty_patch")).otherwise(reason.fill_null("other"))
    loss = pl.when(outcome == "fail").then(why).when(outcome == "infra_error").then(infra)
    return pairs.with_columns(kind=merge_kind()).select(
        *CELL,
        "place",
        "kind",
        verdict=pl.lit(verdict),
        reached=last.cast(pl.Int32),
        loss=pl.when(~passed).then(loss.otherwise(outcome)),
    )


def _stages(units: pl.DataFrame) -> pl.DataFrame:
    by = ["experiment", "place", "setting", "seed", "verdict"]
    stages = pl.DataFrame(list(enumerate(STAGES)), {"position": pl.Int32, "stage": pl.String}, orient="row")
    came = pl.col("n").filter(pl.col("reached") >= pl.col("position")).sum().cast(pl.Int64)
    reached = units.group_by(*by, "reached").agg(n=pl.len()).join(stages, how="cross")
    whole = reached.group_by(*by, "position", "stage").agg(pairs=came).sort(*by, "position")
    whole = whole.with_columns(lost=(pl.col("pairs").shift() - pl.col("pairs")).over(by).fill_null(0))
    merged = list(STAGES).index("merged")
    parts = units.filter((pl.col("reached") >= merged) & (pl.col("kind") != "none"))
    parts = parts.group_by(*by, pl.col("kind").alias("detail")).agg(pairs=pl.len().cast(pl.Int64))
    parts = parts.with_columns(position=pl.lit(merged, pl.Int32), stage=pl.lit("merged"))
    planned = units.group_by(by).agg(planned=pl.len())
    rows = pl.concat([whole, parts], how="diagonal").join(planned, on=by, nulls_equal=True)
    return rows.with_columns(share=pl.col("pairs") / pl.col("planned"))


def _losses(units: pl.DataFrame) -> pl.DataFrame:
    by = ["experiment", "place", "setting", "seed", "verdict"]
    planned = pl.len().over(by)
    lost = units.with_columns(planned=planned, position=pl.col("reached") + 1).filter(pl.col("loss").is_not_null())
    rows = lost.group_by(*by, "position", "loss").agg(
        pairs=pl.len().cast(pl.Int64), share=pl.len() / pl.col("planned").first()
    )
    return rows.with_columns(stage=pl.col("position").replace_strict(dict(enumerate(STAGES)), return_dtype=pl.String))
