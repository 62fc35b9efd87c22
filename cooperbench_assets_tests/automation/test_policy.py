"""The decision about a cell: a table of states, and what holds for all of them."""

# ruff: noqa: DTZ001 - times are UTC without a zone here

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.automation.policy import (
    LONGEST_PAUSE,
    LONGEST_WAIT,
    CellState,
    Decision,
    Launch,
    Nothing,
    Wait,
    decide,
    pause,
    rounds_of,
    wait_for_round,
)
from cooperbench_assets.store.cells import Cell

CELL = Cell("drill", "solo", 0)
NOON = datetime(2026, 11, 20, 12)
FIVE = timedelta(minutes=5)


def state(**changes: Any) -> CellState:
    """A cell that was launched and has its verdicts."""
    return CellState(**{"cell": CELL, "now": NOON, "fingerprint": "f", "backoff": FIVE, **changes})


def ago(minutes: float) -> datetime:
    return NOON - timedelta(minutes=minutes)


TO_RUN = {"agents": ("a/1/f1_f2",), "rounds": 1, "newest_end": ago(6)}

TABLE: list[tuple[str, dict[str, Any], type[Decision], str]] = [
    ("everything has its verdict", {}, Nothing, "nothing is left to run"),
    ("agents failed a while ago", TO_RUN, Launch, "agents of 1 pair"),
    ("agents failed just now", {**TO_RUN, "newest_end": ago(1)}, Wait, "until 2026-11-20 12:04:00"),
    ("the second try failed six minutes ago", {**TO_RUN, "rounds": 2}, Wait, "until 2026-11-20 12:04:00"),
    ("a provider was down for ten rounds", {**TO_RUN, "rounds": 10}, Wait, "until 2026-11-20 17:54:00"),
    ("pairs are missing and none failed", {"agents": ("a/1/f1_f2",)}, Launch, "agents of 1 pair"),
    ("evaluation alone", {"evaluations": ("a/1/f1_f2",)}, Launch, "evaluation of 1 pair"),
    ("only the tables are old", {"unread": True}, Launch, "reading"),
    ("only the tables are old, and a try failed just now", {"unread": True, "newest_end": NOON}, Launch, "reading"),
    ("logs from elsewhere", {**TO_RUN, "executes": False}, Nothing, "made elsewhere"),
    ("nobody launched it", {**TO_RUN, "launched": False}, Nothing, "nobody has launched"),
    ("a run is queued", {**TO_RUN, "active_run": "0123456789"}, Wait, "run 01234567 of it is not over"),
    ("its lock is held", {**TO_RUN, "holder": "make demo"}, Wait, "held by make demo"),
    ("a person cancelled it", {**TO_RUN, "cancelled_run": "0123456789"}, Nothing, "a person cancelled"),
    ("it cannot be read", {**TO_RUN, "problem": "no dataset"}, Nothing, "no dataset"),
    ("the budget is spent", {**TO_RUN, "money": "the budget is reached"}, Nothing, "the budget is reached"),
    (
        "the budget is spent and evaluations are still to run",
        {**TO_RUN, "money": "the budget is reached", "evaluations": ("b/1/f1_f2",)},
        Launch,
        "evaluation of 1 pair",
    ),
    ("tries are used up", {"exhausted": {"a/1/f1_f2": "agent"}}, Nothing, "1 pair used up all tries"),
    ("a key is refused", {"waiting": {"a/1/f1_f2": "auth"}}, Nothing, "1 pair waits for a person"),
    ("a smoke run is done", {"whole": False, "unwanted": 95}, Nothing, "95 pairs were never asked for"),
    ("a usage limit holds", {**TO_RUN, "not_before": ago(-90)}, Wait, "until 2026-11-20 13:30:00"),
    ("a usage limit was lifted", {**TO_RUN, "not_before": ago(1)}, Launch, "agents of 1 pair"),
    ("its last run changed nothing", {**TO_RUN, "done_already": True}, Nothing, "changed nothing"),
    ("its run failed a minute ago", {**TO_RUN, "fruitless": 1, "newest_failure": ago(1)}, Wait, "until"),
    ("its run failed an hour ago", {**TO_RUN, "fruitless": 1, "newest_failure": ago(60)}, Launch, "agents"),
    ("three runs failed", {**TO_RUN, "fruitless": 3, "newest_failure": ago(9999)}, Nothing, "3 runs of it"),
]


