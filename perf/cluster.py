"""Pairs of a trivial agent on this machine, and on 1, 2 and 3 nodes of a Ray cluster on it.

What is measured is what a pair costs beside its agents: all nodes share this machine's processors.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NoReturn

import psutil

from cooperbench_assets.benchmark.pairs import Pair, Subset
from cooperbench_assets.demo import build_dataset
from cooperbench_assets.execution.api import run_agents
from cooperbench_assets.execution.job import CellJob, Fleet, Limits
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.runner.harness_servers import HarnessServers
from cooperbench_assets.execution.runner.progress import Progress
from cooperbench_assets_tests.execution.cells import cell, servers
from cooperbench_assets_tests.execution.fleet.demo_cells import CELLS, SETTINGS, different, two_places
from cooperbench_assets_tests.execution.fleet.demo_cells import run as run_cells
from cooperbench_assets_tests.execution.fleet.ray_nodes import Nodes, ray_nodes, raylet
from cooperbench_assets_tests.execution.toy import REPO, TASK, make_toy
from perf import machine
from perf.results import Section, Target

PAIRS, NODES, SLOTS = 1000, (1, 2, 3), 4
LEASE_SECONDS: Final = 60
ALL_SECONDS: Final = 2400
"""The measurement gives up after so long, whatever it waits for."""

IDLE_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Used:
    """CPU seconds and resident memory (MiB) of processes."""

    cpu: float = 0.0
    mib: float = 0.0

    def since(self, before: Used) -> Used:
        """The CPU time since then; the memory as it is."""
        return Used(self.cpu - before.cpu, self.mib)


@dataclass(frozen=True)
class Took:
    """What a launch of all pairs took."""

    where: str
    slots: int
    pairs: int
    seconds: float
    orchestrator: Used
    """The launching process, and its driver on a cluster."""

    head: Used
    workers: Used
    """What runs the pairs: the harness server and its children, and Ray's processes on the nodes."""

    heartbeats: float = 0.0
    """CPU seconds of a driver in a second with nothing to do."""


def many(place: Path, count: int) -> CellJob:
    """A cell of so many pairs of one task, whose features are copies of one."""
    toy = make_toy(place / "toy")
    features = range(1, 3 + int((2 * count) ** 0.5))
    for number in features[4:]:
        shutil.copytree(toy.task / "feature1", toy.task / f"feature{number}")
    pairs = tuple(Pair(REPO, TASK, (one, two)) for one in features for two in features if one < two)[:count]
    subset = Subset("many", pairs, toy.dataset / "subsets" / "many.json")
    job = cell(toy, place / "cell", subset=subset, limits=Limits(concurrency=100))
    assert job.state is not None
    assert len(pairs) == count
    (job.state / "slots.toml").write_text(f"agents = {SLOTS}\nevaluations = {SLOTS}\n")
    return job


def run(job: CellJob, where: str, nodes: Nodes | None = None) -> Took:
    """Launch all pairs with a harness that is ready."""
    kept = HarnessServers()
    last = Progress("agent", 0, 0, 0, {}, 0.0, 0.0, None)

    def note(progress: Progress) -> None:
        nonlocal last
        last = progress

    try:
        kept.server(job).ready()
        idle = _heartbeats() if nodes else 0.0
        before = _used(nodes)
        run_agents(job, LaunchOptions(), note, servers=kept)
        orchestrator, head, workers = (now.since(then) for now, then in zip(_used(nodes), before, strict=True))
    finally:
        kept.close()
    if last.failed or not last.done:
        raise RuntimeError(f"{where}: {last}")
    slots = SLOTS * (len(nodes.nodes) if nodes else 1)
    return Took(where, slots, last.done, last.seconds, orchestrator, head, workers, idle)


def _heartbeats() -> float:
    driver = [_server()]
    before = _of(driver)
    time.sleep(IDLE_SECONDS)
    return _of(driver).since(before).cpu / IDLE_SECONDS


