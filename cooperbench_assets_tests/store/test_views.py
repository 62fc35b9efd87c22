from __future__ import annotations

import polars as pl
import pytest

from cooperbench_assets.store.partition_tables import write_unit
from cooperbench_assets.store.schema import CORE_TABLES
from cooperbench_assets.store.units import cell_unit, check_unit
from cooperbench_assets_tests.store.frames import cell_frames, check_frame
from cooperbench_assets_tests.store.stores import COOP, Store


def test_the_views_count_what_the_tables_hold(store: Store) -> None:
    store.write(COOP, expected_pairs=12)
    frames = check_frame(
        COOP, experiment="demo", asset="pair_results", passed={"count": True, "times": False, "cost": False}
    )
    write_unit(store.tables, check_unit("demo", "pair_results", COOP), frames, declared=CORE_TABLES)
    store.publish()
    pairs = cell_frames(COOP)["pairs"]
    (cell,) = store.table("cells").rows(named=True)
    counts = dict(pairs["outcome"].value_counts().iter_rows())
    for outcome in ("pass", "fail", "infra_error", "unevaluated", "missing"):
        assert cell[outcome] == counts.get(outcome, 0)
    assert (cell["expected"], cell["checks"], cell["checks_failed"]) == (12, 3, 2)
    assert cell["results"] == pairs["has_result"].sum()
    assert cell["cost_usd"] == pytest.approx(pairs["cost_usd"].sum())
    assert cell["pass_rate_planned"] == pytest.approx(counts["pass"] / 12)
    assert cell["pass_rate_clean"] == pytest.approx(counts["pass"] / (counts["pass"] + counts["fail"]))
    outcomes = store.table("outcomes")
    assert outcomes.height == 10
    assert outcomes["model"].unique().to_list() == cell_frames(COOP)["provenance"]["model"].to_list()
    assert sorted(map(str, outcomes["result_model"])) == sorted(map(str, pairs["model"]))


def test_a_sum_over_nothing_known_is_unknown_and_a_rate_of_nothing_is_no_number(store: Store) -> None:
    frames = cell_frames(COOP)
    for name in ("pairs", "attempts", "agents"):
        frames[name] = frames[name].with_columns(cost_usd=pl.lit(None, pl.Float64))
    frames["pairs"] = frames["pairs"].with_columns(
        outcome=pl.lit("missing"), has_result=False, has_eval=False, input_tokens=pl.lit(None, pl.Int64)
    )
    write_unit(store.tables, cell_unit(COOP), frames, declared=CORE_TABLES)
    store.publish()
    (cell,) = store.table("cells").rows(named=True)
    (cost,) = store.table("costs").rows(named=True)
    assert (cell["cost_usd"], cell["pass_rate_clean"], cell["pass_rate_planned"]) == (None, None, 0.0)
    assert (cost["cost_usd"], cost["input_tokens"], cost["cost_lost_usd"]) == (None, None, None)


def test_costs_tell_money_of_record_from_all_money_and_from_money_that_bought_nothing(store: Store) -> None:
    frames = cell_frames(COOP, 3)
    names = frames["pairs"]["pair"].to_list()
    frames["pairs"] = frames["pairs"].with_columns(
        outcome=pl.Series(["pass", "infra_error", "fail"]),
        stage=pl.Series([None, "agent", None], dtype=pl.String),
        has_result=True,
        cost_usd=pl.Series([1.0, 2.0, None]),
    )
    tries = [
        (names[0], "agent", 1, "infra_error", 0.25, True),
        (names[0], "agent", 2, "interrupted", None, False),
        (names[0], "agent", 3, "completed", 1.0, False),
        (names[0], "eval", 1, "infra_error", 50.0, False),
    ]
    template = frames["attempts"].head(1)
    frames["attempts"] = pl.concat(
        template.with_columns(
            pair=pl.lit(pair),
            stage=pl.lit(stage),
            n=pl.lit(n, pl.Int32),
            outcome=pl.lit(outcome),
            cost_usd=pl.lit(cost, pl.Float64),
            cost_estimated=estimated,
        )
        for pair, stage, n, outcome, cost, estimated in tries
    )
    write_unit(store.tables, cell_unit(COOP), frames, declared=CORE_TABLES)
    store.publish()
    (cost,) = store.table("costs").rows(named=True)
    assert cost["cost_usd"] == pytest.approx(3.0)
    assert cost["cost_all_usd"] == pytest.approx(1.25 + 2.0)
    assert cost["cost_lost_usd"] == pytest.approx(0.25 + 2.0)
    assert cost["cost_per_pass_usd"] == pytest.approx(3.25)
    assert (cost["cost_unknown"], cost["tries_cost_unknown"], cost["tries_cost_estimated"]) == (1, 1, 1)
