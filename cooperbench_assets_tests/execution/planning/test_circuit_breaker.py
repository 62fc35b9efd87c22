from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.execution.planning.circuit_breaker import Breaker


def test_one_refused_key_stops_the_cell() -> None:
    breaker = Breaker("agent", 5)
    breaker.note(family=None, replied=True)
    breaker.note(family="auth", replied=False)
    assert breaker.reason is not None
    assert "key" in breaker.reason


def test_tries_in_a_row_without_a_reply_stop_the_cell_and_name_the_families() -> None:
    breaker = Breaker("agent", 3)
    for family in ("provider", "rate_limit"):
        breaker.note(family=family, replied=False)
    assert breaker.reason is None
    breaker.note(family="provider", replied=False)
    assert breaker.reason == (
        "3 tries in a row ended without one reply of the model (provider, rate_limit); "
        "fix the cause, and run the cell again"
    )


def test_a_machine_that_cannot_test_stops_evaluations() -> None:
    breaker = Breaker("eval", 2)
    for _ in range(2):
        breaker.note(family="engine", replied=False)
    assert breaker.reason is not None
    assert "engine" in breaker.reason


def test_hard_pairs_stop_no_evaluations() -> None:
    breaker = Breaker("eval", 2)
    for _ in range(5):
        breaker.note(family="oom", replied=False)
    assert breaker.reason is None


@given(replies=st.lists(st.booleans(), max_size=40), limit=st.integers(1, 6))
def test_the_breaker_trips_exactly_when_so_many_dead_ends_stand_in_a_row(replies: list[bool], limit: int) -> None:
    breaker = Breaker("agent", limit)
    for replied in replies:
        breaker.note(family=None if replied else "provider", replied=replied)
    text = "".join("." if replied else "x" for replied in replies)
    assert (breaker.reason is not None) == ("x" * limit in text)


@pytest.mark.parametrize("limit", [1, 5])
def test_an_agent_that_failed_after_replies_does_not_count_as_dead(limit: int) -> None:
    breaker = Breaker("agent", limit)
    for _ in range(10):
        breaker.note(family="container_died", replied=True)
    assert breaker.reason is None
