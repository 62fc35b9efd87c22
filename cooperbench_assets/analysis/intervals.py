"""Intervals: Wilson within one cell, cluster-robust over tasks, and the task bootstrap of a ratio.

What belongs here: formulas on numbers and frames, with their sources. What does not: which rows they are asked for.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from cooperbench_assets.analysis.distributions import normal_quantile, t_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

LEVEL = 0.95
"""Confidence level of every interval."""

FEWEST_TASKS = 6
"""Below this many tasks an interval over tasks would be a guess: a sentence stands in its place."""

BOOTSTRAP_DRAWS = 10_000
SEED = 20260113
"""Seed of every random draw of the analysis: the same store always gives the same figures."""

WILSON = "Wilson 95 %, this cell only, its pairs taken as independent"
CR2 = "cluster-robust by task (CR2, Satterthwaite), 95 %"
BOOTSTRAP = "percentile bootstrap of tasks, 95 %"

_NO_SPREAD = 1e-18


def wilson(passes: pl.Expr, n: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """Wilson's score interval of a proportion, without continuity correction; NULL where `n` is 0.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference (1927), eq. 4.
    """
    z = normal_quantile(0.5 + LEVEL / 2)
    rate = passes / n
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (rate * (1 - rate) / n + z**2 / (4 * n**2)).sqrt()
    low = pl.when(passes > 0).then((centre - half).clip(0, 1)).otherwise(0.0)
    high = pl.when(passes < n).then((centre + half).clip(0, 1)).otherwise(1.0)
    return pl.when(n > 0).then(low), pl.when(n > 0).then(high)


def clustered_mean(
    frame: pl.DataFrame,
    by: Sequence[str],
    *,
    total: str,
    count: str = "n",
    cluster: str = "task",
    limits: tuple[float, float] = (0.0, 1.0),
) -> pl.DataFrame:
    """The mean of observations that depend on each other within a cluster, with its interval.

    CR2 (the bias-reduced linearization of Bell & McCaffrey, Survey Methodology 28 (2002) 169–181) with
    Satterthwaite degrees of freedom, as in Pustejovsky & Tipton, J. Bus. Econ. Stat. 36 (2018) 672–683,
    for a model of a mean alone with an identity working covariance. There the adjustment matrix of a cluster of
    n_g observations scales its residual sum by (1 − n_g/n)^-½, so that with w_g = n_g/n and residual sums r_g

        variance = Σ r_g² / (1 − w_g) / n²
        degrees of freedom = 1 / (Σ w_g² + (Σ w_g²/(1 − w_g))² − Σ w_g⁴/(1 − w_g)²),

    which is the number of clusters minus 1 where all are of one size.

    Args:
        frame: Any number of rows, each with the sum `total` of `count` observations of one `cluster`.
        by: Columns of the groups.
        total: Column of sums.
        count: Column of counts.
        cluster: Column that names the cluster.
        limits: Bounds that the interval is cut to.

    Returns:
        One row per group: `by`, ``n``, ``tasks``, ``mean``, ``se``, ``dof``, ``low``, ``high``, and
        ``interval_note``, a sentence where there is no interval.
    """
    clusters = frame.group_by(*by, cluster).agg(pl.col(total).sum().alias("s"), pl.col(count).sum().alias("m"))
    clusters = clusters.filter(pl.col("m") > 0)
    sums = clusters.group_by(by).agg(n=pl.col("m").sum(), mean=pl.col("s").sum() / pl.col("m").sum())
    sums = sums.with_row_index("group")
    w = pl.col("m") / pl.col("n")
    terms = clusters.join(sums, on=by, nulls_equal=True).select(
        "group",
        v=(pl.col("s") - pl.col("m") * pl.col("mean")) ** 2 / (1 - w) / pl.col("n") ** 2,
        a=w**2,
        b=w**2 / (1 - w),
    )
    b = pl.col("b")
    parts = terms.group_by("group").agg(
        tasks=pl.len().cast(pl.Int64),
        variance=pl.col("v").sum(),
        dof=1 / (pl.col("a").sum() + b.sum() ** 2 - (b**2).sum()),
    )
    groups = sums.join(parts, on="group").drop("group").with_columns(pl.col("n").cast(pl.Int64))
    return _with_t_interval(groups, limits)


def _with_t_interval(groups: pl.DataFrame, limits: tuple[float, float]) -> pl.DataFrame:
    few, flat = pl.col("tasks") < FEWEST_TASKS, pl.col("variance") <= _NO_SPREAD
    usable = ~few & ~flat
    dof = groups["dof"].to_numpy()
    quantile = t_quantile(np.where(np.isfinite(dof) & (dof > 0), dof, 1.0), 0.5 + LEVEL / 2)
    half = pl.col("se") * pl.Series(quantile, dtype=pl.Float64)
    note = (
        pl.when(few)
        .then(pl.format("{} of the {} tasks that an interval over tasks needs", "tasks", pl.lit(FEWEST_TASKS)))
        .when(flat)
        .then(pl.lit("every task has the same mean, so that an interval over tasks has no width to show"))
    )
    return (
        groups.with_columns(
            se=pl.when(usable).then(pl.col("variance").sqrt()),
            dof=pl.when(usable).then("dof"),
            interval_note=note,
        )
        .with_columns(low=(pl.col("mean") - half).clip(*limits), high=(pl.col("mean") + half).clip(*limits))
        .drop("variance")
    )


@cache
def _resamples(tasks: int, draws: int) -> Floats:
    """How often each task is drawn, (draws, tasks)."""
    generator = np.random.default_rng(SEED)
    counts: Floats = generator.multinomial(tasks, np.full(tasks, 1 / tasks), size=draws).astype(np.float64)
    return counts


def bootstrap_ratio(above: Floats, below: Floats, draws: int = BOOTSTRAP_DRAWS) -> tuple[float, float] | None:
    """Percentile interval of Σ above / Σ below, tasks drawn with replacement.

    Args:
        above: Numerator of each task.
        below: Denominator of each task, not negative.
        draws: Resamples.

    Returns:
        The two ends; None with fewer than ``FEWEST_TASKS`` tasks, or where more than 1 in 100 resamples
        have a denominator of 0, so that their ratio is not defined.
    """
    if len(above) < FEWEST_TASKS:
        return None
    sums = _resamples(len(above), draws) @ np.column_stack([above, below])
    defined = sums[:, 1] > 0
    if defined.mean() < 0.99:
        return None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(sums[defined, 0] / sums[defined, 1], [tail, 1 - tail])
    return float(low), float(high)
