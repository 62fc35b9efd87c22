"""The demo from an empty data folder to its results, against the time of its agents and tests alone."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from statistics import median

from cooperbench_assets.execution.runner.slots import default_sizes
from cooperbench_assets_tests.projects import environment, make_project
from perf import loading
from perf.inputs import tree_size
from perf.measure import run_command
from perf.results import Record, Section, Target

TIMES = 1.25
POOL = {"agent": "agents", "eval": "evaluations"}


def tries(run: Path) -> dict[str, list[float]]:
    """Seconds that each recorded try of a run took, by stage."""
    found: dict[str, list[float]] = defaultdict(list)
    for file in run.rglob("attempt.json"):
        record = json.loads(file.read_bytes())
        if record["ended_at"]:
            times = (datetime.fromisoformat(record[key]) for key in ("started_at", "ended_at"))
            start, end = times
            found[record["stage"]].append((end - start).total_seconds())
    return found


def floor(logs: Path, slots: dict[str, int]) -> tuple[float, int]:
    """Seconds of all tries of all runs over the slots, and how many there were."""
    total, count = 0.0, 0
    for run in sorted(logs.iterdir()):
        for stage, seconds in tries(run).items():
            total += sum(seconds) / slots[POOL[stage]]
            count += len(seconds)
    return total, count


def measure(place: Path, quick: bool) -> Section:
    """The table's seventh row."""
    attributes = dict(loading.shipped()["demo"])
    if quick:
        attributes |= {"subset": "tiny"}
    limits = attributes["limits"]
    assert isinstance(limits, dict)
    sizes = default_sizes(*_machine())
    slots = {
        "agents": min(sizes["agents"], limits["concurrency"]),
        "evaluations": min(sizes["evaluations"], limits["eval_concurrency"]),
    }
    took, cpu, floors, counts, said = [], [], [], [], ""
    for number in range(1 if quick else 2):
        project = make_project(place / f"project-{number}", {"demo": attributes})
        variables = environment(project, COOPERBENCH_ASSETS_STATE=str(place / f"state-{number}"))
        code = "from cooperbench_assets.cli import main; main()"
        ran = run_command([sys.executable, "-c", code, "demo"], env=variables, cwd=project.root)
        least, count = floor(project.data / "logs", slots)
        took.append(ran.seconds)
        cpu.append(ran.cpu_seconds)
        floors.append(least)
        counts.append(count)
        said = ran.output
    files, size = tree_size(project.data / "logs")
    times = median(one / least for one, least in zip(took, floors, strict=True))
    n = counts[0]
    return Section(
        name="demo",
        title="make demo",
        records=[
            Record(
                name="cooperbench-assets demo",
                role="ours",
                seconds=median(took),
                cpu_seconds=median(cpu),
                n=n,
                rounds=len(took),
            ),
            Record(name="its tries over the slots", role="floor", seconds=median(floors), n=n, rounds=len(took)),
        ],
        targets=[Target(text=f"≤ {TIMES} × floor", value=f"{times:.2f} ×", met=times <= TIMES, why=_why(said))],
        text=(
            f"In an empty data folder: {n} tries, the dataset, Dagster's runs, every check, analysis and publishing "
            f"with it; n is tries. The floor is the recorded time of these tries over {slots['agents']} slots for "
            f"agents and {slots['evaluations']} for evaluations, as if every slot had been busy all the time and "
            f"nothing else was done. Logs: {files:,} files, {size / 1e6:.0f} MB."
        ),
    )


def _machine() -> tuple[int, int]:
    import os

    return len(os.sched_getaffinity(0)), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _why(said: str) -> str:
    again = sum("is tried again" in line for line in said.splitlines())
    return (
        f"Cells are run side by side, and {again} of them again after infrastructure errors. Beside the tries, the "
        "CPUs import Dagster and, in each thread, the harness; write Dagster's events; and draw the report at the end, "
        "when no try is left to fill the slots."
    )
