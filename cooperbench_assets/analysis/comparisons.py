"""``paired_comparisons`` and ``paired_tables``: one setting against another, over the pairs that both were judged on.

What belongs here: contrasts of settings within an experiment. What does not: whether they may be compared
(``comparability``), and the formulas (``intervals``, ``significance``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from cooperbench_assets.analysis.comparability import (
    beside_the_headline,
    refusals,
    require_comparable,
    window_gaps,
)
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
    joined_reasons,
    result_table,
    scores_of,
    settings_of,
)
from cooperbench_assets.analysis.intervals import clustered_mean
from cooperbench_assets.analysis.significance import holm, mcnemar_column, sign_flip

if TYPE_CHECKING:
    from cooperbench_assets.analysis.frames import Frames

CONTRAST = (*SCORE, "setting_a", "setting_b")
_SIDES = columns(
    ("setting_a", pl.String, "First setting: solo before coop"),
    ("setting_b", pl.String, "Second setting, which is subtracted"),
)

PAIRED_COMPARISONS = result_table(
    "paired_comparisons",
    "Mean over common pairs of (mean over seeds in A - mean over seeds in B), tested and clustered by task.",
    EXPERIMENT,
    VERDICT,
    POPULATION,
    _SIDES,
    columns(
        ("seeds_a", pl.Int64, "Seeds of setting A"),
        ("seeds_b", pl.Int64, "Seeds of setting B"),
        ("pairs", pl.Int64, "Common pairs: at least one verdict in both settings"),
        ("pairs_left_out", pl.Int64, "Pairs planned in both settings without a verdict in one"),
        ("tasks", pl.Int64, "Tasks of the common pairs"),
        ("informative_pairs", pl.Int64, "Common pairs whose means differ"),
        ("informative_tasks", pl.Int64, "Tasks whose sum of differences is not 0"),
        ("rate_a", pl.Float64, "Mean over common pairs of A's mean over seeds"),
        ("rate_b", pl.Float64, "Mean over common pairs of B's mean over seeds"),
        ("difference", pl.Float64, "rate_a - rate_b: the estimate"),
        ("low", pl.Float64, "Lower end of its 95 % interval (CR2 by task, Satterthwaite)"),
        ("high", pl.Float64, "Upper end of its 95 % interval"),
        ("se", pl.Float64, "CR2 standard error"),
        ("dof", pl.Float64, "Satterthwaite degrees of freedom"),
        ("interval_note", pl.String, "Why there is no interval"),
        ("p", pl.Float64, "Two-sided sign-flip test of the task sums"),
        ("p_method", pl.String, "How p was found"),
        ("p_holm", pl.Float64, "p adjusted by Holm over the experiment's contrasts of this verdict and population"),
        ("contrasts", pl.Int64, "Contrasts that Holm's method adjusts for"),
        ("non_verdicts_a", pl.Int64, "Pairs times seeds without a verdict in A, of those planned in both"),
        ("non_verdicts_b", pl.Int64, "The same in B"),
        ("difference_lowest", pl.Float64, "Difference if A's non-verdicts all failed and B's all passed"),
        ("difference_highest", pl.Float64, "Difference if A's non-verdicts all passed and B's all failed"),
        ("robust", pl.Boolean, "The sign is the same in the estimate and in both of these extremes"),
        ("refused", pl.String, "Why these settings may not be compared; all figures are then NULL"),
        ("caution", pl.String, "What else may explain a difference, such as times that do not overlap"),
        ("statement", pl.String, "The result in a sentence"),
    ),
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
    means = pair_means(scores_of(frames, cells))
    differences = _differences(means)
    rows = contrasts_of(cells).join(_estimates(differences), on=CONTRAST[0:1] + CONTRAST[3:], how="left")
    rows = rows.join(_cautions(frames, cells), on=["experiment", "setting_a", "setting_b"], how="left")
    rows = _with_tests(_refuse(rows), differences)
    rows = rows.with_columns(_why_not(), statement=_statement())
    rows = rows.with_columns(headline=pl.col("why_not").is_null())
    rows = rows.sort("experiment", "verdict", "population", "place_a", "place_b")
    return {PAIRED_COMPARISONS.name: conform(PAIRED_COMPARISONS, rows)}


def contrasts_of(cells: pl.DataFrame) -> pl.DataFrame:
    """Every two settings of an experiment: experiment, setting_a, place_a, seeds_a, setting_b, place_b, seeds_b."""
    sides = settings_of(compared_cells(cells)).select("experiment", "setting", "place", "seeds")
    a = sides.rename({name: f"{name}_a" for name in ("setting", "place", "seeds")})
    b = sides.rename({name: f"{name}_b" for name in ("setting", "place", "seeds")})
    return a.join(b, on="experiment").filter(pl.col("place_a") < pl.col("place_b"))


def pair_means(scores: pl.DataFrame) -> pl.DataFrame:
    """Per verdict, population, setting and pair: ``k`` passes, ``n`` verdicts, ``seeds``, and the ``mean`` k/n."""
    by = [*SCORE, "setting", "place", "mode", "task", "pair"]
    sums = scores.group_by(by).agg(
        k=pl.col("score").sum(), n=pl.col("score").count().cast(pl.Int64), seeds=pl.len().cast(pl.Int64)
    )
    return sums.with_columns(mean=pl.when(pl.col("n") > 0).then(pl.col("k") / pl.col("n")))


def _differences(means: pl.DataFrame) -> pl.DataFrame:
    """One row for every contrast and pair planned on both sides: ``d`` (NULL without a verdict on one) and bounds."""
    side = means.drop("mode")
    both = side.join(side, on=[*SCORE, "task", "pair"], suffix="_b").filter(pl.col("place") < pl.col("place_b"))
    low_a, low_b = pl.col("k") / pl.col("seeds"), pl.col("k_b") / pl.col("seeds_b")
    gap_a, gap_b = pl.col("seeds") - pl.col("n"), pl.col("seeds_b") - pl.col("n_b")
    d = pl.col("mean") - pl.col("mean_b")
    return both.select(
        *SCORE,
        pl.col("setting").alias("setting_a"),
        "setting_b",
        "task",
        "pair",
        d=pl.when(d.abs() > 1e-12).then(d).otherwise(d * 0),
        mean_a="mean",
        mean_b="mean_b",
        gap_a=gap_a,
        gap_b=gap_b,
        lowest=low_a - low_b - gap_b / pl.col("seeds_b"),
        highest=low_a + gap_a / pl.col("seeds") - low_b,
    )


def _estimates(differences: pl.DataFrame) -> pl.DataFrame:
    """One row per contrast: the estimate, its extremes, and its interval."""
    common = pl.col("d").is_not_null()
    rows = differences.group_by(CONTRAST).agg(
        pairs=common.sum().cast(pl.Int64),
        pairs_left_out=(~common).sum().cast(pl.Int64),
        informative_pairs=(pl.col("d") != 0).sum().cast(pl.Int64),
        rate_a=pl.col("mean_a").filter(common).mean(),
        rate_b=pl.col("mean_b").filter(common).mean(),
        difference=pl.col("d").mean(),
        non_verdicts_a=pl.col("gap_a").sum(),
        non_verdicts_b=pl.col("gap_b").sum(),
        difference_lowest=pl.col("lowest").mean(),
        difference_highest=pl.col("highest").mean(),
    )
    known = differences.filter(common).with_columns(one=pl.lit(1))
    intervals = clustered_mean(known, CONTRAST, total="d", count="one", limits=(-1.0, 1.0)).drop("n", "mean")
    rows = rows.join(intervals, on=CONTRAST, how="left").with_columns(pl.col("tasks").fill_null(0))
    signs = [pl.col(name).round(12).sign() for name in ("difference", "difference_lowest", "difference_highest")]
    same = (signs[0] == signs[1]) & (signs[0] == signs[2]) & (signs[0] != 0)
    return rows.with_columns(robust=same.fill_null(False))


def _cautions(frames: Frames, cells: pl.DataFrame) -> pl.DataFrame:
    """Per contrast: why it is refused, why a side may have no headline, and what to be careful about."""
    used, contrasts = compared_cells(cells), contrasts_of(cells)
    gaps = window_gaps(frames, used, contrasts).rename({"gap": "caution"})
    return refusals(used, contrasts).join(gaps, on=["experiment", "setting_a", "setting_b"], how="left")


def _refuse(rows: pl.DataFrame) -> pl.DataFrame:
    """Refused contrasts with every figure NULL."""
    figures = [
        column.name
        for column in PAIRED_COMPARISONS.columns
        if column.dtype in (pl.Float64, pl.Boolean) and column.name in rows.columns
    ]
    allowed = pl.col("refused").is_null()
    note = pl.when(allowed).then("interval_note").alias("interval_note")
    return rows.with_columns(*(pl.when(allowed).then(name).alias(name) for name in figures), note)


def _with_tests(rows: pl.DataFrame, differences: pl.DataFrame) -> pl.DataFrame:
    """Sign-flip p values, Holm's adjustment, and the counts that go with them."""
    sums = differences.filter(pl.col("d").is_not_null()).group_by(*CONTRAST, "task").agg(s=pl.col("d").sum())
    live = pl.col("s").abs() > 1e-9
    lists = sums.sort(*CONTRAST, "task").group_by(CONTRAST, maintain_order=True).agg(
        "s", informative_tasks=live.sum().cast(pl.Int64)
    )  # fmt: skip
    tests = sign_flip([values.to_numpy() for values in lists["s"]])
    tested = lists.drop("s").with_columns(
        p=pl.Series([p for p, _ in tests], dtype=pl.Float64),
        p_method=pl.Series([method for _, method in tests], dtype=pl.String),
    )
    rows = rows.join(tested, on=CONTRAST, how="left").with_columns(pl.col("informative_tasks").fill_null(0))
    allowed = pl.col("refused").is_null()
    rows = rows.with_columns(pl.when(allowed).then(name).alias(name) for name in ("p", "p_method"))
    return rows.with_columns(p_holm=holm("p", SCORE), contrasts=pl.col("p").count().over(SCORE).cast(pl.Int64))


