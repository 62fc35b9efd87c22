"""Conflict rates, first of all merges and then given what the patches share."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from scipy import special, stats

from cooperbench_assets.analysis.merges import CONDITIONS, merge_conflicts
from cooperbench_assets.store.overlaps import PATCH_OVERLAPS
from cooperbench_assets_tests.analysis.stores import conflict, pair_row, pairs_frame

COOP: dict[str, Any] = {"setting": "coop-comm"}
ROWS = [
    pair_row(**COOP, task=1),
    pair_row(**COOP, task=2, outcome="fail"),
    pair_row(**COOP, task=3, merge_status="identical"),
    conflict(task=4, fallback_unseen=True),
    conflict(task=5, outcome="pass", outcome_strict="fail", merge_strategy="solo-agent1"),
    conflict(task=6, outcome="pass", outcome_strict="fail", merge_strategy="union"),
    pair_row(**COOP, task=7, outcome="fail", hollow=True),
    pair_row(
        **COOP, task=8, outcome="infra_error", has_eval=True, merge_status="clean", hollow=True, both_passed=False
    ),
    pair_row(**COOP, task=9, outcome="unevaluated"),
    pair_row(**COOP, task=10, outcome="fail", merge_status="missing_input"),
    pair_row(task=11),
]


def _rates(frames: dict[str, pl.DataFrame], population: str = "clean", seed: int | None = None) -> list[dict[str, Any]]:
    table = merge_conflicts(frames)["merge_conflicts"].filter(population=population)
    return table.filter(pl.col("seed").eq_missing(pl.lit(seed, pl.Int32))).rows(named=True)


def test_the_unconditional_rate_stands_first_and_hollow_merges_apart() -> None:
    (row,) = _rates({"pairs": pairs_frame(*ROWS)})
    assert (row["condition"], row["merges"], row["conflicts"], row["hollow"]) == ("all", 7, 3, 1)
    assert (row["rate"], row["rate_not_hollow"]) == pytest.approx((3 / 7, 3 / 6))
    (row,) = _rates({"pairs": pairs_frame(*ROWS)}, "evaluated")
    assert (row["merges"], row["conflicts"], row["hollow"]) == (8, 3, 2)


def test_within_a_cell_the_interval_is_wilsons_and_over_seeds_it_is_clustered() -> None:
    frames = {"pairs": pairs_frame(*ROWS)}
    (cell,) = _rates(frames, seed=0)
    expected = stats.binomtest(3, 7).proportion_ci(method="wilson")
    assert (cell["low"], cell["high"]) == pytest.approx((expected.low, expected.high))
    (setting,) = _rates(frames)
    half = stats.t.ppf(0.975, 5) * stats.sem([0, 0, 0, 1, 1, 1, 0]) / (3 / 7 * 4 / 7)  # three tasks conflict: 5 degrees
    expected = tuple(special.expit(special.logit(3 / 7) + end) for end in (-half, half))
    assert (setting["low"], setting["high"]) == pytest.approx(expected)


def test_overlap_splits_the_rate_where_patches_are_known() -> None:
    key = {"experiment": "e", "setting": "coop-comm", "seed": 0}
    known = {1: (1, 0), 2: (0, 0), 4: (2, 3), 5: (1, 1)}
    overlaps = PATCH_OVERLAPS.frame(
        [
            key | {"pair": f"repo/{t}/f1_f2", "shared_files": files, "touching_places": places}
            for t, (files, places) in known.items()
        ]
    )
    rows = _rates({"pairs": pairs_frame(*ROWS), "patch_overlaps": overlaps})
    assert [row["condition"] for row in rows] == list(CONDITIONS)
    assert {row["condition"]: (row["conflicts"], row["merges"]) for row in rows} == {
        "all": (3, 7), "files overlap": (2, 3), "files apart": (0, 1), "lines overlap": (2, 2), "lines apart": (0, 2),
        "overlap not known": (1, 3),
    }  # fmt: skip


def test_kinds_of_merges_and_what_passes_of_each() -> None:
    table = merge_conflicts({"pairs": pairs_frame(*ROWS)})["merge_kinds"].filter(
        pl.col("seed").is_null() & (pl.col("population") == "clean")
    )
    assert table.select("kind", "pairs", "passes_strict", "passes_upstream", "fallback_unseen").rows() == [
        ("agent1_alone", 1, 0, 1, 0),
        ("clean", 2, 1, 1, 0),
        ("conflict", 1, 0, 0, 1),
        ("hollow", 1, 0, 0, 0),
        ("identical", 1, 1, 1, 0),
        ("not_merged", 1, 0, 0, 0),
        ("union", 1, 0, 1, 0),
    ]
    assert table["share"].sum() == pytest.approx(1)


def test_solo_alone_has_no_merges() -> None:
    tables = merge_conflicts({"pairs": pairs_frame(pair_row())})
    assert all(frame.is_empty() for frame in tables.values())
