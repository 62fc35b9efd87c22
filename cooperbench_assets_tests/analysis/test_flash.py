"""The figures of real runs, worked out from their logs by the whole chain: read, judge, store's rows, analyse."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from cooperbench_assets.analysis.curves import LEAVE_ONE_OUT, REPRODUCTION
from cooperbench_assets.analysis.registry import run_all
from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.benchmark.pairs import load_subset
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.rows import cell_frames

REAL = Path(__file__).resolve().parents[3] / "shared" / "real-logs"
SETTINGS = {"solo": "solo", "msg": "coop-comm"}

pytestmark = [
    pytest.mark.real_logs,
    pytest.mark.skipif(not (REAL / "flash.tar.xz").exists(), reason=f"the real logs are not at {REAL}"),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    root = tmp_path_factory.mktemp("flash")
    with tarfile.open(REAL / "flash.tar.xz") as archive:
        archive.extractall(root, filter="data")
    logs, subset = root / "logs", load_subset(REAL / "flash.json")
    parts = []
    for run in sorted(logs.iterdir()):
        _, kind, seed = run.name.split("_")
        parts.append(cell_frames(Cell("flash", SETTINGS[kind], int(seed)), subset, read_run(run), logs_root=logs))
    return run_all({name: pl.concat(part[name] for part in parts) for name in parts[0]})


def _by_upstream(frame: pl.DataFrame, population: str = "evaluated") -> pl.DataFrame:
    return frame.filter(verdict="upstream", population=population)


@pytest.mark.slow
def test_outcomes_and_costs_of_every_cell(results: dict[str, pl.DataFrame]) -> None:
    cells = results["setting_summary"].filter(level="cell", verdict="upstream")
    no_eval = pl.col("planned") - pl.col("evaluated")
    timeouts = pl.col("infra_eval") + pl.col("unevaluated") - no_eval
    seen = cells.select(
        "setting", "seed", "evaluated", "passes", "fails", "infra_agent", timeouts, no_eval.alias("none")
    )
    assert seen.rows() == [
        ("solo", 1, 48, 21, 25, 0, 2, 2),
        ("solo", 2, 48, 20, 27, 0, 1, 2),
        ("solo", 3, 47, 21, 23, 2, 1, 3),
        ("coop-comm", 1, 47, 6, 38, 3, 0, 3),
        ("coop-comm", 2, 48, 6, 41, 1, 0, 2),
        ("coop-comm", 3, 47, 6, 40, 1, 0, 3),
    ]
    costs = results["results_manifest"].filter(level="cell")
    assert costs["cost_usd"].round(2).to_list() == [33.21, 35.62, 28.51, 55.67, 56.42, 56.48]
    assert costs["pairs"].to_list() == [50] * 6


def _levels(frame: pl.DataFrame) -> dict[str | None, int]:
    counts = frame.group_by("level").len()
    return dict(zip(counts["level"], counts["len"], strict=True))


def test_difficulties_over_every_eval_and_over_clean_verdicts(results: dict[str, pl.DataFrame]) -> None:
    table = results["pair_difficulty"]
    evaluated, clean = _by_upstream(table), _by_upstream(table, "clean")
    assert _levels(evaluated) == {"0": 18, "1/3": 4, "2/3": 2, "1": 25, None: 1}
    assert evaluated.filter(pl.col("level").is_null())["pair"].to_list() == ["typst_task/6554/f1_f9"]
    assert (evaluated["denominator"] == 3).sum() == 47
    assert _levels(clean) == {"0": 18, "1/3": 4, "2/3": 2, "1": 24, None: 2}


def _tables(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    return frame.select(
        "basis", "seed", "both", "only_a", "only_b", "neither", pl.col("p_mcnemar").round_sig_figs(2)
    ).rows()


def test_fourfold_tables_by_seed_and_by_majority(results: dict[str, pl.DataFrame]) -> None:
    assert _tables(_by_upstream(results["paired_tables"])) == [
        ("seed", 1, 5, 15, 1, 26, 5.2e-4),
        ("seed", 2, 4, 16, 1, 26, 2.7e-4),
        ("seed", 3, 6, 15, 0, 25, 6.1e-5),
        ("majority", None, 5, 16, 0, 26, 3.1e-5),
    ]
    assert _tables(_by_upstream(results["paired_tables"], "clean")) == [
        ("seed", 1, 5, 13, 1, 24, 1.8e-3),
        ("seed", 2, 4, 16, 1, 25, 2.7e-4),
        ("seed", 3, 6, 14, 0, 22, 1.2e-4),
        ("majority", None, 5, 16, 0, 25, 3.1e-5),
    ]


def _area(results: dict[str, pl.DataFrame], population: str, method: str) -> tuple[float, float, float]:
    table = _by_upstream(results["success_auc"], population).filter(method=method)
    auc = dict(zip(table["setting"], table["auc"], strict=True))
    return auc["solo"], auc["coop-comm"], table.filter(setting="coop-comm")["retention"].item()


def test_areas_under_success_over_difficulty(results: dict[str, pl.DataFrame]) -> None:
    assert _area(results, "evaluated", REPRODUCTION) == pytest.approx((0.45, 0.0712, 0.158), abs=5e-4)
    assert _area(results, "clean", REPRODUCTION) == pytest.approx((0.45, 0.0754, 0.167), abs=5e-4)
    assert _area(results, "clean", LEAVE_ONE_OUT) == pytest.approx((0.598, 0.112, 0.188), abs=5e-4)


def test_the_headline_contrast_and_retention(results: dict[str, pl.DataFrame]) -> None:
    row = results["paired_comparisons"].filter("headline").row(0, named=True)
    assert (row["verdict"], row["population"], row["setting_a"], row["setting_b"]) == (
        "strict",
        "clean",
        "solo",
        "coop-comm",
    )
    assert (row["pairs"], row["tasks"], row["informative_pairs"], row["informative_tasks"]) == (46, 19, 20, 10)
    assert row["difference"] == pytest.approx(0.3188, abs=1e-4)
    assert 0 < row["low"] < 0.15 < 0.45 < row["high"] < 0.6
    assert row["p"] < 8 / 2**10
    assert row["claimed"]
    assert row["robust"]
    retained = results["retention"].filter("headline").row(0, named=True)
    assert (retained["retention"], retained["pairs"]) == pytest.approx((0.2787, 46), abs=1e-4)
    assert retained["low"] < 0.2787 < retained["high"]


def _design_effects(grid: pl.DataFrame) -> tuple[float, float]:
    """By matrices: the variance of a mean whose tasks are drawn, over p(1 − p)/n; with CR2's adjustment and without."""
    judged = grid.filter(pl.col("outcome_strict").is_in(["pass", "fail"]))
    y = (judged["outcome_strict"] == "pass").to_numpy().astype(float)
    hat = np.full((len(y), len(y)), 1 / len(y))
    meat = np.zeros(2)
    for task in judged["task"].unique():
        own = (judged["task"] == task).to_numpy()
        values, vectors = np.linalg.eigh((np.eye(len(y)) - hat)[np.ix_(own, own)])
        root = vectors @ np.diag(values**-0.5) @ vectors.T
        rest = y[own] - y.mean()
        meat += (root @ rest).sum() ** 2, rest.sum() ** 2
    adjusted, plain = meat / len(y) ** 2 / (y.mean() * (1 - y.mean()) / len(y))
    return float(adjusted), float(plain)


