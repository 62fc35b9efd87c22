"""Cells on three nodes of a real Ray cluster: equal results, and nodes that die, stop, differ or come back."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.execution.api import run_agents, run_evaluations
from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.job import CellJob, Fleet
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.runner.harness_servers import HarnessServers
from cooperbench_assets.execution.runner.progress import StageReport
from cooperbench_assets_tests.execution.cells import PAIRS, attempts, cell, nothing_left, outcomes, run_both, tree
from cooperbench_assets_tests.execution.fleet import ray_nodes
from cooperbench_assets_tests.execution.fleet.ray_nodes import Nodes
from cooperbench_assets_tests.execution.toy import Toy, make_toy
from cooperbench_assets_tests.services import missing

pytestmark = [pytest.mark.deploy, pytest.mark.slow]

SECONDS = 10.0
"""The shortest lease: a node that is gone is waited for so long, and 15 s more."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    if importlib.util.find_spec("ray") is None:  # Importing it would read its variables before they are set.
        missing("Ray", "it is not installed: make test-deploy installs it")
    with ray_nodes.ray_nodes(3) as found:
        yield found


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def servers() -> Iterator[HarnessServers]:
    """Drivers of one test; at its end no node runs anything of it."""
    kept = HarnessServers()
    yield kept
    kept.close()
    until(lambda: not children_of_nodes(), 30)


def on_nodes(toy: Toy, folder: Path, nodes: Nodes, **changes: Any) -> CellJob:
    return cell(toy, folder, fleet=Fleet(address=nodes.address, lost_after_seconds=SECONDS), **changes)


def until(holds: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def children_of_nodes() -> list[psutil.Process]:
    """Processes of pairs that work in a folder of a node."""
    found = []
    for process in psutil.process_iter(["cwd"]):
        if f"{os.environ['COOPERBENCH_ASSETS_STATE']}/fleet/" in (process.info["cwd"] or ""):
            found.append(process)
    return found


def both(job: CellJob, servers: HarnessServers) -> tuple[StageReport, StageReport]:
    return run_agents(job, LaunchOptions(), servers=servers), run_evaluations(job, LaunchOptions(), servers=servers)


class InBackground:
    """Agents of a cell, in a thread."""

    def __init__(self, job: CellJob, servers: HarnessServers) -> None:
        self.job = job
        self.report: StageReport | None = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(servers,))
        self.thread.start()

    def _run(self, servers: HarnessServers) -> None:
        try:
            self.report = run_agents(self.job, LaunchOptions(), servers=servers)
        except BaseException as error:  # what the test looks at
            self.error = error
        finally:
            servers.close()

    def running(self) -> dict[str, int]:
        """Process of each pair's running try."""
        found = {}
        for file in (self.job.run_dir / "attempts").rglob("agent-*/attempt.json"):
            content = json.loads(file.read_text())
            if content["outcome"] == "running" and content["pid"]:
                found[str(file.parent.parent.name)] = content["pid"]
        return found

    def join(self, seconds: float = 180) -> StageReport:
        self.thread.join(seconds)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error
        assert self.report is not None
        return self.report


def held(toy: Toy, folder: Path, nodes: Nodes) -> tuple[CellJob, Path, Pair]:
    """A cell whose first pair waits as long as a file is there."""
    gate, first = folder / "gate", PAIRS[0]
    folder.mkdir(parents=True, exist_ok=True)
    gate.touch()
    return on_nodes(toy, folder, nodes, tries={first: [f"hold:{gate}"]}), gate, first


@pytest.mark.parametrize("mode", ["solo", "coop"])
def test_a_cell_on_three_nodes_is_that_of_one_machine(
    toy: Toy, tmp_path: Path, nodes: Nodes, servers: HarnessServers, mode: str
) -> None:
    """With messages in coop: each pair's Redis stands on its node."""
    changes: dict[str, Any] = {"mode": mode, "messaging": mode == "coop"}
    here, there = cell(toy, tmp_path / "here", **changes), on_nodes(toy, tmp_path / "there", nodes, **changes)
    run_both(here)
    reports = both(there, servers)
    assert [report.failed for report in reports] == [{}, {}]
    assert tree(there) == tree(here)
    assert outcomes(there) == outcomes(here)
    nothing_left(there)


def test_two_cells_share_the_slots_of_all_nodes(
    toy: Toy, tmp_path: Path, nodes: Nodes, servers: HarnessServers
) -> None:
    tries = {pair: ["gold:1"] for pair in PAIRS}
    jobs = [on_nodes(toy, tmp_path / name, nodes, tries=tries, run_name=name) for name in ("one", "two")]
    for launch in [InBackground(job, HarnessServers()) for job in jobs]:
        assert launch.join().failed == {}
    spans = []
    for job in jobs:
        for file in (job.run_dir / "attempts").rglob("agent-1/attempt.json"):
            content = json.loads(file.read_text())
            spans.append((content["started_at"], content["ended_at"]))
    most = max(sum(began <= moment < ended for began, ended in spans) for moment, _ in spans)
    assert len(spans) == 2 * len(PAIRS)
    assert most <= 3 * ray_nodes.SLOTS["agents"]


