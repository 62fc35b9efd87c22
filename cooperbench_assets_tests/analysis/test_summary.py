"""Counts and rates of hand-made stores."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from scipy import special, stats

from cooperbench_assets.analysis.summary import SETTING_SUMMARY, setting_summary, success_by_attempt
from cooperbench_assets_tests.analysis.stores import conflict, outcomes, pair_row, pairs_frame, provenance

SIX_TASKS = {(task, pair): "P" for task in range(6) for pair in (1, 2)}


def _row(frames: dict[str, pl.DataFrame], level: str, verdict: str = "strict", **more: Any) -> dict[str, Any]:
    rows = setting_summary(frames)["setting_summary"].filter(
        (pl.col("level") == level) & (pl.col("verdict") == verdict), **more
    )
    assert rows.height == 1
    return rows.row(0, named=True)


def test_every_outcome_is_counted_where_it_belongs() -> None:
    rows = [
        pair_row(task=1, outcome="pass"),
        pair_row(task=2, outcome="fail", reason_strict="agent_error", limits_exceeded=True),
        pair_row(task=3, outcome="infra_error"),
        pair_row(task=4, outcome="infra_error", stage="eval", has_eval=True, both_passed=False, accepted=True),
        pair_row(task=5, outcome="unevaluated"),
        pair_row(task=6, outcome="missing"),
        pair_row(task=7, outcome="fail", reason_strict="something new", suspect=True),
    ]
    row = _row({"pairs": pairs_frame(*rows)}, "cell")
    expected = {
        "planned": 7, "passes": 1, "fails": 2, "fail_agent_error": 1, "fail_other": 1, "infra_error": 2,
        "infra_agent": 1, "infra_eval": 1, "unevaluated": 1, "missing": 1, "clean": 3, "evaluated": 4,
        "evaluated_passes": 1, "suspect": 1, "limits_exceeded": 1, "accepted": 1, "tasks": 7,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert (row["rate_planned"], row["rate_evaluated"], row["rate_clean"]) == pytest.approx((1 / 7, 1 / 4, 1 / 3))
    assert (row["bound_low"], row["bound_high"]) == pytest.approx((1 / 7, 5 / 7))


def test_a_cell_has_wilsons_interval_and_says_so() -> None:
    frames = {"pairs": pairs_frame(*outcomes("solo", {(t, 1): "PPPPFFFI-U"[t] for t in range(10)}))}
    row = _row(frames, "cell")
    expected = stats.binomtest(4, 7).proportion_ci(method="wilson")
    assert (row["clean_low"], row["clean_high"]) == pytest.approx((expected.low, expected.high))
    expected = stats.binomtest(4, 10).proportion_ci(method="wilson")
    assert (row["planned_low"], row["planned_high"]) == pytest.approx((expected.low, expected.high))
    assert row["interval_method"].startswith("Wilson 95 %, this cell only")


def test_over_seeds_the_interval_is_clustered_by_task() -> None:
    """Seven tasks of one pair and three seeds: the t interval of the tasks' means, on the logit scale."""
    letters = ["PPP", "PPF", "PFF", "FFF", "FFF", "PPP", "FPF"]
    frames = {"pairs": pairs_frame(*outcomes("solo", {(t, 1): text for t, text in enumerate(letters)}))}
    row = _row(frames, "setting")
    rate = 10 / 21
    half = stats.t.ppf(0.975, 6) * stats.sem([text.count("P") / 3 for text in letters]) / (rate * (1 - rate))
    expected = tuple(special.expit(special.logit(rate) + end) for end in (-half, half))
    assert (row["clean_low"], row["clean_high"]) == pytest.approx(expected)
    assert row["interval_method"].startswith("cluster-robust by task (CR2")
    assert (row["cells"], row["seeds"], row["planned"], row["passes"]) == (3, 3, 21, 10)
    assert (row["seed_low"], row["seed_high"]) == pytest.approx((2 / 7, 4 / 7))


def test_below_six_tasks_a_sentence_stands_for_the_interval() -> None:
    frames = {"pairs": pairs_frame(*outcomes("solo", {(1, 1): "PF", (2, 1): "FF", (3, 1): "PP"}))}
    row = _row(frames, "setting")
    assert (row["clean_low"], row["clean_high"], row["interval_method"]) == (None, None, None)
    assert row["interval_note"] == "3 of the 6 tasks that an interval over tasks needs"


def test_the_strict_verdict_stands_first_and_upstreams_beside_it() -> None:
    rescued = conflict(outcome="pass", outcome_strict="fail", merge_strategy="solo-agent1", both_passed=True,
                       both_passed_strict=False, reason=None)  # fmt: skip
    frames = {"pairs": pairs_frame(rescued, pair_row(setting="coop-comm", task=2))}
    table = setting_summary(frames)["setting_summary"].filter(pl.col("level") == "setting")
    assert table["verdict"].to_list() == ["strict", "upstream"]
    assert table["passes"].to_list() == [1, 2]
    assert table["fail_conflict"].to_list() == [1, 0]
    assert table["evaluated_passes"].to_list() == [1, 2]
    assert table["headline"].to_list() == [True, False]
    assert table["why_not"].to_list() == [None, "stands beside the strict verdict"]


