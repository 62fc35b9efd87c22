"""Tests: sign flips of task sums, exact McNemar, Holm, and the stratified correlation statistic.

What belongs here: p values from numbers, with their sources. What does not: which rows they are asked for.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from cooperbench_assets.analysis.distributions import chi_square_tail, fair_tail
from cooperbench_assets.analysis.intervals import SEED

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

EXACT_TASKS = 20
"""Up to this many tasks with a difference, all sign flips are counted; above it, some are drawn."""

DRAWS = 100_000
_BATCH = 64
_SAME = 1e-9


def sign_flip(task_sums: Sequence[Floats]) -> list[tuple[float | None, str]]:
    """Two-sided sign-flip tests of task sums, one for each array.

    Under the null hypothesis that the two settings could be swapped within any task, every task's sum is as
    likely to be its negative. The p value is the share of all sign patterns whose total is at least as far
    from 0 as the one seen (Fisher's randomisation test; Good, Permutation Tests (2000), 3.2). Tasks whose
    sum is 0 do not change it and are left out. With more than ``EXACT_TASKS`` others it is
    (1 + hits) / (1 + ``DRAWS``) over seeded random patterns (Phipson & Smyth 2010).

    Returns:
        For each array the p value and how it was found; (None, a sentence) for an array without a task.
    """
    informative = [sums[np.abs(sums) > _SAME] for sums in task_sums]
    # Where no pair is in doubt, both verdicts over both populations are one and the same test.
    tests = {live.tobytes(): live for live in informative}
    many = [key for key, live in tests.items() if len(live) > EXACT_TASKS]
    found = dict(zip(many, _drawn([tests.pop(key) for key in many]), strict=True))
    found |= {key: _exact(live) for key, live in tests.items()}
    return [
        (None, "no task to compare") if len(sums) == 0 else found[live.tobytes()]
        for sums, live in zip(task_sums, informative, strict=True)
    ]


def _exact(sums: Floats) -> tuple[float, str]:
    """All 2^T patterns, as every sum of one half of the tasks with every sum of the other."""
    middle = len(sums) // 2
    left, right = _signed_sums(sums[:middle]), np.sort(_signed_sums(sums[middle:]))
    seen = abs(float(sums.sum())) - _SAME * max(1.0, float(np.abs(sums).sum()))
    # The patterns come in pairs of opposite total, so the two tails are equally large.
    above = len(right) - np.searchsorted(right, seen - left, side="left")
    share = 2 * int(above.sum()) / 2 ** len(sums)
    return min(1.0, share), f"exact, all 2^{len(sums)} sign patterns"


def _signed_sums(values: Floats) -> Floats:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


@cache
def _signs(tasks: int) -> Floats:
    """Random signs, (tasks, draws): the first rows are the same however many tasks are asked for."""
    bits = np.random.default_rng(SEED).integers(0, 2, size=(tasks, DRAWS), dtype=np.int8)
    return bits.astype(np.float64) * 2 - 1


def _drawn(arrays: Sequence[Floats]) -> list[tuple[float, str]]:
    results: list[tuple[float, str]] = []
    for start in range(0, len(arrays), _BATCH):
        batch = arrays[start : start + _BATCH]
        tasks = max(len(sums) for sums in batch)
        padded = np.stack([np.pad(sums, (0, tasks - len(sums))) for sums in batch])
        seen = np.abs(padded.sum(axis=1)) - _SAME * np.maximum(1.0, np.abs(padded).sum(axis=1))
        hits = (np.abs(padded @ _signs(tasks)) >= seen[:, None]).sum(axis=1)
        results += [(float((1 + hit) / (1 + DRAWS)), f"{DRAWS:,} seeded sign patterns") for hit in hits]
    return results


@cache
def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar test of discordant pairs: a binomial test of one against the other.

    1.0 where no pair is discordant. Source: McNemar, Psychometrika 12 (1947) 153–157, in its binomial form.
    """
    if only_a + only_b == 0:
        return 1.0
    # Twice the lower tail: at p = 1/2 both tails are alike.
    return min(1.0, 2 * fair_tail(min(only_a, only_b), only_a + only_b))


def mcnemar_column(only_a: pl.Series, only_b: pl.Series) -> pl.Series:
    """``mcnemar`` of every row."""
    values = [mcnemar(a, b) for a, b in zip(only_a, only_b, strict=True)]
    return pl.Series(values, dtype=pl.Float64)


def holm(p: str, by: Sequence[str]) -> pl.Expr:
    """Holm's adjusted p values of the column `p` within `by`; NULL stays NULL and does not count.

    Source: S. Holm, Scand. J. Statist. 6 (1979) 65–70.
    """
    value = pl.col(p)
    place = value.rank("ordinal").over(by)
    raw = value * (value.count().over(by) - place + 1)
    return raw.cum_max().over(by, order_by=place).clip(upper_bound=1.0)


def stratified_correlation(
    frame: pl.DataFrame, by: Sequence[str], stratum: str, traits: Sequence[str], y: str
) -> pl.DataFrame:
    """Association of every trait x with `y` within strata, with the Mantel–Haenszel correlation test.

    With sums over strata h of sxy, sxx and syy (about the stratum's means) and n_h rows in a stratum, the
    statistic is (Σ sxy)² / Σ (sxx · syy / (n_h − 1)), chi-squared with 1 degree of freedom where the rows of a
    stratum could be swapped (Mantel 1963; Landis, Heyman & Koch, Int. Stat. Rev. 46 (1978) 237–254).

    Args:
        frame: Rows with numbers in `traits` and `y`; rows without a `y` are left out.
        by: Columns of the groups.
        stratum: Column of the stratum.
        traits: Columns of traits.
        y: Column of the outcome.

    Returns:
        One row per group and trait: `by`, ``trait``, ``n``, ``strata`` and ``informative`` (strata in which both
        vary), ``slope`` (change of `y` for one unit of x), ``correlation``, ``p``; the last three NULL where nothing
        varies.
    """
    rows = frame.filter(pl.col(y).is_not_null())
    strata = rows.group_by(*by, stratum).agg(
        pl.len().cast(pl.Int64).alias("m"), _about_mean(y, y).alias("syy"),
        *(_about_mean(x, x).alias(f"sxx_{x}") for x in traits), *(_about_mean(x, y).alias(f"sxy_{x}") for x in traits),
    )  # fmt: skip
    parts = [_one_trait(strata, by, x) for x in traits]
    return _with_correlation(pl.concat(parts)).drop("xy", "xx", "yy", "variance")


def _about_mean(a: str, b: str) -> pl.Expr:
    """Sum of products about the means; exact for the small whole numbers that traits and outcomes are."""
    first, second = pl.col(a).cast(pl.Float64), pl.col(b).cast(pl.Float64)
    return (first * second).sum() - first.sum() * second.sum() / pl.len()


def _one_trait(strata: pl.DataFrame, by: Sequence[str], trait: str) -> pl.DataFrame:
    sxy, sxx, syy = pl.col(f"sxy_{trait}"), pl.col(f"sxx_{trait}"), pl.col("syy")
    both = (sxx > _SAME) & (syy > _SAME)
    variance = pl.when(both).then(sxx * syy / (pl.col("m") - 1))
    return strata.group_by(by, maintain_order=True).agg(
        pl.lit(trait).alias("trait"),
        n=pl.col("m").sum(),
        strata=pl.len().cast(pl.Int64),
        informative=both.sum().cast(pl.Int64),
        xy=sxy.sum(),
        xx=sxx.sum(),
        yy=syy.sum(),
        variance=variance.sum(),
    )


def _with_correlation(groups: pl.DataFrame) -> pl.DataFrame:
    defined = pl.col("variance") > _SAME
    squared = (groups["xy"] ** 2 / groups["variance"]).fill_nan(0.0).fill_null(0.0).to_numpy()
    p = pl.Series(chi_square_tail(1, np.where(np.isfinite(squared), squared, 0.0)), dtype=pl.Float64)
    return groups.with_columns(
        slope=pl.when(defined).then(pl.col("xy") / pl.col("xx")),
        correlation=pl.when(defined).then(pl.col("xy") / (pl.col("xx") * pl.col("yy")).sqrt()),
        p=pl.when(defined).then(p),
    )
