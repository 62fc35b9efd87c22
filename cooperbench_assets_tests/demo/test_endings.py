"""The endings of the scripted agents as planned: how many pass, and what that depends on."""

from __future__ import annotations

from collections import Counter

import pytest

from cooperbench_assets.demo.difficulty import Traits
from cooperbench_assets.demo.endings import CoopEnding, Setting, Status, coop_ending, solo_ending
from cooperbench_assets.demo.usage import STEP_LIMIT, usage
from cooperbench_assets_tests.demo.bench import TRAITS

SUBMITTED: tuple[Status, Status] = ("Submitted", "Submitted")
COLLIDING = Traits(0.5, 20, True, False)


def solo(seed: int) -> dict[str, bool]:
    return {pair: solo_ending(pair, seed, traits).passes() for pair, traits in TRAITS.items()}


def coop(setting: Setting, seed: int, *, strict: bool) -> dict[str, bool]:
    return {
        pair: coop_ending(pair, setting, seed, traits).passes(traits, strict=strict) for pair, traits in TRAITS.items()
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_agent_passes_in_more_than_half_of_the_pairs(seed: int) -> None:
    assert 55 <= sum(solo(seed).values()) <= 65


@pytest.mark.parametrize("strict", [True, False])
def test_two_agents_that_talk_pass_in_a_third(strict: bool) -> None:
    assert 30 <= sum(coop("coop-comm", 0, strict=strict).values()) <= 40


@pytest.mark.parametrize("strict", [True, False])
def test_two_agents_that_do_not_talk_pass_in_a_quarter(strict: bool) -> None:
    assert 20 <= sum(coop("coop-nocomm", 0, strict=strict).values()) <= 30


def test_repetitions_mostly_agree_and_sometimes_do_not() -> None:
    passes = Counter(sum(solo(seed)[pair] for seed in range(3)) for pair in TRAITS)
    assert passes[0] + passes[3] >= 70
    assert passes[1] >= 5
    assert passes[2] >= 5


@pytest.mark.parametrize("setting", ["solo", "coop-comm", "coop-nocomm"])
def test_the_harder_half_passes_less_often(setting: Setting) -> None:
    passed = solo(0) if setting == "solo" else coop(setting, 0, strict=True)
    easy = sum(passed[pair] for pair, traits in TRAITS.items() if traits.difficulty < 0.5)
    assert easy > 3 * (sum(passed.values()) - easy)


def test_every_kind_of_ending_occurs() -> None:
    solos = {(one.status, *one.works) for s in range(3) for p, t in TRAITS.items() for one in [solo_ending(p, s, t)]}
    assert {status for status, *_ in solos} == {"Submitted", "LimitsExceeded"}
    works = {tuple(works) for _, *works in solos}
    assert {
        ("right", "right"),
        ("right", "wrong"),
        ("wrong", "right"),
        ("wrong", "wrong"),
        ("right", "missing"),
    } <= works
    talked = [coop_ending(pair, "coop-comm", 0, traits) for pair, traits in TRAITS.items()]
    assert {one.manner for one in talked} == {"apart", "aside", "joint", "same"}
    silent = [coop_ending(pair, "coop-nocomm", 0, traits) for pair, traits in TRAITS.items()]
    assert {one.manner for one in silent} == {"apart"}


def test_difficulty_is_spread_evenly_and_known_for_every_pair() -> None:
    assert len(TRAITS) == 100
    assert sorted(one.difficulty for one in TRAITS.values()) == [round(rank / 99, 4) for rank in range(100)]
    assert sum(one.conflict for one in TRAITS.values()) == 40
    assert all(one.conflict for one in TRAITS.values() if one.stubborn)


def test_patches_that_collide_fail_however_right_they_are() -> None:
    apart = CoopEnding("apart", SUBMITTED, ("right", "right"))
    assert apart.conflicts(COLLIDING)
    assert not apart.passes(COLLIDING, strict=False)
    assert apart.passes(Traits(0.5, 20, False, False), strict=True)


def test_a_patch_that_does_both_passes_for_upstream_and_not_strictly() -> None:
    joint = CoopEnding("joint", SUBMITTED, ("right", "right"))
    assert (joint.passes(COLLIDING, strict=False), joint.passes(COLLIDING, strict=True)) == (True, False)


def test_keeping_out_of_the_way_does_not_always_help() -> None:
    aside = CoopEnding("aside", SUBMITTED, ("right", "right"))
    assert aside.passes(COLLIDING, strict=True)
    assert not aside.passes(Traits(0.5, 20, True, True), strict=False)


def test_usage_is_small_positive_and_grows_with_the_work() -> None:
    easy, hard = (usage(Traits(rank, lines, False, False), 1, "x") for rank, lines in ((0.0, 10), (1.0, 40)))
    assert 0 < easy.cost < hard.cost < 0.05
    assert 0 < easy.steps < hard.steps < STEP_LIMIT
    assert easy.cache_read_tokens < easy.input_tokens
    assert usage(COLLIDING, 0.5, "x", limited=True).steps == STEP_LIMIT
