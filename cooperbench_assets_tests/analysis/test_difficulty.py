"""Difficulties as exact fractions, curves, areas and retention of hand-made stores."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.analysis.curves import LEAVE_ONE_OUT, REPRODUCTION, success_by_difficulty
from cooperbench_assets.analysis.difficulty import bucket, pair_difficulty
from cooperbench_assets_tests.analysis.stores import gold_cells, outcomes, pair_row, pairs_frame, provenance

STRICT_CLEAN = (pl.col("verdict") == "strict") & (pl.col("population") == "clean")
SOLO = {(1, 1): "PPP", (2, 1): "PPF", (3, 1): "FFF", (4, 1): "PII", (5, 1): "I-U", (6, 1): "FPF"}
COOP = {(1, 1): "PF", (2, 1): "FF", (3, 1): "FF", (4, 1): "PP", (5, 1): "PP", (6, 1): "FI"}


def _frames(
    solo: dict[tuple[int, int], str], coop: dict[tuple[int, int], str] | None = None
) -> dict[str, pl.DataFrame]:
    return {"pairs": pairs_frame(*outcomes("solo", solo), *outcomes("coop-comm", coop or {}))}


def _curves(frames: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    return {name: frame.filter(STRICT_CLEAN) for name, frame in success_by_difficulty(frames).items()}


def _area(frames: dict[str, pl.DataFrame], setting: str, method: str) -> dict[str, Any]:
    return _curves(frames)["success_auc"].filter(setting=setting, method=method).row(0, named=True)


def test_difficulty_is_an_exact_fraction_of_the_judged_seeds() -> None:
    rows = pair_difficulty(_frames(SOLO))["pair_difficulty"].filter(STRICT_CLEAN).sort("pair")
    assert rows.select("numerator", "denominator", "level", "bucket", "seeds").rows() == [
        (0, 3, "0", 0, 3),
        (1, 3, "1/3", 3, 3),
        (3, 3, "1", 9, 3),
        (0, 1, "0", 0, 3),
        (None, 0, None, None, 3),
        (2, 3, "2/3", 6, 3),
    ]
    assert rows["difficulty"].to_list()[:4] == pytest.approx([0, 1 / 3, 1, 0])
    assert rows["difficulty"][4] is None


@given(st.integers(1, 60), st.data())
def test_a_bucket_is_the_floor_of_ten_times_the_exact_fraction(denominator: int, data: st.DataObject) -> None:
    numerator = data.draw(st.integers(0, denominator))
    frame = pl.DataFrame({"a": [numerator], "b": [denominator]})
    expected = min(9, Fraction(numerator, denominator) * 10 // 1)
    assert frame.select(bucket(pl.col("a"), pl.col("b"))).item() == expected


def test_the_evaluated_population_keeps_what_a_dead_agent_was_graded_on() -> None:
    rows = [
        pair_row(seed=0, outcome="infra_error", has_eval=True, both_passed=False),
        pair_row(seed=1, outcome="pass"),
        pair_row(seed=2, outcome="infra_error", stage="eval", has_eval=True, both_passed=True, stale=True),
    ]
    table = pair_difficulty({"pairs": pairs_frame(*rows)})["pair_difficulty"].filter(verdict="upstream")
    assert table.select("population", "numerator", "denominator").rows() == [("clean", 0, 1), ("evaluated", 1, 2)]


def test_the_papers_area_by_hand_is_the_trapezoid_over_midpoints() -> None:
    """Solo: rates 1, ⅔, ⅓, 0 at .05, .35, .65, .95. Coop: ¾, 0, 0, 0 at the same: 0.3 · ⅜."""
    frames = _frames(SOLO, COOP)
    solo, coop = (_area(frames, setting, REPRODUCTION) for setting in ("solo", "coop-comm"))
    assert solo["auc"] == pytest.approx(0.3 * (5 / 6 + 1 / 2 + 1 / 6))
    assert coop["auc"] == pytest.approx(0.3 * 3 / 8)
    assert coop["retention"] == pytest.approx(0.3 * 3 / 8 / 0.45)
    assert (solo["span"], solo["points"], solo["seeds"]) == pytest.approx((0.9, 4, 3))
    assert "identity" in coop["note"]
    assert not coop["headline"]


def test_leaving_a_seed_out_by_hand() -> None:
    """Two solo seeds; each pair's difficulty is the other seed's result.

    Held out 0: d = 0 for tasks 1, 2 (seed 1 passes), 1 for 3, 4. Solo's seed 0: 1/2 at .05, 1/2 at .95.
    Held out 1: d = 0 for 1, 3, 1 for 2, 4. Solo's seed 1: 1/2, 1/2. Coop: task 1 passes, the others fail:
    1/2 at .05 and 0 at .95 both times, so 1/4 after division by the span.
    """
    frames = _frames(
        {(1, 1): "PP", (2, 1): "FP", (3, 1): "PF", (4, 1): "FF"}, {(1, 1): "P", (2, 1): "F", (3, 1): "F", (4, 1): "F"}
    )
    solo, coop = (_area(frames, setting, LEAVE_ONE_OUT) for setting in ("solo", "coop-comm"))
    assert (solo["auc"], coop["auc"]) == pytest.approx((0.5, 0.25))
    assert (coop["retention"], coop["curves"], coop["span"]) == pytest.approx((0.5, 2, 0.9))
    assert coop["headline"]
    curve = _curves(frames)["success_by_difficulty"].filter(method=LEAVE_ONE_OUT, setting="solo", held_out=0)
    assert curve.select("x", "passes", "n").rows() == [(0.05, 1, 2), (0.95, 1, 2)]


def test_one_solo_seed_gives_a_sentence_instead_of_a_leave_one_out_area() -> None:
    frames = _frames({(1, 1): "P", (2, 1): "F"}, {(1, 1): "P", (2, 1): "F"})
    row = _area(frames, "coop-comm", LEAVE_ONE_OUT)
    assert (row["auc"], row["note"]) == (None, "no figure: leaving one solo seed out needs at least two")
    assert _area(frames, "coop-comm", REPRODUCTION)["auc"] == pytest.approx(0.45)


def test_one_difficulty_gives_a_sentence_instead_of_an_area() -> None:
    frames = _frames({(1, 1): "PP"}, {(1, 1): "PF"})
    for method in (LEAVE_ONE_OUT, REPRODUCTION):
        row = _area(frames, "coop-comm", method)
        assert (row["auc"], row["note"]) == (None, "no figure: fewer than two difficulties occur")


def test_levels_keep_every_difficulty_apart_and_count_the_verdicts() -> None:
    points = _curves(_frames(SOLO, COOP))["success_by_difficulty"].filter(
        method=REPRODUCTION, scale="level", setting="coop-comm"
    )
    assert points.select("level", "pairs", "passes", "n").rows() == [
        ("0", 2, 3, 4), ("1/3", 1, 0, 2), ("2/3", 1, 0, 1), ("1", 1, 0, 2),
    ]  # fmt: skip
    assert points["interval_note"].null_count() == 0


def test_retention_is_the_ratio_of_means_over_common_pairs() -> None:
    row = _curves(_frames(SOLO, COOP))["retention"].row(0, named=True)
    mean_coop, mean_solo = (1 / 2 + 0 + 0 + 1 + 0) / 5, (1 + 2 / 3 + 0 + 1 + 1 / 3) / 5
    assert (row["pairs"], row["mean_setting"], row["mean_solo"]) == pytest.approx((5, mean_coop, mean_solo))
    assert row["retention"] == pytest.approx(mean_coop / mean_solo)
    assert (row["low"], row["note"]) == (None, "5 of the 6 tasks that an interval over tasks needs")
    assert row["headline"]


def test_retention_over_many_tasks_has_an_interval_around_it() -> None:
    keys = [(t, 1) for t in range(20)]
    frames = _frames(
        {key: "PF" if key[0] % 2 else "PP" for key in keys}, {key: "P" if key[0] % 3 else "F" for key in keys}
    )
    row = _curves(frames)["retention"].row(0, named=True)
    assert row["low"] < row["retention"] < row["high"]


def test_where_solo_never_passes_there_is_nothing_to_retain() -> None:
    row = _curves(_frames({(1, 1): "FF"}, {(1, 1): "PP"}))["retention"].row(0, named=True)
    assert (row["retention"], row["headline"]) == (None, False)
    assert row["note"] == "solo passes none of the common pairs, so that there is nothing to retain"


def test_settings_that_differ_have_neither_area_nor_retention() -> None:
    cells = [{"setting": "solo", "seed": s} for s in range(3)]
    cells += [{"setting": "coop-comm", "seed": s, "model": "x"} for s in range(2)]
    frames = _frames(SOLO, COOP) | {"provenance": provenance(*cells)}
    row = _curves(frames)["retention"].row(0, named=True)
    assert (row["retention"], row["mean_setting"], row["note"]) == (None, None, "model differs: m / x")
    area = _area(frames, "coop-comm", LEAVE_ONE_OUT)
    assert (area["auc"], area["note"]) == (None, "model differs: m / x")
    assert _area(frames, "solo", LEAVE_ONE_OUT)["auc"] is not None


def test_without_solo_there_is_no_difficulty() -> None:
    frames = {"pairs": pairs_frame(*outcomes("coop-comm", COOP))}
    assert pair_difficulty(frames)["pair_difficulty"].is_empty()
    assert all(frame.is_empty() for frame in success_by_difficulty(frames).values())


def test_a_gold_baseline_is_no_solo_setting() -> None:
    rows = [*outcomes("gold-solo", {(1, 1): "P"}), *outcomes("solo", {(1, 1): "F"})]
    frames = {"pairs": pairs_frame(*rows), "provenance": gold_cells(("e", "gold-solo"))}
    table = pair_difficulty(frames)["pair_difficulty"].filter(STRICT_CLEAN)
    assert table.select("reference", "level").rows() == [("solo", "1")]
