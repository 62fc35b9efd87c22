"""Contrasts of experiments in the settings they share: known answers, and what must not be compared."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from cooperbench_assets.analysis.across import EXPERIMENT_COMPARISONS, experiment_comparisons
from cooperbench_assets.analysis.comparability import NotComparable
from cooperbench_assets.analysis.comparisons import paired_comparisons
from cooperbench_assets.analysis.frames import SCORE
from cooperbench_assets_tests.analysis.stores import outcomes, pairs_frame, provenance

FIRST = {(t, 1): text for t, text in enumerate(["PPP", "PPF", "PFF", "FFF", "PPP", "PPP", "FPI", "III"])}
SECOND = {(t, 1): text for t, text in enumerate(["FFF", "PFF", "PFF", "FFF", "FFP", "PFP", "FFF", "PPP"])}


def _frames(tables: dict[tuple[str, str], dict[tuple[int, int], str]], **of_b: Any) -> dict[str, pl.DataFrame]:
    """A store of {(experiment, setting): outcomes}; `of_b` is on record of every cell of experiment b."""
    rows = [row for (name, setting), table in tables.items() for row in outcomes(setting, table, name)]
    keys = {(row["experiment"], row["setting"], row["seed"]): None for row in rows}
    cells = [dict(zip(("experiment", "setting", "seed"), key, strict=True)) for key in keys]
    return {
        "pairs": pairs_frame(*rows),
        "provenance": provenance(
            *(cell | {"git": False} | (of_b if cell["experiment"] == "b" else {}) for cell in cells)
        ),
    }


def _headline(frames: dict[str, pl.DataFrame], *experiments: str) -> list[dict[str, Any]]:
    table = experiment_comparisons(frames, experiments or ("a", "b"))
    assert table.schema == EXPERIMENT_COMPARISONS.schema
    return table.filter(verdict="strict", population="clean").rows(named=True)


def test_two_experiments_are_contrasted_as_two_settings_are() -> None:
    frames = _frames({("a", "coop-comm"): FIRST, ("b", "coop-comm"): SECOND}, model="x")
    (row,) = _headline(frames)
    d = [1, 1 / 3, 0, 0, 2 / 3, 1 / 3, 1 / 2]
    assert (row["setting"], row["experiment_a"], row["experiment_b"]) == ("coop-comm", "a", "b")
    assert row["difference"] == pytest.approx(sum(d) / 7)
    assert 0 <= row["low"] < row["difference"] < row["high"] < 1
    assert (row["p"], row["pairs"], row["pairs_left_out"]) == pytest.approx((1 / 2**5, 7, 1))
    assert (row["seeds_a"], row["seeds_b"], row["differs"]) == (3, 3, "model differs: m / x")
    assert row["statement"].startswith("coop-comm: a \u2212 b = 40.5 points over 7 pairs of 7 tasks")
    assert row["headline"]
    assert row["caution"] is None


def test_the_figures_are_those_of_the_same_cells_as_settings() -> None:
    across = _frames({("a", "coop-comm"): FIRST, ("b", "coop-comm"): SECOND})
    within = _frames({("e", "coop-comm"): FIRST, ("e", "coop-nocomm"): SECOND})
    ours = experiment_comparisons(across, ["a", "b"])
    theirs = paired_comparisons(within)["paired_comparisons"]
    same = [name for name in theirs.columns if name not in (*SCORE, "setting_a", "setting_b", "statement")]
    theirs = theirs.filter(endpoint="success")
    assert ours.select(same).equals(theirs.select(same))


def test_the_order_of_the_experiments_is_the_callers() -> None:
    frames = _frames({("a", "solo"): FIRST, ("b", "solo"): SECOND})
    (row,), (turned,) = _headline(frames), _headline(frames, "b", "a")
    assert (turned["experiment_a"], turned["difference"]) == ("b", pytest.approx(-row["difference"]))
    assert "\u221240.5 points" in turned["statement"]


def test_holm_counts_every_setting_and_every_two_experiments() -> None:
    keys = [(t, 1) for t in range(8)]
    worse = {("b", "solo"): 1, ("b", "coop-comm"): 5, ("c", "solo"): 8}
    tables = {("a", name): dict.fromkeys(keys, "P") for name in ("solo", "coop-comm")}
    tables |= {where: {key: "P" if key[0] < n else "F" for key in keys} for where, n in worse.items()}
    rows = _headline(_frames(tables), "a", "b", "c")
    assert [(row["setting"], row["experiment_a"], row["experiment_b"]) for row in rows] == [
        ("solo", "a", "b"), ("solo", "a", "c"), ("solo", "b", "c"), ("coop-comm", "a", "b"),
    ]  # fmt: skip
    assert [row["contrasts"] for row in rows] == [4] * 4
    assert [row["p"] for row in rows] == pytest.approx([1 / 2**7, 1.0, 1 / 2**7, 1 / 2**3])
    assert [row["p_holm"] for row in rows] == pytest.approx([4 / 2**7, 1.0, 4 / 2**7, 2 / 2**3])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"subset_sha256": "other"}, "subset differs: other / s"),
        ({"harness_version": "0.0.19"}, "harness version differs: 0.0.19 / 0.0.29"),
        ({"merge_policy": "union"}, "merge policy differs: agent1_alone / union"),
    ],
)
def test_experiments_on_other_terms_are_refused_by_name(changes: dict[str, Any], text: str) -> None:
    frames = _frames({("a", "coop-comm"): FIRST, ("b", "coop-comm"): SECOND}, **changes)
    with pytest.raises(NotComparable, match=text):
        experiment_comparisons(frames, ["a", "b"])


def test_settings_of_one_name_that_work_in_other_ways_are_refused() -> None:
    frames = _frames({("a", "coop"): FIRST, ("b", "coop"): SECOND}, messaging=False)
    (row,) = _headline(frames)
    assert row["refused"] == "messaging differs: false / true"
    assert row["statement"] == "coop: a and b are not compared: messaging differs: false / true"
    assert [row[name] for name in ("difference", "low", "p", "robust")] == [None] * 4


@pytest.mark.parametrize("git_a", [None, False, True])
def test_a_git_server_that_is_not_on_record_is_said_to_be_unknown(git_a: bool | None) -> None:
    frames = _frames({("a", "coop"): FIRST, ("b", "coop"): SECOND})
    of_b = pl.col("experiment") == "b"
    git = pl.when(~of_b).then(pl.lit(git_a, pl.Boolean)).alias("git")
    frames["provenance"] = frames["provenance"].with_columns(git)
    (row,) = _headline(frames)
    names = "a and b" if git_a is None else "b"
    said = f"whether agents shared a git server is not known of {names}, so that it cannot be said to agree"
    assert row["caution"] == said
    assert (row["refused"], row["headline"]) == (None, True)


def test_agents_alone_share_no_git_server_whose_record_could_be_missed() -> None:
    frames = _frames({("a", "solo"): FIRST, ("b", "solo"): SECOND})
    frames["provenance"] = frames["provenance"].with_columns(pl.lit(None, pl.Boolean).alias("git"))
    assert _headline(frames)[0]["caution"] is None


def test_experiments_that_plan_other_pairs_are_refused_where_no_hash_says_so() -> None:
    fewer = {key: letters for key, letters in SECOND.items() if key[0] < 6}
    frames = _frames({("a", "solo"): FIRST, ("b", "solo"): fewer}, subset_sha256=None)
    (row,) = _headline(frames)
    assert row["refused"] == "the planned pairs differ (8 and 6)"
    assert not row["headline"]


def test_a_truncated_side_takes_the_headline_and_the_figures_stay() -> None:
    frames = _frames({("a", "solo"): FIRST, ("b", "solo"): SECOND}, truncated=True)
    (row,) = _headline(frames)
    assert not row["headline"]
    assert row["why_not"] == "b: a budget stopped it before all pairs were bought (seeds 0, 1, 2)"
    assert row["difference"] is not None


def test_what_differs_besides_the_model_is_cautioned_about() -> None:
    frames = _frames({("a", "solo"): FIRST, ("b", "solo"): SECOND}, model="x", agent="other")
    (row,) = _headline(frames)
    assert (
        row["caution"] == "besides the model, agent differs: a / other: a difference has more than one possible cause"
    )
    assert row["differs"] == "model differs: m / x; agent differs: a / other"
    assert row["headline"]


def test_experiments_without_a_common_setting_give_no_row() -> None:
    frames = _frames({("a", "solo"): FIRST, ("b", "coop-comm"): SECOND})
    assert experiment_comparisons(frames, ["a", "b"]).is_empty()