def test_tasks_make_pairs_alike_and_both_verdicts_come_to_the_same(results: dict[str, pl.DataFrame]) -> None:
    settings = results["setting_summary"].filter(level="setting")
    assert settings["icc"].is_between(0, 1).all()
    for setting, ours, plain in (("solo", 3.881, 3.553), ("coop-comm", 5.663, 5.055)):
        found = settings.filter(verdict="strict", setting=setting)["design_effect"].item()
        adjusted, as_is = _design_effects(results["pair_grid"].filter(setting=setting))
        assert (found, adjusted, as_is) == pytest.approx((ours, ours, plain), abs=5e-4)
    found = results["conclusions"].filter(endpoint="success", which_pairs="all", dead_pairs="out")
    assert dict(found.select("verdict", "conclusion").rows()) == {"strict": "solo higher", "upstream": "solo higher"}
    (plan,) = results["analysis_plan"].iter_rows(named=True)
    assert (plan["declared"], plan["contrasts"]) == ("not at all", ["solo − coop-comm"])


def test_messages_and_merges(results: dict[str, pl.DataFrame]) -> None:
    talk = results["communication"].filter(pl.col("seed").is_null()).row(0, named=True)
    assert (talk["pairs"], talk["messages"], talk["agents"]) == (150, 703, 300)
    merges = results["merge_conflicts"].filter(pl.col("seed").is_null())
    assert merges.select("population", "merges", "conflicts", "hollow").rows() == [
        ("clean", 137, 92, 0),
        ("evaluated", 142, 93, 4),
    ]
