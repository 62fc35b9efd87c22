"""What earlier tries tell is read once, and only where something is to be run."""

from __future__ import annotations

import json
from pathlib import Path

from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.execution.api import plan_stage
from cooperbench_assets.execution.attempts.records import write_attempt
from cooperbench_assets.execution.cell_lock import cell_lock
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.planning import usage as history
from cooperbench_assets.execution.planning.usage import ENOUGH_RUNS, read_past
from cooperbench_assets_tests.execution.making import attempt, job, pair


def finish(run: Path, of: Pair, seconds: float = 60.0) -> None:
    """A finished result of a pair's agents."""
    folder = run / "solo" / of.name
    folder.mkdir(parents=True, exist_ok=True)
    about = {"repo": of.repo, "task_id": of.task_id, "features": list(of.features), "setting": "solo"}
    usage = {"total_cost": 0.5, "total_steps": 3, "duration_seconds": seconds}
    agent = {"status": "Submitted", "steps": 3, "cost": 0.5}
    (folder / "result.json").write_text(json.dumps({**about, **usage, "agent": agent}))
    (folder / "solo.patch").write_text("diff --git a/one b/one\n")


def read_ones(runs: list[Path]) -> int:
    """How many of the runs have been read in this process."""
    return sum(run in history._known for run in runs)


def test_a_plan_reads_other_cells_only_where_something_is_to_be_run_and_only_a_few(tmp_path: Path) -> None:
    siblings = [tmp_path / "logs" / f"toy-solo-seed{n}" for n in range(1, 3 * ENOUGH_RUNS)]
    for n, run in enumerate(siblings, 1):
        finish(run, pair(1), seconds=10.0 * n)
    made = job(tmp_path, (pair(1),), siblings=tuple(siblings))
    plan = plan_stage("agent", made, LaunchOptions())
    assert plan.runs[0].expected_seconds == 10.0 * (ENOUGH_RUNS + 1) / 2
    assert read_ones(siblings) == ENOUGH_RUNS
    history._known.clear()
    finish(made.run_dir, pair(1))
    assert plan_stage("agent", made, LaunchOptions()).runs == ()
    assert read_ones(siblings) == 0


def test_a_run_is_read_anew_where_a_launch_touched_it_and_only_there(tmp_path: Path) -> None:
    run = tmp_path / "run"
    finish(run, pair(1))
    past = read_past(run)
    assert read_past(run) is past
    with cell_lock(run, "a launch"):
        tries = run / "attempts/solo" / pair(1).name
        write_attempt(tries / "agent-1", attempt(1, outcome="running", ended_at=None))
        assert read_past(run).busy
        (running,) = read_past(run).attempts["solo", pair(1)]
        assert running.outcome == "running"
        write_attempt(tries / "agent-1", attempt(1, outcome="completed"))
    ended = read_past(run)
    assert not ended.busy
    assert [one.outcome for one in ended.attempts["solo", pair(1)]] == ["completed"]
    assert read_past(run) is ended
