"""Cells from end to end: real children of the real harness, on the toy dataset, in the process sandbox."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.benchmark.pairs import Subset
from cooperbench_assets.execution.api import plan_stage, run_agents, run_evaluations
from cooperbench_assets.execution.attempts.records import scan_attempts
from cooperbench_assets.execution.errors import PricesUnknown, RefusedLaunch
from cooperbench_assets.execution.job import CellJob, Limits
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.runner.progress import Progress
from cooperbench_assets_tests.execution.cells import (
    PAIRS,
    attempt,
    attempts,
    cell,
    nothing_left,
    outcomes,
    run_both,
    tree,
)
from cooperbench_assets_tests.execution.toy import Toy

pytestmark = pytest.mark.slow

EVAL_AND_TOTALS = """
import json, runpy, sys
from cooperbench_assets.execution.worker.harness import only_what_all_need
with only_what_all_need():
    import cooperbench
logs = sys.argv.pop(1)
try:
    runpy.run_module("cooperbench.cli", run_name="__main__")
except SystemExit as end:
    assert not end.code
from cooperbench.utils import get_run_totals
print()
print(json.dumps(get_run_totals(sys.argv[3], "solo", logs)))
"""
"""Upstream's command and its totals in one process: importing upstream's agents takes four seconds of a core."""
ALL = LaunchOptions()
FIRST, SECOND, THIRD = PAIRS[:3]
PASSED = {pair.folder: "pass" for pair in PAIRS} | {"f3_f4": "fail tests"}
DOWN = "error:litellm.ServiceUnavailableError: Error code: 503 - overloaded"
"""Infrastructure that a second try gets over."""


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_cell_is_run_evaluated_and_then_left_alone(core_toy: Toy, tmp_path: Path) -> None:
    job = cell(core_toy, tmp_path)
    said: list[Progress] = []
    agents = run_agents(job, ALL, said.append)
    evaluations = run_evaluations(job, ALL)
    assert (agents.launched, agents.done, evaluations.launched, evaluations.done) == (6, 6, 6, 6)
    assert outcomes(job) == PASSED
    assert (said[-1].done, said[-1].running, said[-1].total) == (6, 0, 6)
    assert said[-1].cost_usd == agents.cost_usd == 3.0
    assert evaluations.isolation in ("bubblewrap", "subprocess")
    assert attempts(job, FIRST) == [("agent-1", "completed", None), ("eval-1", "completed", None)]
    assert attempt(job, FIRST, "agent-1")["cost_usd"] == 0.5
    nothing_left(job)
    before = bytes_below(job.run_dir)
    again = run_both(job)
    assert [report.launched for report in again] == [0, 0]
    assert bytes_below(job.run_dir) == before


def test_upstreams_own_eval_takes_everything_as_done_and_its_totals_are_right(core_toy: Toy, tmp_path: Path) -> None:
    job = cell(core_toy, tmp_path)
    run_both(job)
    before = tree(job)
    command = [sys.executable, "-c", EVAL_AND_TOTALS, str(job.logs), "eval", "-n", job.run_name]
    where = ["--dataset-dir", str(job.dataset), "--log-dir", str(job.logs)]
    said = subprocess.run([*command, *where], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert "skipping 6 already evaluated" in said
    assert "all runs already evaluated" in said
    assert tree(job) == before
    totals = json.loads(said.splitlines()[-1])
    assert (totals["task_count"], totals["total_cost"]) == (6, 3.0)
    summary = json.loads((job.run_dir / "summary.json").read_text())
    evaluated = json.loads((job.run_dir / "eval_summary.json").read_text())
    assert (summary["completed"], summary["failed"], summary["total_cost"]) == (6, 0, 3.0)
    assert (evaluated["passed"], evaluated["failed"], evaluated["errors"], evaluated["total_runs"]) == (5, 1, 0, 6)


def test_what_infrastructure_failed_is_tried_again_and_its_first_try_kept(core_toy: Toy, tmp_path: Path) -> None:
    job = cell(core_toy, tmp_path, tries={FIRST: [DOWN], SECOND: ["nothing"]})
    agents, evaluations = run_both(job)
    assert (agents.done, dict(agents.failed)) == (5, {"provider": 1})
    assert list(evaluations.not_evaluated) == [FIRST.name]
    assert "its agents failed (provider)" in evaluations.not_evaluated[FIRST.name]
    assert outcomes(job)[FIRST.folder] == "infra_error agent/provider"
    assert not (job.pair_dir(FIRST) / "eval.json").exists()
    agents, evaluations = run_both(job)
    assert (agents.launched, evaluations.launched) == (1, 1)
    assert outcomes(job) == PASSED | {SECOND.folder: "fail tests"}
    assert attempts(job, FIRST)[:2] == [("agent-1", "infra_error", "provider"), ("agent-2", "completed", None)]
    kept = json.loads((job.attempts_dir(FIRST) / "agent-1" / "result.json").read_text())
    assert kept["agent"]["status"] == "Error"
    assert "503" in attempt(job, FIRST, "agent-1")["evidence"]
    nothing_left(job)


def test_a_verdict_from_elsewhere_never_stands_beside_a_new_patch(core_toy: Toy, tmp_path: Path) -> None:
    job = cell(core_toy, tmp_path, tries={FIRST: [DOWN]})
    run_agents(job, ALL)
    # Upstream's own eval grades the empty patch of a dead agent.
    verdict = job.pair_dir(FIRST) / "eval.json"
    verdict.write_text(json.dumps({"both_passed": False, "error": None, "evaluated_at": "2000-01-01T00:00:00"}))
    run_agents(job, ALL)
    assert not verdict.exists()
    assert json.loads((job.attempts_dir(FIRST) / "eval-1" / "eval.json").read_text())["both_passed"] is False
    assert attempt(job, FIRST, "eval-1")["campaign"] == 0
    run_evaluations(job, ALL)
    assert outcomes(job)[FIRST.folder] == "pass"


def test_results_from_elsewhere_are_gone_on_with(core_toy: Toy, tmp_path: Path) -> None:
    job = cell(core_toy, tmp_path)
    run_both(job)
    for ours in ("attempts", "provenance.json", "config.json", "summary.json", "eval_summary.json"):
        path = job.run_dir / ours
        subprocess.run(["rm", "-r", str(path)], check=True)
    broken = job.pair_dir(SECOND) / "result.json"
    broken.write_text(broken.read_text()[:200])
    agents, evaluations = run_both(job)
    assert (agents.launched, evaluations.launched) == (1, 1)
    assert outcomes(job) == PASSED
    assert attempts(job, SECOND)[0] == ("agent-1", "interrupted", None)
    assert attempt(job, SECOND, "agent-1")["campaign"] == 0
    assert json.loads((job.run_dir / "provenance.json").read_text())["origin"] == "adopted"


def test_no_pair_is_retried_for_ever_until_the_retry_counters_are_reset(core_toy: Toy, tmp_path: Path) -> None:
    job = cell(core_toy, tmp_path, tries={FIRST: [DOWN] * 4})
    launched = [run_agents(job, ALL).launched for _ in range(5)]
    assert launched == [6, 1, 1, 0, 0]
    plan = plan_stage("agent", job, ALL)
    assert [step.sentence for step in plan.having("blocked")] == [
        "tries exhausted (3 of 3): its agents failed (provider)"
    ]
    again = LaunchOptions(reset_retries=True)
    assert run_agents(job, again).launched == 1
    assert run_agents(job, ALL).launched == 1, "the retry generation goes on"
    assert [name for name, _, _ in attempts(job, FIRST)] == [f"agent-{n}" for n in range(1, 6)]
    assert run_evaluations(job, ALL).done == 6
    assert outcomes(job) == PASSED


def test_a_test_that_hangs_is_retried_once_and_then_a_fail(core_toy: Toy, tmp_path: Path) -> None:
    limits = Limits(test_timeout_seconds=1.5, concurrency=3, eval_concurrency=3)
    job = cell(core_toy, tmp_path, limits=limits, subset=Subset("one", (FIRST,), tmp_path / "one.json"))
    run_agents(job, ALL)
    patch = job.pair_dir(FIRST) / "solo.patch"
    patch.write_text(core_toy.at_import(1, "import time; time.sleep(60)"))
    assert dict(run_evaluations(job, ALL).failed) == {"test_timeout": 1}
    assert outcomes(job) == {FIRST.folder: "infra_error eval/test_timeout"}
    assert run_evaluations(job, ALL).done == 1
    assert outcomes(job) == {FIRST.folder: "fail test_timeout"}
    assert run_evaluations(job, ALL).launched == 0
    assert (job.attempts_dir(FIRST) / "eval-1" / "eval.json").exists()


def test_tests_that_a_patch_gets_killed_each_time_are_a_fail_and_no_try_is_left_to_a_person(
    core_toy: Toy, tmp_path: Path
) -> None:
    job = cell(core_toy, tmp_path, subset=Subset("one", (FIRST,), tmp_path / "one.json"))
    run_agents(job, ALL)
    patch = job.pair_dir(FIRST) / "solo.patch"
    patch.write_text(core_toy.at_import(1, "import os; os.kill(os.getpid(), 9)") + core_toy.gold(2))
    assert dict(run_evaluations(job, ALL).failed) == {"tests_aborted": 1}
    assert outcomes(job) == {FIRST.folder: "infra_error eval/tests_aborted"}
    report = run_evaluations(job, LaunchOptions(automatic=True))
    assert (report.done, report.blocked) == (1, {})
    assert outcomes(job) == {FIRST.folder: "fail tests"}
    assert attempt(job, FIRST, "eval-2")["outcome"] == "completed"


def test_the_budget_stops_launches_marks_the_cell_and_more_money_completes_it(core_toy: Toy, tmp_path: Path) -> None:
    limits = Limits(concurrency=1, cell_max_cost_usd=1.0)
    report = run_agents(cell(core_toy, tmp_path, limits=limits), ALL)
    assert (report.launched, report.left, report.truncated, report.cost_usd) == (2, 4, True, 1.0)
    assert report.stopped == "the cell's budget is reached: 1.00 of 1.00 USD"
    job = cell(core_toy, tmp_path, limits=Limits(concurrency=3))
    assert json.loads((job.run_dir / "provenance.json").read_text())["truncated"] is True
    report = run_agents(job, ALL)
    assert (report.launched, report.truncated) == (4, False)
    assert json.loads((job.run_dir / "provenance.json").read_text())["truncated"] is False


def truncated(job: CellJob) -> tuple[bool, bool]:
    """What the provenance says of the budget: whether the cell is cut short, and whether it says why."""
    record = json.loads((job.run_dir / "provenance.json").read_text())
    return record["truncated"], bool(record["truncated_reason"])


def test_a_cut_cell_stays_marked_until_nothing_is_left_to_buy(core_toy: Toy, tmp_path: Path) -> None:
    run_agents(cell(core_toy, tmp_path, limits=Limits(concurrency=1, cell_max_cost_usd=1.0)), ALL)
    job = cell(core_toy, tmp_path, limits=Limits(concurrency=1, cell_max_cost_usd=100.0))

    def cancel(_progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_agents(job, ALL, cancel)
    assert truncated(job) == (True, True), "a launch that was cancelled bought less than all"
    missing = [name for name, outcome in outcomes(job).items() if outcome == "missing"]
    one = next(pair for pair in PAIRS if pair.folder in missing)
    assert run_agents(job, LaunchOptions(pairs=(one.name,))).truncated
    assert truncated(job) == (True, True), "the others are not bought"
    report = run_agents(job, ALL)
    assert (report.left, report.truncated) == (0, False)
    assert truncated(job) == (False, False)


BUDGETED = """
import sys
from dataclasses import replace
from pathlib import Path
from cooperbench_assets.execution.api import run_agents
from cooperbench_assets.execution.job import Limits
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets_tests.execution.cells import cell
from cooperbench_assets_tests.execution.toy import Toy
folder, seed = Path(sys.argv[2]), int(sys.argv[3])
limits = Limits(concurrency=3, max_cost_usd=3.0)
siblings = tuple(folder / "logs" / f"toy-solo-seed{n}" for n in range(3) if n != seed)
job = cell(Toy(Path(sys.argv[1])), folder, limits=limits, seed=seed, run_name=f"toy-solo-seed{seed}", siblings=siblings)
print(run_agents(job, LaunchOptions()).stopped)
"""


def test_cells_side_by_side_hold_their_experiment_s_budget_together(core_toy: Toy, tmp_path: Path) -> None:
    job = cell(core_toy, tmp_path, tries={pair: ["gold:0.4"] for pair in PAIRS})
    assert job.state is not None
    (job.state / "slots.toml").write_text("agents = 9\nevaluations = 1\n")
    command = [sys.executable, "-c", BUDGETED, str(core_toy.dataset), str(tmp_path)]
    cells = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in range(3)]
    said = [process.communicate(timeout=120)[0].strip() for process in cells]
    assert [process.returncode for process in cells] == [0, 0, 0]
    runs = [tmp_path / "logs" / f"toy-solo-seed{n}" for n in range(3)]
    tries = [one for run in runs for several in scan_attempts(run, "solo").values() for one in several]
    assert sum(one.cost_usd or 0 for one in tries) == 3.0, "six tries of half a dollar, and not one more"
    # A cell that was quick enough to buy all of its six pairs was not stopped.
    assert set(said) - {"None"} == {"the experiment's budget is reached: 3.00 of 3.00 USD"}
    first, *others = sorted(datetime.fromisoformat(one.started_at) for one in tries)
    known = min(datetime.fromisoformat(one.ended_at) for one in tries if one.ended_at)
    assert first < known <= others[0], "one pair runs until the cost of one is known"


def test_the_experiments_budget_holds_over_its_cells(core_toy: Toy, tmp_path: Path) -> None:
    limits = Limits(concurrency=1, max_cost_usd=4.0)
    solo = cell(core_toy, tmp_path, limits=limits)
    again = cell(core_toy, tmp_path, limits=limits, seed=1, run_name="toy-solo-seed1", siblings=(solo.run_dir,))
    assert run_agents(solo, ALL).launched == 6
    report = run_agents(again, ALL)
    assert (report.launched, report.stopped) == (2, "the experiment's budget is reached: 4.00 of 4.00 USD")


def test_a_budget_is_refused_as_soon_as_a_result_names_no_price(core_toy: Toy, tmp_path: Path) -> None:
    limits = Limits(concurrency=1, cell_max_cost_usd=100.0)
    job = cell(core_toy, tmp_path, limits=limits, tries={pair: ["free"] for pair in PAIRS})
    with pytest.raises(PricesUnknown, match="scripted/core"):
        run_agents(job, ALL)
    assert sum(outcome == "unevaluated" for outcome in outcomes(job).values()) == 1, "what was bought is kept"
    with pytest.raises(PricesUnknown):
        run_agents(job, ALL)
    nothing_left(job)


def test_one_refused_key_stops_the_cell(core_toy: Toy, tmp_path: Path) -> None:
    dead = "error:litellm.AuthenticationError: Error code: 401 - invalid key"
    job = cell(core_toy, tmp_path, limits=Limits(concurrency=1), tries={pair: [dead] for pair in PAIRS})
    report = run_agents(job, ALL)
    assert (report.launched, report.left, dict(report.failed)) == (1, 5, {"auth": 1})
    assert report.breaker is not None
    assert report.cost_usd == 0.0
    waits = run_agents(job, LaunchOptions(automatic=True))
    assert waits.launched == 0
    assert {why.partition(":")[0] for why in waits.blocked.values()} == {"waits for a person (auth)"}
    assert run_agents(job, ALL).launched > 0, "a person asks when the key is fixed"


def test_a_silent_endpoint_stops_the_cell_after_a_handful_of_pairs(core_toy: Toy, tmp_path: Path) -> None:
    limits = Limits(concurrency=1, breaker=3)
    report = run_agents(cell(core_toy, tmp_path, limits=limits, tries={pair: [DOWN] for pair in PAIRS}), ALL)
    assert (report.launched, report.left) == (3, 3)
    assert report.breaker is not None
    assert "3 tries in a row" in report.breaker


def test_agents_that_talk_do_so_over_a_redis_of_our_own(core_toy: Toy, tmp_path: Path) -> None:
    job = cell(core_toy, tmp_path, mode="coop", messaging=True, setting="coop-comm", run_name="toy-coop")
    run_both(job)
    assert outcomes(job) == {pair.folder: "pass" for pair in PAIRS} | {"f3_f4": "fail conflict"}
    pairs = read_run(job.run_dir, "coop").pairs
    assert {len(pairs[pair].messages or []) for pair in PAIRS} == {2}
    provenance = json.loads((job.run_dir / "provenance.json").read_text())
    assert (provenance["merge_policy"], provenance["messaging"]) == ("agent1_alone", True)


def test_a_dry_run_says_what_would_be_done_and_touches_nothing(core_toy: Toy, tmp_path: Path) -> None:
    job = cell(core_toy, tmp_path)
    report = run_agents(job, LaunchOptions(dry_run=True, at_most=2))
    assert [step.action for step in report.plan.steps].count("run") == 2
    assert report.launched == 0
    assert not job.run_dir.exists()
    run_agents(job, LaunchOptions(at_most=2))
    plan = run_agents(job, LaunchOptions(dry_run=True)).plan
    assert len(plan.runs) == 4
    assert plan.expected_cost_usd == 2.0


def test_only_the_pairs_that_were_asked_for_are_run(core_toy: Toy, tmp_path: Path) -> None:
    job = cell(core_toy, tmp_path)
    agents, evaluations = run_both(job, pairs=(SECOND.name, THIRD.name))
    assert (agents.launched, evaluations.launched) == (2, 2)
    with pytest.raises(RefusedLaunch, match="add a seed"):
        run_agents(job, LaunchOptions(pairs=(SECOND.name,)))


def test_a_cell_never_holds_results_of_two_models(core_toy: Toy, tmp_path: Path) -> None:
    run_agents(cell(core_toy, tmp_path), LaunchOptions(at_most=1))
    with pytest.raises(RefusedLaunch, match="model was scripted/core"):
        run_agents(cell(core_toy, tmp_path, model_name="scripted/other"), ALL)


def test_verdicts_of_another_revision_of_the_tests_are_refused_until_all_results_are_judged_anew(
    core_toy: Toy, tmp_path: Path
) -> None:
    dataset = tmp_path / "dataset"
    shutil.copytree(core_toy.dataset, dataset, symlinks=True)
    job = cell(core_toy, tmp_path, dataset=dataset)
    run_agents(job, ALL)
    assert run_evaluations(job, LaunchOptions(at_most=2)).done == 2
    (dataset / core_toy.task.relative_to(core_toy.dataset) / "notes.txt").write_text("a newer revision")
    with pytest.raises(RefusedLaunch, match=r"task_files: toy_task/task1 was .* copy toy-solo without its eval\.json"):
        run_evaluations(job, ALL)
    ignored = shutil.ignore_patterns("eval.json")
    shutil.copytree(job.run_dir, job.logs / "toy-solo-again", ignore=ignored)
    again = replace(job, run_name="toy-solo-again")
    agents, evaluations = run_both(again)
    assert (agents.launched, evaluations.done) == (0, 6)
    assert outcomes(again) == PASSED


CELL = """
import sys
from pathlib import Path
from cooperbench_assets.execution.api import run_agents
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets_tests.execution.cells import cell
from cooperbench_assets_tests.execution.toy import Toy
seed = int(sys.argv[3])
job = cell(Toy(Path(sys.argv[1])), Path(sys.argv[2]), seed=seed, run_name=f"toy-solo-seed{seed}")
run_agents(job, LaunchOptions())
"""


def test_two_cells_with_three_slots_never_run_four_children_and_a_slow_pair_idles_nobody(
    core_toy: Toy, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    slow = {pair: ["gold:0.3"] for pair in PAIRS} | {FIRST: [f"hold:{hold}"]}
    jobs = [cell(core_toy, tmp_path, tries=slow, seed=n, run_name=f"toy-solo-seed{n}") for n in (0, 1)]
    assert jobs[0].state is not None
    (jobs[0].state / "slots.toml").write_text("agents = 3\nevaluations = 1\n")
    command = [sys.executable, "-c", CELL, str(core_toy.dataset), str(tmp_path)]
    both = [subprocess.Popen([*command, str(n)]) for n in (0, 1)]
    # The slow pair of each cell ends after all others: these have one slot, whichever cell it was given to first.
    while sum(len(list(job.run_dir.glob("solo/*/*/*/result.json"))) for job in jobs) < 10:
        assert [process.poll() for process in both] == [None, None]
        time.sleep(0.05)
    hold.unlink()
    assert [process.wait(60) for process in both] == [0, 0]
    spans = [span for job in jobs for span in _spans(job)]
    assert len(spans) == 12
    assert max(sum(start <= at < end for start, end in spans) for at, _ in spans) == 3


def _spans(job: CellJob) -> list[tuple[datetime, datetime]]:
    """When the agents of each pair worked."""
    found = []
    for pair in scan_attempts(job.run_dir, "solo"):
        result = json.loads((job.pair_dir(pair) / "result.json").read_text())
        found.append((datetime.fromisoformat(result["started_at"]), datetime.fromisoformat(result["ended_at"])))
    return found
