"""Intervals: Wilson within one cell, over tasks on the logit scale, and Fieller's of a ratio.

What belongs here: formulas on numbers and frames, with their sources. What does not: which rows they are asked for.
Which of several formulas stands here was decided by simulation: docs/statistics.md. Distributions are those of
``scipy.special``, which SciPy loads at its first use; ``scipy.stats`` takes a second to load, for a dozen lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import scipy

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

LEVEL = 0.95
"""Confidence level of every interval that does not say otherwise."""

ALPHA = 1 - LEVEL

FEWEST_TASKS = 6
"""Below this many tasks an interval over tasks would be a guess: a sentence stands in its place."""

SEED = 20260113
"""Seed of every random draw of the analysis: the same store always gives the same figures."""

WILSON = "Wilson 95 %, this cell only, its pairs taken as independent"
CR2 = "cluster-robust by task (CR2, on the logit scale), 95 %"
FIELLER = "Fieller, cluster-robust by task (CR2), 95 %"

_NO_SPREAD = 1e-18
_ENOUGH = 2
"""Degrees of freedom are at most this many more than the tasks that tell: with a rate near 0, few tasks have a pass,
and the others say nothing of how much tasks differ."""


def wilson(passes: pl.Expr, n: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """Wilson's score interval of a proportion, without continuity correction; NULL where `n` is 0.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference (1927), eq. 4.
    """
    z = float(scipy.special.ndtri(0.5 + LEVEL / 2))
    rate = passes / n
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (rate * (1 - rate) / n + z**2 / (4 * n**2)).sqrt()
    low = pl.when(passes > 0).then((centre - half).clip(0, 1)).otherwise(0.0)
    high = pl.when(passes < n).then((centre + half).clip(0, 1)).otherwise(1.0)
    return pl.when(n > 0).then(low), pl.when(n > 0).then(high)


def clustered(frame: pl.DataFrame, by: Sequence[str], *, total: str, count: str = "n") -> pl.DataFrame:
    """The mean of observations that depend on each other within a task, with its standard error.

    CR2 (the bias-reduced linearization of Bell & McCaffrey, Survey Methodology 28 (2002) 169–181) with
    Satterthwaite degrees of freedom, as in Pustejovsky & Tipton, J. Bus. Econ. Stat. 36 (2018) 672–683,
    for a model of a mean alone with an identity working covariance. There the adjustment matrix of a cluster of
    n_g observations scales its residual sum by (1 − n_g/n)^-½, so that with w_g = n_g/n and residual sums r_g

        variance = Σ r_g² / (1 − w_g) / n²
        degrees of freedom = 1 / (Σ w_g² + (Σ w_g²/(1 − w_g))² − Σ w_g⁴/(1 − w_g)²),

    which is the number of clusters minus 1 where all are of one size.

    Args:
        frame: Any number of rows, each with the sum `total` of `count` observations of one ``task``.
        by: Columns of the groups.
        total: Column of sums.
        count: Column of counts.

    Returns:
        One row per group: `by`, ``n``, ``tasks``, ``mean``, ``se``, ``dof``; ``size`` (mean size of an observation's
        cluster) and ``telling``: clusters not all of whose observations are 0, or 1, whichever are fewer.
    """
    clusters = frame.group_by(*by, "task").agg(pl.col(total).sum().alias("s"), pl.col(count).sum().alias("m"))
    clusters = clusters.filter(pl.col("m") > 0)
    sums = clusters.group_by(by).agg(n=pl.col("m").sum(), mean=pl.col("s").sum() / pl.col("m").sum())
    sums = sums.with_row_index("group")
    w = pl.col("m") / pl.col("n")
    terms = clusters.join(sums, on=by, nulls_equal=True).select(
        "group", "s", "m",
        v=(pl.col("s") - pl.col("m") * pl.col("mean")) ** 2 / (1 - w) / pl.col("n") ** 2,
        a=w**2,
        b=w**2 / (1 - w),
    )  # fmt: skip
    b = pl.col("b")
    parts = terms.group_by("group").agg(
        tasks=pl.len().cast(pl.Int64),
        se=pl.col("v").sum().sqrt(),
        dof=1 / (pl.col("a").sum() + b.sum() ** 2 - (b**2).sum()),
        size=(pl.col("m") ** 2).sum() / pl.col("m").sum(),
        telling=pl.min_horizontal((pl.col("s") > 0).sum(), (pl.col("s") < pl.col("m")).sum()).cast(pl.Int64),
    )
    return sums.join(parts, on="group").drop("group").with_columns(pl.col("n").cast(pl.Int64))


def clustered_mean(frame: pl.DataFrame, by: Sequence[str], *, total: str, count: str = "n") -> pl.DataFrame:
    """A rate of observations that depend on each other within a task, with its interval (``rate_ends``).

    Args:
        frame: As for ``clustered``; every observation lies between 0 and 1.
        by: Columns of the groups.
        total: Column of sums.
        count: Column of counts.

    Returns:
        What ``clustered`` gives, but ``se`` and ``dof`` only where there is an interval; ``low``, ``high``;
        ``interval_note``, a sentence where there is no interval or only a bound; ``design_effect`` (variance over that
        of as many independent observations) and ``icc``, the correlation within a cluster that gives it.
    """
    groups = clustered(frame, by, total=total, count=count)
    rate = pl.col("mean")
    inside = (rate > 0) & (rate < 1)
    flat = inside & (pl.col("se") ** 2 <= _NO_SPREAD)
    note = why_no_interval(flat)
    arrays = (groups[name].to_numpy().astype(np.float64) for name in ("mean", "se", "dof", "telling", "tasks"))
    low, high = rate_ends(*arrays)
    shown = note.is_null()
    effect = pl.col("se") ** 2 / (rate * (1 - rate) / pl.col("n"))
    groups = groups.with_columns(low=pl.Series(low, dtype=pl.Float64), high=pl.Series(high, dtype=pl.Float64))
    groups = groups.with_columns(
        *(pl.when(shown).then(name).alias(name) for name in ("se", "dof", "low", "high")),
        interval_note=note,
        design_effect=pl.when(shown & inside).then(effect),
    )
    icc = pl.when(pl.col("size") > 1).then((pl.col("design_effect") - 1) / (pl.col("size") - 1))
    return groups.with_columns(icc=icc)


def why_no_interval(flat: pl.Expr) -> pl.Expr:
    """A sentence where ``tasks`` are too few for an interval or, being `flat`, do not differ; else NULL."""
    needed = pl.format("{} of the {} tasks that an interval over tasks needs", "tasks", pl.lit(FEWEST_TASKS))
    same = pl.lit("every task has the same mean, so that an interval over tasks has no width to show")
    return pl.when(pl.col("tasks") < FEWEST_TASKS).then(needed).when(flat).then(same)


def rate_ends(mean: Floats, se: Floats, dof: Floats, telling: Floats, tasks: Floats) -> tuple[Floats, Floats]:
    """Both ends of the interval of rates: mean ± t · se on the logit scale; at 0 and at 1 an exact bound.

    A rate of 0 has no standard error: then the bound of Clopper and Pearson (Biometrika 26 (1934) 404–413) counts a
    task as one observation, because nothing shows that it is worth more.

    Args:
        mean: The rates.
        se: Their CR2 standard errors.
        dof: Satterthwaite degrees of freedom.
        telling: As ``clustered`` gives them.
        tasks: Number of tasks.
    """
    inside = (mean > 0) & (mean < 1)
    safe = np.where(inside, mean, 0.5)
    freedom = np.minimum(dof, telling + _ENOUGH)
    usable = np.isfinite(freedom) & (freedom > 0)
    t = scipy.special.stdtrit(np.where(usable, freedom, 1.0), 1 - ALPHA / 2)
    half, centre = t * se / (safe * (1 - safe)), np.log(safe / (1 - safe))
    bound = 1 - (ALPHA / 2) ** (1 / np.maximum(tasks, 1))
    with np.errstate(over="ignore"):
        low = np.where(inside, 1 / (1 + np.exp(half - centre)), np.where(mean > 0, 1 - bound, 0.0))
        high = np.where(inside, 1 / (1 + np.exp(-half - centre)), np.where(mean > 0, 1.0, bound))
    return low, high


def ratio_interval(above: Floats, below: Floats, counts: Floats) -> tuple[float, float] | None:
    """Interval of Σ above / Σ below, whose tasks are drawn together.

    Fieller, J. R. Stat. Soc. B 16 (1954) 175–185: the ratios that a t test of Σ (above − ratio · below) does not
    reject, with the CR2 variances and covariance of the two means. Where nothing is above, the bound of a rate of 0
    over the mean below stands for it.

    Args:
        above: Numerator of each task.
        below: Denominator of each task, not negative.
        counts: Pairs of each task.

    Returns:
        The two ends; None with fewer than ``FEWEST_TASKS`` tasks, or where the denominator cannot be told from 0, so
        that the ratio has no upper end.
    """
    n, tasks = counts.sum(), len(counts)
    if tasks < FEWEST_TASKS or below.sum() <= 0:
        return None
    w, a, b = counts / n, above.sum() / n, below.sum() / n
    if a <= 0:
        return 0.0, float((1 - (ALPHA / 2) ** (1 / tasks)) / b)
    of_a, of_b = above - counts * a, below - counts * b
    v_aa, v_bb, v_ab = (float((x * y / (1 - w)).sum() / n**2) for x, y in ((of_a, of_a), (of_b, of_b), (of_a, of_b)))
    scale = w**2 / (1 - w)
    dof = 1 / ((w**2).sum() + scale.sum() ** 2 - (scale**2).sum())
    t2 = float(scipy.special.stdtrit(np.array([dof]), 1 - ALPHA / 2)[0]) ** 2
    square, linear, rest = b**2 - t2 * v_bb, a * b - t2 * v_ab, a**2 - t2 * v_aa
    if square <= 0:
        return None
    # The root of what subtracting equal numbers leaves would be no rest any more.
    gap = linear**2 - square * rest
    root = gap**0.5 if gap > 1e-12 * linear**2 else 0.0
    return max(float((linear - root) / square), 0.0), float((linear + root) / square)


def ratio_intervals(frame: pl.DataFrame, by: Sequence[str], *, above: str, below: str) -> pl.DataFrame:
    """``ratio_interval`` of every group: `by`, ``low`` and ``high``, NULL where there is none.

    Args:
        frame: Any number of rows for a task: columns `by`, ``task``, `above`, `below`, and ``n``, its pairs.
        by: Columns of the groups.
        above: Column of the numerator.
        below: Column of the denominator.
    """
    sums = frame.group_by(*by, "task").agg(pl.col(above, below, "n").sum()).sort(*by, "task")
    lists = sums.group_by(by, maintain_order=True).agg(above, below, "n")
    ends = [
        ratio_interval(*(values.to_numpy() for values in row)) for row in zip(*lists[above, below, "n"], strict=True)
    ]
    return lists.select(by).with_columns(
        low=pl.Series([end and end[0] for end in ends], dtype=pl.Float64),
        high=pl.Series([end and end[1] for end in ends], dtype=pl.Float64),
    )
