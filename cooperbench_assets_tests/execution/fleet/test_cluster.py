"""Cells on three nodes of a real Ray cluster: equal results, and nodes that die, stop, differ or come back."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
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
from cooperbench_assets_tests.execution.cells import (
    PAIRS,
    PLENTY,
    attempts,
    cell,
    nothing_left,
    outcomes,
    run_both,
    tree,
)
from cooperbench_assets_tests.execution.fleet import ray_nodes
from cooperbench_assets_tests.execution.fleet.ray_nodes import Nodes
from cooperbench_assets_tests.execution.toy import Toy, make_toy

pytestmark = [pytest.mark.deploy, pytest.mark.slow]

SECONDS = 10.0
"""The shortest lease: a node that is gone is waited for so long, and 15 s more."""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def servers() -> Iterator[HarnessServers]:
    """One driver for all tests that do not end it: three nodes import the harness with each."""
    kept = HarnessServers()
    yield kept
    kept.close()


@pytest.fixture(autouse=True)
def _nothing_runs_on() -> Iterator[None]:
    yield
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


def held(toy: Toy, folder: Path, nodes: Nodes, count: int = 1) -> tuple[CellJob, dict[Pair, Path]]:
    """A cell whose first pairs wait as long as a file of theirs is there."""
    folder.mkdir(parents=True, exist_ok=True)
    gates = {pair: folder / f"gate-{pair.folder}" for pair in PAIRS[:count]}
    for gate in gates.values():
        gate.touch()
    tries = {pair: [f"hold:{gate}"] for pair, gate in gates.items()}
    # All at once: the others end while these are held.
    return on_nodes(toy, folder, nodes, tries=tries, limits=replace(PLENTY, concurrency=len(PAIRS))), gates


def only_these_run(launch: InBackground, pairs: Collection[Pair]) -> None:
    """Wait until these pairs run, and all others have ended."""
    others = [pair for pair in PAIRS if pair not in pairs]

    def holds() -> bool:
        ended = all([one[1] for one in attempts(launch.job, pair)] == ["completed"] for pair in others)
        return ended and launch.running().keys() == {pair.folder for pair in pairs}

    until(holds)


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


def test_two_cells_share_the_slots_of_all_nodes(toy: Toy, tmp_path: Path, nodes: Nodes) -> None:
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


def test_a_dataset_that_differs_is_named_with_the_node_before_the_first_pair(
    toy: Toy, tmp_path: Path, nodes: Nodes
) -> None:
    older = make_toy(tmp_path / "older")
    (older.task / "feature1" / "feature.md").write_text("Another text.\n")
    fleet = Fleet(address=nodes.address, lost_after_seconds=SECONDS, dataset=str(older.dataset))
    job = cell(toy, tmp_path, fleet=fleet)
    with pytest.raises(LaunchError, match=r"node .*: its dataset is .* is wanted: make them the same"):
        run_agents(job, LaunchOptions(), servers=HarnessServers())
    assert attempts(job, PAIRS[0]) == []


def test_a_cancelled_run_ends_its_pairs_on_their_nodes(
    toy: Toy, tmp_path: Path, nodes: Nodes, servers: HarnessServers
) -> None:
    job, gates = held(toy, tmp_path, nodes)
    [first] = gates

    def cancel(_: Any) -> None:
        if len(attempts(job, first)) == 1 and children_of_nodes():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_agents(job, LaunchOptions(), cancel, servers=servers)
    assert attempts(job, first) == [("agent-1", "interrupted", "interrupted")]
    until(lambda: not children_of_nodes(), 30)
    nothing_left(job)
    gates[first].unlink()
    assert [report.failed for report in both(job, servers)] == [{}, {}]


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


def test_pairs_of_a_node_that_died_and_of_one_that_was_stopped_are_lost_and_run_again_elsewhere(
    toy: Toy, tmp_path: Path, nodes: Nodes, servers: HarnessServers
) -> None:
    """The stopped one ends its pair by itself when it goes on. Nobody starts either before the leases are over."""
    job, gates = held(toy, tmp_path, nodes, count=3)  # Of two slots a node: on two nodes or three.
    launch = InBackground(job, HarnessServers())
    only_these_run(launch, gates)
    pids = {pair: launch.running()[pair.folder] for pair in gates}
    holders = {pair: nodes.holder(pid) for pair, pid in pids.items()}
    dead, stopped, *_ = dict.fromkeys(holders.values())
    nodes.kill(dead)
    ray_nodes.tree(stopped, signal.SIGSTOP)
    lost = [pair for pair, holder in holders.items() if holder in (dead, stopped)]
    for pair in gates.keys() - set(lost):
        gates[pair].unlink()
    other = InBackground(on_nodes(toy, tmp_path / "other", nodes, run_name="other"), HarnessServers())
    assert launch.join().failed == {"node_lost": len(lost)}
    # Ray may ask the stopped node for slots first, and the head hears of it that it does not answer.
    assert other.join().failed == {}
    assert [attempts(job, pair) for pair in lost] == [[("agent-1", "infra_error", "node_lost")]] * len(lost)
    ray_nodes.tree(stopped, signal.SIGCONT)
    until(lambda: not any(psutil.pid_exists(pids[pair]) for pair in lost), 20)
    for pair in lost:
        gates[pair].unlink()
    assert [report.failed for report in both(job, servers)] == [{}, {}]
    assert [attempts(job, pair)[1][:2] for pair in lost] == [("agent-2", "completed")] * len(lost)
    nothing_left(job)


def test_a_run_ends_when_the_head_is_gone_and_the_next_one_goes_on(toy: Toy, tmp_path: Path, nodes: Nodes) -> None:
    with ray_nodes.ray_nodes(1) as others:
        job, gates = held(toy, tmp_path, others)
        [first] = gates
        launch = InBackground(job, HarnessServers())
        only_these_run(launch, gates)
        ray_nodes.tree(others.cluster.head_node, signal.SIGKILL)
        for processes in others.cluster.head_node.all_processes.values():
            for one in processes:
                one.process.kill()
        began = time.monotonic()
        with pytest.raises(LaunchError, match="Ray cluster"):
            launch.join()
        assert time.monotonic() - began < 60  # Before Ray ends the driver by itself.
    assert attempts(job, first)[0][1:] == ("interrupted", "interrupted")
    gates[first].unlink()
    kept = HarnessServers()
    assert [report.failed for report in both(on_nodes(toy, tmp_path, nodes), kept)] == [{}, {}]
    kept.close()
    assert attempts(job, first)[1][:2] == ("agent-2", "completed")
