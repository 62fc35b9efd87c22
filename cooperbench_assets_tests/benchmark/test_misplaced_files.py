"""A folder and what lies in it disagree: duplicates, misplaced files, and folders that stand for no pair."""

from __future__ import annotations

import os
from typing import Any

import pytest

from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets_tests.benchmark.looking import only
from cooperbench_assets_tests.trees import Tree, agent, evaluation, pairs, put, result

ONE, TWO, THREE = pairs(3)


def test_a_result_of_another_setting_is_misplaced(coop: Tree) -> None:
    coop.pair(ONE)
    coop.write(TWO, "result.json", result(TWO, "solo"))
    reading = read_run(coop.run_dir)
    assert (only(reading).kind, only(reading).pair) == ("misplaced", TWO)
    assert reading.pairs[TWO].result is None


@pytest.mark.parametrize("change", [{"agents": {}}, {"agents": None, "agent": agent()}, {"agents": None}])
def test_agents_that_do_not_suit_the_setting_are_a_wrong_type(coop: Tree, change: dict[str, Any]) -> None:
    coop.write(ONE, "result.json", result(ONE, "coop") | change)
    assert only(read_run(coop.run_dir)).kind == "wrong_type"


def test_a_copy_of_a_result_in_another_pairs_folder_is_a_duplicate(solo: Tree) -> None:
    solo.pair(ONE)
    solo.pair(TWO)
    solo.write(TWO, "result.json", result(ONE))
    reading = read_run(solo.run_dir)
    assert (only(reading).kind, only(reading).pair) == ("duplicate", TWO)
    assert reading.pairs[ONE].result is not None
    assert reading.pairs[TWO].result is None


@pytest.mark.parametrize("other", ["f01_f40", "f1_f040", "f001_f0040"])
def test_two_folders_of_one_pair_are_one_pair_and_a_duplicate(solo: Tree, other: str) -> None:
    solo.pair(ONE)
    put(solo.folder(ONE).with_name(other) / "result.json", result(ONE, run_id="another"))
    reading = read_run(solo.run_dir)
    assert (only(reading).kind, only(reading).pair, only(reading).path.endswith(other)) == ("duplicate", ONE, True)
    record = reading.pairs[ONE].result
    assert record is not None
    assert record.run_id == "0f0f0f0f"


def test_a_task_with_leading_zeros_is_the_same_task(solo: Tree) -> None:
    solo.pair(ONE)
    put(solo.run_dir / "solo" / "sprout_task" / "007" / ONE.folder / "result.json", result(ONE))
    assert only(read_run(solo.run_dir)).kind == "duplicate"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sprout_task/7/f1_f2_f3", "features"),
        ("sprout_task/7/f5_f5", "features"),
        ("sprout_task/7/f1", "stray"),
        ("sprout_task/7/f9_f2", "misplaced"),
        ("sprout_task/7/f1_f40.bak", "stray"),
        ("sprout_task/latest/f1_f2", "stray"),
        ("sprout_task/-7/f1_f2", "stray"),
    ],
)
def test_a_folder_that_stands_for_no_pair_is_set_aside(solo: Tree, name: str, kind: str) -> None:
    solo.pair(TWO)
    put(solo.run_dir / "solo" / name / "result.json", result(ONE))
    reading = read_run(solo.run_dir)
    assert (only(reading).kind, set(reading.pairs)) == (kind, {TWO})


def test_names_that_are_no_text_can_still_be_told(solo: Tree) -> None:
    solo.pair(ONE)
    for name in (b"sprout_task/7/f1_\xff", b"odd\xff_task/3/f1_f2"):
        (solo.run_dir / "solo" / os.fsdecode(name)).mkdir(parents=True)
    reading = read_run(solo.run_dir)
    assert "\ufffd" in only(reading).path
    assert Pair("odd\ufffd_task", 3, (1, 2)) in reading.pairs


def test_a_folder_that_cannot_be_listed_is_set_aside(solo: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    solo.pair(ONE)
    solo.pair(TWO)
    real = os.listdir

    def listdir(path: str) -> list[str]:
        if str(path).endswith(ONE.name):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    reading = read_run(solo.run_dir)
    assert (only(reading).kind, only(reading).pair) == ("unreadable", ONE)
    assert reading.pairs[TWO].result is not None


def test_a_verdict_beside_no_result_is_kept_and_said(solo: Tree) -> None:
    solo.evaluation(ONE)
    reading = read_run(solo.run_dir)
    assert reading.pairs[ONE].result is None
    assert reading.pairs[ONE].evaluation is not None


def test_an_evaluation_of_another_pair_is_misplaced(coop: Tree) -> None:
    coop.pair(ONE)
    coop.write(ONE, "eval.json", evaluation(TWO, "coop"))
    reading = read_run(coop.run_dir)
    assert (only(reading).kind, only(reading).pair) == ("misplaced", ONE)
    assert reading.pairs[ONE].evaluation is None