@pytest.mark.parametrize(("changes", "kind", "says"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_each_state_has_its_decision(changes: dict[str, Any], kind: type[Decision], says: str) -> None:
    decision = decide(state(**changes))
    assert type(decision) is kind
    assert says in (decision.why if isinstance(decision, Launch) else decision.reason)


def launch(**changes: Any) -> Launch:
    decision = decide(state(**changes))
    assert isinstance(decision, Launch)
    return decision


def test_only_what_is_still_to_run_is_asked_for() -> None:
    assert launch(agents=("a/1/f1_f2",)).assets == ("run_logs", "eval_outputs", "pair_results")
    assert launch(evaluations=("a/1/f1_f2",)).assets == ("eval_outputs", "pair_results")
    assert launch(unread=True).assets == ("pair_results",)


def test_a_cell_of_which_a_few_pairs_were_wanted_gets_those_and_no_others() -> None:
    asked = launch(whole=False, agents=("a/1/f1_f2",), evaluations=("b/1/f1_f2",), unwanted=95)
    assert asked.agents == ("a/1/f1_f2",)
    assert asked.evaluations == ("a/1/f1_f2", "b/1/f1_f2")
    whole = launch(agents=("a/1/f1_f2",))
    assert (whole.agents, whole.evaluations) == (None, None)


def test_the_same_state_has_the_same_run_key_and_another_has_another() -> None:
    first = launch(**TO_RUN)
    assert launch(**TO_RUN, now=NOON + timedelta(days=1)).run_key == first.run_key
    assert launch(**{**TO_RUN, "fingerprint": "g"}).run_key != first.run_key
    assert launch(**TO_RUN, asked=1, fruitless=1, newest_failure=ago(99)).run_key != first.run_key
    assert launch(**TO_RUN, asked=1).run_key != first.run_key, "a cancelled run has used its key too"
    assert first.run_key == "drill:solo:0:f:0"


@given(st.timedeltas(timedelta(0), timedelta(hours=1)), st.integers(0, 500))
def test_pauses_never_shrink_and_end_at_six_hours(backoff: timedelta, rounds: int) -> None:
    assert pause(backoff, rounds) <= pause(backoff, rounds + 1) <= LONGEST_PAUSE
    assert pause(backoff, 1) == min(backoff, LONGEST_PAUSE)


def test_a_provider_that_is_down_makes_pauses_grow_though_other_pairs_fail_each_time() -> None:
    assert [rounds_of(tries, streak, 5) for tries, streak in ((0, 0), (0, 4), (1, 4), (0, 5), (0, 6), (1, 20))] == [
        0,
        0,
        1,
        1,
        2,
        4,
    ]


@given(
    st.builds(
        state,
        agents=st.sampled_from([(), ("a/1/f1_f2",)]),
        evaluations=st.sampled_from([(), ("b/1/f1_f2",)]),
        executes=st.booleans(),
        launched=st.booleans(),
        active_run=st.sampled_from([None, "run"]),
        holder=st.sampled_from([None, "somebody"]),
        money=st.sampled_from([None, "spent"]),
        fruitless=st.integers(0, 5),
        rounds=st.integers(0, 5),
        newest_end=st.none() | st.datetimes(datetime(2026, 11, 20), datetime(2026, 11, 20, 13)),
        done_already=st.booleans(),
    )
)
def test_a_launch_is_asked_for_only_where_nothing_speaks_against_it(any_state: CellState) -> None:
    decision = decide(any_state)
    if not isinstance(decision, Launch):
        return
    assert any_state.executes
    assert any_state.launched
    assert any_state.active_run is None
    assert any_state.holder is None
    assert not any_state.done_already
    assert any_state.fruitless < 3
    assert "run_logs" not in decision.assets or any_state.money is None


@pytest.mark.parametrize(
    ("changes", "wait"),
    [
        ({}, None),
        (TO_RUN, timedelta()),
        ({"evaluations": ("a/1/f1_f2",), "money": "the budget is reached"}, timedelta()),
        ({**TO_RUN, "money": "the budget is reached"}, None),
        ({**TO_RUN, "problem": "no dataset"}, None),
        ({**TO_RUN, "not_before": NOON + timedelta(seconds=20)}, timedelta(seconds=20)),
        ({**TO_RUN, "not_before": NOON + LONGEST_WAIT + timedelta(seconds=1)}, None),
        ({"waiting": {"a/1/f1_f2": "auth"}}, None),
    ],
)
def test_a_command_goes_on_where_a_retry_can_help_soon(changes: dict[str, Any], wait: timedelta | None) -> None:
    assert wait_for_round(state(**changes)) == wait
