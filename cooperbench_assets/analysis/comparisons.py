"""``paired_comparisons`` and ``paired_tables``: one setting against another, over the pairs that both were judged on.

What belongs here: contrasts of settings within an experiment. What does not: how a contrast is estimated and tested
(``contrasts``), and whether it may be (``comparability``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from cooperbench_assets.analysis.comparability import refusals, require_comparable, window_gaps, without_refused
from cooperbench_assets.analysis.contrasts import ESTIMATE, against_each_other, contrasted, pair_means
from cooperbench_assets.analysis.frames import (
    EXPERIMENT,
    HEADLINE,
    POPULATION,
    SCORE,
    VERDICT,
    cells_of,
    columns,
    compared_cells,
    conform,
    result_table,
    score_kinds,
    settings_of,
)
from cooperbench_assets.analysis.significance import mcnemar_column

if TYPE_CHECKING:
    from cooperbench_assets.analysis.frames import Frames

_KEY = ["experiment", "setting_a", "setting_b"]
_SIDES = columns(
    ("setting_a", pl.String, "First setting: solo before coop"),
    ("setting_b", pl.String, "Second setting, which is subtracted"),
)

PAIRED_COMPARISONS = result_table(
    "paired_comparisons",
    "Mean over common pairs of (mean over seeds in A − mean over seeds in B), tested and clustered by task.",
    EXPERIMENT,
    VERDICT,
    POPULATION,
    _SIDES,
    ESTIMATE,
    HEADLINE,
)

PAIRED_TABLES = result_table(
    "paired_tables",
    "Both / only A / only B / neither and exact McNemar, by seed and by majority: a statement on these pairs only.",
    EXPERIMENT,
    VERDICT,
    POPULATION,
    _SIDES,
    columns(
        (
            "basis",
            pl.String,
            "seed, or majority of seeds where both settings have the same odd number; an open majority is left out",
        ),
        ("seed", pl.Int32, "Seed; NULL for the majority"),
        ("pairs", pl.Int64, "Pairs judged on both sides"),
        ("both", pl.Int64, "Passed in A and in B"),
        ("only_a", pl.Int64, "Passed in A only"),
        ("only_b", pl.Int64, "Passed in B only"),
        ("neither", pl.Int64, "Passed in neither"),
        ("p_mcnemar", pl.Float64, "Exact two-sided McNemar test, not adjusted"),
        ("label", pl.String, "What the p value is about"),
        ("refused", pl.String, "Why these settings may not be compared"),
    ),
)

THESE_PAIRS_ONLY = "these pairs only: pairs of one task are taken as independent"


def paired_comparison(frames: Frames, experiment: str, setting_a: str, setting_b: str) -> pl.DataFrame:
    """The rows of ``paired_comparisons`` for one contrast; Holm still counts the experiment's other contrasts.

    Raises:
        NotComparable: if the settings' cells differ in what must agree.
    """
    require_comparable(frames, experiment, setting_a, setting_b)
    rows = paired_comparisons(frames)[PAIRED_COMPARISONS.name]
    same = (pl.col("setting_a") == setting_a) & (pl.col("setting_b") == setting_b)
    swapped = (pl.col("setting_a") == setting_b) & (pl.col("setting_b") == setting_a)
    return rows.filter((pl.col("experiment") == experiment) & (same | swapped))


def paired_comparisons(frames: Frames) -> dict[str, pl.DataFrame]:
    """Every two settings of every experiment, by both verdicts and over both populations."""
    cells = cells_of(frames)
    contrasts, used = contrasts_of(cells), compared_cells(cells)
    gaps = window_gaps(frames, used, contrasts).rename({"gap": "caution"})
    reasons = refusals(used, contrasts).join(gaps, on=_KEY, how="left")
    rows = contrasted(score_kinds(frames, cells), contrasts, reasons, SCORE)
    rows = rows.sort("experiment", "verdict", "population", "place_a", "place_b")
    return {PAIRED_COMPARISONS.name: conform(PAIRED_COMPARISONS, rows)}


def contrasts_of(cells: pl.DataFrame) -> pl.DataFrame:
    """Every two settings of an experiment: experiment, setting_a, place_a, seeds_a, setting_b, place_b, seeds_b."""
    return against_each_other(settings_of(compared_cells(cells)).select("experiment", "setting", "place", "seeds"))


def paired_tables(frames: Frames) -> dict[str, pl.DataFrame]:
    """Fourfold tables of every two settings, for each common seed and by majority of seeds."""
    cells = cells_of(frames)
    rows = pl.concat([_tables(kind, cells) for kind in score_kinds(frames, cells)])
    rows = rows.with_columns(p_mcnemar=mcnemar_column(rows["only_a"], rows["only_b"]), label=pl.lit(THESE_PAIRS_ONLY))
    contrasts = contrasts_of(cells)
    rows = rows.join(refusals(compared_cells(cells), contrasts).select(*_KEY, "refused"), on=_KEY, how="left")
    rows = rows.with_columns(without_refused("p_mcnemar"))
    rows = rows.sort(*SCORE, "place_a", "place_b", pl.col("basis") == "majority", "seed")
    return {PAIRED_TABLES.name: conform(PAIRED_TABLES, rows)}


def _tables(scores: pl.DataFrame, cells: pl.DataFrame) -> pl.DataFrame:
    """Fourfold tables of one kind of score, by seed and by majority."""
    seeds = scores.filter(pl.col("score").is_not_null()).select(
        *SCORE, "setting", "place", "seed", "pair", passed=pl.col("score") == 1
    )
    majority = _fourfold(_majorities(scores, cells), "majority", ["cells"])
    return pl.concat([_fourfold(seeds, "seed", ["seed"]), majority], how="diagonal_relaxed")


def _majorities(scores: pl.DataFrame, cells: pl.DataFrame) -> pl.DataFrame:
    """Pairs that passed, or failed, in more than half of all seeds of a setting with an odd number of them.

    A pair with so few verdicts that the seeds without one could turn the majority has none.
    """
    seeds = settings_of(compared_cells(cells)).select("experiment", "setting", cells="seeds")
    pairs = pair_means(scores).join(seeds, on=["experiment", "setting"]).filter(pl.col("cells") % 2 == 1)
    passed = 2 * pl.col("k") > pl.col("cells")
    failed = 2 * (pl.col("n") - pl.col("k")) > pl.col("cells")
    return pairs.filter(passed | failed).select(*SCORE, "setting", "place", "cells", "pair", passed=passed)


def _fourfold(judged: pl.DataFrame, basis: str, match: list[str]) -> pl.DataFrame:
    """Counts of the four ways that a pair can go on two sides, matched on the pair and `match`."""
    both = judged.join(judged, on=[*SCORE, "pair", *match], suffix="_b").filter(pl.col("place") < pl.col("place_b"))
    a, b = pl.col("passed"), pl.col("passed_b")
    keys = [
        *SCORE,
        pl.col("setting").alias("setting_a"),
        "setting_b",
        pl.col("place").alias("place_a"),
        "place_b",
    ]
    if basis == "seed":
        keys.append("seed")
    counts = {"pairs": pl.lit(True), "both": a & b, "only_a": a & ~b, "only_b": ~a & b, "neither": ~a & ~b}
    sums = {name: flag.sum().cast(pl.Int64) for name, flag in counts.items() if name != "pairs"}
    return both.group_by(keys).agg(pl.len().cast(pl.Int64).alias("pairs"), **sums).with_columns(
        basis=pl.lit(basis)
    )  # fmt: skip
