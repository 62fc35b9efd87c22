from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.execution.attempts.pair_state import read_states
from cooperbench_assets.execution.attempts.records import (
    EVIDENCE_LENGTH,
    next_number,
    owner,
    scan_attempts,
    shorten,
    tries_used,
    write_attempt,
)
from cooperbench_assets_tests.execution.making import attempt, job, pair

ONE = pair(1)


def test_a_record_is_read_as_it_was_written_by_us_and_by_the_reader_of_the_tree(tmp_path: Path) -> None:
    made = job(tmp_path, (ONE,))
    first = attempt(1, evidence="502", cost_usd=0.25, cost_estimated=True, patch_sha256="p", pid=7, identity="x")
    second = attempt(1, "eval", outcome="completed", isolation="bubblewrap")
    for one in (first, second):
        write_attempt(made.attempts_dir(ONE) / f"{one.stage}-{one.n}", one)
    assert scan_attempts(made.run_dir, "solo") == {ONE: [first, second]}
    read = read_run(made.run_dir, "solo").pairs[ONE].attempts
    assert read == [first, second]


def test_a_folder_without_a_readable_record_counts_as_an_interrupted_try_if_it_holds_anything(tmp_path: Path) -> None:
    made = job(tmp_path, (ONE,))
    for name, file in (("agent-1", "attempt.json"), ("agent-2", "child.log"), ("agent-3", ".attempt.json.unfinished")):
        folder = made.attempts_dir(ONE) / name
        folder.mkdir(parents=True)
        (folder / file).write_text('{"n": 1, "camp')
    tries = scan_attempts(made.run_dir, "solo")[ONE]
    assert [(one.n, one.outcome, one.counted) for one in tries] == [
        (1, "interrupted", True),
        (2, "interrupted", True),
    ]
    assert next_number(tries, "agent") == 3
    assert read_run(made.run_dir, "solo").pairs[ONE].attempts == tries
    assert read_states(made)[ONE].attempts == tuple(tries)


@pytest.mark.parametrize("outcome", ["running", "completed", "infra_error", "interrupted"])
@pytest.mark.parametrize("retry_generation", [0, 1, 2])
def test_a_try_counts_alike_for_the_limit_and_in_the_store(tmp_path: Path, outcome: str, retry_generation: int) -> None:
    made = job(tmp_path, (ONE,))
    write_attempt(made.attempts_dir(ONE) / "agent-1", attempt(1, outcome=outcome, retry_generation=retry_generation))
    (planned,) = read_states(made)[ONE].attempts
    (stored,) = read_run(made.run_dir, "solo").pairs[ONE].attempts
    assert planned == stored
    assert planned.counted is (outcome != "completed" and retry_generation > 0)


def test_the_folder_says_which_try_it_is_where_its_record_was_copied(tmp_path: Path) -> None:
    made = job(tmp_path, (ONE,))
    write_attempt(made.attempts_dir(ONE) / "agent-2", attempt(1))
    assert [one.n for one in scan_attempts(made.run_dir, "solo")[ONE]] == [2]


def test_a_folder_that_is_no_try_is_nobodys(tmp_path: Path) -> None:
    made = job(tmp_path, (ONE,))
    for name in ("notes", "verdict-2", "agent-0", "agent-x"):
        write_attempt(made.attempts_dir(ONE) / name, attempt(1))
    assert scan_attempts(made.run_dir, "solo") == {}


def test_eval_tries_belong_to_one_patch_and_tries_to_one_retry_generation() -> None:
    tries = [
        attempt(1, "eval", patch_sha256="old"),
        attempt(2, "eval", patch_sha256="new"),
        attempt(3, "eval", patch_sha256="new", outcome="completed"),
        attempt(4, "eval", patch_sha256="new", retry_generation=2, outcome="interrupted"),
        attempt(1, retry_generation=2),
    ]
    assert tries_used(tries, "eval", 1, "old") == 1
    assert tries_used(tries, "eval", 1, "new") == 1
    assert tries_used(tries, "eval", 2, "new") == 1
    assert tries_used(tries, "agent", 2, "ignored") == 1


def test_the_files_in_the_pairs_folder_belong_to_the_last_try_that_was_promoted() -> None:
    tries = [attempt(1, promoted=True), attempt(2, promoted=True), attempt(3), attempt(1, "eval", promoted=True)]
    found = owner(tries, "agent")
    assert found is not None
    assert found.n == 2
    assert owner([attempt(3)], "agent") is None


def test_a_record_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "agent-1"
    write_attempt(folder, attempt(1, outcome="running"))
    write_attempt(folder, attempt(1, outcome="completed"))
    assert [entry.name for entry in folder.iterdir()] == ["attempt.json"]
    assert msgspec.json.decode((folder / "attempt.json").read_bytes())["outcome"] == "completed"


@pytest.mark.slow
@given(st.text(max_size=3 * EVIDENCE_LENGTH))
def test_evidence_keeps_the_end_and_never_grows_beyond_its_length(text: str) -> None:
    kept = shorten(text)
    assert len(kept) <= EVIDENCE_LENGTH
    assert text.strip().endswith(kept.removeprefix("…"))
