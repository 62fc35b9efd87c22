"""What is said of a launch's progress, and when."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.assets.progress import News, describe, describe_wait
from cooperbench_assets.execution.runner.progress import BudgetWait, Progress, SlotWait, StartWait, Waiting
from cooperbench_assets.execution.runner.slots import NOBODY, SlotUser

DEMO = SlotUser("demo", "solo seed 0", "run ab12cd34-1111-2222-3333-444455556666", 123)
OTHER = SlotUser("x", "coop seed 1", "y", 7)
STANDING = Progress("eval", 6, 2, 1, {"provider": 1}, 1.5, 60.0, None)


@pytest.mark.parametrize(
    ("waiting", "said"),
    [
        (
            SlotWait("evaluations", 2, 0, ((DEMO, 2),)),
            "waits for an evaluation slot: 2 of 2 held by demo solo seed 0 (run ab12cd34, PID 123)",
        ),
        (
            SlotWait("agents", 4, 1, ((OTHER, 1), (DEMO, 2))),
            (
                "waits for a further agent slot: 1 of 4 held by x coop seed 1 (y, PID 7), "
                "2 by demo solo seed 0 (run ab12cd34, PID 123)"
            ),
        ),
        (SlotWait("agents", 1, 0, ((NOBODY, 1),)), "waits for an agent slot: 1 of 1 held by another process"),
        (SlotWait("evaluations", 2, 0, ()), "waits for an evaluation slot"),
        (
            BudgetWait(2, 1, cost_known=True),
            (
                "waits for the cost of running pairs, which have reserved the rest of the budget "
                "(2 running here, 1 in other cells)"
            ),
        ),
        (
            BudgetWait(1, 0, cost_known=False),
            ("waits for the cost of a first pair, or for limits.expected_cost_usd (1 running here, 0 in other cells)"),
        ),
        (
            StartWait("no child could be started: Cannot allocate memory"),
            "waits before it starts a further child: no child could be started: Cannot allocate memory",
        ),
    ],
)
def test_what_is_waited_for_and_who_holds_it_is_one_sentence(waiting: Waiting, said: str) -> None:
    assert describe_wait(waiting) == said


def test_progress_is_one_line_with_an_end_only_where_one_is_known() -> None:
    assert describe(STANDING) == "2 of 6 pairs done, 1 running, 1 provider failed, 1.50 USD"
    ends = replace(STANDING, failed={}, expected_end=datetime(2026, 1, 1, 12, 30, tzinfo=UTC))
    assert describe(ends).endswith("none failed, 1.50 USD, expected to end at 12:30:00 UTC")
    assert describe(replace(STANDING, waiting=SlotWait("agents", 2, 0, ()))).endswith("USD, waits for an agent slot")


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_time_alone_is_no_news(seconds: float, later: float) -> None:
    news = News()
    assert news.is_new(STANDING)
    news.told(replace(STANDING, seconds=seconds))
    assert not news.is_new(replace(STANDING, seconds=later, expected_end=datetime.now(UTC)))


@pytest.mark.parametrize(
    ("old", "new", "is_news"),
    [
        (None, SlotWait("agents", 2, 0, ((DEMO, 2),)), True),
        (SlotWait("agents", 2, 0, ((DEMO, 2),)), None, True),
        (SlotWait("agents", 2, 0, ((DEMO, 2),)), SlotWait("agents", 2, 0, ((DEMO, 1),)), False),
        (SlotWait("agents", 2, 0, ((DEMO, 2),)), SlotWait("agents", 2, 0, ()), False),
        (SlotWait("agents", 2, 0, ((DEMO, 2),)), SlotWait("agents", 2, 0, ((OTHER, 2),)), True),
        (SlotWait("agents", 2, 0, ((DEMO, 2),)), StartWait("no memory"), True),
    ],
)
def test_another_wait_or_another_holder_is_news_and_a_slot_that_changes_hands_is_not(
    old: Waiting | None, new: Waiting | None, is_news: bool
) -> None:
    news = News()
    news.told(replace(STANDING, waiting=old))
    assert news.is_new(replace(STANDING, waiting=new)) is is_news


@pytest.mark.parametrize("change", [{"done": 3}, {"running": 0}, {"total": 7}, {"failed": {"provider": 2}}])
def test_a_count_that_changed_is_news(change: dict[str, object]) -> None:
    news = News()
    news.told(STANDING)
    assert news.is_new(replace(STANDING, **change))  # type: ignore[arg-type]
