"""``pair_grid`` and what can be seen in it: flaky pairs, dead tasks, repeated timeouts, and the gold baseline.

What belongs here: pairs side by side over cells. What does not: rates of settings (``summary``).
"""

from __future__ import annotations

import polars as pl

from cooperbench_assets.analysis.frames import (
    CELL,
    VERDICT,
    VERDICTS,
    Frames,
    cells_of,
    conform,
    outcome_column,
    pairs_of,
    result_table,
    scores_of,
    tally,
)
from cooperbench_assets.analysis.intervals import clustered_mean

PAIR_GRID = result_table(
    "pair_grid",
    "Every pair in every cell, with its outcome: the squares of the grid, in order.",
    ("row", pl.Int64, "Row of the grid, from 0: the pairs that pass most, by the strict verdict, first"),
    ("pair", pl.String, "Pair"),
    ("task", pl.String, "Its task"),
    ("column", pl.Int64, "Column of the grid, from 0: solo first, then coop, by seed"),
    ("setting", pl.String, "Setting"),
    ("seed", pl.Int32, "Seed"),
    ("outcome_strict", pl.String, "Outcome by the strict verdict"),
    ("reason_strict", pl.String, "Reason of a fail by the strict verdict"),
    ("outcome", pl.String, "Outcome by upstream's verdict"),
    ("reason", pl.String, "Reason of a fail by upstream's verdict"),
    ("stage", pl.String, "Stage of an infra_error"),
    ("family", pl.String, "Family of an infra_error"),
    ("suspect", pl.Boolean, "Looks graded but should not be trusted"),
    ("path", pl.String, "Folder of the raw files, relative to the log root"),
)

PAIR_SUMMARY = result_table(
    "pair_summary",
    "Every pair over all cells of the experiment: what never passes, what is flaky, what times out again and again.",
    *VERDICT,
    ("pair", pl.String, "Pair"),
    ("task", pl.String, "Its task"),
    ("cells", pl.Int64, "Cells that plan the pair"),
    ("clean", pl.Int64, "Clean verdicts"),
    ("passes", pl.Int64, "Passes"),
    ("infra_errors", pl.Int64, "Cells in which it ended as infra_error"),
    ("test_timeouts", pl.Int64, "Cells in which its tests ran out of time"),
    ("repeated_timeouts", pl.Boolean, "test_timeouts is 2 or more"),
    ("flaky", pl.Boolean, "Within one setting, some seeds pass and some fail"),
    ("flaky_settings", pl.String, "Those settings"),
    ("never_passed", pl.Boolean, "Judged in some cell, and passed in none"),
    ("never_judged", pl.Boolean, "No clean verdict in any cell"),
    ("gold_passes", pl.Boolean, "The gold patch passes where one agent's worth of it is tested; NULL if not tested"),
)

TASK_SUMMARY = result_table(
    "task_summary",
    "Every task over all cells of the experiment.",
    *VERDICT,
    ("task", pl.String, "Task"),
    ("pairs", pl.Int64, "Pairs of the task"),
    ("clean", pl.Int64, "Clean verdicts"),
    ("passes", pl.Int64, "Passes"),
    ("rate", pl.Float64, "passes / clean"),
    ("never_judged", pl.Int64, "Pairs without a clean verdict in any cell"),
    ("dead", pl.Boolean, "No pair of the task passed in any cell"),
)

GOLD_SENSITIVITY = result_table(
    "gold_sensitivity",
    "Success with and without the pairs that the dataset's own (gold) solo patch does not pass; empty without one.",
    *VERDICT,
    ("setting", pl.String, "Setting"),
    ("pairs", pl.Int64, "Pairs planned"),
    ("gold_passes", pl.Int64, "Pairs whose gold patch passes"),
    ("gold_fails", pl.Int64, "Pairs whose gold patch fails"),
    ("gold_unknown", pl.Int64, "Pairs whose gold patch was not judged"),
    ("rate", pl.Float64, "Success over clean verdicts of all pairs"),
    ("rate_gold", pl.Float64, "Success over clean verdicts of the pairs whose gold patch passes"),
    ("n_gold", pl.Int64, "Clean verdicts of those pairs"),
    ("low_gold", pl.Float64, "Lower end of the 95 % interval of rate_gold (by task)"),
    ("high_gold", pl.Float64, "Upper end of it"),
    ("interval_note", pl.String, "Why there is no interval"),
)


def pair_grid(frames: Frames) -> dict[str, pl.DataFrame]:
    """Every pair in every cell: flaky pairs, dead tasks, repeated timeouts, and the gold baseline."""
    cells = cells_of(frames)
    pairs = pairs_of(frames)
    summary = _pair_summary(pairs, cells)
    return {
        PAIR_GRID.name: conform(PAIR_GRID, _grid(pairs, cells)),
        PAIR_SUMMARY.name: conform(PAIR_SUMMARY, summary.sort("experiment", "verdict", "pair")),
        TASK_SUMMARY.name: conform(TASK_SUMMARY, _tasks(summary)),
        GOLD_SENSITIVITY.name: conform(GOLD_SENSITIVITY, _gold_sensitivity(frames, cells)),
    }


