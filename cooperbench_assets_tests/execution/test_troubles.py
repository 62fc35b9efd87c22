"""Troubles that have nothing to do with the children that run: none of them is ended for it, and none is lost."""

from __future__ import annotations

import itertools
import json
import logging
import resource
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.execution.api import run_agents, run_evaluations, run_second_verdict
from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.job import CellJob
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.runner import scheduler
from cooperbench_assets.execution.runner.progress import Progress, StartWait
from cooperbench_assets.local_runs import Cancelled
from cooperbench_assets_tests.execution.cells import PAIRS, PLENTY, attempts, cell, nothing_left, outcomes, servers
from cooperbench_assets_tests.execution.toy import Toy

pytestmark = pytest.mark.slow
ALL = LaunchOptions()
DONE = [("agent-1", "completed", None)]
PASSED = {pair.folder: "pass" for pair in PAIRS} | {"f3_f4": "fail tests"}


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """A file; agents that are told to hold wait as long as it is there."""
    file = tmp_path / "hold"
    file.touch()
    return file


def held(toy: Toy, folder: Path, hold: Path, *, concurrency: int = 2) -> CellJob:
    """A cell whose first tries all wait for a file to go."""
    limits = replace(PLENTY, concurrency=concurrency)
    return cell(toy, folder, limits=limits, tries={pair: [f"hold:{hold}"] for pair in PAIRS})


def once(when: Callable[[Progress], bool], do: Callable[[], object]) -> Callable[[Progress], None]:
    """A listener that does something the first time that progress is so."""
    done: list[object] = []

    def listen(progress: Progress) -> None:
        if not done and when(progress):
            done.append(do())

    return listen


class Storage:
    """A database of progress that somebody else locks for a while."""

    def __init__(self, file: Path) -> None:
        self.locker = sqlite3.connect(file, isolation_level=None)
        self.locker.execute("CREATE TABLE progress (done INTEGER, running INTEGER)")
        self.locker.execute("BEGIN EXCLUSIVE")
        self.writer = sqlite3.connect(file, timeout=0)
        self.refused = 0

    def store(self, progress: Progress) -> None:
        """Store it, or raise what SQLite raises."""
        try:
            with self.writer:
                self.writer.execute("INSERT INTO progress VALUES (?, ?)", (progress.done, progress.running))
        except sqlite3.OperationalError:
            self.refused += 1
            raise

    def free(self) -> None:
        """Let go of the lock."""
        self.locker.execute("COMMIT")

    def stored(self) -> list[tuple[int, int]]:
        """What was stored in the end."""
        return self.locker.execute("SELECT done, running FROM progress").fetchall()

    def close(self) -> None:
        """Close both connections."""
        self.writer.close()
        self.locker.close()


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    made = Storage(tmp_path / "progress.sqlite")
    yield made
    made.close()


