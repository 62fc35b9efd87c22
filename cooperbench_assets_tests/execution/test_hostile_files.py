"""A launch reads its cell's own files as the log tree's reader does: no pipe is waited for, no link followed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cooperbench_assets.execution.attempts.pair_state import read_states
from cooperbench_assets.execution.attempts.records import folder_name, scan_attempts, write_attempt
from cooperbench_assets.execution.planning.usage import scan_results
from cooperbench_assets.execution.provenance import PROVENANCE_FILE, answered_model, read_provenance
from cooperbench_assets.execution.runner.further_verdicts import Verdict, read_verdicts
from cooperbench_assets_tests.benchmark.test_hostile_files import link_out_of_the_tree, link_to_a_device, pipe, sparse
from cooperbench_assets_tests.execution.making import attempt, job, pair

ONE, TWO = pair(1), pair(2)
HOSTILE = pytest.mark.parametrize("put", [pipe, link_to_a_device, link_out_of_the_tree, sparse])
Put = Callable[[Path], None]


@HOSTILE
def test_cost_and_time_of_other_results_are_read(tmp_path: Path, put: Put) -> None:
    made = job(tmp_path, (ONE, TWO))
    for one in (ONE, TWO):
        made.pair_dir(one).mkdir(parents=True)
    put(made.pair_dir(ONE) / "result.json")
    (made.pair_dir(TWO) / "result.json").write_text('{"total_cost": 0.5}')
    assert [(one, usage.total_cost) for one, usage in scan_results(made.run_dir, "solo")] == [(TWO, 0.5)]


@HOSTILE
def test_a_try_is_interrupted_and_others_are_as_recorded(tmp_path: Path, put: Put) -> None:
    made = job(tmp_path, (ONE,))
    folder = made.attempts_dir(ONE) / folder_name("agent", 1)
    folder.mkdir(parents=True)
    put(folder / "attempt.json")
    write_attempt(made.attempts_dir(ONE) / folder_name("agent", 2), attempt(2))
    assert [one.outcome for one in scan_attempts(made.run_dir, "solo")[ONE]] == ["interrupted", "infra_error"]
    assert [one.outcome for one in read_states(made)[ONE].attempts] == ["interrupted", "infra_error"]


@HOSTILE
def test_a_further_verdict_is_not_there_and_others_are(tmp_path: Path, put: Put) -> None:
    made = job(tmp_path, (ONE,))
    for number in (2, 3):
        folder = made.attempts_dir(ONE) / f"verdict-{number}"
        record = Verdict(n=1, retry_generation=number, stage="eval", started_at=attempt(1).started_at, verdict="pass")
        write_attempt(folder, record)
    (made.attempts_dir(ONE) / "verdict-2" / "attempt.json").unlink()
    put(made.attempts_dir(ONE) / "verdict-2" / "attempt.json")
    assert list(read_verdicts(made.run_dir, "solo")[ONE]) == [3]


@HOSTILE
def test_provenance_says_nothing_and_neither_does_a_trajectory(tmp_path: Path, put: Put) -> None:
    put(tmp_path / PROVENANCE_FILE)
    put(tmp_path / "agent1_traj.json")
    assert read_provenance(tmp_path) == {}
    assert answered_model(tmp_path / "agent1_traj.json") is None
