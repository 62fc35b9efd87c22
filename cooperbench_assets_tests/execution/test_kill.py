"""Kills of everything, at named steps and at random moments: the next run ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest

from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.execution.api import run_agents, run_evaluations
from cooperbench_assets.execution.job import CellJob
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.runner.progress import Progress
from cooperbench_assets.faultpoints import VARIABLE
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.rows import cell_frames
from cooperbench_assets_tests.execution.cells import (
    LASTING,
    PAIRS,
    attempts,
    cell,
    nothing_left,
    outcomes,
    run_both,
    servers,
    tree,
)
from cooperbench_assets_tests.execution.toy import Toy

pytestmark = pytest.mark.slow
ALL = LaunchOptions()
FIRST = PAIRS[0]
DOWN = "error:litellm.ServiceUnavailableError: Error code: 503 - overloaded"
TRIES = {pair: ["gold:0.15"] * 20 for pair in PAIRS} | {FIRST: [DOWN, "gold:0.15"]}

DRIVER = """
import sys
from pathlib import Path
from cooperbench_assets.execution.api import run_agents, run_evaluations
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets_tests.execution.cells import LASTING, cell
from cooperbench_assets_tests.execution.toy import Toy
job = cell(Toy(Path(sys.argv[1])), Path(sys.argv[2]), limits=LASTING)
say = lambda progress: print("running" if progress.running else "…", flush=True)
for work in (run_agents, run_agents, run_evaluations):
    work(job, LaunchOptions(), say)
