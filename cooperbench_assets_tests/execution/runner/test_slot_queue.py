"""Launches in line for slots: the next one goes to who holds fewest, and nobody who is gone keeps others from it."""

from __future__ import annotations

import fcntl
import itertools
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cooperbench_assets.execution.runner import slot_queue
from cooperbench_assets.execution.runner.slot_queue import Waiter
from cooperbench_assets.execution.runner.slots import Slot, SlotPool, SlotUser
from cooperbench_assets_tests.execution.runner.test_slots import end, start, take

WAITER = """
import sys, time
from pathlib import Path
from cooperbench_assets.execution.runner.slots import SlotPool
pool = SlotPool("agents", int(sys.argv[2]), Path(sys.argv[1]))
print("waits", flush=True)
while (slot := pool.acquire()) is None:
    pool.wait()
    time.sleep(0.005)
print(f"got {slot.number}", flush=True)
time.sleep(600)
"""

WORKER = """
import sys, time
from pathlib import Path
from cooperbench_assets.execution.runner import slot_queue
from cooperbench_assets.execution.runner.slots import SlotPool
slot_queue.FRESH_SECONDS = 600  # However slow this machine is.
state, log, turns = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
pool = SlotPool("agents", 1, state)
while len(list(state.glob("ready-*"))) < 3:
    (state / f"ready-{log.name}").touch()
    pool.wait()
    time.sleep(0.001)
for _ in range(turns):
    pool.wait()
    since = time.monotonic_ns()
    while (slot := pool.acquire()) is None:
        pool.wait()
        time.sleep(0.001)
    with log.open("a") as out:
        print(since, time.monotonic_ns(), file=out)
    slot.close()
pool.leave()
"""


def until(what: Callable[[], bool], seconds: float = 60) -> None:
    end_at = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end_at
        time.sleep(0.005)


def in_line(state: Path) -> list[str]:
    folder = state / "slots" / "agents" / "waiting"
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


def test_a_freed_slot_goes_to_the_launch_in_line_that_holds_fewest(tmp_path: Path) -> None:
    big, small, none = (SlotPool("agents", 3, tmp_path) for _ in range(3))
    held = [take(big), take(big), take(small)]
    for pool in (big, small, none):
        assert pool.acquire() is None
        pool.wait()
    held[0].close()
    assert big.acquire() is None
    assert small.acquire() is None
    assert none.acquire() is not None
    held[1].close()
    assert small.acquire() is None, "the big one holds none now"
    assert big.acquire() is not None


def test_a_launch_that_does_not_stand_in_line_comes_after_those_that_do(tmp_path: Path) -> None:
    greedy, patient = SlotPool("agents", 1, tmp_path), SlotPool("agents", 1, tmp_path)
    slot = take(greedy)
    patient.wait()
    slot.close()
    assert greedy.acquire() is None, "it holds as many as the one that waits, and has waited less"
    assert patient.acquire() is not None


def test_who_leaves_the_line_or_is_at_its_own_limit_keeps_nobody_from_a_slot(tmp_path: Path) -> None:
    first, second = SlotPool("agents", 1, tmp_path), SlotPool("agents", 1, tmp_path)
    first.wait()
    assert second.acquire() is None
    first.leave()
    first.leave()
    assert second.acquire() is not None
    assert in_line(tmp_path) == []


def test_a_slot_s_file_says_who_holds_it_and_what_for(tmp_path: Path) -> None:
    demo, other = SlotUser("demo", "solo seed 0", "run 1", 11), SlotUser("other", "coop seed 2", "run 2", 22)
    mine = SlotPool("agents", 4, tmp_path, demo)
    theirs = SlotPool("agents", 4, tmp_path, other)
    unnamed = SlotPool("agents", 4, tmp_path)
    slots = [take(mine), theirs.acquire(pair="a_task/1/f1_f2"), theirs.acquire(pair="a_task/1/f1_f3")]
    assert mine.others() == ((other, 2),)
    assert theirs.others() == ((demo, 1),)
    slots.append(take(unnamed))
    assert [(user.what, count) for user, count in theirs.others()] == [("another process", 1), ("run 1", 1)]
    files = {file.name: file.read_text() for file in (tmp_path / "slots" / "agents").glob("*.lock")}
    assert sum('"pair":"a_task/1/f1_f3"' in text for text in files.values()) == 1
    for slot in slots:
        assert slot is not None
        slot.close()
    assert theirs.others() == ()


def test_a_waiting_launch_that_is_killed_is_out_of_the_line_at_once(tmp_path: Path) -> None:
    greedy = SlotPool("agents", 1, tmp_path)
    slot = take(greedy)
    waiting = start(WAITER, tmp_path, 1)
    try:
        until(lambda: bool(in_line(tmp_path)))
        waiting.send_signal(signal.SIGSTOP)
        slot.close()
        assert greedy.acquire() is None
        waiting.kill()
        waiting.wait()
        assert greedy.acquire() is not None
        assert in_line(tmp_path) == []
    finally:
        end(waiting)


