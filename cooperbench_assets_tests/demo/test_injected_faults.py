"""Injected infrastructure failures: how many, which tries, and that they are recognised as what they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.benchmark.failures import classify, classify_output
from cooperbench_assets.demo.endings import Setting
from cooperbench_assets.demo.injected_faults import (
    ATTEMPT_VARIABLE,
    EVAL_VARIABLE,
    PAIR_VARIABLE,
    FaultPolicy,
    InjectedFault,
    PolicyError,
    agent_fault,
    eval_environment,
    eval_fault,
)
from cooperbench_assets_tests.demo.bench import PAIRS, Bench, split

CELLS: list[tuple[Setting, int]] = [("solo", 0), ("solo", 1), ("solo", 2), ("coop-comm", 0), ("coop-nocomm", 0)]
MANY = FaultPolicy(rate=0.2, eval_rate=0.2, most=2)


def faults_of(setting: Setting, seed: int, policy: FaultPolicy, attempt: int = 1) -> list[InjectedFault]:
    found = (agent_fault(pair, setting, seed, attempt, policy) for pair in PAIRS)
    return [fault for fault in found if fault is not None]


def test_a_few_of_a_hundred_first_tries_fail() -> None:
    counts = [len(faults_of(setting, seed, FaultPolicy())) for setting, seed in CELLS]
    assert all(1 <= count <= 7 for count in counts)
    assert 3.0 <= sum(counts) / len(counts) <= 4.0


def test_second_tries_do_not_fail_by_default() -> None:
    assert [one for setting, seed in CELLS for one in faults_of(setting, seed, FaultPolicy(), attempt=2)] == []


def test_all_families_and_all_ways_of_telling_occur_in_the_demo() -> None:
    found = [one for setting, seed in CELLS for one in faults_of(setting, seed, FaultPolicy())]
    assert {one.family for one in found} == {"rate_limit", "provider", "container_start"}
    assert {one.telling for one in found} == {"returned", "raised", "silent"}


def test_every_text_is_recognised_as_its_family_and_can_be_retried() -> None:
    for fault in {one for setting, seed in CELLS for one in faults_of(setting, seed, FaultPolicy(rate=1))}:
        failure = classify(fault.text.replace("{image}", "akhatua/cooperbench-inkline:task3"))
        assert failure is not None
        assert (failure.kind, failure.family, failure.retryable) == ("infra", fault.family, True)


@given(
    pair=st.sampled_from(PAIRS),
    cell=st.sampled_from(CELLS),
    rate=st.floats(0, 1),
    most=st.integers(0, 4),
    most_eval=st.integers(0, 4),
)
def test_no_pair_fails_more_often_than_allowed(
    pair: str, cell: tuple[Setting, int], rate: float, most: int, most_eval: int
) -> None:
    policy = FaultPolicy(rate=rate, eval_rate=rate, most=most, most_eval=most_eval)
    agents = [agent_fault(pair, *cell, attempt, policy) is not None for attempt in range(1, 8)]
    evals = [eval_fault(pair, *cell, attempt, policy) is not None for attempt in range(1, 8)]
    assert sum(agents) + sum(evals) <= most
    assert sum(evals) <= most_eval
    # Once a try has not failed, none does.
    assert agents == sorted(agents, reverse=True)
    assert evals == sorted(evals, reverse=True)


def test_a_fifth_can_fail_at_both_stages() -> None:
    agents = sum(len(faults_of(setting, seed, MANY)) for setting, seed in CELLS)
    evals = sum(eval_fault(pair, setting, seed, 1, MANY) is not None for setting, seed in CELLS for pair in PAIRS)
    assert 80 <= agents <= 120
    assert 75 <= evals <= 120


def test_a_pair_can_fail_always() -> None:
    policy = FaultPolicy(rate=0, always=frozenset({PAIRS[3]}))
    assert all(agent_fault(PAIRS[3], "solo", 0, attempt, policy) for attempt in range(1, 30))
    assert agent_fault(PAIRS[4], "solo", 0, 1, policy) is None


def test_an_agent_config_says_how_often() -> None:
    policy = FaultPolicy.from_config(
        {"injected_faults": {"rate": 0.2, "most": 2, "always": [PAIRS[0]], "eval_kinds": ["disk"]}}
    )
    assert policy == FaultPolicy(0.2, 0.2, 2, 1, frozenset({PAIRS[0]}), {"disk": 1.0})
    assert FaultPolicy.from_config(None) == FaultPolicy()


@pytest.mark.parametrize("content", [{"often": 1}, [0.2], {"rate": 2}, {"rate": "x"}, {"most": -1}, {"always": 3}])
def test_a_config_that_cannot_be_is_refused(content: object) -> None:
    with pytest.raises(PolicyError, match="injected_faults"):
        FaultPolicy.from_config({"injected_faults": content})


def test_the_keys_old_name_is_refused_with_the_new_one() -> None:
    with pytest.raises(PolicyError, match="strikes: the key is injected_faults now; rename it"):
        FaultPolicy.from_config({"strikes": {"rate": 0.2}})


def test_the_runner_fails_in_the_try_that_the_environment_names(bench: Bench) -> None:
    pair = PAIRS[0]
    config = {"injected_faults": {"rate": 0, "eval_rate": 1}}
    listed = eval_environment(PAIRS[:2], mode="solo", messaging=False, seed=0, agent_config=config)
    assert listed[EVAL_VARIABLE].split()[0] == f"{pair}@1=oom"
    task, a, _ = split(pair)
    sandbox = bench.sandbox(task)
    tests, gold = bench.patch(task, a, "tests"), bench.patch(task, a)

    def run(pair: str, attempt: int) -> int:
        variables = {**listed, PAIR_VARIABLE: pair, ATTEMPT_VARIABLE: str(attempt)}
        return sandbox.test(tests, gold, variables).returncode

    assert run(pair, 1) == -9
    assert run(pair, 2) == 0
    assert run("inkline_task/3/f1_f1", 1) == 0
    assert sandbox.test(tests, gold, listed).returncode == 0


def test_a_killed_runner_reads_as_out_of_memory_where_upstream_calls_it(bench: Bench) -> None:
    task, a, _ = split(PAIRS[0])
    sandbox = bench.sandbox(task)
    sandbox.test(bench.patch(task, a, "tests"))
    listed = {EVAL_VARIABLE: f"{PAIRS[0]}@1=oom", PAIR_VARIABLE: PAIRS[0]}
    run = sandbox.exec(
        "bash", "-c", "bash /usr/local/bin/runner.sh tests.patch feature.patch\n exit $?", environment=listed
    )
    assert run.returncode == 137
    failure = classify_output(run.output)
    assert failure is not None
    assert failure.family == "oom"


def test_a_full_disk_is_recognised(bench: Bench) -> None:
    sandbox = bench.sandbox(split(PAIRS[0])[0])
    run = sandbox.test(
        "", environment={EVAL_VARIABLE: f"{PAIRS[0]}@3=disk", PAIR_VARIABLE: PAIRS[0], ATTEMPT_VARIABLE: "3"}
    )
    failure = classify_output(run.output)
    assert run.returncode == 1
    assert failure is not None
    assert failure.family == "disk"


def test_a_cell_without_faults_needs_no_variables() -> None:
    config = {"injected_faults": {"eval_rate": 0}}
    assert eval_environment(PAIRS, mode="coop", messaging=True, seed=0, agent_config=config) == {}


@pytest.mark.parametrize(("setting", "seed"), CELLS)
def test_the_variables_list_what_the_policy_says(setting: Setting, seed: int) -> None:
    mode, messaging = ("solo", False) if setting == "solo" else ("coop", setting == "coop-comm")
    config = {"injected_faults": {"rate": 0.2, "most": 2}}
    listed = eval_environment(PAIRS, mode=mode, messaging=messaging, seed=seed, agent_config=config)
    failed_first = [pair for pair in PAIRS if eval_fault(pair, setting, seed, 1, MANY)]
    assert listed[EVAL_VARIABLE].split() == [f"{pair}@1=oom" for pair in failed_first]