"""


def make(toy: Toy, folder: Path) -> CellJob:
    """The cell that is killed; its first pair fails once."""
    return cell(toy, folder, tries=TRIES, limits=LASTING)


def start(toy: Toy, folder: Path, stop: str | None = None) -> subprocess.Popen[str]:
    """A process that runs the cell: agents, what was ended by infrastructure again, evaluations."""
    if not (folder / "agent.yaml").exists():
        make(toy, folder)
    environment = {**os.environ} | ({VARIABLE: stop} if stop else {})
    command = [sys.executable, "-c", DRIVER, str(toy.dataset), str(folder)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(job: CellJob) -> None:
    """Run the cell to its end, in this process."""
    for _ in range(2):
        run_both(job)


def wait_until_running(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    while (line := process.stdout.readline()) and line != "running\n":
        pass
    assert line, process.communicate()[1]


def frames(job: CellJob) -> dict[str, pl.DataFrame]:
    """What the store will hold of the cell, without times and numbers of tries."""
    made = cell_frames(Cell("toy", "solo", 0), job.subset, read_run(job.run_dir, "solo"), logs_root=job.logs)
    volatile = ("started_at", "ended_at", "duration_seconds", "evaluated_at", "run_id", "agent_tries", "eval_tries")
    return {name: made[name].drop(volatile, strict=False) for name in ("pairs", "agents", "messages", "quarantine")}


def living(folder: Path) -> list[str]:
    """Processes that work below a folder, or that a child of ours started."""
    found = []
    for process in psutil.process_iter():
        try:
            inside = process.cwd().startswith(str(folder)) or str(folder) in " ".join(process.cmdline())
        except psutil.Error:
            continue
        if inside and process.pid != os.getpid():
            found.append(f"{process.pid}")
    return found


@pytest.fixture(scope="module")
def undisturbed(core_toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> CellJob:
    job = make(core_toy, tmp_path_factory.mktemp("undisturbed"))
    finish(job)
    return job


def assert_as_undisturbed(job: CellJob, undisturbed: CellJob) -> None:
    assert outcomes(job) == outcomes(undisturbed)
    assert tree(job) == tree(undisturbed)
    expected = frames(undisturbed)
    for name, frame in frames(job).items():
        assert frame.equals(expected[name]), name
    nothing_left(job)
    for pair in PAIRS:
        tries = attempts(job, pair)
        assert tries[-1][1] == "completed"
        numbers = [int(name.split("-")[1]) for name, _, _ in tries if name.startswith("agent")]
        assert sorted(numbers) == list(range(1, len(numbers) + 1)), "a try is missing from the record"


@pytest.mark.parametrize(
    "stop",
    [
        "launch:agent-recorded#2",
        "launch:agent-started#2",
        "launch:agent-running#3",
        "promote:journal#2",
        "promote:result.json-out",
        "promote:result.json-in#3",
        "promote:attempt#2",
        "launch:eval-started#2",
        "promote:eval.json-in#2",
    ],
)
def test_a_run_killed_at_a_named_step_is_gone_on_with_and_what_a_write_left_half_done_is_removed(
    core_toy: Toy, tmp_path: Path, undisturbed: CellJob, stop: str
) -> None:
    process = start(core_toy, tmp_path, stop)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == -signal.SIGKILL, error
    job = make(core_toy, tmp_path)
    folder = next((job.run_dir / "attempts").rglob("attempt.json")).parent
    for place in (job.run_dir / ".provenance.json.0123abcd.tmp", folder / ".attempt.json.0123abcd.tmp"):
        place.write_text("{")
    finish(job)
    assert_as_undisturbed(job, undisturbed)
    assert not living(tmp_path)


def test_a_run_killed_at_random_moments_is_gone_on_with(core_toy: Toy, tmp_path: Path, undisturbed: CellJob) -> None:
    chance = random.Random(4)
    for _ in range(3):
        process = start(core_toy, tmp_path)
        wait_until_running(process)
        time.sleep(chance.uniform(0, 0.6))
        process.kill()
        process.communicate()
    job = make(core_toy, tmp_path)
    finish(job)
    assert_as_undisturbed(job, undisturbed)
    assert not living(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_cancelled_ends_its_children_and_records_them(
    core_toy: Toy, tmp_path: Path, undisturbed: CellJob, number: signal.Signals
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    job = cell(core_toy, tmp_path, tries={pair: [f"hold:{hold}"] for pair in PAIRS})
    process = start(core_toy, tmp_path)
    wait_until_running(process)
    _until(lambda: len(_recorded(job, "running")) == 3)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert not living(tmp_path)
    assert len(_recorded(job, "interrupted")) == 3
    nothing_left(job)
    hold.unlink()
    finish(job)
    assert outcomes(job) == outcomes(undisturbed)


def test_a_killed_child_is_recorded_and_the_others_go_on(core_toy: Toy, tmp_path: Path, undisturbed: CellJob) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    job = cell(core_toy, tmp_path, tries={FIRST: [f"hold:{hold}"]})
    killed: list[int] = []

    def kill_one(_progress: Progress) -> None:
        running = [one for one in _recorded(job, "running") if FIRST.folder in one["folder"]]
        if running and not killed:
            killed.append(running[0]["pid"])
            os.kill(running[0]["pid"], signal.SIGKILL)
            hold.unlink()

    report = run_agents(job, ALL, kill_one)
    assert killed
    assert report.failed["interrupted"] == 1
    assert "SIGKILL" in _recorded(job, "infra_error", "interrupted")[0]["evidence"]
    assert report.done == 5
    finish(job)
    assert outcomes(job) == outcomes(undisturbed)
    assert attempts(job, FIRST)[1] == ("agent-2", "completed", None)


def test_a_killed_server_takes_its_children_with_it_and_the_launch_goes_on(
    core_toy: Toy, tmp_path: Path, undisturbed: CellJob
) -> None:
    job = make(core_toy, tmp_path)
    killed: list[int] = []

    def kill_server(_progress: Progress) -> None:
        if _recorded(job, "running") and not killed:
            (server,) = servers()
            killed.append(server.pid)
            server.send_signal(signal.SIGKILL)

    report = run_agents(job, ALL, kill_server)
    assert killed
    assert report.launched == 6
    assert _recorded(job, "interrupted")
    finish(job)
    assert_as_undisturbed(job, undisturbed)
    assert not living(tmp_path)


def test_what_outlives_a_dead_run_and_its_dead_server_is_reaped_by_the_next_run(core_toy: Toy, tmp_path: Path) -> None:
    job = cell(core_toy, tmp_path, tries={FIRST: ["leave"]})
    process = start(core_toy, tmp_path)
    _until(lambda: bool(list(job.run_dir.rglob("sleeper.json"))))
    sleeper = json.loads(next(job.run_dir.rglob("sleeper.json")).read_text())
    for pid in (process.pid, *(server.pid for server in servers(process.pid))):
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    assert psutil.pid_exists(sleeper), "the test is about a process that outlives them"
    report = run_agents(job, ALL)
    assert report.reaped >= 1
    _until(lambda: not psutil.pid_exists(sleeper))
    assert outcomes(job)[FIRST.folder] == "unevaluated"
    nothing_left(job)


def test_a_try_whose_child_had_finished_unseen_is_not_bought_again(core_toy: Toy, tmp_path: Path) -> None:
    process = start(core_toy, tmp_path, "promote:journal#1")
    process.communicate(timeout=120)
    job = make(core_toy, tmp_path)
    finish(job)
    twice = [pair for pair in PAIRS if len([one for one in attempts(job, pair) if one[0].startswith("agent")]) > 1]
    # At most what ran at the moment of the kill, and the pair that fails; not what was being promoted.
    assert len(twice) <= 3
    assert run_evaluations(job, ALL).launched == 0


def _recorded(job: CellJob, outcome: str, family: str | None = None) -> list[dict[str, Any]]:
    """Recorded tries with this outcome."""
    found = []
    for file in (job.run_dir / "attempts").rglob("attempt.json"):
        content = {**json.loads(file.read_text()), "folder": str(file.parent)}
        if (
            content["outcome"] == outcome
            and family in (None, content["family"])
            and (outcome != "running" or content["pid"])
        ):
            found.append(content)
    return found


def _until(what: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)
