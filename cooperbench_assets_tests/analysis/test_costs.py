"""Money and counts: what is unknown stays unknown, and every try is paid once."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest

from cooperbench_assets.analysis.costs import cost_report, manifest_json, results_manifest
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
        row = _row(cost_report(frames)["cost_report"], level)
        assert (row["cost_mean_usd"], row["cost_median_usd"], row["cost_mean_left_out_usd"]) == pytest.approx(
            (3.0, 3.0, 0.02)
        )


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
        "passes_strict": 1, "usd_per_pass_strict": None, "cost_mean_usd": 2.0, "cost_mean_left_out_usd": 4.0,
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


def test_the_manifest_is_json() -> None:
    pairs = pairs_frame(pair_row(seed=0, cost_usd=1.0), pair_row(seed=1), pair_row(setting="coop-comm"))
    made = json.loads(
        json.dumps(manifest_json(results_manifest({"pairs": pairs})["results_manifest"]), allow_nan=False)
    )
    assert made["e"]["all"]["pairs"] == 3
    assert [row["setting"] for row in made["e"]["settings"]] == ["solo", "coop-comm"]
    assert [(row["setting"], row["seed"]) for row in made["e"]["cells"]] == [("solo", 0), ("solo", 1), ("coop-comm", 0)]
    assert made["e"]["cells"][1]["cost_usd"] is None
