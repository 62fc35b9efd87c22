from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.execution.attempts.records import write_attempt
from cooperbench_assets.execution.cell_lock import cell_lock
from cooperbench_assets.execution.errors import PricesUnknown
from cooperbench_assets.execution.job import Limits
from cooperbench_assets.execution.planning.budget import Budget, Decision, Ledger
from cooperbench_assets.execution.planning.usage import read_history
from cooperbench_assets_tests.execution.cells import total_cost
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
    money.add(attempt(1, outcome="completed", cost_usd=0.3))
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
    assert total_cost(sibling) == 9.5
    money = budget(tmp_path, [1.0], siblings=(sibling,), max_cost_usd=10.0)
    assert money.cell_usd == 1.0
    assert money.stop_reason() == "the experiment's budget is reached: 10.50 of 10.00 USD"


def test_a_result_is_not_counted_again_beside_its_own_try(tmp_path: Path) -> None:
    run = tmp_path / "run"
    result(run, pair(1), 2.0)
    write_attempt(run / "attempts/solo" / pair(1).name / "agent-1", attempt(1, outcome="completed", cost_usd=2.0))
    assert total_cost(run) == 2.0


def test_a_try_of_unknown_cost_counts_for_the_dearest_known_one() -> None:
    ledger = Ledger()
    for cents in range(1, 101):
        ledger.add(cents / 100)
    assert ledger.dearest == 1.0
    ledger.add(None)
    ledger.add(0.95, estimated=True)
    assert ledger.dearest == 1.0
    assert ledger.total == pytest.approx(50.50 + 1.0 + 0.95)


def test_unknown_costs_count_for_the_dearest_try_of_any_cell(tmp_path: Path) -> None:
    sibling = tmp_path / "logs" / "toy-coop"
    result(sibling, pair(1), 2.0)
    money = budget(tmp_path, [1.0], siblings=(sibling,), max_cost_usd=20.0)
    for n in range(1, 8):
        money.add(attempt(n, cost_usd=None))
    assert money.estimate == 2.0
    assert money.cell_usd == 1.0 + 7 * 2.0
    assert money.stop_reason() is None
    money.add(attempt(8, cost_usd=None))
    assert money.stop_reason() is None
    money.add(attempt(9, cost_usd=None))
    assert money.stop_reason() == "the experiment's budget is reached: 21.00 of 20.00 USD"


def test_one_pair_runs_at_a_time_until_the_cost_of_one_is_known(tmp_path: Path) -> None:
    money = budget(tmp_path, [], cell_max_cost_usd=1.0)
    assert money.decide(0).kind == "go"
    assert money.decide(1).kind == "wait"
    money.add(attempt(1, cost_usd=None))
    assert [money.decide(running).kind for running in (0, 1)] == ["go", "wait"]
    money.add(attempt(2, cost_usd=0.2))
    assert [money.decide(running).kind for running in (0, 1, 2, 3)] == ["go", "go", "go", "wait"]


def test_a_given_figure_counts_until_the_cost_of_a_try_is_known(tmp_path: Path) -> None:
    money = budget(tmp_path, [], cell_max_cost_usd=1.0, expected_cost_usd=0.4)
    assert [money.decide(running).kind for running in (0, 1, 2, 3)] == ["go", "go", "go", "wait"]
    money.add(attempt(1, cost_usd=0.1))
    assert money.estimate == 0.1


def test_three_tries_that_do_not_tell_their_cost_stop_launches_and_say_what_to_give(tmp_path: Path) -> None:
    money = budget(tmp_path, [], max_cost_usd=1.0)
    for n in (1, 2):
        money.add(attempt(n, cost_usd=None))
        assert money.stop_reason() is None
        money.check_prices()
    money.add(attempt(3, cost_usd=None))
    assert money.stop_reason() == (
        "none of the first 3 tries told its cost: give limits.expected_cost_usd (USD of one try)"
    )
    with pytest.raises(PricesUnknown, match=r"limits.expected_cost_usd"):
        money.check_prices()
    given = budget(tmp_path / "given", [None, None, None], max_cost_usd=2.0, expected_cost_usd=0.5)
    given.check_prices()
    assert given.cell_usd == 1.5
    assert given.stop_reason() is None


def test_a_model_without_prices_costs_what_is_given(tmp_path: Path) -> None:
    money = budget(tmp_path, [0.0, 0.0], cell_max_cost_usd=1.0, expected_cost_usd=0.5)
    money.check_prices()
    assert money.stop_reason() == "the cell's budget is reached: 1.00 of 1.00 USD"


