from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.execution.planning.steps import Cause, Code, Plan, Step
from cooperbench_assets_tests.execution.making import pair

STEPS = st.builds(
    Step,
    pair=st.just(pair(1)),
    code=st.sampled_from(get_args(Code)),
    cause=st.none() | st.sampled_from(get_args(Cause)),
    family=st.none() | st.sampled_from(["auth", "provider"]),
    detail=st.text() | st.integers(),
    used=st.integers(0, 9),
    limit=st.integers(1, 9),
)


@given(STEPS)
def test_every_step_has_a_sentence_without_gaps(step: Step) -> None:
    plain = step.sentence.replace(str(step.detail), "")
    assert step.sentence or step.code == "run"
    assert "None" not in plain


@pytest.mark.parametrize("cause", get_args(Cause))
def test_a_blocked_pair_is_told_with_what_is_left_to_run(cause: Cause) -> None:
    run = Step(pair(1), "run", cause, "auth", "that", limit=3).sentence
    assert run
    assert Step(pair(1), "exhausted", cause, "auth", "that", used=3, limit=3).sentence == (
        f"tries exhausted (3 of 3): {run}"
    )
    assert Step(pair(1), "needs_person", cause, "auth", "that").sentence == f"waits for a person (auth): {run}"


@given(st.lists(STEPS))
def test_each_step_of_a_plan_is_run_skipped_or_blocked_and_only_blocked_ones_are_given_up(steps: list[Step]) -> None:
    plan = Plan("agent", tuple(steps))
    kinds = [plan.having("run"), plan.having("skip"), plan.having("blocked")]
    assert sum(map(len, kinds)) == len(steps)
    assert set(plan.given_up) <= set(kinds[2])
