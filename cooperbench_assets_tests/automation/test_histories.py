"""Random histories of a cell that is left alone: whatever happens, limits hold and it comes to rest."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cooperbench_assets.automation.policy import FRUITLESS_RUNS, Launch, Nothing, Wait
from cooperbench_assets.execution.attempts.records import of_stage
from cooperbench_assets.execution.job import CellJob, Limits
from cooperbench_assets_tests.automation.world import World
from cooperbench_assets_tests.execution.making import job, pair

PAIRS = tuple(pair(2 * n + 1) for n in range(6))
ENDS = st.lists(
    st.sampled_from(["ok", "ok", "provider", "rate_limit", "container_start", "quota", "auth", "configuration"]),
    max_size=5,
)
EVAL_ENDS = st.lists(st.sampled_from(["ok", "oom", "container_died", "disk", "test_timeout"]), max_size=4)
STEPS = st.lists(
    st.one_of(
        st.just(("tick", None)),
        st.tuples(st.just("lost"), st.none()),
        st.tuples(st.just("killed"), st.integers(0, 8)),
        st.tuples(st.just("killed early"), st.none()),
        st.tuples(st.just("twice"), st.none()),
        st.tuples(st.just("wipe"), st.none()),
        st.tuples(st.just("later"), st.integers(1, 600)),
    ),
    max_size=25,
)


@pytest.fixture(scope="module")
def toy_job(tmp_path_factory: pytest.TempPathFactory) -> CellJob:
    return job(Path(tmp_path_factory.mktemp("histories")), PAIRS, limits=Limits(breaker=3))


def play(world: World, step: str, number: int | None) -> None:
    """One thing that happens."""
    if step == "wipe":
        world.wipe()
    elif step == "later":
        world.now += timedelta(minutes=number or 1)
    else:
        state = world.state()
        decision = world.tick()
        if not isinstance(decision, Launch) or step == "lost":
            return  # "lost": the daemon died between its decision and handing the run over.
        mark = world.state().fingerprint
        assert mark == state.fingerprint
        world.run(decision, mark, number if step == "killed" else None, before=step == "killed early")
        if step == "twice":
            world.run(decision, mark)


def to_rest(world: World) -> int:
    """Let the sensor tick, undisturbed, until nothing is asked for; how many runs that took."""
    before = world.executed
    for _ in range(200):
        decision = world.tick()
        if isinstance(decision, Launch):
            world.run(decision, world.state().fingerprint)
        elif isinstance(decision, Wait):
            assert decision.until is not None
            assert decision.until > world.now
            world.now = decision.until
        else:
            assert isinstance(decision, Nothing)
            return world.executed - before
    raise AssertionError("it never comes to rest")


@pytest.mark.slow
@settings(max_examples=400)
@given(
    ends=st.lists(st.tuples(ENDS, EVAL_ENDS), min_size=len(PAIRS), max_size=len(PAIRS)),
    steps=STEPS,
    whole=st.booleans(),
)
@example(
    ends=[([], [])] * len(PAIRS),
    steps=[("killed early", None), ("tick", None), ("later", 10)] * FRUITLESS_RUNS,
    whole=True,
)
def test_limits_hold_nothing_is_bought_twice_and_it_always_ends(
    toy_job: CellJob, ends: list[tuple[list[str], list[str]]], steps: list[tuple[str, Any]], whole: bool
) -> None:
    world = World(toy_job, dict(zip(PAIRS, ends, strict=True)), whole=whole)
    for step, number in steps:
        play(world, step, number)
    runs = to_rest(world)
    # Each run brings every pair that it is about one try further, or three in a row stop it.
    tries = sum(len(state.attempts) for state in world.states.values())
    assert runs <= 2 * (tries + 3)
    to_run = world.to_run()
    left = to_run.exhausted.keys() | to_run.waiting.keys()
    left_to_a_person = to_run.waiting or world.state().fruitless >= FRUITLESS_RUNS
    for one, state in world.states.items():
        if whole or state.attempts:
            assert state.settled or one.name in left or left_to_a_person, f"{one.name} was forgotten"
        else:
            assert not state.attempts
        assert len(of_stage(state.attempts, "agent")) <= 4


@pytest.mark.slow
@settings(max_examples=100)
@given(
    ends=st.lists(
        st.tuples(
            st.lists(st.sampled_from(["provider", "rate_limit"]), max_size=2), st.lists(st.just("oom"), max_size=1)
        ),
        min_size=len(PAIRS),
        max_size=len(PAIRS),
    ),
    wipes=st.lists(st.booleans(), max_size=10),
)
def test_pairs_that_fail_less_often_than_the_limit_all_get_their_verdict(
    toy_job: CellJob, ends: list[tuple[list[str], list[str]]], wipes: list[bool]
) -> None:
    world = World(toy_job, dict(zip(PAIRS, ends, strict=True)))
    for wipe in wipes:
        if wipe:
            world.wipe()
        play(world, "tick", None)
        world.now += timedelta(minutes=20)
    to_rest(world)
    assert {state.outcome for state in world.states.values()} == {"pass"}


def test_what_dies_before_it_records_anything_is_asked_for_three_times_and_no_more(toy_job: CellJob) -> None:
    world = World(toy_job, dict.fromkeys(PAIRS, ((), ())))
    for _ in range(10):
        play(world, "killed early", None)
        world.now += timedelta(hours=7)
    assert world.executed == 3
    assert "3 runs of it as it stands failed" in str(world.tick())


@pytest.mark.slow
def test_a_dead_provider_burns_no_weekend(tmp_path: Path) -> None:
    many = tuple(pair(2 * n + 1) for n in range(30))
    world = World(job(tmp_path, many, limits=Limits(breaker=3)), dict.fromkeys(many, (["provider"] * 99, ())))
    begin = world.now
    while world.now - begin < timedelta(hours=48):
        decision = world.tick()
        if isinstance(decision, Launch):
            world.run(decision, world.state().fingerprint)
        world.now += timedelta(minutes=5)
    # Ninety tries would have gone in five hours, had each pair's own tries alone made the pauses grow.
    assert 10 <= world.executed <= 15
    assert sum(len(state.attempts) for state in world.states.values()) == 3 * world.executed
    assert not world.state().not_before
