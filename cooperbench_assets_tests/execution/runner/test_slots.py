"""Slots are counted over processes, follow the machine's file, and are free as soon as nobody holds them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.execution.runner.slots import (
    SIZES_FILE,
    Slot,
    SlotPool,
    SlotsError,
    default_sizes,
    read_sizes,
    state_folder,
)

HOLDER = """
import sys, time
from pathlib import Path
from cooperbench_assets.execution.runner.slots import SlotPool
slot = SlotPool("agents", int(sys.argv[2]), Path(sys.argv[1])).acquire()
print("none" if slot is None else slot.number, flush=True)
time.sleep(600)
"""

WORKER = """
import random, sys, time
from pathlib import Path
from cooperbench_assets.execution.runner.slots import SlotPool
state, size, log, seed = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
random.seed(seed)
pool = SlotPool("agents", size, state)
end = time.monotonic() + 2
with log.open("a", buffering=1) as out:
    while time.monotonic() < end:
        slot = pool.acquire()
        if slot is None:
            time.sleep(0.001)
            continue
        began = time.monotonic_ns()
        time.sleep(random.random() / 200)
        out.write(f"{slot.number} {began} {time.monotonic_ns()}\\n")
        slot.close()
"""

ORPHANING = """
import os, subprocess, sys, time
from pathlib import Path
from cooperbench_assets.execution.runner.slots import SlotPool
slot = SlotPool("agents", 1, Path(sys.argv[1])).acquire()
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], pass_fds=[slot.fd])
print(child.pid, flush=True)
time.sleep(600)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def take(pool: SlotPool, cap: int | None = None) -> Slot:
    slot = pool.acquire(cap)
    assert slot is not None
    return slot


def test_a_pool_gives_out_its_size_and_no_more(tmp_path: Path) -> None:
    pool = SlotPool("agents", 3, tmp_path)
    slots = [take(pool) for _ in range(3)]
    assert {slot.number for slot in slots} == {0, 1, 2}
    assert pool.acquire() is None
    slots[1].close()
    assert take(pool).number == slots[1].number


def test_the_pools_are_counted_apart(tmp_path: Path) -> None:
    slots = [take(SlotPool("agents", 1, tmp_path)), take(SlotPool("evaluations", 1, tmp_path))]
    assert [slot.number for slot in slots] == [0, 0]
    assert SlotPool("agents", 1, tmp_path).acquire() is None
    assert SlotPool("evaluations", 2, tmp_path).acquire() is not None


def test_a_cap_counts_the_slots_of_one_user_of_the_pool(tmp_path: Path) -> None:
    mine, other = SlotPool("agents", 4, tmp_path), SlotPool("agents", 4, tmp_path)
    held = [take(mine, cap=2), take(mine, cap=2)]
    assert mine.acquire(cap=2) is None
    assert len([take(other, cap=2), take(other, cap=2)]) == 2
    held[0].close()
    assert mine.held == 1
    take(mine, cap=2)


def test_closing_a_slot_twice_closes_no_file_of_another(tmp_path: Path) -> None:
    pool = SlotPool("agents", 2, tmp_path)
    slot = take(pool)
    slot.close()
    other = take(pool)
    slot.close()
    assert os.fstat(other.fd)
    assert pool.held == 1


@pytest.mark.slow
def test_processes_together_never_hold_more_than_the_size(tmp_path: Path) -> None:
    size = 3
    logs = [tmp_path / f"{n}.log" for n in range(6)]
    workers = [start(WORKER, tmp_path, size, log, n) for n, log in enumerate(logs)]
    for worker in workers:
        assert worker.wait(60) == 0
        end(worker)
    spans = [tuple(map(int, line.split())) for log in logs for line in log.read_text().splitlines()]
    changes = sorted([(began, 1) for _, began, _ in spans] + [(ended, -1) for _, _, ended in spans])
    running, most = 0, 0
    for _, change in changes:
        running += change
        most = max(most, running)
    assert len(spans) > 50
    assert most == size
    assert set(Counter(number for number, _, _ in spans)) == set(range(size))


