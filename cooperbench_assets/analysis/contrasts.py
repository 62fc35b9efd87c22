"""One side against another over the pairs that both were judged on: the estimate, its test, and what stands against it.

What belongs here: what contrasts of settings (``comparisons``) and of experiments (``across``) have in common. What
does not: which sides are contrasted, whether they may be (``comparability``), and the formulas (``intervals``,
``significance``).

A contrast lies within one ``experiment`` and is of two ``setting``s; across experiments the two columns change places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from cooperbench_assets.analysis.comparability import (
    CONTRAST_REASONS,
    beside_the_headline,
    with_headline,
    without_refused,
)
from cooperbench_assets.analysis.formatting import MINUS, counted, points
from cooperbench_assets.analysis.frames import SCORE, columns
from cooperbench_assets.analysis.intervals import clustered_mean
from cooperbench_assets.analysis.significance import holm, sign_flip

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CONTRAST = (*SCORE, "setting_a", "setting_b")

ESTIMATE = columns(
    ("seeds_a", pl.Int64, "Seeds of side A"),
    ("seeds_b", pl.Int64, "Seeds of side B"),
    ("pairs", pl.Int64, "Common pairs: at least one verdict on both sides"),
    ("pairs_left_out", pl.Int64, "Pairs planned on both sides without a verdict on one"),
    ("tasks", pl.Int64, "Tasks of the common pairs"),
    ("informative_pairs", pl.Int64, "Common pairs whose means differ"),
    ("informative_tasks", pl.Int64, "Tasks whose sum of differences is not 0"),
    ("rate_a", pl.Float64, "Mean over common pairs of A's mean over seeds"),
    ("rate_b", pl.Float64, "Mean over common pairs of B's mean over seeds"),
    ("difference", pl.Float64, "rate_a − rate_b: the estimate"),
    ("low", pl.Float64, "Lower end of its 95 % interval (CR2 by task, Satterthwaite)"),
    ("high", pl.Float64, "Upper end of its 95 % interval"),
    ("se", pl.Float64, "CR2 standard error"),
    ("dof", pl.Float64, "Satterthwaite degrees of freedom"),
    ("interval_note", pl.String, "Why there is no interval"),
    ("p", pl.Float64, "Two-sided sign-flip test of the task sums"),
    ("p_method", pl.String, "How p was found"),
    ("p_holm", pl.Float64, "p adjusted by Holm over the contrasts that stand together by this verdict and population"),
    ("contrasts", pl.Int64, "Contrasts that Holm's method adjusts for"),
    ("non_verdicts_a", pl.Int64, "Pairs times seeds without a verdict in A, of those planned in both"),
    ("non_verdicts_b", pl.Int64, "The same in B"),
    ("difference_lowest", pl.Float64, "Difference if A's non-verdicts all failed and B's all passed"),
    ("difference_highest", pl.Float64, "Difference if A's non-verdicts all passed and B's all failed"),
    ("robust", pl.Boolean, "The sign is the same in the estimate and in both of these extremes"),
    ("refused", pl.String, "Why these two may not be compared; all figures are then NULL"),
    ("caution", pl.String, "What else may explain a difference, such as times that do not overlap"),
    ("statement", pl.String, "The result in a sentence"),
)


def contrasted(
    scores: Iterable[pl.DataFrame], contrasts: pl.DataFrame, reasons: pl.DataFrame, family: Sequence[str]
) -> pl.DataFrame:
    """Every contrast, estimated and tested.

    Args:
        scores: As ``frames.score_kinds`` gives them.
        contrasts: One row for each: experiment, setting_a, setting_b, and whatever the caller's table has of them.
        reasons: By the same three: ``refused``, ``why_a``, ``why_b`` (as ``comparability.refusals`` has them), and
            ``caution``.
        family: Columns within which Holm's method counts contrasts.

    Returns:
        One row for every contrast by every verdict and population: the columns of ``ESTIMATE``, but for what
        `contrasts` brings, with ``headline`` and ``why_not``.
    """
    on = ["experiment", "setting_a", "setting_b"]
    parts = [(_estimates(found), _task_sums(found)) for found in map(_differences, map(pair_means, scores))]
    estimates, sums = (pl.concat(part) for part in zip(*parts, strict=True))
    rows = contrasts.join(estimates, on=on, how="left").join(reasons, on=on, how="left")
    figures = [name for name, dtype in rows.schema.items() if dtype in (pl.Float64, pl.Boolean)]
    rows = rows.with_columns(without_refused(*figures, "interval_note"))
    rows = _with_tests(rows, sums, family).with_columns(statement=_statement())
    empty = pl.when(pl.col("pairs").fill_null(0) == 0).then(pl.lit("no pair was judged in both"))
    return with_headline(rows, beside_the_headline(), *CONTRAST_REASONS, empty)


def against_each_other(sides: pl.DataFrame) -> pl.DataFrame:
    """Every two settings of an experiment, from experiment, setting, place and seeds: each of these with _a and _b."""
    a, b = (sides.rename({name: f"{name}_{side}" for name in ("setting", "place", "seeds")}) for side in "ab")
    return a.join(b, on="experiment").filter(pl.col("place_a") < pl.col("place_b"))


def pair_means(scores: pl.DataFrame) -> pl.DataFrame:
    """Per verdict, population, setting and pair: ``k`` passes, ``n`` verdicts, ``seeds``, and the ``mean`` k/n."""
    by = [*SCORE, "setting", "place", "task", "pair"]
    sums = scores.group_by(by).agg(
        k=pl.col("score").sum().cast(pl.Int64), n=pl.col("score").count().cast(pl.Int64), seeds=pl.len().cast(pl.Int64)
    )
    return sums.with_columns(mean=pl.when(pl.col("n") > 0).then(pl.col("k") / pl.col("n")))


def _differences(means: pl.DataFrame) -> pl.DataFrame:
    """One row for every contrast and pair planned on both sides: ``d`` (NULL without a verdict on one) and bounds.

    Args:
        means: Of one verdict and population.
    """
    side = means.drop("verdict", "population", "task")
    both = means.join(side, on=["experiment", "pair"], suffix="_b").filter(pl.col("place") < pl.col("place_b"))
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


def _task_sums(differences: pl.DataFrame) -> pl.DataFrame:
    """One row for every contrast and task: ``s``, the sum of its pairs' differences."""
    return differences.filter(pl.col("d").is_not_null()).group_by(*CONTRAST, "task").agg(s=pl.col("d").sum())


