from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.execution.attempts import write_attempt
from cooperbench_assets.execution.budget import Budget, Ledger, read_ledger
from cooperbench_assets.execution.errors import PricesUnknown
from cooperbench_assets.execution.history import percentile_95, read_history
from cooperbench_assets.execution.job import Limits
from cooperbench_assets_tests.execution.making import attempt, job, pair, state


def finished(of: Pair, cost: float | None, **changes: Any) -> Any:
    values: dict[str, Any] = {"has_result": True, "cost_usd": cost, "steps": 3}
    return state(of, "unevaluated", **{**values, **changes})


def budget(root: Path, costs: list[float | None], siblings: tuple[Path, ...] = (), **limits: Any) -> Budget:
    pairs = tuple(pair(2 * n + 1) for n in range(len(costs) + 1))
    made = job(root, pairs, limits=Limits(**limits), siblings=siblings)
    states = {one: finished(one, cost) for one, cost in zip(pairs, costs, strict=False)}
    return Budget(made, {**states, pairs[-1]: state(pairs[-1])})


def result(run: Path, of: Pair, cost: float | None, steps: int = 3) -> None:
    folder = run / "solo" / of.name
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"total_cost": cost, "total_steps": steps, "duration_seconds": 2.5}))


def test_launches_go_on_until_the_cells_budget_is_reached(tmp_path: Path) -> None:
    money = budget(tmp_path, [0.4, 0.4], cell_max_cost_usd=1.0)
    assert money.stop_reason() is None
    money.add(0.3, estimated=False)
    assert money.stop_reason() == "the cell's budget is reached: 1.10 of 1.00 USD"


def test_without_a_limit_nothing_stops_and_prices_do_not_matter(tmp_path: Path) -> None:
    money = budget(tmp_path, [None, 0.0])
    money.check_prices()
    assert money.stop_reason() is None


def test_the_experiments_budget_counts_the_other_cells_tries_too(tmp_path: Path) -> None:
    sibling = tmp_path / "logs" / "toy-coop"
    result(sibling, pair(1), 5.0)
    tried = sibling / "attempts/solo" / pair(3).name
    write_attempt(tried / "agent-1", attempt(1, cost_usd=2.0))
    write_attempt(tried / "agent-2", attempt(2, outcome="completed", cost_usd=2.5))
    assert read_ledger(sibling).total == 9.5
    money = budget(tmp_path, [1.0], siblings=(sibling,), max_cost_usd=10.0)
    assert money.cell_usd == 1.0
    assert money.stop_reason() == "the experiment's budget is reached: 10.50 of 10.00 USD"


def test_a_result_is_not_counted_again_beside_its_own_try(tmp_path: Path) -> None:
    run = tmp_path / "run"
    result(run, pair(1), 2.0)
    write_attempt(run / "attempts/solo" / pair(1).name / "agent-1", attempt(1, outcome="completed", cost_usd=2.0))
    assert read_ledger(run).total == 2.0


def test_a_try_of_unknown_cost_counts_at_the_cells_95th_percentile() -> None:
    ledger = Ledger()
    for cents in range(1, 101):
        ledger.add(cents / 100)
    assert ledger.percentile == 0.95
    ledger.add(None)
    ledger.add(0.95, estimated=True)
    assert ledger.percentile == 0.95
    assert ledger.total == pytest.approx(50.50 + 2 * 0.95)


@pytest.mark.parametrize("cost", [0.0, None])
def test_a_budget_is_refused_where_the_models_prices_are_not_known(tmp_path: Path, cost: float | None) -> None:
    money = budget(tmp_path, [cost], cell_max_cost_usd=1.0)
    with pytest.raises(PricesUnknown, match=r"scripted/one.*max_cost_usd"):
        money.check_prices()
    assert money.stop_reason() == "the model's prices are not known"


def test_prices_are_looked_up_in_the_other_cells_as_well(tmp_path: Path) -> None:
    sibling = tmp_path / "logs" / "toy-coop"
    result(sibling, pair(1), 0.0)
    with pytest.raises(PricesUnknown):
        budget(tmp_path, [], siblings=(sibling,), max_cost_usd=1.0).check_prices()


def test_an_agent_that_died_before_the_model_answered_says_nothing_of_prices(tmp_path: Path) -> None:
    pairs = (pair(1), pair(3))
    made = job(tmp_path, pairs, limits=Limits(cell_max_cost_usd=1.0))
    dead = finished(pairs[0], 0.0, steps=0)
    struck = finished(pairs[1], 0.0, steps=4, agents_failed=True)
    money = Budget(made, {pairs[0]: dead, pairs[1]: struck})
    money.check_prices()
    assert money.stop_reason() is None
    # A model that did answer, at no known price, is another matter.
    answered = finished(pairs[0], 0.0, steps=4)
    assert Budget(made, {pairs[0]: answered}).stop_reason() == "the model's prices are not known"


def test_a_pair_is_expected_to_cost_and_take_what_it_did_before_or_what_is_typical(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for n, cost in ((1, 1.0), (3, 3.0), (5, 8.0)):
        result(run, pair(n), cost)
    write_attempt(
        run / "attempts/solo" / pair(1).name / "eval-1",
        attempt(1, "eval", outcome="completed", ended_at="2026-01-01T00:00:04.000+00:00"),
    )
    history = read_history([(run, "solo")])
    assert history.expected_cost(pair(5)) == 8.0
    assert history.expected_cost(pair(7)) == 3.0
    assert history.expected_seconds("agent", pair(7)) == 2.5
    assert history.expected_seconds("eval", pair(7)) == 4.0
    assert read_history([]).expected_cost(pair(1)) is None


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=60))
def test_the_percentile_is_one_of_the_values_and_few_exceed_it(costs: list[float]) -> None:
    value = percentile_95(costs)
    assert value in costs
    assert sum(cost > value for cost in costs) <= 0.05 * len(costs)
