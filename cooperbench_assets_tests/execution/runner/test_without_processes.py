"""The worker without processes answers as a real harness server does: each promise is asked of both."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cooperbench_assets.execution.runner.harness_client import Child, HarnessError, HarnessServer
from cooperbench_assets.execution.runner.slots import SlotPool
from cooperbench_assets.execution.worker.protocol import ChildRequest
from cooperbench_assets_tests.execution.fake_worker import Worker
from cooperbench_assets_tests.execution.toy import REPO, TASK, make_toy
from cooperbench_assets_tests.execution.worker.harnesses import toy_environment

FEATURES = {"good": (1, 2), "hang": (1, 3), "exit": (2, 3)}
"""Which pair has a child of which kind: one that ends, one that never does, one that leaves no result."""

MODELS = {"good": "gold", "hang": "sleep:600", "exit": "exit"}
"""How the toy's agents are told the same."""


@dataclass
class Served:
    """A harness server, a real one or not, and how to ask it."""

    server: HarnessServer
    folder: Path
    kill_server: Callable[[], None]

    def request(self, kind: str) -> ChildRequest:
        number = len(list(self.folder.glob("staging-*")))
        staging = self.folder / f"staging-{number}"
        staging.mkdir()
        features = FEATURES[kind]
        names = {
            "COOPERBENCH_ASSETS_PAIR": f"{REPO}/{TASK}/f{features[0]}_f{features[1]}",
            "COOPERBENCH_ASSETS_ATTEMPT": "1",
        }
        return ChildRequest(
            key=f"{kind} {number}",
            stage="agent",
            mode="solo",
            repo=REPO,
            task_id=TASK,
            features=features,
            run_name="run",
            staging=str(staging),
            dataset=str(self.folder / "dataset"),
            backend="process",
            agent="toy",
            model_name=MODELS[kind],
            environment=names,
        )

    def launch(self, kind: str) -> Child:
        return self.server.launch(self.request(kind))

    def until_heard(self, children: int) -> list[Child]:
        """The next children whose end is told of, in order."""
        heard: list[Child] = []
        while len(heard) < children:
            heard += self.server.wait(30)
        return heard


def without_processes(folder: Path) -> Served:
    pair = f"{REPO}/{TASK}/f"
    worker = Worker({f"{pair}1_f3": ["hang"], f"{pair}2_f3": ["raise:SystemExit: 3"]})
    return Served(worker, folder, worker.die)


def real(folder: Path) -> Served:
    toy = make_toy(folder)
    server = HarnessServer(environment=toy_environment(toy), log=folder / "server.log")

    def kill() -> None:
        assert server._process is not None
        os.kill(server._process.pid, signal.SIGKILL)

    return Served(server, folder, kill)


@pytest.fixture(scope="module", params=[without_processes, pytest.param(real, marks=pytest.mark.slow)])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made: Served = request.param(tmp_path_factory.mktemp("served"))
    with made.server:
        yield made


@pytest.fixture
def served(shared: Served) -> Iterator[Served]:
    """A server that runs, without children; a test may break it."""
    shared.server.start()
    yield shared
    shared.server.kill(shared.server.children, grace_seconds=0)
    shared.server.wait(0)


def test_a_child_is_told_of_once_when_it_has_ended_with_its_files_in_place(served: Served) -> None:
    child = served.launch("good")
    assert child.pid > 0
    assert child.identity
    assert (child.ended, served.server.children) == (None, [child])
    assert served.until_heard(1) == [child]
    assert child.ended is not None
    assert (child.ended.key, child.ended.pid) == (child.key, child.pid)
    assert (child.ended.exit_code, child.ended.signal, child.ended.error) == (0, None, None)
    assert served.server.wait(0) == []
    assert served.server.children == []
    folder = Path(child.request.staging, "logs", "run", "solo", REPO, str(TASK), "f1_f2")
    assert json.loads((folder / "result.json").read_text())["agent"]["status"] == "Submitted"
    assert (folder / "solo.patch").read_text().startswith("diff --git")


def test_a_child_that_leaves_no_result_says_why(served: Served) -> None:
    child = served.launch("exit")
    served.until_heard(1)
    assert child.ended is not None
    assert child.ended.signal is None
    assert child.ended.exit_code
    assert child.ended.error is not None
    assert "SystemExit" in child.ended.error
    assert not list(Path(child.request.staging).rglob("result.json"))


def test_a_key_that_runs_is_refused(served: Served) -> None:
    request = served.request("hang")
    served.server.launch(request)
    with pytest.raises(ValueError, match="runs already"):
        served.server.launch(request)


def test_children_that_are_killed_end_by_the_signal_and_are_told_of_too(served: Served) -> None:
    children = [served.launch("hang") for _ in range(2)]
    assert served.server.wait(0) == []
    served.server.kill(children, grace_seconds=30)
    assert [child.ended.signal for child in children if child.ended] == [signal.SIGTERM] * 2
    assert [child.ended.error for child in children if child.ended] == [None] * 2
    assert set(served.server.wait(0)) == set(children)
    assert served.server.alive


def test_a_child_holds_its_slot_until_it_has_ended(served: Served, tmp_path: Path) -> None:
    pool = SlotPool("agents", 1, tmp_path / "state")
    slot = pool.acquire()
    assert slot is not None
    child = served.server.launch(served.request("hang"), slot.fd)
    slot.close()
    assert pool.acquire() is None
    child.kill()
    again = pool.acquire()
    assert again is not None
    again.close()


def test_a_server_that_dies_takes_its_children_along_and_can_be_started_anew(served: Served) -> None:
    child = served.launch("hang")
    served.kill_server()
    assert served.until_heard(1) == [child]
    assert child.ended is not None
    assert child.ended.signal == signal.SIGKILL
    assert child.ended.error is not None
    assert child.ended.error.startswith("the harness server is gone: signal 9 ended it")
    assert not served.server.alive
    assert served.server.wait(0) == []
    with pytest.raises(HarnessError, match="the harness server is gone"):
        served.launch("good")
    served.server.start()
    assert served.server.ready().isolation in ("bubblewrap", "subprocess")
    served.launch("good")
    served.until_heard(1)


def test_a_server_that_was_closed_has_no_children_and_starts_for_the_next_launch(served: Served) -> None:
    child = served.launch("hang")
    served.server.close()
    assert child.ended is not None
    assert child.ended.signal == signal.SIGTERM
    assert not served.server.alive
    again = served.launch("good")
    assert served.until_heard(1) == [again]
