"""Truncated and mixed cells: no answer of theirs may stand as a result, in any table."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from cooperbench_assets.analysis.registry import run_all
from cooperbench_assets.store import schema
from cooperbench_assets_tests.analysis.stores import outcomes, pairs_frame, provenance

KEYS = [(task, 1) for task in range(1, 9)]
STOPPED = "a budget stopped it before all pairs were bought"


def _frames(*cells: dict[str, Any]) -> dict[str, pl.DataFrame]:
    """Solo, coop-comm and coop-nocomm of two seeds; `cells` change what is on record of some."""
    rows = outcomes("solo", {key: "PF" if key[0] % 2 else "PP" for key in KEYS})
    for setting in ("coop-comm", "coop-nocomm"):
        rows += outcomes(setting, {key: "FF" if key[0] % 3 else "PF" for key in KEYS})
    changed = {(cell["setting"], cell["seed"]): cell for cell in cells}
    made = [(setting, seed) for setting in ("solo", "coop-comm", "coop-nocomm") for seed in (0, 1)]
    kept = provenance(*(changed.get(cell, {"setting": cell[0], "seed": cell[1]}) for cell in made))
    key = {"experiment": "e", "setting": "coop-comm", "pair": "repo/1/f1_f2", "sender": "agent1", "position": 0}
    said = schema.MESSAGES.frame([key | {"seed": seed, "message": "My plan is core.py"} for seed in (0, 1)])
    return {"pairs": pairs_frame(*rows), "provenance": kept, "messages": said}


def _standing(frame: pl.DataFrame) -> dict[str, str | None]:
    """Why each setting has no headline: of strict rows over clean pairs, over all seeds."""
    for name, value in (("verdict", "strict"), ("population", "clean"), ("method", "leave-one-seed-out")):
        if name in frame.columns:
            frame = frame.filter(pl.col(name) == value)
    for name in ("seed", "held_out"):
        if name in frame.columns:
            frame = frame.filter(pl.col(name).is_null())
    assert frame.filter(pl.col("headline") != pl.col("why_not").is_null()).is_empty()
    found = frame.select("setting", "why_not").unique(maintain_order=True)
    assert found["setting"].is_unique().all()
    return dict(found.rows())


TABLES = ("success_by_difficulty", "success_auc", "retention", "merge_conflicts", "merge_kinds", "communication")


def test_a_whole_store_has_headlines_everywhere() -> None:
    results = run_all(_frames())
    for name in TABLES:
        assert set(_standing(results[name]).values()) == {None}, name


@pytest.fixture(scope="module")
def truncated() -> dict[str, pl.DataFrame]:
    """All tables of a store in which a budget stopped one cell of coop-comm."""
    return run_all(_frames({"setting": "coop-comm", "seed": 1, "truncated": True}))


@pytest.fixture(scope="module")
def mixed() -> dict[str, pl.DataFrame]:
    """All tables of a store in which one cell of coop-comm is of another model."""
    return run_all(_frames({"setting": "coop-comm", "seed": 1, "model": "x"}))


@pytest.mark.parametrize("name", TABLES)
def test_a_truncated_cell_takes_the_headline_from_its_setting(truncated: dict[str, pl.DataFrame], name: str) -> None:
    found = _standing(truncated[name])
    assert f"{STOPPED} (seed 1)" in (found.pop("coop-comm") or "")
    assert set(found.values()) == {None}


@pytest.mark.parametrize("name", TABLES)
def test_cells_of_two_models_take_the_headline_from_their_setting(mixed: dict[str, pl.DataFrame], name: str) -> None:
    found = _standing(mixed[name])
    assert "model differs: m / x" in (found.pop("coop-comm") or "")
    assert set(found.values()) == {None}


def test_a_truncated_solo_cell_takes_every_headline_over_difficulty() -> None:
    results = run_all(_frames({"setting": "solo", "seed": 0, "truncated": True}))
    for name in ("success_by_difficulty", "success_auc", "retention"):
        assert all(f"solo: {STOPPED} (seed 0)" in (why or "") for why in _standing(results[name]).values()), name
    assert set(_standing(results["merge_conflicts"]).values()) == {None}


def test_the_truncated_cell_itself_has_no_headline_and_the_other_seed_has(truncated: dict[str, pl.DataFrame]) -> None:
    for name in ("merge_conflicts", "communication"):
        rows = truncated[name].filter(pl.col("seed").is_not_null(), setting="coop-comm")
        rows = rows.filter(population="clean") if "population" in rows.columns else rows
        assert dict(rows.select("seed", "headline").rows()) == {0: True, 1: False}
        assert rows.filter(seed=1)["why_not"].to_list() == [STOPPED]


def test_two_truncated_seeds_are_named_in_the_plural() -> None:
    both: list[dict[str, Any]] = [{"setting": "coop-comm", "seed": seed, "truncated": True} for seed in (0, 1)]
    results = run_all(_frames(*both))
    assert _standing(results["communication"])["coop-comm"] == f"{STOPPED} (seeds 0, 1)"


def test_over_difficulty_a_setting_of_another_model_has_counts_and_no_rates() -> None:
    other: list[dict[str, Any]] = [{"setting": "coop-comm", "seed": seed, "model": "x"} for seed in (0, 1)]
    rows = run_all(_frames(*other))["success_by_difficulty"].filter(setting="coop-comm")
    assert rows["n"].min() == 8
    assert rows["rate"].null_count() == rows["low"].null_count() == rows.height > 0
    assert set(rows["refused"]) == {"model differs: m / x"}
