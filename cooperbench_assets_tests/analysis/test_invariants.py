"""What holds of every store: random ones, thin ones, and ones in which nothing differs."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cooperbench_assets.analysis.comparisons import paired_comparisons, paired_tables
from cooperbench_assets.analysis.funnel import outcome_funnel
from cooperbench_assets.analysis.registry import RESULT_TABLES, run_all
from cooperbench_assets.analysis.significance import sign_flips
from cooperbench_assets.analysis.summary import setting_summary
from cooperbench_assets_tests.analysis.stores import outcomes, pair_row, pairs_frame, random_frames

LETTERS = st.text("PPFFIU-", min_size=1, max_size=3)
SETTINGS = ("solo", "coop-comm", "coop-nocomm")


@st.composite
def stores(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A few settings of 1 to 3 seeds over up to 9 tasks of up to 2 pairs; every pair planned in every cell."""
    tasks, pairs = draw(st.integers(1, 9)), draw(st.integers(1, 2))
    rows = []
    for setting in draw(st.lists(st.sampled_from(SETTINGS), min_size=1, max_size=3, unique=True)):
        seeds = draw(st.integers(1, 3))
        letters = st.text("PPPFFFIU-", min_size=seeds, max_size=seeds)
        rows += outcomes(setting, {(t, p): draw(letters) for t in range(tasks) for p in range(1, pairs + 1)})
    for row in rows:
        if row["outcome"] == "infra_error" and draw(st.booleans()):
            row |= {"has_eval": True, "both_passed": draw(st.booleans())}
        if row["setting"] != "solo" and row["outcome"] == "pass" and draw(st.integers(0, 3)) == 0:
            row |= {"merge_status": "conflicts", "merge_strategy": "solo-agent1", "outcome_strict": "fail"}
            row |= {"both_passed_strict": False, "reason_strict": "conflict"}
    return rows


def _check_tables(results: dict[str, pl.DataFrame]) -> None:
    assert list(results) == [table.name for table in RESULT_TABLES]
    for table in RESULT_TABLES:
        frame = results[table.name]
        assert frame.schema == table.schema
        for name, dtype in frame.schema.items():
            if dtype == pl.Float64:
                assert frame[name].is_finite().all(), f"{table.name}.{name}"


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(stores())
def test_counts_add_up_and_intervals_hold_their_estimate(rows: list[dict[str, Any]]) -> None:
    frames = {"pairs": pairs_frame(*rows)}
    results = setting_summary(frames) | outcome_funnel(frames) | paired_tables(frames)
    summary = results["setting_summary"]
    total = pl.sum_horizontal("passes", "fails", "infra_error", "unevaluated", "missing")
    assert summary.filter(total != pl.col("planned")).is_empty()
    reasons = pl.sum_horizontal(name for name in summary.columns if name.startswith("fail_"))
    assert summary.filter(reasons != pl.col("fails")).is_empty()
    assert summary.filter(level="cell", verdict="strict")["planned"].sum() == len(rows)
    for rate in ("planned", "evaluated", "clean"):
        inside = pl.col(f"rate_{rate}").is_between(f"{rate}_low", f"{rate}_high")
        assert summary.filter(~inside).is_empty()
    bounds = pl.col("rate_planned").is_between("bound_low", "bound_high")
    assert summary.filter(~bounds).is_empty()
    funnel = results["outcome_funnel"].filter(pl.col("detail").is_null())
    assert (funnel["lost"] >= 0).all()
    losses = results["funnel_losses"].group_by("setting", "seed", "verdict").agg(losses=pl.col("pairs").sum())
    passed = funnel.filter(stage="passed")
    passed = passed.join(losses, on=["setting", "seed", "verdict"], how="left", nulls_equal=True)
    planned = funnel.filter(stage="planned").select("setting", "seed", "verdict", planned="pairs")
    both = passed.join(planned, on=["setting", "seed", "verdict"], nulls_equal=True)
    assert both.filter(pl.col("pairs") + pl.col("losses").fill_null(0) != pl.col("planned")).is_empty()
    tables = results["paired_tables"]
    assert tables.filter(pl.sum_horizontal("both", "only_a", "only_b", "neither") != pl.col("pairs")).is_empty()


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(stores())
def test_comparisons_keep_their_estimate_between_the_extremes(rows: list[dict[str, Any]]) -> None:
    table = paired_comparisons({"pairs": pairs_frame(*rows)})["paired_comparisons"].filter(
        pl.col("difference").is_not_null()
    )
    gap = (pl.col("difference") - (pl.col("rate_a") - pl.col("rate_b"))).abs()
    assert table.filter(gap > 1e-9).is_empty()
    assert table.filter(~pl.col("difference").is_between("low", "high")).is_empty()
    assert table.filter((pl.col("p") > 0.05) & ((pl.col("low") > 0) | (pl.col("high") < 0))).is_empty()
    assert table.filter((pl.col("p") <= 0.05) & (pl.col("low") < 0) & (pl.col("high") > 0)).is_empty()
    assert table.filter(pl.col("difference_lowest") > pl.col("difference_highest")).is_empty()
    assert table.filter(~pl.col("p").is_between(0, 1) | (pl.col("p_holm") < pl.col("p"))).is_empty()
    signs = [pl.col(name).sign() for name in ("difference", "difference_lowest", "difference_highest")]
    same = (signs[0] == signs[1]) & (signs[0] == signs[2]) & (signs[0] != 0)
    assert table.filter(pl.col("robust") != (same & pl.col("claimed"))).is_empty()


