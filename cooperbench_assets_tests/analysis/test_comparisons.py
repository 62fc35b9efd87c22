"""Contrasts of hand-made stores with known answers, and what must not be compared."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from scipy import stats

from cooperbench_assets.analysis.comparability import NotComparable, require_comparable_experiments
from cooperbench_assets.analysis.comparisons import paired_comparisons, paired_tables
from cooperbench_assets_tests.analysis.stores import START, gold_cells, outcomes, pairs_frame, provenance

SOLO = {(t, 1): text for t, text in enumerate(["PPP", "PPF", "PFF", "FFF", "PPP", "PPP", "FPI", "III"])}
COOP = {(t, 1): text for t, text in enumerate(["FFF", "PFF", "PFF", "FFF", "FFP", "PFP", "FFF", "PPP"])}


def _store(solo: dict[tuple[int, int], str], coop: dict[tuple[int, int], str], **cells: Any) -> dict[str, pl.DataFrame]:
    rows = [*outcomes("solo", solo), *outcomes("coop-comm", coop)]
    made = [{"setting": row["setting"], "seed": row["seed"]} for row in rows]
    unique = [dict(cell) for cell in {tuple(cell.items()) for cell in made}]
    return {"pairs": pairs_frame(*rows), "provenance": provenance(*unique)}


def _headline(frames: dict[str, pl.DataFrame]) -> dict[str, Any]:
    rows = paired_comparisons(frames)["paired_comparisons"].filter(
        verdict="strict", population="clean", endpoint="success"
    )
    assert rows.height == 1
    return rows.row(0, named=True)


def test_the_estimate_is_the_mean_over_common_pairs_of_differences_of_means_over_seeds() -> None:
    row = _headline(_store(SOLO, COOP))
    d = [1, 1 / 3, 0, 0, 2 / 3, 1 / 3, 1 / 2]
    assert (row["pairs"], row["pairs_left_out"], row["tasks"]) == (7, 1, 7)
    assert row["difference"] == pytest.approx(sum(d) / 7)
    assert row["rate_a"] - row["rate_b"] == pytest.approx(row["difference"])
    assert (row["informative_pairs"], row["informative_tasks"]) == (5, 5)
    # Mid-p: of the 2^5 patterns of the tasks that differ, two tie with what is seen and none is further from 0.
    assert row["p"] == pytest.approx(1 / 2**5)
    assert (row["p_holm"], row["contrasts"], row["p_smallest"]) == (row["p"], 1, 2 / 2**7)
    assert 0 <= row["low"] < row["difference"] < row["high"] <= 1
    assert (row["low_all"], row["high_all"]) == (row["low"], row["high"])
    assert row["se"] == pytest.approx(stats.sem(d))
    reach = stats.t.ppf(0.975, 6) + stats.t.ppf(0.8, 6)
    assert row["detectable"] == pytest.approx(reach * stats.sem(d))
    assert (row["seeds_a"], row["seeds_b"]) == (3, 3)
    assert row["headline"]


def test_pairs_of_a_task_are_flipped_together() -> None:
    """Two tasks, sums 2 and 1: 2 of 4 patterns tie with what is seen, where three pairs alone would give 2 of 8."""
    solo = {(1, 1): "P", (1, 2): "P", (2, 1): "P"}
    row = _headline(_store(solo, dict.fromkeys(solo, "F")))
    assert row["p"] == pytest.approx(0.25)
    assert row["difference"] == pytest.approx(1.0)
    assert row["interval_note"] == "2 of the 6 tasks that an interval over tasks needs"


def test_a_sign_is_called_robust_only_if_non_verdicts_cannot_turn_it() -> None:
    sure = _headline(_store(dict.fromkeys(SOLO, "PP"), dict.fromkeys(SOLO, "FI")))
    assert sure["difference_lowest"] == pytest.approx(0.5)
    assert sure["difference_highest"] == pytest.approx(1.0)
    assert sure["robust"]
    assert "robust" in sure["statement"]
    dead = _headline(_store(dict.fromkeys(SOLO, "P"), {key: "F" if key[0] == 0 else "I" for key in SOLO}))
    assert dead["difference"] == pytest.approx(1.0)
    assert dead["difference_lowest"] == pytest.approx(1 / 8)
    assert not dead["robust"]
    assert "; this design cannot decide: with so few tasks p is never below 1.0" in dead["statement"]
    open_ = _headline(
        _store({key: "P" if key[0] < 2 else "F" for key in SOLO}, {key: "F" if key[0] < 2 else "I" for key in SOLO})
    )
    assert open_["difference_lowest"] == pytest.approx((2 - 6) / 8)
    assert not open_["robust"]
    assert "robust" not in open_["statement"]
    assert open_["statement"].endswith("; with the non-verdicts at their extremes it is \u221250.0 to 25.0")


def test_relabelling_the_settings_mirrors_the_comparison() -> None:
    frames = _store(SOLO, COOP)
    swapped = {"solo": "coop-comm", "coop-comm": "solo"}
    mirrored = {name: frame.with_columns(pl.col("setting").replace(swapped)) for name, frame in frames.items()}
    mirrored["provenance"] = mirrored["provenance"].with_columns(mode=pl.col("setting").replace({"coop-comm": "coop"}))
    row, other = _headline(frames), _headline(mirrored)
    assert (other["difference"], other["low"], other["high"]) == pytest.approx(
        (-row["difference"], -row["high"], -row["low"])
    )
    assert (other["difference_lowest"], other["p"]) == pytest.approx((-row["difference_highest"], row["p"]))
    assert (other["rate_a"], other["rate_b"]) == pytest.approx((row["rate_b"], row["rate_a"]))


def test_holm_counts_the_contrasts_of_one_outcome_in_one_experiment() -> None:
    keys = [(t, 1) for t in range(8)]
    rows = [
        *outcomes("solo", dict.fromkeys(keys, "P")),
        *outcomes("coop-comm", {key: "P" if key[0] < 1 else "F" for key in keys}),
        *outcomes("coop-nocomm", {key: "P" if key[0] < 5 else "F" for key in keys}),
        *outcomes("solo", {(1, 1): "P"}, "other"),
        *outcomes("coop-comm", {(1, 1): "F"}, "other"),
    ]
    table = paired_comparisons({"pairs": pairs_frame(*rows)})["paired_comparisons"].filter(
        verdict="strict", population="clean", experiment="e", endpoint="success"
    )
    assert list(zip(table["setting_a"], table["setting_b"], strict=True)) == [
        ("solo", "coop-comm"), ("solo", "coop-nocomm"), ("coop-comm", "coop-nocomm"),
    ]  # fmt: skip
    assert table["p"].to_list() == pytest.approx([1 / 2**7, 1 / 2**3, 1 / 2**4])
    assert table["family"].to_list() == ["planned", "planned", "exploratory"]
    assert table["p_holm"].to_list() == pytest.approx([2 * 1 / 2**7, 1 / 2**3, 1 / 2**4])
    assert table["contrasts"].to_list() == [2, 2, 1]
    assert table["headline"].to_list() == [True, True, False]
    assert table["why_not"][2] == "exploratory: not among the planned contrasts"


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("model", "model differs: m / x"),
        ("agent_config_sha256", "agent config differs: c / x"),
        ("harness_version", "harness version differs: 0.0.29 / x"),
        ("agent", "agent differs: a / x"),
    ],
)
def test_settings_that_differ_are_refused_by_name(column: str, text: str) -> None:
    frames = _store(SOLO, COOP)
    other = pl.when(pl.col("setting") == "solo").then(pl.lit("x")).otherwise(column).alias(column)
    frames["provenance"] = frames["provenance"].with_columns(other)
    row = _headline(frames)
    assert row["refused"] == text
    assert [row[name] for name in ("difference", "low", "p", "p_holm", "robust", "rate_a")] == [None] * 6
    assert not row["headline"]
    tables = paired_tables(frames)["paired_tables"]
    assert tables["p_mcnemar"].null_count() == tables.height > 0


def test_merge_policies_are_compared_among_settings_that_merge() -> None:
    rows = [*outcomes("coop-comm", COOP), *outcomes("coop-nocomm", COOP), *outcomes("solo", SOLO)]
    cells = [{"setting": s, "seed": seed} for s in ("coop-comm", "coop-nocomm", "solo") for seed in range(3)]
    frames = {"pairs": pairs_frame(*rows), "provenance": provenance(*cells)}
    union = pl.when(pl.col("setting") == "coop-nocomm").then(pl.lit("union")).otherwise("merge_policy")
    frames["provenance"] = frames["provenance"].with_columns(union.alias("merge_policy"))
    table = paired_comparisons(frames)["paired_comparisons"].filter(population="clean", endpoint="success")
    refused = dict(zip(zip(table["setting_a"], table["setting_b"], strict=True), table["refused"], strict=True))
    assert refused == {
        ("solo", "coop-comm"): None,
        ("solo", "coop-nocomm"): None,
        ("coop-comm", "coop-nocomm"): "merge policy differs: agent1_alone / union",
    }
    assert set(table.filter(family="planned")["contrasts"]) == {2}


def test_a_fingerprinted_harness_range_is_no_difference() -> None:
    frames = _store(SOLO, COOP)
    solo = pl.col("setting") == "solo"
    frames["provenance"] = frames["provenance"].with_columns(
        harness_version=pl.when(solo).then(pl.lit(None, pl.String)).otherwise(pl.lit("0.0.19+")),
        harness_version_source=pl.when(solo).then(pl.lit("unknown")).otherwise(pl.lit("fingerprinted")),
    )
    assert _headline(frames)["refused"] is None


def test_experiments_of_other_models_stand_side_by_side_and_of_other_subsets_do_not() -> None:
    one = _store(SOLO, COOP)["provenance"]
    other = one.with_columns(experiment=pl.lit("f"), model=pl.lit("another"))
    require_comparable_experiments({"provenance": pl.concat([one, other])}, ["e", "f"])
    other = other.with_columns(subset_sha256=pl.lit("t"))
    with pytest.raises(NotComparable, match="e, f cannot be set side by side, subset differs: s / t"):
        require_comparable_experiments({"provenance": pl.concat([one, other])}, ["e", "f"])


def test_settings_that_ran_at_other_times_are_warned_about() -> None:
    frames = _store(SOLO, COOP)
    assert _headline(frames)["caution"] is None
    late = START + timedelta(hours=5)
    at = pl.when(pl.col("setting") == "solo").then(late).otherwise("started_at")
    frames["pairs"] = frames["pairs"].with_columns(started_at=at, ended_at=at + pl.duration(minutes=10))
    assert "do not overlap (4.8 h apart)" in _headline(frames)["caution"]


def test_the_fourfold_table_by_seed_and_by_majority() -> None:
    solo = {(1, 1): "PPF", (2, 1): "PPP", (3, 1): "FFF", (4, 1): "PII", (5, 1): "PFP"}
    coop = {(1, 1): "FPP", (2, 1): "FFF", (3, 1): "FFF", (4, 1): "FFF", (5, 1): "FFP"}
    table = paired_tables(_store(solo, coop))["paired_tables"].filter(
        (pl.col("verdict") == "strict") & (pl.col("population") == "clean")
    )
    counts = table.select("basis", "seed", "pairs", "both", "only_a", "only_b", "neither").rows()
    assert counts == [
        ("seed", 0, 5, 0, 4, 0, 1),
        ("seed", 1, 4, 1, 1, 0, 2),
        ("seed", 2, 4, 1, 1, 1, 1),
        ("majority", None, 4, 1, 2, 0, 1),  # task 4 is open: one pass, two seeds without a verdict
    ]
    expected = [stats.binomtest(b, b + c).pvalue for _, _, _, _, b, c, _ in counts]
    assert table["p_mcnemar"].to_list() == pytest.approx(expected)
    assert set(table["label"]) == {"these pairs only: pairs of one task are taken as independent"}


def test_there_is_no_majority_over_an_even_number_of_seeds_or_over_different_numbers() -> None:
    even = paired_tables(_store({(1, 1): "PF"}, {(1, 1): "FF"}))["paired_tables"]
    unequal = paired_tables(_store({(1, 1): "PFP"}, {(1, 1): "F"}))["paired_tables"]
    assert set(even["basis"]) == set(unequal["basis"]) == {"seed"}


def test_settings_without_a_common_verdict_give_a_sentence() -> None:
    row = _headline(_store({(1, 1): "P"}, {(1, 1): "I"}))
    assert (row["pairs"], row["difference"], row["p"], row["robust"]) == (0, None, None, False)
    assert row["statement"] == "solo and coop-comm: no pair was judged in both"
    assert row["why_not"] == "no pair was judged in both"


def test_one_setting_has_nothing_to_be_compared_with() -> None:
    frames = {"pairs": pairs_frame(*outcomes("solo", SOLO))}
    assert paired_comparisons(frames)["paired_comparisons"].is_empty()
    assert paired_tables(frames)["paired_tables"].is_empty()


def test_a_gold_baseline_is_compared_with_nothing() -> None:
    rows = [*outcomes("gold-solo", SOLO), *outcomes("solo", SOLO), *outcomes("coop-comm", COOP)]
    frames = {"pairs": pairs_frame(*rows), "provenance": gold_cells(("e", "gold-solo"), seeds=3)}
    table = paired_comparisons(frames)["paired_comparisons"]
    assert table.select("setting_a", "setting_b").unique().rows() == [("solo", "coop-comm")]


def test_a_statement_counts_in_words_and_has_a_true_minus_sign() -> None:
    one = _headline(_store({(1, 1): "F"}, {(1, 1): "P"}))
    assert one["statement"].startswith(
        "solo \u2212 coop-comm = \u2212100.0 points over 1 pair of 1 task (no interval: "
    )
    several = _headline(_store(COOP, SOLO))
    assert "over 7 pairs of 7 tasks (95 % \u2212" in several["statement"]
    assert " - " not in several["statement"]


def test_a_difference_of_nothing_is_not_called_unsettled() -> None:
    same = _headline(_store(SOLO, SOLO))
    assert same["difference"] == 0.0
    assert (
        "no difference on average; with the non-verdicts at their extremes it is \u221216.7 to 16.7"
        in same["statement"]
    )
    judged = dict.fromkeys(SOLO, "PF")
    alike = _headline(_store(judged, judged))
    assert alike["statement"].endswith("no difference on average, and no pair is without a verdict")
    for row in (same, alike):
        assert "0.0 points" in row["statement"]
        assert "\u22120.0" not in row["statement"]
        assert "settled" not in row["statement"]
        assert not row["robust"]


def test_a_whole_store_says_that_nothing_could_turn_the_sign() -> None:
    row = _headline(_store(dict.fromkeys(SOLO, "P"), dict.fromkeys(SOLO, "F")))
    assert row["statement"].endswith("; no pair is without a verdict that could turn the sign")
