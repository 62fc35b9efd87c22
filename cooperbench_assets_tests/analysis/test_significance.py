"""p values against enumeration, scipy, and arithmetic by hand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cooperbench_assets.analysis.significance import (
    SignFlip,
    holm,
    mcnemar,
    sign_flips,
    smallest_p,
    stratified_correlation,
)

THIRDS = st.integers(-6, 6).map(lambda value: Fraction(value, 3))


def _flip(sums: Sequence[float], counts: Sequence[float] | None = None) -> SignFlip:
    return sign_flips([(np.array(sums, float), np.array(counts or [1.0] * len(sums)))])[0]


@given(st.lists(st.tuples(THIRDS, st.integers(1, 4)), min_size=1, max_size=8), THIRDS)
def test_sign_patterns_are_all_counted_and_ties_half(tasks: list[tuple[Fraction, int]], shift: Fraction) -> None:
    """Exact fractions, so that ties are ties; of any hypothesis, not of 0 alone."""
    sums = [value - count * shift for value, count in tasks]
    seen = abs(sum(sums, Fraction(0)))
    totals = [
        abs(sum((sign * value for sign, value in zip(signs, sums, strict=True)), Fraction(0)))
        for signs in itertools.product((1, -1), repeat=len(sums))
    ]
    further, ties = sum(total > seen for total in totals), sum(total == seen for total in totals)
    expected = 1.0 if seen == 0 else (further + ties / 2) / len(totals)
    flip = _flip([float(value) for value, _ in tasks], [float(count) for _, count in tasks])
    assert flip.p(float(shift)) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.tuples(THIRDS, st.integers(1, 4)), min_size=6, max_size=10), st.sampled_from([0.05, 0.1, 0.0167]))
def test_the_interval_is_what_its_test_does_not_reject(tasks: list[tuple[Fraction, int]], alpha: float) -> None:
    flip = _flip([float(value) for value, _ in tasks], [float(count) for _, count in tasks])
    low, high = flip.ends(alpha)
    assert low <= flip.estimate <= high
    for end, outwards in ((low, -1), (high, 1)):
        if np.isfinite(end):
            assert flip.p(end + outwards * 1e-6) <= alpha
    for inside in np.linspace(max(low, -9), min(high, 9), 7)[1:-1]:
        assert high - low < 1e-9 or flip.p(float(inside)) > alpha


def test_more_tasks_than_can_be_counted_are_drawn() -> None:
    """2^18 patterns counted here, against 16,384 drawn ones; the same ones each time."""
    values = np.round(np.random.default_rng(2).normal(0.5, 1, 18), 3)
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    exact = float((np.abs(sums) >= abs(values.sum()) - 1e-9).mean())
    drawn = _flip(list(values))
    assert drawn.method == "16,384 sign patterns drawn with seed 20260113 and the one seen, mid-p"
    assert drawn.p() == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 16_384) ** 0.5)
    assert drawn.p() == _flip(list(-values)).p()
    assert _flip(list(values[:15])).method == "exact, all 2^15 sign patterns, mid-p"


def test_few_tasks_reject_nothing_and_say_so_by_an_interval_without_ends() -> None:
    flip = _flip([1.0, 1.0, 1.0, 1.0])
    assert flip.p() == 1 / 2**4
    assert flip.ends(0.05) == (-np.inf, np.inf)
    assert _flip([0.0] * 5).p() == 1.0


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_scipys_binomial_test(only_a: int, only_b: int) -> None:
    expected = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert mcnemar(pl.Series([only_a]), pl.Series([only_b])).item() == pytest.approx(expected)


def test_mcnemar_by_hand() -> None:
    found = mcnemar(pl.Series([6, 1]), pl.Series([0, 4]))
    assert found.to_list() == pytest.approx([2 / 2**6, 2 * (1 + 5) / 2**5])


def test_holm_by_hand() -> None:
    """Three p values: 0.01·3, max(0.03, 0.03·2), max(0.06, 0.04·1); another group alone; NULL does not count."""
    frame = pl.DataFrame({"g": ["a"] * 4 + ["b"] * 2, "p": [0.04, 0.01, None, 0.03, 0.6, 0.7]})
    adjusted = frame.with_columns(h=holm("p", ["g"]))["h"].to_list()
    assert adjusted[2] is None
    assert [adjusted[i] for i in (0, 1, 3, 4, 5)] == pytest.approx([0.06, 0.03, 0.06, 1.0, 1.0])


def _correlation(rows: list[tuple[str, float, float]]) -> dict[str, Any]:
    frame = pl.DataFrame(rows, schema={"s": pl.String, "x": pl.Float64, "y": pl.Float64}, orient="row")
    return stratified_correlation(frame.with_columns(g=pl.lit(0)), ["g"], "s", ["x"], "y").row(0, named=True)


def test_one_stratum_is_pearsons_correlation() -> None:
    x, y = [1.0, 2, 4, 4, 7, 9], [0.0, 0, 1, 0, 1, 1]
    found = _correlation([("s", a, b) for a, b in zip(x, y, strict=True)])
    assert found["correlation"] == pytest.approx(stats.pearsonr(x, y).statistic)
    assert found["slope"] == pytest.approx(stats.linregress(x, y).slope)
    assert found["p"] == pytest.approx(stats.chi2.sf(5 * stats.pearsonr(x, y).statistic ** 2, 1))


def test_two_by_two_strata_are_mantel_haenszel_by_hand() -> None:
    """Counts (x, y): stratum 1 has 11: 3, 10: 1, 01: 1, 00: 3; stratum 2 has 11: 2, 10: 1, 01: 0, 00: 3.

    E = 4·4/8 = 2 and 3·2/6 = 1; V = 4·4·4·4/(64·7) = 4/7 and 3·3·2·4/(36·5) = 2/5; chi² = (5 - 3)² / (34/35).
    """
    counts = {"1": (3, 1, 1, 3), "2": (2, 1, 0, 3)}
    cells = [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)]
    rows = [
        (name, x, y) for name, many in counts.items() for (x, y), n in zip(cells, many, strict=True) for _ in range(n)
    ]
    found = _correlation(rows)
    expected = (5 - 3) ** 2 / float(Fraction(4, 7) + Fraction(2, 5))
    assert found["p"] == pytest.approx(stats.chi2.sf(expected, 1))
    assert found["informative"] == 2


def test_nothing_varies() -> None:
    found = _correlation([("a", 1.0, 0.0), ("a", 1.0, 1.0), ("b", 0.0, 1.0), ("b", 1.0, 1.0)])
    assert (found["slope"], found["correlation"], found["p"]) == (None, None, None)
    assert (found["strata"], found["informative"]) == (2, 0)


def test_among_drawn_patterns_the_one_seen_adds_one_to_numerator_and_denominator() -> None:
    """No drawn pattern of 60 equal tasks comes near what is seen, so that p is 1 / (draws + 1), and as is printed."""
    flip = _flip([1.0] * 60)
    assert flip.p() == 1 / 16_385
    assert pl.select(smallest_p(pl.lit(60))).item() == flip.p()
    assert pl.select(smallest_p(pl.lit(15))).item() == 2 / 2**15
    wide = _flip(list(np.linspace(-1, 3, 20)))
    low, high = wide.ends(0.05)
    assert wide.p(low - 1e-6) <= 0.05 < wide.p(low + 1e-6)
    assert wide.p(high + 1e-6) <= 0.05 < wide.p(high - 1e-6)
