from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.execution.attempts.pair_state import PairState
from cooperbench_assets.execution.attempts.records import Attempt, next_number
from cooperbench_assets.execution.errors import RefusedLaunch
from cooperbench_assets.execution.job import CellJob, Limits
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.planning.launch_order import launch_order, spread
from cooperbench_assets.execution.planning.plan import plan_agents, plan_evaluations
from cooperbench_assets.execution.planning.steps import Step
from cooperbench_assets.execution.planning.usage import History
from cooperbench_assets_tests.execution.making import attempt, job, pair, state

NOTHING = History()
DEFAULT = LaunchOptions()
ONE = pair(1)


def agents(
    made: CellJob, *states: PairState, options: LaunchOptions = DEFAULT, retry_generation: int = 1
) -> list[Step]:
    plan = plan_agents(made, {one.pair: one for one in states}, options, NOTHING, retry_generation)
    return list(plan.steps)


def evals(made: CellJob, *states: PairState, options: LaunchOptions = DEFAULT, retry_generation: int = 1) -> list[Step]:
    plan = plan_evaluations(made, {one.pair: one for one in states}, options, NOTHING, retry_generation)
    return list(plan.steps)


def failed(*tries: Attempt, family: str = "provider", retryable: bool = True, stage: str = "agent") -> PairState:
    return state(
        ONE,
        "infra_error",
        stage=stage,
        family=family,
        retryable=retryable,
        has_result=True,
        has_eval=stage == "eval",
        patch_sha256="p1",
        attempts=tries,
    )


def test_three_missing_of_three_hundred_means_three(tmp_path: Path) -> None:
    pairs = tuple(pair(n) for n in range(1, 301))
    missing = {pairs[0], pairs[150], pairs[299]}
    states = [state(one) if one in missing else state(one, "pass", has_result=True, has_eval=True) for one in pairs]
    steps = agents(job(tmp_path, pairs), *states)
    assert {step.pair for step in steps if step.action == "run"} == missing


@pytest.mark.parametrize(
    ("there", "action", "words"),
    [
        (state(ONE), "run", "no result yet"),
        (state(ONE, torn="it ends in the middle"), "run", "cannot be read"),
        (state(ONE, attempts=(attempt(1, outcome="interrupted"),)), "run", "interrupted; try 2 of 3"),
        (failed(attempt(1)), "run", "provider); try 2 of 3"),
        (failed(attempt(1), attempt(2), attempt(3)), "blocked", "tries exhausted (3 of 3)"),
        (failed(attempt(1), family="auth", retryable=False), "run", "auth"),
        (state(ONE, "pass", has_result=True, has_eval=True), "skip", "done: pass"),
        (state(ONE, "fail", reason="agent_error", has_result=True), "skip", "done: fail"),
        (state(ONE, "unevaluated", has_result=True), "skip", "agents are done"),
        (failed(attempt(1, "eval"), stage="eval"), "skip", "agents are done"),
    ],
)
def test_agents_run_where_something_is_still_to_run_and_nowhere_else(
    tmp_path: Path, there: PairState, action: str, words: str
) -> None:
    (step,) = agents(job(tmp_path, (ONE,)), there)
    assert step.action == action
    assert words in step.sentence


@pytest.mark.parametrize(
    ("there", "action", "words"),
    [
        (state(ONE), "blocked", "not evaluated: no result yet"),
        (failed(attempt(1)), "blocked", "its agents failed (provider)"),
        (state(ONE, "unevaluated", has_result=True), "run", "not evaluated yet"),
        (state(ONE, "unevaluated", has_result=True, stale=True), "run", "older patch"),
        (state(ONE, "unevaluated", has_result=True, torn="it is empty"), "run", "cannot be read"),
        (failed(attempt(1, "eval", patch_sha256="p1"), stage="eval"), "run", "try 2 of 2"),
        (
            failed(attempt(1, "eval", patch_sha256="p1"), attempt(2, "eval", patch_sha256="p1"), stage="eval"),
            "blocked",
            "tries exhausted (2 of 2)",
        ),
        (
            failed(attempt(1, "eval", patch_sha256="p0"), attempt(2, "eval", patch_sha256="p0"), stage="eval"),
            "run",
            "its evaluation failed",
        ),
        (state(ONE, "pass", has_result=True, has_eval=True), "skip", "done: pass"),
        (state(ONE, "fail", reason="agent_error", has_result=True), "run", "for the record"),
    ],
)
def test_evaluations_run_for_results_whose_verdict_is_missing(
    tmp_path: Path, there: PairState, action: str, words: str
) -> None:
    (step,) = evals(job(tmp_path, (ONE,)), there)
    assert step.action == action
    assert words in step.sentence


def test_what_a_person_must_mend_is_left_alone_by_automation_and_run_when_a_person_asks(tmp_path: Path) -> None:
    dead = failed(attempt(1, family="auth", retryable=False), family="auth", retryable=False)
    (step,) = agents(job(tmp_path, (ONE,)), dead, options=LaunchOptions(automatic=True))
    assert (step.action, step.sentence.split(":")[0]) == ("blocked", "waits for a person (auth)")
    assert agents(job(tmp_path, (ONE,)), dead)[0].action == "run"


def test_resetting_the_retry_counters_counts_tries_anew(tmp_path: Path) -> None:
    spent = failed(attempt(1), attempt(2), attempt(3))
    (step,) = agents(job(tmp_path, (ONE,)), spent, options=LaunchOptions(reset_retries=True), retry_generation=2)
    assert (step.action, step.retry_generation) == ("run", 2)
    assert agents(job(tmp_path, (ONE,)), spent)[0].action == "blocked"


