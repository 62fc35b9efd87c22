"""p values against enumeration, scipy, and arithmetic by hand."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cooperbench_assets.analysis.significance import holm, mcnemar, sign_flip, stratified_correlation

THIRDS = st.integers(-6, 6).map(lambda value: Fraction(value, 3))


@given(st.lists(THIRDS, min_size=1, max_size=9))
def test_sign_flips_are_all_counted(sums: list[Fraction]) -> None:
    """Exact fractions, so that ties are ties."""
    seen = abs(sum(sums, Fraction(0)))
    totals = [
        abs(sum((sign * value for sign, value in zip(signs, sums, strict=True)), Fraction(0)))
        for signs in itertools.product((1, -1), repeat=len(sums))
    ]
    expected = sum(total >= seen for total in totals) / len(totals)
    (p, method), *_ = sign_flip([np.array([float(value) for value in sums])])
    assert p == pytest.approx(expected, abs=1e-12)
    assert method.startswith("exact")


def test_sign_flips_of_twenty_tasks_are_scipys() -> None:
    values = np.random.default_rng(0).normal(0.4, 1, 12)
    expected = stats.permutation_test(
        (values,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    ((p, _),) = sign_flip([values])
    assert p == pytest.approx(expected.pvalue)


def test_twenty_tasks_are_exact_and_more_are_drawn() -> None:
    """2^22 patterns enumerated in numpy, against 100,000 drawn ones."""
    values = np.round(np.random.default_rng(2).normal(0.5, 1, 22), 3)
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    exact = float((np.abs(sums) >= abs(values.sum()) - 1e-9).mean())
    results = sign_flip([values[:20], values, -values])
    assert results[0][1] == "exact, all 2^20 sign patterns"
    assert results[1][1] == "100,000 seeded sign patterns"
    assert results[1][0] == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 100_000) ** 0.5)
    assert results[1] == results[2] == sign_flip([values])[0]


def test_tasks_without_a_difference_do_not_count() -> None:
    (few, many) = sign_flip([np.array([1.0, 2.0, -0.5]), np.array([1.0, 0, 2.0, *[0.0] * 40, -0.5])])
    assert few == many
    assert few[0] == pytest.approx(0.5)  # ±(1 + 2 - 0.5) and ±(1 + 2 + 0.5) of 8


def test_nothing_to_flip() -> None:
    assert sign_flip([np.array([]), np.zeros(3)]) == [
        (None, "no task to compare"),
        (1.0, "exact, all 2^0 sign patterns"),
    ]
    assert sign_flip([]) == []


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_scipys_binomial_test(only_a: int, only_b: int) -> None:
    if only_a + only_b:
        expected = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue
        assert mcnemar(only_a, only_b) == pytest.approx(expected)
    else:
        assert mcnemar(only_a, only_b) == 1.0


def test_mcnemar_by_hand() -> None:
    assert mcnemar(6, 0) == pytest.approx(2 / 2**6)
    assert mcnemar(1, 4) == pytest.approx(2 * (1 + 5) / 2**5)


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


def test_a_drawn_p_value_is_never_nothing() -> None:
    ((p, _),) = sign_flip([np.ones(60)])
    assert p == pytest.approx(1 / 100_001)
