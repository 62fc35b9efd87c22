"""What upstream's evaluation makes of the scripted agents' patches, against what their endings promise."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import pytest

from cooperbench_assets.demo.endings import Setting, coop_ending, solo_ending
from cooperbench_assets_tests.demo.bench import PAIRS, TRAITS, Bench, at_once, split
from cooperbench_assets_tests.demo.test_agents import Runner, run, with_manner

__all__ = ["run"]

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

CELLS = {
    "demo-solo": ("solo", 0, 55, 65),
    "demo-solo-seed1": ("solo", 1, 55, 65),
    "demo-solo-seed2": ("solo", 2, 55, 65),
    "demo-coop-comm": ("coop-comm", 0, 30, 40),
    "demo-coop-nocomm": ("coop-nocomm", 0, 20, 30),
}
"""Of each cell of the demo: how its agents work, seed, and the fewest and most pairs of 100 that may pass."""

Verdict = tuple[bool, bool]
"""Upstream's, and the strict one."""


def promised(pair: str, setting: Setting, seed: int) -> Verdict:
    traits = TRAITS[pair]
    if setting == "solo":
        passes = solo_ending(pair, seed, traits).passes()
        return passes, passes
    ending = coop_ending(pair, setting, seed, traits)
    return ending.passes(traits, strict=False), ending.passes(traits, strict=True)


class Judge:
    """Upstream's evaluation of patches; the same patches of the same pair are judged once."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.merged = cache(self._merged)
        self.solo = cache(self._solo)

    def __call__(self, pair: str, patches: list[str]) -> Verdict:
        return (self.solo if len(patches) == 1 else self.merged)(pair, *patches)

    def result(self, pair: str, *patches: str) -> dict[str, Any]:
        """What upstream would write into eval.json."""
        from cooperbench.eval import sandbox

        task, a, b = split(pair)
        repo, _, task_id = task.partition("/")
        names = ["patch"] if len(patches) == 1 else ["patch1", "patch2"]
        test: Any = sandbox.test_solo if len(patches) == 1 else sandbox.test_merged
        given = dict(zip(names, patches, strict=True))
        result: dict[str, Any] = test(
            repo, int(task_id), a, b, **given, backend="process", dataset_dir=self._bench.dataset
        )
        assert result["error"] is None
        return result

    def _solo(self, pair: str, patch: str) -> Verdict:
        passed = bool(self.result(pair, patch)["both_passed"])
        return passed, passed

    def _merged(self, pair: str, patch1: str, patch2: str) -> Verdict:
        result = self.result(pair, patch1, patch2)
        applied = set(result["apply_status"].values()) == {"applied"}
        clean = result["merge"]["status"] in ("clean", "identical")
        return bool(result["both_passed"]), bool(result["both_passed"] and clean and applied)


def kind(pair: str, name: str) -> tuple[object, ...]:
    """What a verdict depends on: what each agent made of its feature, what they agreed on, and whether it collides."""
    setting, seed, *_ = CELLS[name]
    if setting == "solo":
        return setting, solo_ending(pair, seed, TRAITS[pair]).works
    ending = coop_ending(pair, setting, seed, TRAITS[pair])  # type: ignore[arg-type]
    return setting, ending.works, ending.manner, ending.conflicts(TRAITS[pair])


def chosen() -> dict[tuple[str, str], Verdict]:
    """Every kind of ending of every cell's setting, and every task in every cell: what is promised.

    That each pair's patches pass or conflict as its traits say is tested of the patches themselves (``test_tasks``).
    """
    seen: set[tuple[object, ...]] = set()
    found: list[tuple[str, str]] = []
    for pair, name in itertools.product(PAIRS, CELLS):
        shows = {kind(pair, name), (split(pair)[0], name)}
        if shows - seen:
            seen |= shows
            found.append((pair, name))
    return {(pair, name): promised(pair, *CELLS[name][:2]) for pair, name in found}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CELLS)
def test_the_five_cells_pass_as_often_as_they_should(name: str) -> None:
    setting, seed, fewest, most = CELLS[name]
    verdicts = [promised(pair, setting, seed) for pair in PAIRS]  # type: ignore[arg-type]
    upstream, strict = (sum(verdict[one] for verdict in verdicts) for one in (0, 1))
    assert fewest <= strict <= upstream <= most


@pytest.mark.slow
def test_every_kind_of_ending_is_judged_as_promised(run: Runner, evaluating: object, bench: Bench) -> None:
    judge, expected = Judge(bench), chosen()
    patches = {(pair, name): run(pair, name).patches for pair, name in expected}
    verdicts = at_once(lambda one: judge(one[0], patches[one]), expected)
    assert dict(zip(expected, verdicts, strict=True)) == expected


def test_keeping_out_of_the_way_merges_clean(run: Runner, evaluating: object, bench: Bench) -> None:
    pair = with_manner("aside")
    result = Judge(bench).result(pair, *run(pair, "demo-coop-comm").patches)
    assert (result["merge"]["status"], result["both_passed"]) == ("clean", True)
    apart = Judge(bench).result(pair, *run(pair, "demo-coop-nocomm").patches)
    assert apart["merge"]["status"] == "conflicts"


def test_one_agent_that_does_both_is_rescued_by_upstream(run: Runner, evaluating: object, bench: Bench) -> None:
    pair = with_manner("joint")
    result = Judge(bench).result(pair, *run(pair, "demo-coop-comm").patches)
    assert result["both_passed"]
    assert (result["merge"]["status"], result["merge"]["strategy"]) == ("conflicts", "solo-agent1")


def test_two_agents_that_submit_the_same_patch_are_identical(run: Runner, evaluating: object, bench: Bench) -> None:
    pair = with_manner("same")
    result = Judge(bench).result(pair, *run(pair, "demo-coop-comm").patches)
    assert (result["merge"]["status"], result["both_passed"]) == ("identical", True)
