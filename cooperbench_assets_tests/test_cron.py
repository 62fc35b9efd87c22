"""Cron expressions: what is taken here, Dagster takes too, and it comes true some day."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster._utils.schedules import schedule_execution_time_iterator
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.cron import SHORT, problem

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "expression",
    ["0 2 * * *", "*/15 8-18 * * mon-fri", "0 0 1,15 * *", "59 23 31 12 6", "0 0 29 2 *", *sorted(SHORT)],
)
def test_what_people_write_is_taken(expression: str) -> None:
    assert problem(expression) is None
    assert first_time(expression) >= START


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("99 2 * * *", "minute: '99' is not 0 to 59"),
        ("0 24 * * *", "hour: '24' is not 0 to 23"),
        ("0 0 0 * *", "day of the month: '0' is not 1 to 31"),
        ("0 0 * foo *", "month: 'foo' is not 1 to 12 or jan to dec"),
        ("0 0 * * 8", "day of the week: '8' is not 0 to 6 or sun to sat"),
        ("0 2 * *", "has 4 fields, not five"),
        ("0 0 2 * * *", "has 6 fields, not five"),
        ("every night", "has 2 fields, not five"),
        ("0 20-8 * * *", "hour: '20-8' does not end after it begins"),
        ("*/0 * * * *", "minute: '*/0' has a step that cannot be taken"),
        ("0 0 30 2 *", "names a day that none of its months has (30)"),
        ("0 0 31 4,6 *", "names a day that none of its months has (31)"),
        ("0 0 31 4 1", "names a day that none of its months has (31)"),
        ("", "has 0 fields, not five"),
    ],
)
def test_what_is_wrong_is_named(expression: str, said: str) -> None:
    assert problem(expression) == said


def item(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low - 1, high + 2).map(str)
    span = st.tuples(number, number).map("-".join)
    stepped = st.tuples(st.just("*") | span, st.integers(0, high + 1).map(str)).map("/".join)
    return st.lists(st.just("*") | number | span | stepped, min_size=1, max_size=3).map(",".join)


EXPRESSIONS = st.tuples(item(0, 59), item(0, 23), item(1, 31), item(1, 12), item(0, 6)).map(" ".join)


@given(EXPRESSIONS | st.text("0123456789*/-,@abcdef ?#L", max_size=20))
def test_whatever_is_taken_dagster_takes_and_reaches(expression: str) -> None:
    if problem(expression) is None:
        assert first_time(expression) >= START


def first_time(expression: str) -> datetime:
    """When Dagster would first run a schedule of this expression."""
    # Building a schedule checks the expression; the scheduler's own iterator is what must not fail later.
    dg.ScheduleDefinition(name="a_schedule", target="*", cron_schedule=expression, execution_timezone="UTC")
    return next(schedule_execution_time_iterator(START.timestamp(), expression, "UTC"))
