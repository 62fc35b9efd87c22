"""``pair_difficulty``: how hard each pair is for one agent, as an exact fraction.

What belongs here: difficulties, from all solo seeds or all but one, and their buckets. What does not: how success
depends on them (``curves``).
"""

from __future__ import annotations

import numpy as np
import polars as pl

from cooperbench_assets.analysis.frames import (
    POPULATION,
    SCORE,
    VERDICT,
    Frames,
    cells_of,
    conform,
    reference_settings,
    result_table,
    scores_of,
)

BUCKETS = 10
"""Equal-width buckets of difficulty, as in the paper (arXiv 2601.13295v2, Figure 4)."""

PAIR_DIFFICULTY = result_table(
    "pair_difficulty",
    "Difficulty of every pair: 1 − mean(pass) over the judged seeds of the solo setting.",
    *VERDICT,
    *POPULATION,
    ("pair", pl.String, "Pair"),
    ("task", pl.String, "Its task"),
    ("reference", pl.String, "Setting that difficulty is made from"),
    ("seeds", pl.Int64, "Solo seeds planned"),
    ("numerator", pl.Int64, "Judged solo seeds that failed; NULL where none was judged"),
    ("denominator", pl.Int64, "Judged solo seeds; 0 where difficulty is undefined"),
    ("level", pl.String, "The fraction in lowest terms, such as 1/3; NULL where undefined"),
    ("difficulty", pl.Float64, "numerator / denominator; NULL where undefined"),
    ("bucket", pl.Int32, "The paper's bucket, 0 to 9; NULL where undefined"),
)


def pair_difficulty(frames: Frames) -> dict[str, pl.DataFrame]:
    """Difficulty of every pair from the solo seeds, as an exact fraction."""
    cells = cells_of(frames)
    solo = solo_scores(scores_of(frames, cells), cells)
    rows = difficulties(solo).sort("experiment", "verdict", "population", "pair")
    return {PAIR_DIFFICULTY.name: conform(PAIR_DIFFICULTY, rows)}


def solo_scores(scores: pl.DataFrame, cells: pl.DataFrame) -> pl.DataFrame:
    """The scores of each experiment's reference setting, with its label as ``reference``."""
    return scores.join(reference_settings(cells), on="experiment").filter(pl.col("setting") == pl.col("reference"))


def difficulties(solo: pl.DataFrame) -> pl.DataFrame:
    """Difficulty of every pair from all solo seeds: numerator, denominator, level, difficulty, bucket."""
    sums = solo.group_by(*SCORE, "reference", "task", "pair").agg(
        k=pl.col("score").sum(), n=pl.col("score").count().cast(pl.Int64), seeds=pl.len().cast(pl.Int64)
    )
    return _with_fraction(sums)


def held_out_difficulties(solo: pl.DataFrame) -> pl.DataFrame:
    """Difficulty of every pair from all solo seeds but one, ``held_out``; pairs without another verdict left out."""
    over = [*SCORE, "pair"]
    k, n = pl.col("score").sum(), pl.col("score").count().cast(pl.Int64)
    own, judged = pl.col("score").fill_null(0), pl.col("score").is_not_null().cast(pl.Int64)
    rest = solo.select(*SCORE, "task", "pair", held_out="seed", k=k.over(over) - own, n=n.over(over) - judged).filter(
        pl.col("n") > 0
    )
    return _with_fraction(rest)


def _with_fraction(sums: pl.DataFrame) -> pl.DataFrame:
    """``k`` passes of ``n`` verdicts as an exact fraction of fails, its level and its bucket."""
    defined = pl.col("n") > 0
    fails = pl.col("n") - pl.col("k")
    rows = sums.with_columns(numerator=pl.when(defined).then(fails), denominator=pl.col("n"))
    divisor = np.gcd(rows["numerator"].fill_null(0).to_numpy(), rows["denominator"].to_numpy())
    shared = pl.Series(np.maximum(divisor, 1))
    top, bottom = pl.col("numerator") // shared, pl.col("denominator") // shared
    level = pl.when(bottom == 1).then(top.cast(pl.String)).otherwise(pl.format("{}/{}", top, bottom))
    return rows.with_columns(
        level=pl.when(defined).then(level).cast(pl.Categorical),
        difficulty=pl.when(defined).then(pl.col("numerator") / pl.col("denominator")),
        bucket=bucket(pl.col("numerator"), pl.col("denominator")),
    ).drop("k", "n")


def bucket(numerator: pl.Expr, denominator: pl.Expr) -> pl.Expr:
    """The paper's bucket of a fraction, in whole numbers so that 3/10 falls into bucket 3; 1 into the last."""
    place = (numerator * BUCKETS) // denominator
    return pl.when(denominator > 0).then(pl.min_horizontal(place, pl.lit(BUCKETS - 1))).cast(pl.Int32)