def _with_tests(rows: pl.DataFrame, sums: pl.DataFrame, family: Sequence[str]) -> pl.DataFrame:
    """Sign-flip p values, Holm's adjustment, and the counts that go with them."""
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
    rows = rows.with_columns(without_refused("p", "p_method"))
    return rows.with_columns(p_holm=holm("p", family), contrasts=pl.col("p").count().over(family).cast(pl.Int64))


def _statement() -> pl.Expr:
    """The result in words; "robust" only where the sign cannot turn."""
    estimate = pl.format(
        f"{{}} {MINUS} {{}} = {{}} points over {{}} of {{}}",
        "setting_a", "setting_b", points("difference"), counted("pairs", "pair"), counted("tasks", "task"),
    )  # fmt: skip
    interval = (
        pl.when(pl.col("low").is_not_null())
        .then(pl.format(" (95 % {} to {})", points("low"), points("high")))
        .otherwise(pl.format(" (no interval: {})", pl.col("interval_note").fill_null("nothing to cluster")))
    )
    return (
        pl.when(pl.col("refused").is_not_null())
        .then(pl.format("{} and {} are not compared: {}", "setting_a", "setting_b", "refused"))
        .when(pl.col("difference").is_null())
        .then(pl.format("{} and {}: no pair was judged in both", "setting_a", "setting_b"))
        .otherwise(pl.concat_str(estimate, interval, pl.lit("; "), _sign()))
    )


def _sign() -> pl.Expr:
    """What can be said of a difference's sign, whatever the non-verdicts were."""
    extremes = pl.format("{} to {}", points("difference_lowest"), points("difference_highest"))
    none = (pl.col("non_verdicts_a") + pl.col("non_verdicts_b")) == 0
    equal = pl.col("difference").round(12) == 0
    return (
        pl.when(equal & none)
        .then(pl.lit("no difference on average, and no pair is without a verdict"))
        .when(equal)
        .then(pl.format("no difference on average; with the non-verdicts at their extremes it is {}", extremes))
        .when(none)
        .then(pl.lit("no pair is without a verdict that could turn the sign"))
        .when("robust")
        .then(pl.lit("robust: the sign holds whatever the non-verdicts were"))
        .otherwise(pl.format("the sign is not settled: with the non-verdicts at their extremes it is {}", extremes))
    )