def _why_not() -> pl.Expr:
    empty = pl.when(pl.col("pairs").fill_null(0) == 0).then(pl.lit("no pair was judged in both settings"))
    reasons = [pl.col(name) for name in ("refused", "why_a", "why_b")]
    return joined_reasons(beside_the_headline(), *reasons, empty).alias("why_not")


def _points(value: pl.Expr) -> pl.Expr:
    return (value * 100).round(1).cast(pl.String)


def _statement() -> pl.Expr:
    """The result in words; "robust" only where the sign cannot turn."""
    estimate = pl.format(
        "{} - {} = {} points over {} pairs of {} tasks",
        "setting_a", "setting_b", _points(pl.col("difference")), "pairs", "tasks",
    )  # fmt: skip
    interval = (
        pl.when(pl.col("low").is_not_null())
        .then(pl.format(" (95 % {} to {})", _points(pl.col("low")), _points(pl.col("high"))))
        .otherwise(pl.format(" (no interval: {})", pl.col("interval_note").fill_null("nothing to cluster")))
    )
    sign = (
        pl.when(pl.col("robust"))
        .then(pl.lit("robust: the sign holds whatever the non-verdicts were"))
        .otherwise(
            pl.format(
                "the sign is not settled: with the non-verdicts at their extremes it is {} to {}",
                _points(pl.col("difference_lowest")), _points(pl.col("difference_highest")),
            )
        )
    )  # fmt: skip
    return (
        pl.when(pl.col("refused").is_not_null())
        .then(pl.format("{} and {} are not compared: {}", "setting_a", "setting_b", "refused"))
        .when(pl.col("difference").is_null())
        .then(pl.format("{} and {}: no pair was judged in both", "setting_a", "setting_b"))
        .otherwise(pl.concat_str(estimate, interval, pl.lit("; "), sign))
    )


def paired_tables(frames: Frames) -> dict[str, pl.DataFrame]:
    """Fourfold tables of every two settings, for each common seed and by majority of seeds."""
    cells = cells_of(frames)
    # One kind of score at a time: every seed of every two settings is joined, the largest join of all.
    scores = scores_of(frames, cells)
    kinds = scores.partition_by("verdict", "population") or [scores]
    rows = pl.concat([_tables(kind, cells) for kind in kinds])
    rows = rows.with_columns(p_mcnemar=mcnemar_column(rows["only_a"], rows["only_b"]), label=pl.lit(THESE_PAIRS_ONLY))
    contrasts = contrasts_of(cells)
    key = ["experiment", "setting_a", "setting_b"]
    rows = rows.join(refusals(compared_cells(cells), contrasts).select(*key, "refused"), on=key, how="left")
    rows = rows.with_columns(pl.when(pl.col("refused").is_null()).then("p_mcnemar").alias("p_mcnemar"))
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