def test_completed_tries_do_not_count_and_earlier_files_do_not_either(tmp_path: Path) -> None:
    there = failed(attempt(1, retry_generation=0), attempt(2, outcome="completed"), attempt(3), attempt(4))
    (step,) = agents(job(tmp_path, (ONE,)), there)
    assert (step.action, step.sentence) == ("run", "its agents failed (provider); try 3 of 3")


def test_fresh_agents_for_a_verdict_are_refused_with_the_advice_to_add_a_seed(tmp_path: Path) -> None:
    done = state(ONE, "pass", has_result=True, has_eval=True)
    with pytest.raises(RefusedLaunch, match="add a seed"):
        agents(job(tmp_path, (ONE,)), done, options=LaunchOptions(pairs=(ONE.name,)))
    with pytest.raises(RefusedLaunch, match="whole cells only"):
        evals(job(tmp_path, (ONE,)), done, options=LaunchOptions(pairs=(ONE.name,)))


@pytest.mark.parametrize("name", ["beta_task/1/f1_f2", "alpha_task/1/f2_f1", "nonsense"])
def test_a_pair_that_nobody_plans_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(RefusedLaunch, match=name):
        agents(job(tmp_path, (ONE,)), state(ONE), options=LaunchOptions(pairs=(name,)))


def test_pairs_that_were_not_asked_for_are_skipped(tmp_path: Path) -> None:
    pairs = (pair(1), pair(3))
    steps = agents(job(tmp_path, pairs), *map(state, pairs), options=LaunchOptions(pairs=(pairs[1].name,)))
    assert [step.action for step in steps] == ["skip", "run"]


def test_an_accepted_failure_is_not_run_again(tmp_path: Path) -> None:
    made = job(tmp_path, (ONE,), accepted=frozenset({ONE.name}))
    assert agents(made, failed(attempt(1)))[0].action == "skip"
    assert evals(made, failed(attempt(1, "eval"), stage="eval"))[0].action == "skip"


def test_a_task_that_the_dataset_lacks_blocks_its_pair_and_no_other(tmp_path: Path) -> None:
    pairs = (pair(1), pair(1, "beta_task"))
    made = job(tmp_path, pairs)
    (made.dataset / pairs[1].task.folder / "feature2" / "feature.md").unlink()
    steps = agents(made, *map(state, pairs))
    assert [step.action for step in steps] == ["run", "blocked"]
    assert str(made.dataset / "beta_task/task1/feature2/feature.md") in steps[1].sentence


def test_a_smoke_run_takes_as_many_repositories_as_it_can_and_the_same_pairs_each_time(tmp_path: Path) -> None:
    pairs = tuple(pair(n, repo) for repo in ("a_task", "b_task", "c_task") for n in (1, 3, 5))
    steps = agents(job(tmp_path, pairs), *map(state, pairs), options=LaunchOptions(at_most=4))
    chosen = [step.pair for step in steps if step.action == "run"]
    assert len(chosen) == 4
    assert {one.repo for one in chosen} == {"a_task", "b_task", "c_task"}
    assert [step.pair for step in steps if "at most 4" in step.sentence] == [one for one in pairs if one not in chosen]


PAIRS = st.lists(
    st.builds(
        lambda repo, task, low, gap: Pair(f"{repo}_task", task, (low, low + gap)),
        st.sampled_from("abcd"),
        st.integers(1, 3),
        st.integers(1, 4),
        st.integers(1, 3),
    ),
    unique=True,
    max_size=30,
)


@given(pairs=PAIRS, limit=st.integers(0, 35))
def test_spreading_takes_the_right_number_over_every_repository(pairs: list[Pair], limit: int) -> None:
    chosen = spread(pairs, limit)
    assert len(chosen) == len(set(chosen)) == min(limit, len(pairs))
    assert set(chosen) <= set(pairs)
    assert len({one.repo for one in chosen}) == min(limit, len({one.repo for one in pairs}))
    assert chosen == spread(reversed(pairs), limit)


def test_the_longest_expected_pairs_are_launched_first_and_unknown_ones_count_as_typical() -> None:
    lengths = {1: 5.0, 3: None, 5: 50.0, 7: 20.0, 9: 1.0}
    steps = [Step(pair(n), "run", expected_seconds=length) for n, length in lengths.items()]
    order = [step.expected_seconds for step in launch_order(steps, "toy", budgeted=False)]
    assert [length for length in order if length is not None] == [50.0, 20.0, 5.0, 1.0]
    assert order.index(None) < order.index(1.0)


def test_with_a_budget_the_order_is_random_and_the_same_in_every_cell() -> None:
    steps = [Step(pair(n), "run", expected_seconds=float(n)) for n in range(1, 60)]
    order = launch_order(steps, "toy", budgeted=True)
    lengths = [step.expected_seconds or 0.0 for step in order]
    assert order == launch_order(list(reversed(steps)), "toy", budgeted=True)
    assert lengths != sorted(lengths)
    assert lengths != sorted(lengths, reverse=True)
    # What a budget leaves out is spread over long and short ones alike.
    assert 0.25 < sum(length > 30 for length in lengths[40:]) / len(lengths[40:]) < 0.75


@given(
    tries=st.lists(st.sampled_from(["completed", "infra_error", "interrupted"]), max_size=8),
    limit=st.integers(1, 4),
)
def test_no_pair_is_run_more_often_than_its_limit(tries: list[str], limit: int) -> None:
    recorded = [attempt(n, outcome=outcome) for n, outcome in enumerate(tries, 1)]
    with TemporaryDirectory() as root:
        made = job(Path(root), (ONE,), limits=Limits(agent_attempts=limit))
        (step,) = agents(made, failed(*recorded))
    assert (step.action == "run") == (sum(outcome != "completed" for outcome in tries) < limit)
    assert next_number(recorded, "agent") == len(tries) + 1
