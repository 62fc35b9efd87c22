"""The funnel of hand-made pairs: each stage within the one before, and each loss once."""

from __future__ import annotations

from typing import Any

import polars as pl

from cooperbench_assets.analysis.funnel import STAGES, outcome_funnel
from cooperbench_assets_tests.analysis.stores import conflict, pair_row, pairs_frame, provenance

COOP: dict[str, Any] = {"setting": "coop-comm"}
ROWS = [
    pair_row(**COOP, task=1),
    pair_row(**COOP, task=2, outcome="fail"),
    conflict(task=3),
    conflict(task=4, outcome="pass", outcome_strict="fail", merge_strategy="solo-agent1", reason=None),
    pair_row(**COOP, task=5, merge_status="identical"),
    pair_row(**COOP, task=6, outcome="fail", reason="not_applied", reason_strict="not_applied", apply_a="failed"),
    pair_row(**COOP, task=7, outcome="fail", patches=1, hollow=True),
    pair_row(**COOP, task=8, outcome="infra_error"),
    pair_row(**COOP, task=9, outcome="infra_error", stage="eval", agents_failed=0),
    pair_row(**COOP, task=10, outcome="unevaluated"),
    pair_row(**COOP, task=11, outcome="missing"),
    pair_row(**COOP, task=12, outcome="fail", reason="agent_error", reason_strict="agent_error", agents_failed=1),
    conflict(task=13, outcome="pass", outcome_strict="fail", merge_strategy="union", reason=None),
    pair_row(**COOP, task=14, outcome="fail", hollow=True),
]


def _funnel(rows: list[dict[str, object]], verdict: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    tables = outcome_funnel({"pairs": pairs_frame(*rows)})
    chosen = (pl.col("verdict") == verdict) & pl.col("seed").is_null()
    return tables["outcome_funnel"].filter(chosen), tables["funnel_losses"].filter(chosen)


def test_pairs_are_counted_as_far_as_they_came() -> None:
    stages, _ = _funnel(ROWS, "strict")
    whole = stages.filter(pl.col("detail").is_null())
    assert whole["stage"].to_list() == list(STAGES)
    assert dict(zip(whole["stage"], whole["pairs"], strict=True)) == {
        "planned": 14, "result": 13, "submitted": 11, "patches": 10, "judged": 8, "applied": 7, "merged": 3,
        "passed": 2,
    }  # fmt: skip
    assert whole["lost"].to_list() == [0, 1, 2, 1, 2, 1, 4, 1]
    merged = stages.filter(pl.col("detail").is_not_null())
    assert dict(zip(merged["detail"], merged["pairs"], strict=True)) == {"clean": 2, "identical": 1}


def test_upstreams_verdict_counts_what_was_rescued() -> None:
    stages, _ = _funnel(ROWS, "upstream")
    merged = stages.filter(pl.col("detail").is_not_null())
    assert dict(zip(merged["detail"], merged["pairs"], strict=True)) == {
        "agent1_alone": 1, "clean": 2, "identical": 1, "union": 1,
    }  # fmt: skip
    assert stages.filter(stage="passed")["pairs"].to_list() == [4]


def test_every_loss_is_counted_once_at_the_stage_that_was_not_reached() -> None:
    _, losses = _funnel(ROWS, "strict")
    assert losses.select("stage", "loss", "pairs").rows() == [
        ("result", "missing", 1),
        ("submitted", "agent_error", 1),
        ("submitted", "infra_agent", 1),
        ("patches", "empty_patch", 1),
        ("judged", "infra_eval", 1),
        ("judged", "unevaluated", 1),
        ("applied", "not_applied", 1),
        ("merged", "conflict", 3),
        ("merged", "tests", 1),
        ("passed", "tests", 1),
    ]
    assert losses["pairs"].sum() + 2 == 14


def test_solo_has_nothing_to_merge() -> None:
    stages, losses = _funnel([pair_row(task=1), pair_row(task=2, outcome="fail")], "strict")
    assert stages["pairs"].to_list() == [2, 2, 2, 2, 2, 2, 2, 1]
    assert losses.select("stage", "loss").rows() == [("passed", "tests")]


def test_unplanned_cells_are_only_in_their_own_rows() -> None:
    rows = [pair_row(seed=0), pair_row(seed=1, outcome="fail")]
    cells = provenance({"setting": "solo", "seed": 0}, {"setting": "solo", "seed": 1, "planned": False})
    tables = outcome_funnel({"pairs": pairs_frame(*rows), "provenance": cells})
    planned = tables["outcome_funnel"].filter(stage="planned", verdict="strict")
    assert planned.select("seed", "pairs").rows() == [(None, 1), (0, 1), (1, 1)]


def test_a_pair_that_passed_came_through_every_stage_whatever_its_files_say() -> None:
    """An agent with an empty patch, whose partner did the work of both."""
    stages, losses = _funnel([pair_row(**COOP, patches=1, apply_b="skipped")], "upstream")
    assert set(stages["pairs"]) == {1}
    assert losses.is_empty()