def test_a_waiting_launch_that_is_stopped_is_passed_over_and_served_when_it_goes_on(tmp_path: Path) -> None:
    greedy = SlotPool("agents", 1, tmp_path)
    slot = take(greedy)
    stopped = start(WAITER, tmp_path, 1)
    try:
        until(lambda: bool(in_line(tmp_path)))
        stopped.send_signal(signal.SIGSTOP)
        slot.close()
        while (got := greedy.acquire()) is None:
            time.sleep(0.005)
        stopped.send_signal(signal.SIGCONT)
        got.close()
        assert stopped.stdout is not None
        assert [stopped.stdout.readline().strip() for _ in range(2)] == ["waits", "got 0"]
    finally:
        end(stopped)


def test_a_launch_that_left_the_line_and_came_back_keeps_its_place_though_another_clears_the_one_it_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    greedy, patient = SlotPool("agents", 1, tmp_path), SlotPool("agents", 1, tmp_path)
    patient.wait()
    real = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        if operation & fcntl.LOCK_SH:  # It has found the file; before it asks who holds it, the other one is quick.
            monkeypatch.setattr(fcntl, "flock", real)
            patient.leave()
            patient.wait()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    slot = take(greedy)
    slot.close()
    assert len(in_line(tmp_path)) == 1
    assert greedy.acquire() is None, "it comes after the one in line"
    assert patient.acquire() is not None


def test_processes_that_want_one_slot_over_and_over_take_turns(tmp_path: Path) -> None:
    turns = 30
    logs = [tmp_path / f"{n}.log" for n in range(3)]
    workers = [start(WORKER, tmp_path, log, turns) for log in logs]
    try:
        for worker in workers:
            assert worker.wait(120) == 0
    finally:
        for worker in workers:
            end(worker)
    lines = [(line.split(), log.name) for log in logs for line in log.read_text().splitlines()]
    waits = sorted(((int(since), int(got), name) for (since, got), name in lines), key=lambda one: one[1])
    assert len(waits) == 3 * turns
    for (_, first, name), (_, second, again) in itertools.pairwise(waits):
        waited = [other for since, got, other in waits if other != name and since < first and got > second]
        assert not (name == again and waited), "nobody is served twice while others wait"
    assert len({name for *_, name in waits[:turns]}) > 1
    assert in_line(tmp_path) == []


@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 100)), min_size=1, max_size=8, unique_by=lambda one: one[1]),
)
def test_of_any_launches_in_line_exactly_one_is_first(line: list[tuple[int, float]]) -> None:
    there = [Waiter(held, since, 0.0) for held, since in line]
    first = [
        held_since
        for held_since in line
        if not any(one.before(*held_since) for one in there if (one.held, one.since) != held_since)
    ]
    assert first == [min(line)]


class Launches(RuleBasedStateMachine):
    """Three launches that come, wait, leave and go in any order, beside a list that says what must come of it."""

    SIZE = 2

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.pools = [SlotPool("agents", self.SIZE, Path(self.folder.name)) for _ in range(3)]
        self.slots: list[list[Slot]] = [[], [], []]
        self.line: list[int] = []

    def teardown(self) -> None:
        for pool in self.pools:
            pool.leave()
        for slot in itertools.chain(*self.slots):
            slot.close()
        self.folder.cleanup()

    def may(self, number: int) -> bool:
        """By the rule: fewest slots, then who has held so few for longest."""
        free = self.SIZE - sum(map(len, self.slots))
        place = [*self.line, number].index(number)
        mine = (len(self.slots[number]), place)
        return free > 0 and not any((len(self.slots[one]), at) < mine for at, one in enumerate(self.line))

    @rule(number=st.integers(0, 2))
    def asks(self, number: int) -> None:
        expected = self.may(number)
        slot = self.pools[number].acquire()
        assert (slot is not None) is expected
        if slot is not None:
            self.slots[number].append(slot)
            self.line = [one for one in self.line if one != number]
        else:
            self.pools[number].wait()
            self.line += [number] if number not in self.line else []

    @rule(number=st.integers(0, 2))
    def wants_no_more(self, number: int) -> None:
        self.pools[number].leave()
        self.line = [one for one in self.line if one != number]

    @precondition(lambda self: any(self.slots))
    @rule(data=st.data())
    def frees(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from([n for n in range(3) if self.slots[n]]))
        self.slots[number].pop().close()
        if number in self.line:
            self.line = [*(one for one in self.line if one != number), number]

    @invariant()
    def nobody_stands_still(self) -> None:
        """A free slot and somebody in line: one of them may take it."""
        if self.line and sum(map(len, self.slots)) < self.SIZE:
            assert any(self.may(number) for number in self.line)


TestLaunches = Launches.TestCase
TestLaunches.settings = settings(max_examples=40, stateful_step_count=30)


def test_a_launch_looks_often_enough_to_be_fresh() -> None:
    from cooperbench_assets.execution.runner import scheduler

    assert 10 * scheduler.SLOT_NAP_SECONDS < slot_queue.FRESH_SECONDS


def test_a_line_in_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert slot_queue.Line(tmp_path / "nowhere").is_first(0)
