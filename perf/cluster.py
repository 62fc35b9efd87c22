"""Pairs of a trivial agent on this machine, and on 1, 2 and 3 nodes of a Ray cluster on it.

What is measured is what a pair costs beside its agents: all nodes share this machine's processors.
"""

from __future__ import annotations

import importlib.util
import resource
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import psutil

from cooperbench_assets.benchmark.pairs import Pair, Subset
from cooperbench_assets.execution.api import run_agents
from cooperbench_assets.execution.job import CellJob, Fleet, Limits
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.runner.harness_servers import HarnessServers
from cooperbench_assets_tests.execution.cells import cell
from cooperbench_assets_tests.execution.fleet.ray_nodes import SLOTS, ray_nodes, raylet
from cooperbench_assets_tests.execution.toy import REPO, TASK, make_toy
from perf.results import Section

PAIRS, NODES = 1000, (1, 2, 3)
LEASE_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Took:
    """What a launch of all pairs took."""

    where: str
    slots: int
    seconds: float
    cpu_seconds: float
    """Of the launching process and its driver."""

    memory_mib: float
    """Of Ray's processes on the nodes, workers included."""


def available() -> bool:
    """Whether Ray is installed."""
    return importlib.util.find_spec("ray") is not None


def many(place: Path, count: int) -> CellJob:
    """A cell of so many pairs, one a task; all tasks are the same folder."""
    toy = make_toy(place / "toy")
    for number in range(TASK + 1, TASK + count):
        (toy.dataset / REPO / f"task{number}").symlink_to(toy.task)
    pairs = tuple(Pair(REPO, number, (1, 2)) for number in range(TASK, TASK + count))
    subset = Subset("many", pairs, toy.dataset / "subsets" / "many.json")
    return cell(toy, place / "cell", subset=subset, limits=Limits(concurrency=100))


def run(job: CellJob, name: str, slots: int) -> tuple[float, float]:
    """Seconds and CPU seconds of a launch whose harness is ready."""
    servers = HarnessServers()
    server = servers.server(job)
    server.ready()
    before, began = _cpu(), time.perf_counter()
    report = run_agents(replace(job, run_name=name), LaunchOptions(), servers=servers)
    seconds = time.perf_counter() - began
    assert report.done == len(job.subset.pairs), report
    servers.close()  # What a driver used is counted when it has ended.
    return seconds, _cpu() - before


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(place: Path, *, quick: bool) -> Section:
    """Run the same pairs here and on clusters."""
    job = many(place, 20 if quick else PAIRS)
    assert job.state is not None
    found = []
    slots = SLOTS["agents"]
    (job.state / "slots.toml").write_text(f"agents = {slots}\nevaluations = {slots}\n")
    seconds, cpu = run(job, "here", slots)
    found.append(Took("this machine, without Ray", slots, seconds, cpu, 0.0))
    for count in NODES:
        with ExitStack() as stack:
            nodes = stack.enter_context(ray_nodes(count))
            fleet = Fleet(address=nodes.address, lost_after_seconds=LEASE_SECONDS)
            seconds, cpu = run(replace(job, fleet=fleet), f"nodes-{count}", count * slots)
            memory = sum(_memory(raylet(node)) for node in nodes.nodes)
            found.append(Took(f"{count} {'node' if count == 1 else 'nodes'}", count * slots, seconds, cpu, memory))
    return _section(found, len(job.subset.pairs))


def _memory(pid: int) -> float:
    top = psutil.Process(pid)
    return sum(process.memory_info().rss for process in (top, *top.children(recursive=True))) / 2**20


def _section(found: list[Took], pairs: int) -> Section:
    header = ["where", "slots", "pairs a minute", "launching process and driver, CPU ms a pair", "memory of the nodes"]
    rows = [
        [
            one.where,
            str(one.slots),
            f"{60 * pairs / one.seconds:,.0f}",
            f"{1000 * one.cpu_seconds / pairs:.1f}",
            f"{one.memory_mib:.0f} MiB" if one.memory_mib else "",
        ]
        for one in found
    ]
    return Section(
        name="cluster",
        title="Pairs on a Ray cluster",
        table=[header, *rows],
        text=(
            f"{pairs:,} pairs of an agent that takes no time, one after another in each slot. All nodes share this "
            "machine's processors: what is measured is what a pair costs beside its agents, not how far it goes. "
            "Memory is resident, with what processes share counted in each."
        ),
        facts={f"pairs_per_minute_{number}": 60 * pairs / one.seconds for number, one in enumerate(found)},
    )
