"""Reading the records of tries that lie beside the pairs."""

from __future__ import annotations

import os

import pytest

from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets_tests.benchmark.looking import only
from cooperbench_assets_tests.trees import Tree, pairs, put, result

ONE, TWO, THREE = pairs(3)


def test_attempts_are_read_beside_their_pairs_and_never_as_pairs(coop: Tree) -> None:
    coop.pair(ONE)
    coop.attempt(ONE, "agent", 1, outcome="infra_error", family="auth", evidence="401")
    coop.attempt(ONE, "agent", 2)
    coop.attempt(ONE, "eval", 1)
    put(coop.run_dir / "attempts" / "coop" / ONE.name / "agent-1" / "result.json", result(ONE, "coop"))
    reading = read_run(coop.run_dir)
    assert (set(reading.pairs), reading.quarantine) == ({ONE}, [])
    tried = [(one.stage, one.n, one.outcome, one.counted) for one in reading.pairs[ONE].attempts]
    assert tried == [
        ("agent", 1, "infra_error", True),
        ("agent", 2, "completed", False),
        ("eval", 1, "completed", False),
    ]


def test_attempts_of_a_pair_without_a_folder_are_read(solo: Tree) -> None:
    solo.attempt(ONE, "agent", 1, outcome="infra_error", family="container_start")
    reading = read_run(solo.run_dir)
    assert reading.mode == "solo"
    assert (reading.pairs[ONE].result, len(reading.pairs[ONE].attempts)) == (None, 1)


@pytest.mark.parametrize(("alive", "outcome"), [(True, "running"), (False, "interrupted")])
def test_a_try_without_an_end_is_interrupted_once_its_process_is_gone(solo: Tree, alive: bool, outcome: str) -> None:
    solo.attempt(ONE, "agent", 1, outcome="running", ended_at=None, pid=4)
    (tried,) = read_run(solo.run_dir, alive=lambda _: alive).pairs[ONE].attempts
    assert (tried.outcome, tried.counted) == (outcome, not alive)


@pytest.mark.parametrize(
    ("pid", "outcome"),
    [(os.getpid(), "running"), (2**22 + 7, "interrupted"), (None, "interrupted")],
    ids=["of this process", "of none", "not recorded"],
)
def test_whether_a_process_is_there_is_looked_up(solo: Tree, pid: int | None, outcome: str) -> None:
    solo.attempt(ONE, "agent", 1, outcome="running", pid=pid)
    assert read_run(solo.run_dir).pairs[ONE].attempts[0].outcome == outcome


def test_an_unreadable_record_of_a_try_counts_as_interrupted(solo: Tree) -> None:
    solo.attempt(ONE, "agent", 1).write_text('{"n": 1, "outc')
    reading = read_run(solo.run_dir)
    assert (only(reading).kind, only(reading).pair) == ("cut", ONE)
    (tried,) = reading.pairs[ONE].attempts
    assert (tried.outcome, tried.counted, tried.n) == ("interrupted", True, 1)


def test_a_try_that_was_there_before_counts_for_no_limit(solo: Tree) -> None:
    solo.attempt(ONE, "agent", 1, outcome="infra_error", campaign=0)
    assert not read_run(solo.run_dir).pairs[ONE].attempts[0].counted


def test_stray_folders_among_attempts_are_passed_over(solo: Tree) -> None:
    solo.attempt(ONE, "agent", 1)
    base = solo.run_dir / "attempts" / "solo" / ONE.name
    for name in ("notes", "agent-x", "eval-2"):
        (base / name).mkdir()
    put(base.parent / "f9_f1" / "agent-1" / "attempt.json", "{}")
    reading = read_run(solo.run_dir)
    assert len(reading.pairs[ONE].attempts) == 1
