"""One reader of the tree of attempts: for plans, for tables, and for the page of a single pair."""

from __future__ import annotations

import re
from pathlib import Path

import cooperbench_assets
from cooperbench_assets.benchmark.attempt_tree import scan_attempts
from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets_tests.trees import Tree, pairs

ONE, TWO = pairs(2)
PACKAGE = Path(cooperbench_assets.__file__).parent


def test_planning_and_tables_read_the_same_attempts_in_the_order_of_their_numbers(solo: Tree) -> None:
    for n in (1, 2, 10, 11):
        solo.attempt(ONE, "agent", n)
    solo.attempt(ONE, "eval", 1).write_text("{")
    solo.attempt(TWO, "eval", 3)
    scanned = scan_attempts(solo.run_dir, "solo")
    assert [(one.stage, one.n) for one in scanned[ONE]] == [*(("agent", n) for n in (1, 2, 10, 11)), ("eval", 1)]
    assert scanned == {pair: reading.attempts for pair, reading in read_run(solo.run_dir).pairs.items()}
    assert scanned[ONE] == read_run(solo.run_dir, only=ONE).pairs[ONE].attempts


def test_no_other_module_decodes_the_record_of_an_attempt() -> None:
    names = re.compile(r"\b(ATTEMPT|walk_attempts)\b")
    decoding = {
        file.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("*.py") if names.search(file.read_text())
    }
    assert decoding == {"benchmark/attempts.py", "benchmark/attempt_tree.py", "benchmark/logtree.py"}
