"""The grid of pairs and cells, what stands out in it, and the gold baseline."""

from __future__ import annotations

import polars as pl
import pytest

from cooperbench_assets.analysis.frames import cells_of, compared_cells
from cooperbench_assets.analysis.grid import pair_grid
from cooperbench_assets_tests.analysis.stores import gold_cells, outcomes, pair_row, pairs_frame, provenance

STRICT = pl.col("verdict") == "strict"


def test_the_grid_has_a_square_for_every_pair_and_cell_in_order() -> None:
    rows = [*outcomes("coop-comm", {(1, 1): "F", (2, 1): "P"}), *outcomes("solo", {(1, 1): "FI", (2, 1): "PP"})]
    grid = pair_grid({"pairs": pairs_frame(*rows)})["pair_grid"]
    assert grid.select("row", "column", "task", "setting", "seed", "outcome_strict").rows() == [
        (0, 0, "repo/2", "solo", 0, "pass"),
        (0, 1, "repo/2", "solo", 1, "pass"),
        (0, 2, "repo/2", "coop-comm", 0, "pass"),
        (1, 0, "repo/1", "solo", 0, "fail"),
        (1, 1, "repo/1", "solo", 1, "infra_error"),
        (1, 2, "repo/1", "coop-comm", 0, "fail"),
    ]


def test_flaky_dead_and_timed_out_pairs_stand_out() -> None:
    rows = [
        *outcomes("solo", {(1, 1): "PF", (1, 2): "FF", (2, 1): "FI", (3, 1): "II"}),
        *outcomes("coop-comm", {(1, 1): "F", (1, 2): "P", (2, 1): "F", (3, 1): "-"}),
    ]
    for row in rows:
        if row["task_id"] == 3 and row["outcome"] == "infra_error":
            row |= {"stage": "eval", "family": "test_timeout"}
    tables = pair_grid({"pairs": pairs_frame(*rows)})
    table = tables["pair_summary"].filter(STRICT)
    seen = table.select("pair", "flaky", "flaky_settings", "never_passed", "never_judged", "repeated_timeouts").rows()
    assert seen == [
        ("repo/1/f1_f2", True, "solo", False, False, False),
        ("repo/1/f2_f3", False, None, False, False, False),
        ("repo/2/f1_f2", False, None, True, False, False),
        ("repo/3/f1_f2", False, None, False, True, True),
    ]
    tasks = tables["task_summary"].filter(STRICT)
    assert tasks.select("task", "pairs", "passes", "never_judged", "dead").rows() == [
        ("repo/1", 2, 2, 0, False), ("repo/2", 1, 0, 0, True), ("repo/3", 1, 0, 1, True),
    ]  # fmt: skip
    assert tables["gold_sensitivity"].is_empty()


def test_a_setting_that_is_only_called_gold_is_compared_like_any_other() -> None:
    rows = [*outcomes("solo", {(1, 1): "P"}), *outcomes("solo-gold-prompt", {(1, 1): "F"})]
    made = provenance(
        *(
            {"experiment": "e", "setting": name, "seed": 0, "agent": "gold-digger"}
            for name in ("solo", "solo-gold-prompt")
        )
    )
    frames = {"pairs": pairs_frame(*rows), "provenance": made}
    cells = cells_of(frames)
    assert cells["gold"].to_list() == [False, False]
    assert compared_cells(cells)["setting"].to_list() == ["solo", "solo-gold-prompt"]
    assert pair_grid(frames)["gold_sensitivity"].is_empty()


def test_pairs_that_gold_does_not_pass_are_left_out_beside() -> None:
    rows = [
        *outcomes("solo", {(1, 1): "PP", (2, 1): "FF", (3, 1): "F"}),
        *outcomes("gold-solo", {(1, 1): "P", (2, 1): "F"}),
        *outcomes("gold-coop", {(1, 1): "F"}),
    ]
    tables = pair_grid({"pairs": pairs_frame(*rows), "provenance": gold_cells(("e", "gold-solo"), ("e", "gold-coop"))})
    row = tables["gold_sensitivity"].filter(STRICT).row(0, named=True)
    assert tables["gold_sensitivity"]["setting"].unique().to_list() == ["solo"]
    assert (row["pairs"], row["gold_passes"], row["gold_fails"], row["gold_unknown"]) == (3, 1, 1, 1)
    assert (row["rate"], row["rate_gold"], row["n_gold"]) == pytest.approx((2 / 5, 1.0, 2))
    assert row["interval_note"] == "1 of the 6 tasks that an interval over tasks needs"
    summary = tables["pair_summary"].filter(STRICT)
    assert summary.select("cells", "gold_passes").rows() == [(2, True), (2, False), (1, None)]


def test_gold_of_another_experiment_counts() -> None:
    rows = [*outcomes("solo", {(1, 1): "P"}), *outcomes("gold", {(1, 1): "P"}, "baseline")]
    gold = pair_row("baseline", "gold-solo", 1)
    made = gold_cells(("baseline", "gold"), ("baseline", "gold-solo"))
    table = pair_grid({"pairs": pairs_frame(*rows, gold), "provenance": made})["gold_sensitivity"].filter(STRICT)
    assert table.select("experiment", "gold_passes").rows() == [("e", 1)]


def test_one_timeout_is_not_a_repeated_one() -> None:
    rows = [pair_row(seed=0, outcome="fail", reason="test_timeout"), pair_row(seed=1)]
    row = pair_grid({"pairs": pairs_frame(*rows)})["pair_summary"].filter(STRICT).row(0, named=True)
    assert (row["test_timeouts"], row["repeated_timeouts"]) == (1, False)
