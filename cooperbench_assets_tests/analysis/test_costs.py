"""Money and counts: what is unknown stays unknown, and every try is paid once."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from cooperbench_assets.analysis.costs import cost_report, results_manifest
from cooperbench_assets.store import schema
from cooperbench_assets_tests.analysis.stores import pair_row, pairs_frame, provenance


def _agents(*ends: tuple[int, str | None]) -> pl.DataFrame:
    return schema.AGENTS.frame(
        [
            {"experiment": "e", "setting": "solo", "seed": 0, "pair": f"repo/{t}/f1_f2", "agent": f"a{n}", "status": s}
            for n, (t, s) in enumerate(ends)
        ]
    )


def _attempts(*tries: dict[str, Any]) -> pl.DataFrame:
    plain = {"experiment": "e", "setting": "solo", "seed": 0, "stage": "agent", "outcome": "completed", "cost_usd": 1.0}
    return schema.ATTEMPTS.frame([plain | {"pair": f"repo/{t.pop('task')}/f1_f2"} | t for t in tries])


def _row(table: pl.DataFrame, level: str) -> dict[str, Any]:
    return table.filter(level=level).row(0, named=True)


def test_the_manifest_counts_agents_by_their_end() -> None:
    pairs = [
        pair_row(task=1, cost_usd=1.5, steps=10),
        pair_row(task=2, cost_usd=None, steps=None, patches=0),
        pair_row(task=3, cost_usd=0.5, steps=20, patches=None),
        pair_row(task=4, outcome="missing"),
    ]
    agents = _agents((1, "Submitted"), (2, "LimitsExceeded"), (3, None))
    manifest = results_manifest({"pairs": pairs_frame(*pairs), "agents": agents})["results_manifest"]
    row = _row(manifest, "cell")
    expected = {
        "pairs": 3, "planned": 4, "agents": 3, "submitted": 1, "limits": 1, "errors": 0, "other": 1, "patches": 1,
        "patches_unknown": 1, "pairs_all_patches": 1, "cost_usd": 2.0, "cost_unknown": 1, "cost_per_pair_usd": 1.0,
        "steps": 30, "steps_unknown": 1, "steps_per_pair": 15.0, "messages": None, "longest_pair_minutes": 10.0,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert _row(manifest, "experiment")["cost_usd"] == 2.0


def test_dead_agents_are_in_no_mean_of_cost_steps_or_time_and_stand_beside_it() -> None:
    pairs = [
        pair_row(task=1, cost_usd=2.0, steps=30),
        pair_row(task=2, cost_usd=4.0, steps=50, outcome="fail", duration_seconds=1200.0),
        pair_row(task=3, cost_usd=0.01, steps=1, outcome="infra_error", duration_seconds=3.0),
        pair_row(task=4, cost_usd=0.03, steps=3, outcome="unevaluated"),
    ]
    frames = {"pairs": pairs_frame(*pairs)}
    for level in ("cell", "setting", "experiment"):
        row = _row(results_manifest(frames)["results_manifest"], level)
        expected = {
            "cost_per_pair_usd": 3.0, "steps_per_pair": 40.0, "minutes_per_pair": 15.0, "left_out": 2,
            "left_out_usd_per_pair": 0.02, "left_out_steps_per_pair": 2.0, "cost_usd": 6.04, "pairs": 4,
        }  # fmt: skip
        assert {name: row[name] for name in expected} == pytest.approx(expected)


def test_unknown_costs_are_null_and_counted_and_never_nothing() -> None:
    frames = {"pairs": pairs_frame(pair_row(task=1), pair_row(task=2, outcome="fail"))}
    for row in (
        _row(results_manifest(frames)["results_manifest"], "setting"),
        _row(cost_report(frames)["cost_report"], "setting"),
    ):
        assert (row["cost_usd"], row["cost_unknown"]) == (None, 2)
    report = _row(cost_report(frames)["cost_report"], "experiment")
    assert (report["spent_usd"], report["spent_unknown"], report["usd_per_pass_strict"]) == (None, 2, None)
    assert (report["input_tokens"], report["tokens_unknown"]) == (None, 2)


def test_every_try_is_paid_once_and_those_that_came_to_nothing_stand_apart() -> None:
    pairs = [
        pair_row(task=1, cost_usd=2.0),  # its second try; the first died
        pair_row(task=2, cost_usd=3.0, outcome="infra_error"),  # imported: no tries on record
        pair_row(task=3, cost_usd=5.0, outcome="unevaluated"),  # imported, not judged yet
        pair_row(task=4, outcome="missing"),  # killed before there was a result
    ]
    tries = _attempts(
        {"task": 1, "n": 1, "outcome": "infra_error", "cost_usd": 0.5},
        {"task": 1, "n": 2, "cost_usd": 2.0},
        {"task": 1, "n": 1, "stage": "eval", "cost_usd": None},
        {"task": 4, "n": 1, "outcome": "interrupted", "cost_usd": 0.25, "cost_estimated": True},
        {"task": 4, "n": 2, "outcome": "interrupted", "cost_usd": None},
    )
    row = _row(cost_report({"pairs": pairs_frame(*pairs), "attempts": tries})["cost_report"], "cell")
    expected = {
        "pairs": 4, "spent_usd": 0.5 + 2 + 3 + 5 + 0.25, "spent_estimated_usd": 0.25, "spent_unknown": 1,
        "cost_usd": 10.0, "lost_usd": 0.5 + 3 + 0.25, "lost": 4, "lost_unknown": 1, "unjudged_usd": 5.0, "unjudged": 1,
        "passes_strict": 1, "usd_per_pass_strict": None, "usd_per_pair": None,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == pytest.approx(expected)


def test_cost_and_time_per_pass() -> None:
    pairs = [pair_row(task=1, cost_usd=2.0), pair_row(task=2, cost_usd=4.0, outcome="fail")]
    row = _row(cost_report({"pairs": pairs_frame(*pairs)})["cost_report"], "setting")
    assert (row["usd_per_pass_strict"], row["hours_per_pass_upstream"]) == pytest.approx((6.0, 1 / 3))
    assert (row["lost_usd"], row["lost"]) == (0.0, 0)


def test_unplanned_cells_cost_money_too() -> None:
    pairs = pairs_frame(pair_row(seed=0, cost_usd=1.0), pair_row(seed=1, cost_usd=2.0))
    cells = provenance({"setting": "solo", "seed": 0}, {"setting": "solo", "seed": 1, "planned": False})
    assert _row(cost_report({"pairs": pairs, "provenance": cells})["cost_report"], "setting")["spent_usd"] == 3.0


def _seeds(setting: str, seeds: int, tasks: int) -> list[dict[str, Any]]:
    """A pair costs its task's number in dollars; pairs of odd tasks pass."""
    return [
        pair_row(setting=setting, seed=seed, task=task, cost_usd=float(task), outcome="pass" if task % 2 else "fail")
        for seed in range(seeds)
        for task in range(1, tasks + 1)
    ]