def test_progress_that_cannot_be_stored_ends_no_child_and_is_told_later(
    core_toy: Toy, tmp_path: Path, hold: Path, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    job = held(core_toy, tmp_path, hold)

    def listen(progress: Progress) -> None:
        if storage.refused == 3 and hold.exists():
            hold.unlink()
            storage.free()
        storage.store(progress)

    with caplog.at_level(logging.WARNING):
        report = run_agents(job, ALL, listen)
    assert storage.refused == 3
    assert report.done == 6
    assert all(attempts(job, pair) == DONE for pair in PAIRS)
    assert storage.stored()[-1] == (6, 0)
    assert [record.getMessage() for record in caplog.records if "database is locked" in record.getMessage()]
    nothing_left(job)


@pytest.mark.parametrize("kind", [Cancelled, dg.DagsterExecutionInterruptedError])
def test_a_cancellation_that_comes_with_progress_ends_the_children(
    core_toy: Toy, tmp_path: Path, hold: Path, kind: type[BaseException]
) -> None:
    job = held(core_toy, tmp_path, hold)

    def cancel(progress: Progress) -> None:
        if progress.running == 2:
            raise kind

    with pytest.raises(kind):
        run_agents(job, ALL, cancel)
    tried = [pair for pair in PAIRS if attempts(job, pair)]
    assert [attempts(job, pair) for pair in tried] == [[("agent-1", "interrupted", "interrupted")]] * 2
    nothing_left(job)


def test_sizes_that_are_edited_wrongly_while_children_run_leave_the_last_good_ones(
    core_toy: Toy, tmp_path: Path, hold: Path
) -> None:
    job = held(core_toy, tmp_path, hold)
    assert job.state is not None
    sizes = job.state / "slots.toml"

    def spoil() -> None:
        sizes.write_text("agents = \n")
        hold.unlink()

    report = run_agents(job, ALL, once(lambda progress: progress.running == 2, spoil))
    assert report.done == 6
    (note,) = [note for note in report.notes if str(sizes) in note]
    assert "the last good size, 3" in note


class Refusal:
    """Has the harness server start only so many children at once: each needs a file, and no more may be opened."""

    def __init__(self, children: int) -> None:
        (self._server,) = servers()
        self._before = resource.prlimit(self._server.pid, resource.RLIMIT_NOFILE)
        taken = {int(entry.name) for entry in Path(f"/proc/{self._server.pid}/fd").iterdir()}
        free = (number for number in itertools.count() if number not in taken)
        # One for the slot that comes with a request, two for the pipe to the child, one of which stays.
        limit = next(itertools.islice(free, children + 2, None))
        resource.prlimit(self._server.pid, resource.RLIMIT_NOFILE, (limit, self._before[1]))

    def end(self) -> None:
        """As many as before."""
        resource.prlimit(self._server.pid, resource.RLIMIT_NOFILE, self._before)


def test_a_child_that_cannot_be_started_costs_no_running_one_and_counts_as_no_try(
    core_toy: Toy, tmp_path: Path, hold: Path
) -> None:
    job = held(core_toy, tmp_path, hold, concurrency=3)
    assert run_agents(cell(core_toy, tmp_path / "first"), LaunchOptions(at_most=1)).done == 1
    refusal = Refusal(children=2)

    def listen(progress: Progress) -> None:
        if hold.exists() and progress.waiting is not None:
            assert isinstance(progress.waiting, StartWait)
            assert "Too many open files" in progress.waiting.reason
            assert progress.running == 2, "what runs goes on"
            refusal.end()
            hold.unlink()

    report = run_agents(job, ALL, listen)
    assert not hold.exists(), "the launch said that it waits until a child can be started"
    assert (report.done, dict(report.failed)) == (6, {})
    assert all(attempts(job, pair) == DONE for pair in PAIRS)
    nothing_left(job)


def test_a_further_verdict_that_cannot_be_started_leaves_the_round_as_it_was(core_toy: Toy, tmp_path: Path) -> None:
    job = cell(core_toy, tmp_path)
    run_agents(job, ALL)
    run_evaluations(job, ALL)
    refusal = Refusal(children=0)

    def listen(progress: Progress) -> None:
        if progress.waiting is not None:
            assert not list(job.run_dir.rglob("verdict-2/attempt.json"))
            refusal.end()

    report = run_second_verdict(job, ALL, listen)
    assert (report.done, dict(report.failed)) == (6, {})
    records = [json.loads(file.read_text()) for file in job.run_dir.rglob("verdict-2/attempt.json")]
    assert {one["n"] for one in records} == {1}


def test_the_server_of_a_thread_that_has_ended_is_closed_by_the_next_launch(core_toy: Toy, tmp_path: Path) -> None:
    first, second = cell(core_toy, tmp_path / "first"), cell(core_toy, tmp_path / "second")
    thread = threading.Thread(target=run_agents, args=(first, LaunchOptions(at_most=1)))
    thread.start()
    thread.join()
    left = set(servers())
    run_agents(second, LaunchOptions(at_most=1))
    (mine,) = servers()
    assert left - {mine}, "the thread had a server of its own"


def test_children_that_can_never_be_started_are_one_clear_error(
    core_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "FIRST_PAUSE_SECONDS", 0.01)
    job = cell(core_toy, tmp_path)
    run_agents(job, LaunchOptions(at_most=1))
    Refusal(children=0)
    with pytest.raises(LaunchError, match=r"no child could be started: Too many open files.*run the cell again"):
        run_agents(job, ALL)
    assert sum(bool(attempts(job, pair)) for pair in PAIRS) == 1, "no try is recorded of what was never started"
    assert run_agents(job, ALL).done == 5


def blocked(job: CellJob, pair: Pair, root: Path) -> Path:
    """A file where a pair's folder must go."""
    place = root / pair.repo / str(pair.task_id) / pair.folder
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()
    return place


def in_order(job: CellJob) -> list[Pair]:
    """Pairs in the order of their launches."""
    from cooperbench_assets.execution.api import plan_stage
    from cooperbench_assets.execution.planning.launch_order import launch_order

    return [step.pair for step in launch_order(plan_stage("agent", job, ALL).runs, job.experiment, budgeted=False)]


def test_a_try_that_cannot_be_recorded_stops_launches_and_what_runs_ends_by_itself(
    core_toy: Toy, tmp_path: Path, hold: Path
) -> None:
    job = held(core_toy, tmp_path, hold, concurrency=3)
    third = in_order(job)[2]
    wrong = blocked(job, third, job.run_dir / "attempts" / job.mode)
    with pytest.raises(LaunchError, match=rf"{third.folder}.*goes on where it stopped"):
        run_agents(job, ALL, once(lambda progress: progress.running == 2, hold.unlink))
    assert sorted(map(str, outcomes(job).values())) == ["missing"] * 4 + ["unevaluated"] * 2
    nothing_left(job)
    wrong.unlink()
    assert run_agents(job, ALL).done == 4
    assert all(attempts(job, pair) == DONE for pair in PAIRS)


def test_a_try_that_cannot_be_put_away_ends_no_other_and_is_not_bought_again(
    core_toy: Toy, tmp_path: Path, hold: Path
) -> None:
    job = held(core_toy, tmp_path, hold, concurrency=3)
    first = in_order(job)[0]
    wrong = blocked(job, first, job.run_dir / job.mode)

    def go() -> None:
        hold.unlink()

    with pytest.raises(LaunchError, match=rf"{first.folder}.*goes on where it stopped"):
        run_agents(job, ALL, once(lambda progress: progress.running == 3, go))
    wrong.unlink()
    report = run_agents(job, ALL)
    # Pairs may have been launched after the others had ended and before the first was put away.
    assert 0 < report.launched <= 3
    assert report.repaired == {"completed": 1}
    assert all(attempts(job, pair) == DONE for pair in PAIRS)
    run_evaluations(job, ALL)
    assert outcomes(job) == PASSED
    nothing_left(job)