def test_a_truncated_cell_is_refused_a_headline_and_so_is_its_setting() -> None:
    frames = {
        "pairs": pairs_frame(*outcomes("solo", dict.fromkeys(SIX_TASKS, "PF"))),
        "provenance": provenance({"setting": "solo", "seed": 0}, {"setting": "solo", "seed": 1, "truncated": True}),
    }
    assert _row(frames, "cell", seed=0)["headline"]
    cut = _row(frames, "cell", seed=1)
    assert (cut["headline"], cut["why_not"]) == (False, "a budget stopped it before all pairs were bought")
    setting = _row(frames, "setting")
    assert (setting["headline"], setting["why_not"]) == (
        False,
        "a budget stopped it before all pairs were bought (seed 1)",
    )
    assert setting["rate_clean"] == pytest.approx(0.5)


def test_cells_that_differ_refuse_their_setting_a_headline_and_say_in_what() -> None:
    frames = {
        "pairs": pairs_frame(*outcomes("solo", dict.fromkeys(SIX_TASKS, "PF"))),
        "provenance": provenance({"setting": "solo", "seed": 0}, {"setting": "solo", "seed": 1, "model": "other"}),
    }
    setting = _row(frames, "setting")
    assert (setting["headline"], setting["why_not"]) == (False, "model differs: m / other")
    assert _row(frames, "cell", seed=1)["headline"]


def test_a_cell_of_two_models_is_mixed_by_itself() -> None:
    frames = {
        "pairs": pairs_frame(*outcomes("solo", SIX_TASKS)),
        "provenance": provenance({"setting": "solo", "seed": 0, "model": "m, n"}),
    }
    assert _row(frames, "cell")["why_not"] == "model differs: m / n"


def test_an_unplanned_cell_has_a_row_of_its_own_and_counts_nowhere_else() -> None:
    frames = {
        "pairs": pairs_frame(*outcomes("solo", dict.fromkeys(SIX_TASKS, "PF"))),
        "provenance": provenance({"setting": "solo", "seed": 0}, {"setting": "solo", "seed": 1, "planned": False}),
    }
    assert (_row(frames, "cell", seed=1)["passes"], _row(frames, "cell", seed=1)["why_not"]) == (0, "not planned")
    setting = _row(frames, "setting")
    assert (setting["cells"], setting["passes"], setting["planned"]) == (1, 12, 12)


def test_an_experiment_of_several_settings_has_counts_and_no_headline() -> None:
    rows = [*outcomes("solo", SIX_TASKS), *outcomes("coop-comm", dict.fromkeys(SIX_TASKS, "F"))]
    row = _row({"pairs": pairs_frame(*rows)}, "experiment")
    assert (row["planned"], row["passes"], row["headline"]) == (24, 12, False)
    assert row["why_not"] == "an experiment's row mixes its settings"


def test_a_cell_of_nothing_has_a_row_and_a_sentence() -> None:
    row = _row({"pairs": pairs_frame(*outcomes("solo", dict.fromkeys(SIX_TASKS, "-")))}, "cell")
    assert (row["rate_clean"], row["clean_low"], row["rate_planned"], row["bound_high"]) == (None, None, 0.0, 1.0)
    assert (row["headline"], row["why_not"]) == (False, "no clean verdict")


def test_a_cell_of_dead_agents_is_no_seed() -> None:
    row = _row({"pairs": pairs_frame(*outcomes("solo", dict.fromkeys(SIX_TASKS, "PIP")))}, "setting")
    assert (row["cells"], row["seeds"], row["planned"]) == (3, 2, 36)


def test_no_store_at_all_is_an_empty_table() -> None:
    assert setting_summary({})["setting_summary"].schema == SETTING_SUMMARY.schema
    assert setting_summary({})["setting_summary"].is_empty()


def test_the_first_attempt_stands_apart_from_later_ones() -> None:
    rows = [
        pair_row(task=1, agent_tries=1, eval_tries=1),
        pair_row(task=2, agent_tries=3, eval_tries=1),
        pair_row(task=3, outcome="fail", agent_tries=1, eval_tries=2),
        pair_row(task=4, outcome="infra_error", agent_tries=3),
        pair_row(task=5, outcome="missing"),
    ]
    frames = {"pairs": pairs_frame(*rows)}
    row = _row(frames, "cell")
    assert (row["first_try"], row["first_try_passes"], row["rate_first_try"]) == (4, 1, 0.25)
    table = success_by_attempt(frames)["success_by_attempt"].filter(pl.col("verdict") == "strict")
    agent = table.filter(pl.col("stage") == "agent")
    assert agent["attempt"].to_list() == [1, 2, 3]
    assert agent["pairs"].to_list() == [4, 2, 2]
    assert agent["passes"].to_list() == [1, 0, 1]
    assert agent["fails"].to_list() == [1, 0, 0]
    assert agent["passes_so_far"].to_list() == [1, 1, 2]
    assert agent["rate_so_far"].to_list() == [0.25, 0.25, 0.5]
    assert table.filter(pl.col("stage") == "eval")["pairs"].to_list() == [3, 1]
