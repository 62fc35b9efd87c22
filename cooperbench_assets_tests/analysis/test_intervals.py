"""Intervals against scipy, against the general formula of CR2 on matrices, and against arithmetic by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cooperbench_assets.analysis.intervals import bootstrap_ratio, clustered_mean, wilson


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


def _clustered(values: list[list[float]], **more: object) -> dict[str, object]:
    rows = [(f"t{g}", value, 1) for g, group in enumerate(values) for value in group]
    frame = pl.DataFrame(rows, schema=["task", "y", "n"], orient="row").with_columns(all=pl.lit(0))
    return clustered_mean(frame, ["all"], total="y", limits=(-10.0, 10.0)).row(0, named=True)


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=6, max_size=12))
def test_cr2_is_the_general_formula(values: list[list[int]]) -> None:
    found = _clustered([[float(value) for value in group] for group in values])
    variance, dof = _general_cr2([[float(value) for value in group] for group in values])
    if variance < 1e-15:
        assert found["low"] is None
        assert "same mean" in str(found["interval_note"])
        return
    half = stats.t.ppf(0.975, dof) * variance**0.5
    mean = np.mean([value for group in values for value in group])
    assert found["se"] == pytest.approx(variance**0.5)
    assert found["dof"] == pytest.approx(dof)
    assert found["low"] == pytest.approx(max(mean - half, -10))
    assert found["high"] == pytest.approx(min(mean + half, 10))


def test_cr2_of_clusters_of_one_size_is_the_t_interval_of_their_means() -> None:
    values = [[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]
    found = _clustered(values)
    expected = stats.ttest_1samp([np.mean(group) for group in values], 0.0).confidence_interval(0.95)
    assert found["dof"] == pytest.approx(6)
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))


def test_cr2_by_hand() -> None:
    """Six tasks of 2, 1, 1, 1, 1, 2 pairs; n = 8, mean 1/2.

    Residual sums: -1, ½, ½, -½, -½, 1. Variance = [2·1/(3/4) + 4·¼/(7/8)] / 64 = (8/3 + 8/7)/64 = 5/84.
    Σw² = 3/16; Σ w²/(1-w) = 2/12 + 4/56 = 5/21; Σ w⁴/(1-w)² = 2/144 + 4/3136 = 107/7056;
    dof = 1 / (3/16 + 25/441 - 107/7056) = 7056/1616 = 441/101.
    """
    found = _clustered([[0.0, 0.0], [1.0], [1.0], [0.0], [0.0], [1.0, 1.0]])
    assert found["se"] == pytest.approx((5 / 84) ** 0.5)
    assert found["dof"] == pytest.approx(441 / 101)


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


def test_the_ratio_bootstrap_is_scipys() -> None:
    rng = np.random.default_rng(4)
    above, below = rng.integers(0, 4, 20).astype(float), rng.integers(2, 6, 20).astype(float)
    found = bootstrap_ratio(above, below)
    expected = stats.bootstrap(
        (above, below),
        lambda a, b, axis=-1: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found == pytest.approx((expected.low, expected.high), abs=0.015)
    assert found == bootstrap_ratio(above, below)


def test_a_ratio_without_an_interval_is_none() -> None:
    few = np.ones(5)
    assert bootstrap_ratio(few, few) is None
    # One task of eight has any success: a third of the resamples miss it.
    assert bootstrap_ratio(np.eye(8)[0], np.eye(8)[0]) is None