def test_a_slot_is_free_at_once_when_its_holder_is_killed(tmp_path: Path) -> None:
    holder = start(HOLDER, tmp_path, 1)
    pool = SlotPool("agents", 1, tmp_path)
    try:
        assert first_line(holder) == "0"
        assert pool.acquire() is None
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert pool.acquire() is not None
    finally:
        end(holder)


def test_an_orphan_keeps_its_slot_after_its_parent_died(tmp_path: Path) -> None:
    parent = start(ORPHANING, tmp_path)
    orphan = int(first_line(parent))
    pool = SlotPool("agents", 1, tmp_path)
    try:
        end(parent)
        assert pool.acquire() is None
    finally:
        os.kill(orphan, signal.SIGKILL)
    assert wait_for_slot(pool)


def wait_for_slot(pool: SlotPool) -> bool:
    for _ in range(500):
        if slot := pool.acquire():
            slot.close()
            return True
        time.sleep(0.01)
    return False


def test_a_changed_size_counts_at_once_and_holders_keep_theirs(tmp_path: Path) -> None:
    sizes = tmp_path / SIZES_FILE
    sizes.write_text("agents = 1\nevaluations = 1\n")
    pool = SlotPool("agents", state=tmp_path)
    held = [take(pool)]
    assert pool.acquire() is None
    sizes.write_text("agents = 3\nevaluations = 1\n")
    held += [take(pool), take(pool)]
    assert pool.acquire() is None
    sizes.write_text("agents = 1\nevaluations = 1\n")
    assert pool.size == 1
    next(slot for slot in held if slot.number == 2).close()
    assert pool.acquire() is None
    assert pool.held == 2


def test_the_machine_s_file_is_made_once_with_sizes_that_can_be_edited(tmp_path: Path) -> None:
    made = read_sizes(tmp_path / "new")
    path = tmp_path / "new" / SIZES_FILE
    assert made["agents"] >= 1
    assert made["evaluations"] >= 1
    assert "change it at any time" in path.read_text()
    path.write_text(path.read_text().replace(f"agents = {made['agents']}", "agents = 77"))
    assert read_sizes(tmp_path / "new") == made | {"agents": 77}
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == [SIZES_FILE]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("agents = 4\n", "evaluations is missing"),
        ("agents = 0\nevaluations = 2\n", "agents is 0"),
        ("agents = 2.5\nevaluations = 2\n", "agents is 2.5"),
        ("agents = true\nevaluations = 2\n", "agents is True"),
        ('agents = "4"\nevaluations = 2\n', "agents is '4'"),
        ("agents = 1\nevaluations = 2\nagent = 3\n", "'agent' is no pool"),
        ("agents = \n", "is no TOML"),
    ],
)
def test_a_wrong_file_is_one_error_that_names_it_and_the_value(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / SIZES_FILE).write_text(text)
    with pytest.raises(SlotsError) as caught:
        SlotPool("agents", state=tmp_path).acquire()
    assert str(tmp_path / SIZES_FILE) in str(caught.value)
    assert said in str(caught.value)


def test_a_file_in_another_encoding_is_one_error_too(tmp_path: Path) -> None:
    (tmp_path / SIZES_FILE).write_bytes(b"agents = 4 # caf\xe9\n")
    with pytest.raises(SlotsError, match="cannot be read"):
        read_sizes(tmp_path)


@given(
    cpus=st.none() | st.integers(1, 512),
    memory=st.none() | st.integers(0, 2**42),
)
def test_every_machine_gets_at_least_one_slot_and_no_more_than_its_memory_holds(
    cpus: int | None, memory: int | None
) -> None:
    sizes = default_sizes(cpus, memory)
    assert min(sizes.values()) >= 1
    assert sizes["evaluations"] <= max(cpus or 4, 1)
    if memory is not None:
        assert sizes["agents"] <= max(memory // 2**31, 1)


def test_the_state_folder_is_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COOPERBENCH_ASSETS_STATE", str(tmp_path))
    assert state_folder() == tmp_path
    monkeypatch.delenv("COOPERBENCH_ASSETS_STATE")
    assert state_folder().name == "cooperbench-assets"
