"""Variances of made results, and what designs find."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cooperbench_assets.analysis.frames import scores_of
from cooperbench_assets.analysis.power import Variances, detectable, tasks_needed, variances
from cooperbench_assets_tests.analysis.stores import outcomes, pairs_frame

GIVEN = Variances(0.04, 0.08, 0.3)


def test_the_detectable_difference_by_hand() -> None:
    reach = stats.t.ppf(0.975, 11) + stats.t.ppf(0.8, 11)
    assert detectable(GIVEN, 12, 4, 3) == pytest.approx(reach * ((0.04 + (0.08 + 0.1) / 4) / 12) ** 0.5)


def test_few_tasks_find_nothing() -> None:
    assert detectable(GIVEN, 5, 4, 3) is None
    assert detectable(GIVEN, 6, 4, 3, contrasts=2) is None
    assert detectable(GIVEN, 6, 4, 3) is not None


def test_the_tasks_needed_are_the_fewest_that_find_it() -> None:
    needed = tasks_needed(GIVEN, 0.15, 4, 3, contrasts=2)
    assert needed is not None
    found, before = (detectable(GIVEN, tasks, 4, 3, 2) for tasks in (needed, needed - 1))
    assert found is not None
    assert before is not None
    assert found <= 0.15 < before
    assert tasks_needed(GIVEN, 0.001, 4, 3) is None


def test_variances_are_found_again() -> None:
    """Chances of solo vary between tasks and pairs and coop's are constant: each part within its sampling error."""
    rng = np.random.default_rng(3)
    solo, coop = {}, {}
    for task in range(300):
        lean = rng.choice([0.3, 0.7])
        for pair in range(1, 5):
            chance = lean + rng.choice([-0.2, 0.2])
            drawn = rng.random((2, 4)) > [[chance], [0.5]]
            solo[(task, pair)], coop[(task, pair)] = ("".join("PF"[int(fail)] for fail in row) for row in drawn)
    frames = {"pairs": pairs_frame(*outcomes("solo", solo), *outcomes("coop-comm", coop))}
    found = variances(scores_of(frames), "solo", "coop-comm")
    assert found is not None
    assert found.task == pytest.approx(0.04, abs=0.015)
    assert found.pair == pytest.approx(0.04, abs=0.015)
    assert found.seed == pytest.approx(0.25 + 0.5 - 0.5**2 - 0.04 - 0.04 - 0.0, abs=0.05)
    assert (found.pairs, found.seeds_known) == (4.0, True)


def test_without_a_second_seed_what_seeds_vary_is_not_known() -> None:
    solo = {(task, pair): "PF"[task % 2] for task in range(6) for pair in (1, 2)}
    frames = {"pairs": pairs_frame(*outcomes("solo", solo), *outcomes("coop-comm", dict.fromkeys(solo, "F")))}
    found = variances(scores_of(frames), "solo", "coop-comm")
    assert found is not None
    assert (found.task, found.pair, found.seed, found.pairs) == pytest.approx((0.3, 0.0, 0.0, 2.0))
    assert not found.seeds_known
    one = {"pairs": pairs_frame(*outcomes("solo", {(1, 1): "P"}), *outcomes("coop-comm", {(1, 1): "F"}))}
    assert variances(scores_of(one), "solo", "coop-comm") is None
