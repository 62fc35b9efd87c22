"""One reader of the tree of attempts: for planning, for the tables, and for pages of a single pair."""

from __future__ import annotations

import os
import re
from pathlib import Path

import cooperbench_assets
from cooperbench_assets.benchmark.attempt_tree import attempts_of, scan_attempts
from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets_tests.trees import Tree, pairs, put, result

ONE, TWO = pairs(2)
PACKAGE = Path(cooperbench_assets.__file__).parent


def test_a_pairs_attempts_say_where_their_files_lie(solo: Tree) -> None:
    solo.pair(ONE)
    lost = solo.attempt(ONE, "agent", 1, outcome="infra_error", family="auth", evidence="401", promoted=True).parent
    put(lost / "result.json", result(ONE, "solo"))
    kept = solo.attempt(ONE, "agent", 2, promoted=True, cost_usd=0.25).parent
    judged = solo.attempt(ONE, "eval", 1, promoted=True).parent
    solo.attempt(TWO, "agent", 1)
    found = attempts_of(solo.run_dir, "solo", ONE)
    assert [(one.attempt.stage, one.attempt.outcome, one.attempt.family, one.attempt.cost_usd) for one in found] == [
        ("agent", "infra_error", "auth", 0.5),
        ("agent", "completed", None, 0.25),
        ("eval", "completed", None, 0.5),
    ]
    assert [one.folder for one in found] == [lost, kept, judged]
    of_record = solo.run_dir / "solo" / ONE.name
    assert [one.files for one in found] == [lost, of_record, of_record]
    assert (found[0].files / "result.json").is_file()
    assert attempts_of(solo.run_dir, "solo", pairs(3)[2]) == []


def test_an_attempt_without_an_end_runs_while_its_process_is_there(solo: Tree) -> None:
    solo.attempt(ONE, "agent", 1, outcome="running", ended_at=None, pid=2**22 + 7)
    solo.attempt(ONE, "agent", 2, outcome="running", ended_at=None, pid=os.getpid())
    assert [one.attempt.outcome for one in attempts_of(solo.run_dir, "solo", ONE)] == ["interrupted", "running"]


def test_planning_and_tables_read_the_same_attempts_in_the_order_of_their_numbers(solo: Tree) -> None:
    for n in (1, 2, 10, 11):
        solo.attempt(ONE, "agent", n)
    solo.attempt(ONE, "eval", 1).write_text("{")
    solo.attempt(TWO, "eval", 3)
    scanned = scan_attempts(solo.run_dir, "solo")
    assert [(one.stage, one.n) for one in scanned[ONE]] == [*(("agent", n) for n in (1, 2, 10, 11)), ("eval", 1)]
    assert scanned == {pair: reading.attempts for pair, reading in read_run(solo.run_dir).pairs.items()}
    assert scanned[ONE] == [one.attempt for one in attempts_of(solo.run_dir, "solo", ONE)]


def test_no_other_module_decodes_the_record_of_an_attempt() -> None:
    names = re.compile(r"\b(ATTEMPT|walk_attempts)\b")
    decoding = {
        file.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("*.py") if names.search(file.read_text())
    }
    assert decoding == {"benchmark/attempts.py", "benchmark/attempt_tree.py", "benchmark/logtree.py"}