def test_a_difference_that_cancels_out_is_nothing_and_has_no_sign() -> None:
    """Thirds that add up to 0 in numbers leave a rest in floating point."""
    rows = outcomes("solo", {(1, 1): "PFF", (2, 1): "PPF", (3, 1): "FFF", (4, 1): "PFF"})
    rows += outcomes("coop-comm", {(1, 1): "FFF", (2, 1): "PFF", (3, 1): "PPF", (4, 1): "PFF"})
    table = paired_comparisons({"pairs": pairs_frame(*rows)})["paired_comparisons"]
    assert set(table["difference"]) == {0.0}
    assert not table["robust"].any()
    assert set(table["p"]) == {1.0}


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(stores(), st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_another_experiment_changes_anything(
    rows: list[dict[str, Any]], random: Any
) -> None:
    """Only what says that it looks across experiments may differ: gold."""
    other = outcomes("solo", {(1, 1): "PF"}, "other") + outcomes("coop-comm", {(1, 1): "F"}, "other")
    shuffled = random.sample([*rows, *other], len(rows) + len(other))
    alone, together = run_all({"pairs": pairs_frame(*rows)}), run_all({"pairs": pairs_frame(*shuffled)})
    for name, frame in alone.items():
        assert frame.equals(together[name].filter(experiment="e")), name


EIGHT = [(task, 1) for task in range(8)]


def _two(keys: list[tuple[int, int]], solo: str, coop: str) -> list[dict[str, Any]]:
    return outcomes("solo", dict.fromkeys(keys, solo)) + outcomes("coop-comm", dict.fromkeys(keys, coop))


THIN = {
    "no rows": [],
    "two seeds of one pair": outcomes("solo", {(1, 1): "PF"}),
    "three pairs": _two([(1, 1), (2, 1), (3, 1)], "PF", "F"),
    "one setting without solo": outcomes("coop-nocomm", {(1, 1): "PFP"}),
    "an empty cell": _two(EIGHT, "P-", "-"),
    "one task": _two([(1, pair) for pair in range(1, 8)], "PF", "FF"),
    "nobody judged": _two(EIGHT, "U", "I"),
    "everybody passes": _two(EIGHT, "PP", "PP"),
    "all unknown": [pair_row(outcome="missing", started_at=None, ended_at=None, duration_seconds=None)],
}


@pytest.mark.parametrize("name", THIN)
def test_thin_data_gives_rows_and_sentences(name: str) -> None:
    results = run_all({"pairs": pairs_frame(*THIN[name])})
    _check_tables(results)
    summary = results["setting_summary"]
    no_interval = summary.filter(pl.col("clean_low").is_null() & (pl.col("clean") > 0))
    assert no_interval["interval_note"].null_count() == 0
    assert summary.filter(~pl.col("headline") & pl.col("why_not").is_null()).is_empty()
    comparisons = results["paired_comparisons"]
    assert comparisons["statement"].null_count() == 0
    retention = results["retention"]
    assert retention.filter(pl.col("retention").is_null() & pl.col("note").is_null()).is_empty()
    areas = results["success_auc"]
    assert areas.filter(pl.col("auc").is_null() & pl.col("note").is_null()).is_empty()
    points = results["success_by_difficulty"]
    assert points.filter(pl.col("low").is_null() & pl.col("interval_note").is_null()).is_empty()


def _null_p_values(repetitions: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """p values of settings that do not differ, in tasks that do: pairs of a task share how it falls out."""
    rng = np.random.default_rng(11)
    tests = []
    for _ in range(repetitions):
        lean = rng.normal(0, 1, 12)  # which setting a task happens to favour, the same for its pairs
        pairs = rng.integers(1, 9, 12)
        sums = np.array([rng.normal(shift, 0.5, size).sum() for shift, size in zip(lean, pairs, strict=True)])
        tests.append((sums, pairs.astype(np.float64)))
    return np.array([flip.p() for flip in sign_flips(tests)], dtype=np.float64)


@pytest.mark.slow
def test_under_the_null_p_is_uniform_though_tasks_are_clustered() -> None:
    p = _null_p_values(1000)
    for level in (0.01, 0.05, 0.1, 0.25, 0.5, 0.75):
        expected = 4 * (level * (1 - level) / len(p)) ** 0.5
        assert (p <= level).mean() == pytest.approx(level, abs=expected)


def test_under_the_null_whole_stores_are_rarely_called_different() -> None:
    """300 experiments in which both settings draw from the same rates of tasks: about one in twenty is below 0.05."""
    rng = np.random.default_rng(7)
    rows = []
    for number in range(300):
        ease = rng.beta(0.4, 0.4, 8)
        table: dict[str, dict[tuple[int, int], str]] = {"solo": {}, "coop-comm": {}}
        for setting, cells in table.items():
            luck = np.clip(ease + rng.normal(0, 0.25, 8), 0, 1)
            for task in range(8):
                for pair in (1, 2, 3):
                    cells[(task, pair)] = "".join("PF"[int(rng.random() > luck[task])] for _ in range(2))
            rows += outcomes(setting, cells, f"x{number:03}")
    results = paired_comparisons({"pairs": pairs_frame(*rows)})["paired_comparisons"]
    p = results.filter(verdict="strict", population="clean", endpoint="success")["p"].to_numpy()
    assert len(p) == 300
    assert (p <= 0.05).mean() <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5
    assert 0.35 < p.mean() < 0.65 + 0.1
    inside = (
        results.filter(verdict="strict", population="clean", endpoint="success")
        .select(pl.lit(0).is_between("low", "high"))
        .to_series()
    )
    assert inside.mean() == pytest.approx(0.95, abs=0.05)


@pytest.mark.slow
def test_random_stores_of_the_perf_run_are_sound() -> None:
    results = run_all(random_frames(6000, 2, pairs=50, tasks=13, seed=3))
    _check_tables(results)
    assert results["setting_summary"].filter(level="cell", verdict="strict")["planned"].sum() == 6000