def test_money_of_settings_of_different_numbers_of_seeds_is_held_against_each_other_by_the_pair() -> None:
    rows = _seeds("solo", 3, 8) + _seeds("coop-comm", 1, 8)
    table = cost_report({"pairs": pairs_frame(*rows)})["cost_report"].filter(level="setting")
    assert table["spent_usd"].to_list() == [108.0, 36.0]
    assert table["usd_per_pair"].to_list() == [4.5, 4.5]


def test_money_per_pass_has_an_interval_over_tasks() -> None:
    """Fieller by hand: all tasks are of one size, so that CR2 is the covariance matrix of the tasks' figures."""
    row = _row(cost_report({"pairs": pairs_frame(*_seeds("solo", 3, 8))})["cost_report"], "setting")
    usd, passes = np.arange(1.0, 9), np.arange(1, 9) % 2.0
    (uu, up), (_, pp) = np.cov(usd, passes) / 8
    t2 = stats.t.ppf(0.975, 7) ** 2
    a, b = usd.mean(), passes.mean()
    roots = np.roots([b**2 - t2 * pp, -2 * (a * b - t2 * up), a**2 - t2 * uu])
    assert row["usd_per_pass_strict"] == pytest.approx(9.0)
    assert [row["usd_per_pass_strict_low"], row["usd_per_pass_strict_high"]] == pytest.approx(sorted(roots))


def test_money_per_pass_has_no_interval_where_it_would_be_a_guess() -> None:
    few_tasks = _seeds("solo", 3, 5)
    unknown_cost = [*_seeds("solo", 3, 8), pair_row(seed=4, task=8)]
    for rows in (few_tasks, unknown_cost):
        row = _row(cost_report({"pairs": pairs_frame(*rows)})["cost_report"], "setting")
        assert (row["usd_per_pass_strict_low"], row["usd_per_pass_strict_high"]) == (None, None)


def test_money_per_pass_has_no_upper_end_where_passes_cannot_be_told_from_none() -> None:
    rows = [pair_row(task=task, cost_usd=1.0, outcome="fail" if task else "pass") for task in range(8)]
    row = _row(cost_report({"pairs": pairs_frame(*rows)})["cost_report"], "setting")
    assert 0 < row["usd_per_pass_strict_low"] < row["usd_per_pass_strict"] == 8
    assert row["usd_per_pass_strict_high"] is None
