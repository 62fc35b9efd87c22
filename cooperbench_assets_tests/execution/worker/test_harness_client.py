"""The parent's side: launching, hearing of ends, killing, and what happens when one of the two dies."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cooperbench_assets.execution.processes import is_alive, kill_recorded
from cooperbench_assets.execution.runner.harness_client import Child, HarnessError, HarnessServer
from cooperbench_assets.execution.runner.slots import SlotPool
from cooperbench_assets_tests.execution.toy import Toy
from cooperbench_assets_tests.execution.worker.harnesses import (
    ROOT,
    Runs,
    eventually,
    server_pid,
    toy_environment,
)

PARENT = """
import json, sys, time
from dataclasses import replace
from pathlib import Path
from cooperbench_assets.execution.runner.harness_client import HarnessServer
from cooperbench_assets.execution.worker.protocol import ChildRequest
request = ChildRequest.from_json(sys.argv[1])
server = HarnessServer(environment=json.loads(sys.argv[2]), log=Path(sys.argv[3]))
server.start()
child = server.launch(request)
print(json.dumps([server._process.pid, child.pid, child.identity]), flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def shared(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HarnessServer]:
    log = tmp_path_factory.mktemp("server") / "server.log"
    with HarnessServer(environment=toy_environment(toy), log=log) as server:
        yield server


@pytest.fixture
def runs(shared: HarnessServer, toy: Toy, tmp_path: Path) -> Iterator[Runs]:
    runs = Runs(shared, toy, tmp_path)
    yield runs
    shared.kill(shared.children, grace_seconds=0)
    shared.listen()


@pytest.fixture
def own(toy: Toy, tmp_path: Path) -> Iterator[Runs]:
    """A server that a test may break."""
    with HarnessServer(environment=toy_environment(toy), log=tmp_path / "server.log") as server:
        yield Runs(server, toy, tmp_path)


def pids_left_by(runs_staging: str) -> list[int]:
    path = Path(runs_staging, "pids.json")
    assert eventually(lambda: path.exists() and path.read_text().endswith("]"))
    pids: list[int] = json.loads(path.read_text())
    return pids


def ignores_sigterm(pid: int) -> bool:
    """Whether a process has come so far that SIGTERM is ignored."""
    (mask,) = (line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigIgn" in line)
    return bool(int(mask, 16) & 1 << signal.SIGTERM - 1)


@pytest.mark.slow
def test_starting_returns_at_once_and_ready_waits(toy: Toy, tmp_path: Path) -> None:
    server = HarnessServer(environment=toy_environment(toy), log=tmp_path / "server.log")
    server.start()
    assert server.alive
    assert server._info is None, "nothing has been waited for"
    assert server.ready(60).version
    pid = server_pid(server)
    assert is_alive(pid)
    server.close()
    assert not is_alive(pid)
    assert not server.alive


def test_several_children_run_at_once_and_each_end_is_heard_once(runs: Runs) -> None:
    children = [runs.server.launch(runs.request("sleep:0.4")) for _ in range(3)]
    assert len({child.pid for child in children}) == 3
    assert [child.poll() for child in children] == [None] * 3
    heard: list[Child] = []
    while len(heard) < 3:
        heard += runs.server.wait(10)
    assert set(heard) == set(children)
    assert [child.ended.exit_code for child in children if child.ended] == [0, 0, 0]
    assert runs.server.wait(0.1) == []
    assert runs.server.children == []


def test_waiting_ends_with_its_time_and_with_the_first_end(runs: Runs) -> None:
    staying, child = (runs.server.launch(runs.request(f"sleep:{seconds}")) for seconds in (600, 1))
    assert runs.server.wait(0.1) == []
    assert runs.server.wait() == [child]
    assert staying.ended is None


def test_the_socket_can_be_waited_on_with_other_things(runs: Runs) -> None:
    child = runs.server.launch(runs.request("sleep:0.2"))
    assert select.select([runs.server], [], [], 10)[0] == [runs.server]
    assert runs.server.listen() == [child]


def test_two_children_with_one_key_are_refused(runs: Runs) -> None:
    request = runs.request("sleep:5")
    runs.server.launch(request)
    with pytest.raises(ValueError, match="runs already"):
        runs.server.launch(request)


def test_a_child_that_heeds_sigterm_ends_by_it(runs: Runs) -> None:
    child = runs.server.launch(runs.request("sleep:600"))
    assert eventually(lambda: Path(child.request.staging, "child.log").exists())
    child.kill(grace_seconds=30)
    assert child.ended is not None
    assert (child.ended.signal, child.ended.error) == (signal.SIGTERM, None)
    assert not is_alive(child.pid)
    child.kill()


def test_a_child_killed_as_soon_as_it_is_launched_ends_too(runs: Runs) -> None:
    """Before it has a group of its own, and before it has taken its signals over from the server."""
    for _ in range(20):
        child = runs.server.launch(runs.request("sleep:600"))
        child.kill(grace_seconds=30)
        assert child.ended is not None
        assert child.ended.signal == signal.SIGTERM
    assert runs.server.alive


def test_children_that_ignore_sigterm_are_killed_together_after_the_grace(runs: Runs) -> None:
    children = [runs.server.launch(runs.request("stubborn")) for _ in range(3)]
    assert eventually(lambda: all(ignores_sigterm(child.pid) for child in children))
    runs.server.kill(children, grace_seconds=0.5)
    assert [child.ended.signal for child in children if child.ended] == [signal.SIGKILL] * 3


def test_an_evaluation_that_is_told_to_end_removes_its_sandbox(runs: Runs, toy: Toy) -> None:
    request = runs.request()
    runs.end(request)
    (runs.pair_folder(request) / "solo.patch").write_text(toy.at_import(1, "while True: pass"))
    from dataclasses import replace

    for isolation in ("auto", "subprocess"):
        child = runs.server.launch(replace(request, stage="eval", sandbox={"isolation": isolation}))
        staging = Path(request.staging)
        assert eventually(lambda: list(staging.glob("sandbox-*/workspace/repo/tests/*")))  # noqa: B023
        child.kill(grace_seconds=30)
        assert not list(staging.glob("sandbox-*"))
        assert not (runs.pair_folder(request) / "eval.json").exists()


@pytest.mark.parametrize("model", ["leave", "leave:hang"])
def test_nothing_that_a_child_started_outlives_it(runs: Runs, model: str) -> None:
    """Not what it left in its group, not what went into a session of its own, not what lost its own parent."""
    child = runs.server.launch(runs.request(model))
    left = pids_left_by(child.request.staging)
    if model == "leave:hang":
        assert all(is_alive(pid) for pid in left)
        child.kill(grace_seconds=1)
    while child.ended is None:
        runs.server.wait(10)
    assert [pid for pid in left if is_alive(pid)] == []


def test_ending_one_child_leaves_the_kin_of_another_alone(runs: Runs) -> None:
    staying = runs.server.launch(runs.request("leave:hang"))
    kin = pids_left_by(staying.request.staging)
    runs.end(runs.request("leave"))
    assert all(is_alive(pid) for pid in kin)
    staying.kill()
    assert not any(is_alive(pid) for pid in kin)


def test_a_child_holds_its_slot_until_it_has_ended(runs: Runs, tmp_path: Path) -> None:
    pool = SlotPool("agents", 1, tmp_path / "state")
    slot = pool.acquire()
    assert slot is not None
    child = runs.server.launch(runs.request("sleep:600"), slot.fd)
    slot.close()
    other = runs.server.launch(runs.request("sleep:600"))
    assert pool.acquire() is None
    child.kill()
    again = pool.acquire()
    assert again is not None
    again.close()
    other.kill()


@pytest.mark.slow
def test_close_ends_every_child(own: Runs) -> None:
    children = [own.server.launch(own.request("leave:hang")) for _ in range(2)]
    left = [pid for child in children for pid in pids_left_by(child.request.staging)]
    pid = server_pid(own.server)
    own.server.close()
    assert not any(is_alive(one) for one in [pid, *left, *(child.pid for child in children)])
    assert all(child.ended is not None and child.ended.signal == signal.SIGTERM for child in children)


@pytest.mark.slow
def test_a_server_that_was_closed_tells_its_next_user_nothing_of_the_last_one_s_children(own: Runs) -> None:
    request = own.request("sleep:600")
    own.server.launch(request)
    own.server.close()
    own.server.start()
    again = own.server.launch(request)
    assert own.server.wait(0) == []
    assert again.ended is None


@pytest.mark.slow
def test_a_dead_server_is_noticed_its_children_are_ended_and_it_starts_anew(own: Runs) -> None:
    child = own.server.launch(own.request("leave:hang"))
    left = pids_left_by(child.request.staging)
    os.kill(server_pid(own.server), signal.SIGKILL)
    assert own.server.wait(10) == [child]
    assert child.ended is not None
    assert (child.ended.exit_code, child.ended.signal) == (None, signal.SIGKILL)
    assert "the harness server is gone: signal 9 ended it" in str(child.ended.error)
    assert eventually(lambda: not any(is_alive(pid) for pid in [child.pid, *left]))
    with pytest.raises(HarnessError, match="signal 9 ended it"):
        own.server.launch(own.request())
    own.server.start()
    assert own.end(own.request()).exit_code == 0


@pytest.mark.slow
def test_a_server_that_is_told_to_end_ends_its_children_first(own: Runs) -> None:
    child = own.server.launch(own.request("sleep:600"))
    os.kill(server_pid(own.server), signal.SIGTERM)
    assert own.server.wait(10) == [child]
    assert eventually(lambda: not is_alive(child.pid))


@pytest.mark.slow
def test_an_interrupt_from_the_terminal_is_the_parent_s_to_handle(own: Runs) -> None:
    child = own.server.launch(own.request("sleep:0.5"))
    assert os.getpgid(server_pid(own.server)) != os.getpgid(0)
    os.kill(server_pid(own.server), signal.SIGINT)
    assert own.server.wait(10) == [child]
    assert child.ended is not None
    assert child.ended.exit_code == 0


@pytest.mark.parametrize("server_too", [False, True])
def test_when_the_parent_is_killed_nothing_is_left(toy: Toy, tmp_path: Path, server_too: bool) -> None:
    """The server ends with its parent and takes its children along; killed itself, the kernel ends them.

    What had gone into sessions of its own is then known by the record of the child.
    """
    runs = Runs(HarnessServer(environment={}, log=tmp_path / "unused"), toy, tmp_path)
    request = runs.request("leave:hang")
    arguments = [request.to_json(), json.dumps(toy_environment(toy)), str(tmp_path / "server.log")]
    with subprocess.Popen([sys.executable, "-c", PARENT, *arguments], stdout=subprocess.PIPE, cwd=ROOT) as parent:
        try:
            assert parent.stdout is not None
            server, child, identity = json.loads(parent.stdout.readline())
            left = pids_left_by(request.staging)
            assert all(is_alive(pid) for pid in [server, child, *left])
            if server_too:
                os.kill(server, signal.SIGKILL)
        finally:
            parent.kill()
    assert eventually(lambda: not is_alive(server) and not is_alive(child))
    if server_too:
        living = [pid for pid in left if is_alive(pid)]
        assert len(living) == 3
        assert kill_recorded(child, identity, grace_seconds=1) == 3
    assert eventually(lambda: not any(is_alive(pid) for pid in left))


def test_a_server_that_was_not_started_says_so(tmp_path: Path) -> None:
    server = HarnessServer(environment={}, log=tmp_path / "server.log")
    with pytest.raises(HarnessError, match="start it first"):
        server.fileno()
    assert server.wait(0) == []
    server.close()