def _used(nodes: Nodes | None) -> tuple[Used, Used, Used]:
    """What the orchestrator, the head and the workers have used so far."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    mib = psutil.Process().memory_info().rss / 2**20
    if nodes is None:
        return Used(own.ru_utime + own.ru_stime, mib), Used(), _of(_tree(_server()), kin=True)
    driver = _of([_server()])
    head = [one.process.pid for kind in nodes.cluster.head_node.all_processes.values() for one in kind]
    working = [pid for node in nodes.nodes for pid in _tree(raylet(node))]
    return Used(own.ru_utime + own.ru_stime + driver.cpu, mib + driver.mib), _of(head), _of(working, kin=True)


def _server() -> int:
    """The harness server, or the driver in its place."""
    [server] = servers()
    return server.pid


def _tree(pid: int) -> list[int]:
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def _of(pids: Iterable[int], *, kin: bool = False) -> Used:
    """Of these processes; with `kin`, the time of their children that have ended too."""
    cpu = mib = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            times = process.cpu_times()
            cpu += times.user + times.system + (times.children_user + times.children_system if kin else 0.0)
            mib += process.memory_info().rss / 2**20
    return Used(cpu, mib)


def measure(place: Path, quick: bool) -> Section:
    """Run the same pairs here and on clusters."""

    def give_up(*_: object) -> NoReturn:
        raise TimeoutError(f"more than {ALL_SECONDS} s")

    busy = machine.load() > len(os.sched_getaffinity(0)) + 1
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(ALL_SECONDS)
    os.environ["COOPERBENCH_ASSETS_STATE"] = str(place / "state")
    job = many(place, 20 if quick else PAIRS)
    found = [run(replace(job, run_name="here"), "this machine, without Ray")]
    with ray_nodes(0) as nodes:
        fleet = Fleet(address=nodes.address, lost_after_seconds=LEASE_SECONDS)
        for count in NODES:
            nodes.add(slots=SLOTS)
            name = f"{count} {'node' if count == 1 else 'nodes'}"
            found.append(run(replace(job, fleet=fleet, run_name=f"nodes-{count}"), name, nodes))
        demo = demo_cells(place, nodes, "tiny" if quick else "lite")
    signal.alarm(0)
    return _section(found, demo, busy)


def demo_cells(place: Path, nodes: Nodes, subset: str) -> Target:
    """The demo's five cells on all nodes and on this machine: are their rows equal?"""
    said: dict[str, Any] = {"execution": "process", "settings": SETTINGS, "subset": subset}
    here, there = two_places(place / "demo", nodes, build_dataset(place / "dataset"), LEASE_SECONDS, **said)
    for one in (there, here):
        run_cells(one, CELLS)
    found = different(there, here, CELLS)
    value = f"{len(CELLS) * len(here.subset.pairs)} pairs, {f'different: {found}' if found else 'equal'}"
    return Target(text="the demo's cells have the rows of one machine", value=value, met=not found)


BUSY: Final = (
    " The machine was busy with other work, as the load shows: pairs a minute are few for that reason, and do "
    "not compare one row with another; CPU time a pair does."
)


def _section(found: Sequence[Took], demo: Target, busy: bool) -> Section:
    header = ["where", "slots", "pairs", "pairs a minute"]
    header += [f"{who}, CPU ms a pair" for who in ("orchestrator", "head", "workers")]
    header += [f"{who}, MiB" for who in ("orchestrator", "head", "workers")]
    last = found[-1]
    nodes = NODES[-1]
    return Section(
        name="cluster",
        title="Pairs on a Ray cluster",
        targets=[demo],
        table=[header, *map(_row, found)],
        text=(
            "One cell of an agent that takes no time, with all slots taken: agents only, the harness imported and the "
            "nodes joined before the clock starts. All nodes share this machine's processors: what is measured is what "
            "a pair costs beside its agents, not how many pairs a cluster carries. *Orchestrator* is the launching "
            "process, with its driver on a cluster; *head* is Ray's own (GCS, raylet, monitors); *workers* run the "
            "pairs: the harness server and its children, on a cluster also raylets and actors. Memory is resident at "
            "the end, with what processes share counted in each. An idle "
            f"driver of {nodes} nodes takes {1000 * last.heartbeats / nodes:.1f} ms of CPU a second for each."
            + (BUSY if busy else "")
        ),
        facts={
            "cluster_pairs_per_second": last.pairs / last.seconds,
            "cluster_orchestrator_seconds_per_pair": last.orchestrator.cpu / last.pairs,
            "cluster_head_seconds_per_pair": last.head.cpu / last.pairs,
            "cluster_worker_seconds_per_pair": last.workers.cpu / last.pairs,
            "cluster_heartbeat_seconds": last.heartbeats / nodes,
            "cluster_orchestrator_mib": last.orchestrator.mib,
            "cluster_node_mib": last.workers.mib / nodes,
        },
    )


def _row(one: Took) -> list[str]:
    users = (one.orchestrator, one.head, one.workers)
    figures = [f"{1000 * user.cpu / one.pairs:.1f}" if user.mib else "" for user in users]
    memory = [f"{user.mib:.0f}" if user.mib else "" for user in users]
    return [one.where, str(one.slots), f"{one.pairs:,}", f"{60 * one.pairs / one.seconds:,.0f}", *figures, *memory]
