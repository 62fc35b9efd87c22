"""Two launches and too few slots: the one that waits says for whom, and gets its turn before the other is done."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from cooperbench_assets.execution.api import run_agents
from cooperbench_assets.execution.attempts.records import scan_attempts
from cooperbench_assets.execution.job import CellJob
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.runner.progress import Progress, SlotWait
from cooperbench_assets_tests.execution.cells import PAIRS, cell, nothing_left
from cooperbench_assets_tests.execution.toy import Toy

pytestmark = pytest.mark.slow

FIRST = """
import sys
from pathlib import Path
from cooperbench_assets.execution.api import run_agents
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets_tests.execution.cells import cell
from cooperbench_assets_tests.execution.toy import Toy
job = cell(Toy(Path(sys.argv[1])), Path(sys.argv[2]), run_name="toy-first")
run_agents(job, LaunchOptions(), lambda one: print(one.running, flush=True), what="run the first")
"""


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    file = tmp_path / "hold"
    file.touch()
    return file


@pytest.fixture
def second(core_toy: Toy, tmp_path: Path, hold: Path) -> CellJob:
    """A cell that shares the only slot with another launch's, whose first try waits for a file to go."""
    tries = {pair: [f"hold:{hold}"] for pair in PAIRS}
    job = cell(core_toy, tmp_path, tries=tries, run_name="toy-second", setting="other", seed=1)
    assert job.state is not None
    (job.state / "slots.toml").write_text("agents = 1\nevaluations = 1\n")
    return job


@pytest.fixture
def first(core_toy: Toy, tmp_path: Path, second: CellJob) -> Iterator[subprocess.Popen[str]]:
    """The other launch, in a process of its own; it holds the slot."""
    command = [sys.executable, "-c", FIRST, str(core_toy.dataset), str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        while process.stdout.readline() == "0\n":
            pass
        yield process
    finally:
        process.kill()
        process.communicate()


def starts(job: CellJob, run_name: str) -> list[datetime]:
    """When each try of a run's agents was launched."""
    tries = scan_attempts(job.logs / run_name, job.mode).values()
    return sorted(datetime.fromisoformat(one.started_at) for several in tries for one in several)


def test_a_launch_that_waits_says_for_whom_and_is_served_before_the_other_is_done(
    second: CellJob, first: subprocess.Popen[str], hold: Path
) -> None:
    said: list[Progress] = []

    def listen(progress: Progress) -> None:
        said.append(progress)
        if progress.waiting is not None:
            hold.unlink(missing_ok=True)

    report = run_agents(second, LaunchOptions(), listen)
    assert first.wait(120) == 0
    assert report.done == 6
    waits = [one.waiting for one in said if isinstance(one.waiting, SlotWait) and one.waiting.held_by]
    assert waits
    assert (waits[0].pool, waits[0].size, waits[0].own) == ("agents", 1, 0)
    ((holder, slots),) = waits[0].held_by
    assert (holder.experiment, holder.cell, holder.what, holder.pid, slots) == (
        "toy",
        "solo seed 0",
        "run the first",
        first.pid,
        1,
    )
    assert starts(second, "toy-second")[0] < starts(second, "toy-first")[-1], "it changed hands in between"
    nothing_left(second)