def test_a_key_is_in_none_of_rays_files(
    toy: Toy, tmp_path: Path, nodes: Nodes, servers: HarnessServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "canary-5b1c8e2f7a904d36"
    monkeypatch.setenv("SOME_KEY", canary)
    job = on_nodes(toy, tmp_path, nodes, tries={PAIRS[0]: ["tell:SOME_KEY"]}, secrets=("SOME_KEY",))
    run_agents(job, LaunchOptions(), servers=servers)
    [[name, outcome, _]] = attempts(job, PAIRS[0])
    evidence = json.loads((job.attempts_dir(PAIRS[0]) / name / "attempt.json").read_text())["evidence"]
    assert (outcome, f"has {len(canary)} characters" in evidence) == ("infra_error", True)
    servers.close()
    session = Path(nodes.cluster.head_node.get_session_dir_path())
    looked = [file for file in (*session.rglob("*"), *tmp_path.rglob("*")) if file.is_file()]
    assert len(looked) > 20
    assert [file for file in looked if canary.encode() in file.read_bytes()] == []


def test_a_dataset_that_differs_is_named_with_the_node_before_the_first_pair(
    toy: Toy, tmp_path: Path, nodes: Nodes, servers: HarnessServers
) -> None:
    older = make_toy(tmp_path / "older")
    (older.task / "feature1" / "feature.md").write_text("Another text.\n")
    fleet = Fleet(address=nodes.address, lost_after_seconds=SECONDS, dataset=str(older.dataset))
    job = cell(toy, tmp_path, fleet=fleet)
    with pytest.raises(LaunchError, match=r"node .*: its dataset is .* is wanted: make them the same"):
        run_agents(job, LaunchOptions(), servers=servers)
    assert attempts(job, PAIRS[0]) == []


def test_a_cancelled_run_ends_its_pairs_on_their_nodes(
    toy: Toy, tmp_path: Path, nodes: Nodes, servers: HarnessServers
) -> None:
    job, gate, first = held(toy, tmp_path, nodes)

    def cancel(_: Any) -> None:
        if len(attempts(job, first)) == 1 and children_of_nodes():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_agents(job, LaunchOptions(), cancel, servers=servers)
    assert attempts(job, first) == [("agent-1", "interrupted", "interrupted")]
    until(lambda: not children_of_nodes(), 30)
    nothing_left(job)
    gate.unlink()
    assert [report.failed for report in both(job, servers)] == [{}, {}]


def test_what_ran_on_a_node_that_died_is_lost_with_it_and_runs_again_elsewhere(
    toy: Toy, tmp_path: Path, nodes: Nodes, servers: HarnessServers
) -> None:
    job, gate, first = held(toy, tmp_path, nodes)
    launch = InBackground(job, HarnessServers())
    until(lambda: first.folder in launch.running() and len(launch.running()) == 1)
    nodes.kill(nodes.holder(launch.running()[first.folder]))
    report = launch.join()
    assert report.failed == {"node_lost": 1}
    assert attempts(job, first) == [("agent-1", "infra_error", "node_lost")]
    gate.unlink()
    nodes.add()
    assert [report.failed for report in both(job, servers)] == [{}, {}]
    assert attempts(job, first)[1][:2] == ("agent-2", "completed")
    nothing_left(job)


def test_a_node_that_was_stopped_ends_its_pair_by_itself_before_anybody_starts_it_again(
    toy: Toy, tmp_path: Path, nodes: Nodes, servers: HarnessServers
) -> None:
    job, gate, first = held(toy, tmp_path, nodes)
    launch = InBackground(job, HarnessServers())
    until(lambda: first.folder in launch.running() and len(launch.running()) == 1)
    pid = launch.running()[first.folder]
    stopped = nodes.holder(pid)
    ray_nodes.tree(stopped, signal.SIGSTOP)
    assert launch.join().failed == {"node_lost": 1}
    ray_nodes.tree(stopped, signal.SIGCONT)
    until(lambda: not psutil.pid_exists(pid), 20)
    gate.unlink()
    assert [report.failed for report in both(job, servers)] == [{}, {}]
    nodes.kill(stopped)
    nodes.add()


def test_a_run_ends_when_the_head_is_gone_and_the_next_one_goes_on(toy: Toy, tmp_path: Path, nodes: Nodes) -> None:
    """The last test of the cluster: its head does not come back."""
    job, gate, first = held(toy, tmp_path, nodes)
    launch = InBackground(job, HarnessServers())
    until(lambda: first.folder in launch.running() and len(launch.running()) == 1)
    for processes in nodes.cluster.head_node.all_processes.values():
        for one in processes:
            one.process.kill()
    began = time.monotonic()
    with pytest.raises(LaunchError, match="Ray cluster"):
        launch.join()
    assert time.monotonic() - began < 60  # Before Ray ends the driver by itself.
    assert attempts(job, first)[0][1:] == ("interrupted", "interrupted")
    gate.unlink()
    with ray_nodes.ray_nodes(1) as others:
        again = on_nodes(toy, tmp_path, others)
        kept = HarnessServers()
        assert [report.failed for report in both(again, kept)] == [{}, {}]
        kept.close()
    assert attempts(job, first)[1][:2] == ("agent-2", "completed")
