"""Intervals against scipy, against the general formula of CR2 on matrices, and against arithmetic by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from cooperbench_assets.analysis.intervals import clustered, clustered_mean, ratio_interval, wilson


@given(st.integers(1, 400), st.data())
def test_wilson_is_scipys(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    low, high = wilson(pl.col("k"), pl.col("n"))
    ends = pl.DataFrame({"k": [k], "n": [n]}).select(low=low, high=high)
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert ends["low"][0] == pytest.approx(expected.low, abs=1e-12)
    assert ends["high"][0] == pytest.approx(expected.high, abs=1e-12)


def test_wilson_of_nothing_is_unknown() -> None:
    low, high = wilson(pl.col("k"), pl.col("n"))
    assert pl.DataFrame({"k": [0], "n": [0]}).select(low=low, high=high).row(0) == (None, None)


def _general_cr2(values: list[list[float]]) -> tuple[float, float]:
    """CR2 variance and Satterthwaite degrees of freedom from the general matrices, for an intercept alone."""
    y = np.concatenate([np.array(group) for group in values])
    label = np.concatenate([[g] * len(group) for g, group in enumerate(values)])
    x = np.ones((len(y), 1))
    bread = np.linalg.inv(x.T @ x)
    annihilator = np.eye(len(y)) - x @ bread @ x.T
    residuals = annihilator @ y
    vectors = []
    for g in range(len(values)):
        rows = label == g
        eigenvalues, eigenvectors = np.linalg.eigh(annihilator[np.ix_(rows, rows)])
        root = eigenvectors @ np.diag(eigenvalues**-0.5) @ eigenvectors.T
        vectors.append((annihilator[rows].T @ root.T @ x[rows] @ bread)[:, 0])
    variance = sum(float(vector @ y) ** 2 for vector in vectors)
    assert variance == pytest.approx(sum(float(vector @ residuals) ** 2 for vector in vectors))
    gram = np.array(vectors) @ np.array(vectors).T
    return variance, float(np.trace(gram) ** 2 / (gram**2).sum())


def _frame(values: list[list[float]]) -> pl.DataFrame:
    rows = [(f"t{g}", value, 1) for g, group in enumerate(values) for value in group]
    return pl.DataFrame(rows, schema=["task", "y", "n"], orient="row").with_columns(all=pl.lit(0))


def _clustered(values: list[list[float]]) -> dict[str, Any]:
    return clustered_mean(_frame(values), ["all"], total="y").row(0, named=True)


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=6, max_size=12))
def test_cr2_is_the_general_formula(values: list[list[int]]) -> None:
    groups = [[float(value) for value in group] for group in values]
    found = clustered(_frame(groups), ["all"], total="y").row(0, named=True)
    variance, dof = _general_cr2(groups)
    assert found["se"] == pytest.approx(variance**0.5, abs=1e-9)
    assert found["dof"] == pytest.approx(dof)
    assert found["mean"] == pytest.approx(np.mean([value for group in values for value in group]))


def test_cr2_and_its_interval_by_hand() -> None:
    """Six tasks of 2, 1, 1, 1, 1, 2 pairs; n = 8, mean 1/2.

    Residual sums: -1, ½, ½, -½, -½, 1. Variance = [2·1/(3/4) + 4·¼/(7/8)] / 64 = (8/3 + 8/7)/64 = 5/84.
    Σw² = 3/16; Σ w²/(1-w) = 2/12 + 4/56 = 5/21; Σ w⁴/(1-w)² = 2/144 + 4/3136 = 107/7056;
    dof = 1 / (3/16 + 25/441 - 107/7056) = 7056/1616 = 441/101. Three tasks have a pass: 5 degrees at most.
    Independent verdicts would have the variance 1/32; a pair's task has (4 + 1 + 1 + 1 + 1 + 4)/8 = 3/2 on average.
    """
    found = _clustered([[0.0, 0.0], [1.0], [1.0], [0.0], [0.0], [1.0, 1.0]])
    assert found["se"] == pytest.approx((5 / 84) ** 0.5)
    assert found["dof"] == pytest.approx(441 / 101)
    half = 4 * stats.t.ppf(0.975, 441 / 101) * (5 / 84) ** 0.5
    assert (found["low"], found["high"]) == pytest.approx((special.expit(-half), special.expit(half)))
    assert (found["design_effect"], found["icc"]) == pytest.approx((160 / 84, 2 * (160 / 84 - 1)))


def test_a_rate_near_nothing_has_no_more_freedom_than_the_tasks_that_tell() -> None:
    found = _clustered([[1.0], *[[0.0]] * 19])
    half = stats.t.ppf(0.975, 3) * 0.05 / (0.05 * 0.95)
    centre = special.logit(0.05)
    assert (found["low"], found["high"]) == pytest.approx((special.expit(centre - half), special.expit(centre + half)))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_none_and_all_have_a_bound(value: float) -> None:
    """Ten tasks that never pass: rates with which that happens once in forty times or more often."""
    found = _clustered([[value] * 3] * 10)
    bound = stats.binomtest(0, 10).proportion_ci(method="exact").high
    assert (found["low"], found["high"]) == pytest.approx((0.0, bound) if value == 0 else (1 - bound, 1.0))


def test_five_tasks_give_a_sentence_and_no_interval() -> None:
    found = _clustered([[0.0], [1.0], [1.0], [0.0], [1.0, 0.0]])
    assert (found["low"], found["high"], found["se"], found["dof"]) == (None, None, None, None)
    assert found["interval_note"] == "5 of the 6 tasks that an interval over tasks needs"
    assert found["mean"] == pytest.approx(0.5)


def test_one_task_gives_a_sentence() -> None:
    assert _clustered([[0.0, 1.0, 1.0]])["tasks"] == 1


def test_sums_and_rows_give_the_same_interval() -> None:
    rows = pl.DataFrame({"task": list("aabbcdef"), "y": [1, 0, 1, 1, 0, 0, 1, 0], "n": [1] * 8, "g": [0] * 8})
    sums = rows.group_by("g", "task").agg(pl.col("y", "n").sum())
    one, two = (clustered_mean(frame, ["g"], total="y") for frame in (rows, sums))
    assert one.drop("g").row(0)[2:] == pytest.approx(two.drop("g").row(0)[2:], nan_ok=True)


def test_a_ratio_lies_in_its_interval_whose_ends_the_t_test_just_rejects() -> None:
    """With tasks of one size the test of Fieller is the t test of a single sample."""
    rng = np.random.default_rng(4)
    above, below = rng.integers(0, 4, 20) / 4, rng.integers(2, 6, 20) / 6
    found = ratio_interval(above, below, np.ones(20))
    assert found is not None
    assert found[0] < above.sum() / below.sum() < found[1]
    for end in found:
        assert stats.ttest_1samp(above - end * below, 0).pvalue == pytest.approx(0.05)


def test_a_ratio_without_an_interval_is_none_and_one_of_nothing_has_a_bound() -> None:
    few, many = np.ones(5), np.ones(10)
    assert ratio_interval(few, few, few) is None
    # One task of eight has any success: solo's own rate cannot be told from 0.
    assert ratio_interval(np.eye(8)[0], np.eye(8)[0], np.ones(8)) is None
    assert ratio_interval(many * 0, many / 2, many) == pytest.approx((0, 2 * (1 - 0.025**0.1)))