def running_in(run: Path, of: Pair) -> None:
    """A try of agents that has no end."""
    folder = run / "attempts/solo" / of.name / "agent-1"
    write_attempt(folder, attempt(1, outcome="running", ended_at=None, family=None, retryable=None))


def test_what_other_cells_run_is_reserved_and_what_died_with_its_launch_is_spent(tmp_path: Path) -> None:
    sibling = tmp_path / "logs" / "toy-coop"
    result(sibling, pair(1), 1.0)
    running_in(sibling, pair(3))
    running_in(sibling, pair(5))
    money = budget(tmp_path, [], siblings=(sibling,), max_cost_usd=3.0)
    with cell_lock(sibling, "another launch"):
        assert money.decide(0) == Decision("wait", elsewhere=2)
    assert money.decide(0) == Decision("stop", "the experiment's budget is reached: 3.00 of 3.00 USD")


def test_what_other_cells_run_is_waited_for_while_no_cost_is_known(tmp_path: Path) -> None:
    sibling = tmp_path / "logs" / "toy-coop"
    running_in(sibling, pair(1))
    money = budget(tmp_path, [], siblings=(sibling,), max_cost_usd=3.0)
    with cell_lock(sibling, "another launch"):
        assert money.decide(0) == Decision("wait", elsewhere=1)
    assert money.decide(0).kind == "go", "its launch is dead"


def test_only_one_cell_decides_at_a_time(tmp_path: Path) -> None:
    one, other = (budget(tmp_path, [1.0], max_cost_usd=9.0) for _ in range(2))
    with one.turn(0) as first:
        assert first.kind == "go"
        with other.turn(0) as second:
            assert second.kind == "wait"
    with other.turn(0) as second:
        assert second.kind == "go"


def test_what_was_spent_in_a_dropped_or_renamed_cell_stays_in_the_budget(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    for name, experiment in (("toy-old-name", "toy"), ("somebody-else", "other"), ("imported", None)):
        result(logs / name, pair(1), 5.0)
        if experiment is not None:
            (logs / name / "provenance.json").write_text(json.dumps({"experiment": experiment}))
    (logs / "a file").touch()
    money = budget(tmp_path, [1.0], max_cost_usd=6.0)
    assert money.stop_reason() == "the experiment's budget is reached: 6.00 of 6.00 USD"
    (logs / "somebody-else" / "provenance.json").write_text(json.dumps({"experiment": "toy", "renamed": True}))
    assert money.stop_reason() == "the experiment's budget is reached: 11.00 of 6.00 USD"


def test_what_other_cells_cost_is_read_again_after_each_launch_of_theirs(tmp_path: Path) -> None:
    sibling = tmp_path / "logs" / "toy-coop"
    money = budget(tmp_path, [1.0], siblings=(sibling,), max_cost_usd=9.0)
    assert money.stop_reason() is None
    with cell_lock(sibling, "a launch"):
        tried = sibling / "attempts/solo" / pair(1).name
        write_attempt(tried / "agent-1", attempt(1, cost_usd=3.0))
        assert money.stop_reason() is None
        write_attempt(tried / "agent-2", attempt(2, cost_usd=6.0))
    assert money.stop_reason() == "the experiment's budget is reached: 10.00 of 9.00 USD"


@given(
    st.lists(st.floats(0.01, 2), min_size=1, max_size=60),
    st.floats(0.5, 10),
    st.integers(1, 8),
    st.randoms(use_true_random=False),
)
def test_a_budget_is_exceeded_by_no_more_than_tries_dearer_than_all_before(
    tmp_path_factory: pytest.TempPathFactory, costs: list[float], limit: float, cap: int, chance: Random
) -> None:
    money = budget(tmp_path_factory.mktemp("money"), [], cell_max_cost_usd=limit)
    ahead, spent, surprise, dearest = list(costs), 0.0, 0.0, 0.0
    flying: list[float] = []
    while True:
        decision = money.decide(len(flying))
        if decision.kind == "go" and ahead and len(flying) < cap:
            flying.append(ahead.pop())
            continue
        if not flying:
            assert decision.kind != "wait", "nothing runs that could be waited for"
            break
        cost = flying.pop(chance.randrange(len(flying)))
        surprise += max(0.0, cost - dearest)
        dearest = max(dearest, cost)
        spent += cost
        money.add(attempt(1, outcome="completed", cost_usd=cost))
    assert not ahead or decision.kind == "stop"
    # One try more than fits, and what tries cost beyond the dearest one before them, each as often as tries run.
    assert spent <= limit + dearest + cap * surprise + 1e-6


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
    infra_failed = finished(pairs[1], 0.0, steps=4, agents_failed=True)
    money = Budget(made, {pairs[0]: dead, pairs[1]: infra_failed})
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