def _grid(pairs: pl.DataFrame, cells: pl.DataFrame) -> pl.DataFrame:
    at = cells.select(*CELL, column=pl.int_range(pl.len()).over("experiment"))
    passes = (pl.col("outcome_strict") == "pass").sum()
    rows = pairs.group_by("experiment", "pair").agg(passes=passes).sort(
        "experiment", pl.col("passes"), "pair", descending=[False, True, False]
    )  # fmt: skip
    rows = rows.with_columns(row=pl.int_range(pl.len()).over("experiment")).drop("passes")
    return pairs.join(at, on=CELL).join(rows, on=["experiment", "pair"]).sort("experiment", "row", "column")


def _pair_summary(pairs: pl.DataFrame, cells: pl.DataFrame) -> pl.DataFrame:
    used = pairs.join(cells.filter(~pl.col("gold")).select(CELL), on=CELL, how="semi")
    gold = gold_passes(pairs, cells)
    parts = [_summed(used, verdict).with_columns(verdict=pl.lit(verdict)) for verdict in VERDICTS]
    return pl.concat(parts).join(gold, on="pair", how="left")


def _summed(pairs: pl.DataFrame, verdict: str) -> pl.DataFrame:
    outcome, by = pl.col(outcome_column(verdict)), ["experiment", "pair"]
    settings = pairs.group_by(*by, "setting").agg(both=(outcome == "pass").any() & (outcome == "fail").any())
    flaky = settings.group_by(by).agg(
        flaky=pl.col("both").any(), flaky_settings=pl.col("setting").filter("both").sort().str.join(", ")
    )
    timed_out = (pl.col("family").fill_null("") == "test_timeout") | (pl.col("reason").fill_null("") == "test_timeout")
    rows = pairs.group_by(*by, "task").agg(
        cells=pl.len().cast(pl.Int64),
        clean=tally(outcome.is_in(["pass", "fail"])),
        passes=tally(outcome == "pass"),
        infra_errors=tally(outcome == "infra_error"),
        test_timeouts=tally(timed_out),
    )
    some = pl.col("flaky_settings") != ""
    return rows.join(flaky, on=by).with_columns(
        repeated_timeouts=pl.col("test_timeouts") >= 2,
        never_passed=(pl.col("clean") > 0) & (pl.col("passes") == 0),
        never_judged=pl.col("clean") == 0,
        flaky_settings=pl.when(some).then("flaky_settings"),
    )


def gold_passes(pairs: pl.DataFrame, cells: pl.DataFrame) -> pl.DataFrame:
    """pair, ``gold_passes``: from the gold cells of mode solo in all frames; coop gold conflicts on purpose."""
    gold = cells.filter(pl.col("gold") & (pl.col("mode") == "solo")).select(CELL)
    judged = pairs.join(gold, on=CELL, how="semi").filter(pl.col("outcome").is_in(["pass", "fail"]))
    return judged.group_by("pair").agg(gold_passes=(pl.col("outcome") == "pass").any())


def _tasks(summary: pl.DataFrame) -> pl.DataFrame:
    rows = summary.group_by("experiment", "verdict", "task").agg(
        pairs=pl.len().cast(pl.Int64),
        clean=pl.col("clean").sum(),
        passes=pl.col("passes").sum(),
        never_judged=tally(pl.col("never_judged")),
    )
    rows = rows.with_columns(rate=pl.col("passes") / pl.col("clean"), dead=pl.col("passes") == 0)
    return rows.sort("experiment", "verdict", "task")


def _gold_sensitivity(frames: Frames, cells: pl.DataFrame) -> pl.DataFrame:
    gold = gold_passes(pairs_of(frames), cells)
    by = ["experiment", "verdict", "setting", "place"]
    scored = scores_of(frames, cells).filter(population="clean").with_columns(pl.col("pair").cast(pl.String))
    scored = scored.join(gold, on="pair", how="left" if gold.height else "inner")
    kept = scored.filter(pl.col("gold_passes") & pl.col("score").is_not_null()).with_columns(n=pl.lit(1, pl.Int64))
    found = clustered_mean(kept, by, total="score").select(
        *by, "interval_note", rate_gold="mean", n_gold="n", low_gold="low", high_gold="high"
    )
    counts = scored.unique([*by, "pair"]).group_by(by).agg(
        pairs=pl.len().cast(pl.Int64),
        gold_passes=tally(pl.col("gold_passes")),
        gold_fails=tally(~pl.col("gold_passes")),
        gold_unknown=pl.col("gold_passes").null_count().cast(pl.Int64),
    )  # fmt: skip
    rates = scored.group_by(by).agg(rate=pl.col("score").mean())
    result = counts.join(rates, on=by).join(found, on=by, how="left")
    return result.with_columns(pl.col("n_gold").fill_null(0)).sort("experiment", "verdict", "place")
