"""Tests: sign flips of tasks with their intervals, exact McNemar, Holm, and the stratified correlation statistic.

What belongs here: p values from numbers, with their sources. What does not: which rows they are asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import scipy

from cooperbench_assets.analysis.intervals import SEED

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

EXACT_TASKS = 15
"""Up to this many tasks all sign patterns are counted; above it, some are drawn."""

DRAWS = 16_384
_SAME = 1e-9


@dataclass(frozen=True, slots=True)
class SignFlip:
    """A sign-flip test of a mean difference over tasks, for every difference that it could be."""

    estimate: float
    below: Floats
    """Per split of the tasks in two, the smaller of the two parts' mean differences; in order."""

    above: Floats
    """The larger ones, in order."""

    tasks: int

    @property
    def method(self) -> str:
        """How the splits were found."""
        if self.tasks <= EXACT_TASKS:
            return f"exact, all 2^{self.tasks} sign patterns, mid-p"
        return f"{DRAWS:,} sign patterns drawn with seed {SEED} and the one seen, mid-p"

    @property
    def seen(self) -> float:
        """How much the pattern that is seen, which always ties, counts: among drawn ones it counts whole."""
        return 0.5 if self.tasks <= EXACT_TASKS else 1.0

    def p(self, difference: float = 0.0) -> float:
        """Two-sided mid-p value of the hypothesis that the mean difference is `difference`."""
        if abs(difference - self.estimate) < _SAME:
            return 1.0
        ends = self.above if difference > self.estimate else -self.below[::-1]
        at = difference if difference > self.estimate else -difference
        least, more = (len(ends) - int(np.searchsorted(ends, at + gap)) for gap in (-_SAME, _SAME))
        return float((self.seen + (least + more) / 2) / (len(ends) + 1))

    def ends(self, alpha: float) -> tuple[float, float]:
        """The differences that the test does not reject at `alpha`; ±infinity where it can reject none."""
        place = math.floor(alpha * (len(self.above) + 1) - self.seen)
        if place < 0:
            return -math.inf, math.inf
        return float(self.below[place]), float(self.above[-1 - place])


def sign_flips(tasks: Sequence[tuple[Floats, Floats]]) -> list[SignFlip]:
    """The sign-flip test of each contrast, from its tasks' sums of differences and numbers of pairs.

    Under the null hypothesis that the two settings could be swapped within any task, every task's sum is as
    likely to be its negative (Fisher's randomisation test; Good, Permutation Tests (2000), 3.2). Flipping some tasks
    takes the total further from 0 unless 0 lies between the mean differences of the flipped tasks and of the others;
    the same holds of any other difference, once it is taken from every pair, so that one list of such means gives the
    p value of each, and the interval that the test does not reject (Hartigan's typical values, J. Am. Stat. Assoc. 64
    (1969) 1303–1317). A pattern that ties counts half (Lancaster's mid-p, J. Am. Stat. Assoc. 56 (1961) 223–234).
    With more than ``EXACT_TASKS`` tasks, ``DRAWS`` patterns drawn with ``SEED`` stand for all, and the one seen adds
    one to numerator and denominator (Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010) 39): p is never 0.
    """
    made: dict[bytes, SignFlip] = {}
    found = []
    for sums, counts in tasks:
        # Where no pair is in doubt, both verdicts over both populations are one and the same test.
        key = sums.tobytes() + counts.tobytes()
        if key not in made:
            made[key] = _flip(sums, counts)
        found.append(made[key])
    return found


def _flip(sums: Floats, counts: Floats) -> SignFlip:
    flipped = _splits(len(sums))
    pairs, total = counts @ flipped, sums @ flipped
    one, other = total / pairs, (sums.sum() - total) / (counts.sum() - pairs)
    below, above = np.minimum(one, other), np.maximum(one, other)
    return SignFlip(float(sums.sum() / counts.sum()), np.sort(below), np.sort(above), len(sums))


def smallest_p(tasks: pl.Expr) -> pl.Expr:
    """The smallest two-sided p that an exact test of so many tasks can reach, or one of ``DRAWS`` patterns."""
    exact = 2 * pl.lit(0.5).pow(tasks)
    return pl.when(tasks <= EXACT_TASKS).then(exact).otherwise(1 / (DRAWS + 1))


@lru_cache(maxsize=8)
def _splits(tasks: int) -> Floats:
    """Which tasks are flipped, (tasks, patterns): not none, and, as opposite patterns are alike, never the last."""
    if tasks <= EXACT_TASKS:
        numbers = np.arange(1, 2 ** (tasks - 1))
        return ((numbers[None, :] >> np.arange(tasks)[:, None]) & 1).astype(np.float64)
    drawn = np.random.default_rng(SEED).integers(0, 2, size=(DRAWS, tasks), dtype=np.int8).astype(np.float64)
    mixed = (drawn.sum(axis=1) > 0) & (drawn.sum(axis=1) < tasks)
    return np.ascontiguousarray(drawn[mixed].T)


def mcnemar(only_a: pl.Series, only_b: pl.Series) -> pl.Series:
    """Exact two-sided McNemar test of discordant pairs, row by row: a binomial test of one against the other.

    1.0 where no pair is discordant. Source: McNemar, Psychometrika 12 (1947) 153–157, in its binomial form.
    """
    a, b = only_a.to_numpy(), only_b.to_numpy()
    # Twice the lower tail: at p = 1/2 both tails are alike.
    return pl.Series(np.minimum(1.0, 2 * scipy.special.bdtr(np.minimum(a, b), a + b, 0.5)), dtype=pl.Float64)


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
    rows = frame.filter(pl.col(y).is_not_null()).select(
        *by, pl.col(stratum).alias("stratum"), pl.col(y, *traits).cast(pl.Float64)
    )
    long = rows.unpivot(traits, index=[*by, "stratum", y], variable_name="trait", value_name="value")
    xy, xx, yy = (_about_mean(a, b) for a, b in (("value", y), ("value", "value"), (y, y)))
    strata = long.group_by(*by, "trait", "stratum").agg(m=pl.len().cast(pl.Int64), xy=xy, xx=xx, yy=yy)
    both = (pl.col("xx") > _SAME) & (pl.col("yy") > _SAME)
    groups = strata.group_by(*by, "trait").agg(
        n=pl.col("m").sum(),
        strata=pl.len().cast(pl.Int64),
        informative=both.sum().cast(pl.Int64),
        variance=(pl.col("xx") * pl.col("yy") / (pl.col("m") - 1)).filter(both).sum(),
        xy=pl.col("xy").sum(),
        xx=pl.col("xx").sum(),
        yy=pl.col("yy").sum(),
    )
    defined = pl.when(pl.col("variance") > _SAME)
    groups = groups.with_columns(
        slope=defined.then(pl.col("xy") / pl.col("xx")),
        correlation=defined.then(pl.col("xy") / (pl.col("xx") * pl.col("yy")).sqrt()),
        squared=defined.then(pl.col("xy") ** 2 / pl.col("variance")),
    )
    p = pl.Series("p", scipy.special.chdtrc(1, groups["squared"].fill_null(0.0).to_numpy()))
    groups = groups.with_columns(p=pl.when(pl.col("squared").is_not_null()).then(p))
    return groups.select(*by, "trait", "n", "strata", "informative", "slope", "correlation", "p")


def _about_mean(a: str, b: str) -> pl.Expr:
    """Sum of products about the means; exact for the small whole numbers that traits and outcomes are."""
    return (pl.col(a) * pl.col(b)).sum() - pl.col(a).sum() * pl.col(b).sum() / pl.len()
