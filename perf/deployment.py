"""A deployment in containers (deploy/): its start, its memory, what a container costs a run, what a fault costs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.project import Project
from cooperbench_assets.spec import CellSpec
from cooperbench_assets_tests.deploy.deployment import BUILT_IN, ENDED, Deployment, in_one_process, prepared, rows
from cooperbench_assets_tests.engines import restart_engine, running_engine
from cooperbench_assets_tests.projects import environment, make_project
from perf.results import Record, Section, Target

SERVICES = ("postgres", "redis", "code", "web", "daemon", "viewer")
KILLED = ("daemon", "code", "postgres", "web")
SETTLE_SECONDS = 10.0
PATIENCE = 900.0
SLOTS = "agents = 4\nevaluations = 4\n"
"""The same in containers and without, whatever the machine."""

RETRY = {"backoff_minutes": 0, "every_seconds": 5}
NO_FAULTS = {"injected_faults": {"rate": 0.0}}


@dataclass(frozen=True)
class Restart:
    """Seconds from a stop of the engine until what it carried is at work again."""

    shown: float
    """The UI answers."""

    failed: float
    """The run that was at work has ended."""

    complete: float
    """The cell's next run has brought it to its end."""

    is_whole: bool
    """Every pair of the cell has its verdict."""


def experiments(quick: bool) -> dict[str, dict[str, Any]]:
    """The demo; cells of it without injected faults, small and of all pairs; and one that takes its time."""
    solo = {"settings": {"solo": {"mode": "solo", "seeds": [0, 1, 2]}}, "agent_config": NO_FAULTS}
    size = {"subset": "tiny"} if quick else {}
    return {
        "demo": {**BUILT_IN, **size, "retry": RETRY},
        "small": {**BUILT_IN, **solo, "subset": "tiny"},
        "cell": {**BUILT_IN, **solo, **size},
        "slow": {**BUILT_IN, **solo, "subset": "tiny", "agent_config": {**NO_FAULTS, "pace_seconds": 2}},
    }


def memory_mib(process: int) -> float:
    """Memory of a process and all below it, each shared page counted once (PSS)."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process)
        for one in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, AttributeError):
                total += one.memory_full_info().pss
    return total / 2**20


def process_of(engine: Engine, container: str) -> int:
    """The first process of a container, as this machine numbers it; 0 once it has ended."""
    return int(engine.api.inspect_container(container)["State"]["Pid"])


def service(made: Deployment, name: str) -> str:
    """The container of a service."""
    wanted = [f"com.docker.compose.project={made.name}", f"com.docker.compose.service={name}"]
    return str(made.engine.api.containers(filters={"label": wanted})[0]["Id"])


def in_container(made: Deployment, job: str, partition: str) -> tuple[float, float]:
    """Seconds from the launch of a run to its end in the UI, and the most MiB that its container had."""
    began, most, process = time.perf_counter(), 0.0, 0
    run = made.launch(job, partition)

    def is_over() -> str | None:
        nonlocal most, process
        if not process and (container := made.run_container(run)) is not None:
            process = process_of(made.engine, container)
        most = max(most, memory_mib(process) if process else 0.0)
        return next((one.status for one in made.runs() if one.id == run and one.status in ENDED), None)

    status = made.until(f"the end of {job}", is_over, PATIENCE)
    if status != "SUCCESS":
        raise RuntimeError(f"{job} {partition} ended as {status}: {made.said(run)[-2000:]}")
    return time.perf_counter() - began, most


def in_process(project: Project, job: str, partition: str) -> tuple[float, float]:
    """The same by Dagster's own command, in one process: seconds from its start to its end, and the most MiB."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "dagster",
        "job",
        "execute",
        "-m",
        "cooperbench_assets.definitions",
    ]
    tags = f'{{"dagster/partition": "{partition}"}}'
    began, most = time.perf_counter(), 0.0
    with (project.root / "run.log").open("w+") as output:
        running = subprocess.Popen(
            [*command, "-j", job, "--tags", tags],
            cwd=project.root,
            env=variables(project),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        while running.poll() is None:
            most = max(most, memory_mib(running.pid))
            time.sleep(0.5)
        took = time.perf_counter() - began
        output.seek(0)
        if running.returncode:
            raise RuntimeError(f"{job} {partition} failed:\n{output.read()[-3000:]}")
    return took, most


def variables(project: Project) -> dict[str, str]:
    """Those of a command in a project without containers."""
    return environment(project, DAGSTER_HOME=str(project.root), COOPERBENCH_ASSETS_STATE=str(project.root / "state"))


def whole_demo(made: Deployment, alone: Project) -> tuple[float, float, bool]:
    """All cells of the demo, by a backfill with the retry sensor and by one command: seconds of both; equal rows."""
    cells = {f"{cell.cell.setting}/{cell.cell.seed}" for cell in made.experiment("demo").cells}
    began = time.perf_counter()
    made.start_sensor("demo_retry")
    made.backfill("demo", sorted(cells))

    def is_settled() -> bool:
        runs = made.runs("demo")
        launched = {run.partition for run in runs} >= cells
        return launched and all(run.status in ENDED for run in runs) and made.is_judged("demo")

    made.until("the demo", is_settled, PATIENCE)
    in_containers = time.perf_counter() - began
    published = made.command("materialize", "demo")
    if published.returncode:
        raise RuntimeError(published.stdout + published.stderr)
    began = time.perf_counter()
    with in_one_process(alone, "demo") as wait:
        wait()
    return in_containers, time.perf_counter() - began, rows(made.project, "demo") == rows(alone, "demo")


def slow_cell(made: Deployment, seed: int) -> CellSpec:
    return made.experiment("slow").spec.cell("slow", "solo", seed)


def run_at_work(made: Deployment, seed: int) -> str:
    """A run of the cell that takes its time, in which a first try has ended."""
    run = made.launch("slow_run_cell", f"solo/{seed}")
    logs = made.experiment("slow").run_dir(slow_cell(made, seed))
    made.until("a try", lambda: any(logs.rglob("attempt.json")))
    return run


def killed_run(made: Deployment, seed: int) -> tuple[float, float]:
    """Seconds from the end of a run's container to its failure in the UI, and until the next run has started."""
    run = run_at_work(made, seed)
    container = made.run_container(run)
    assert container is not None
    began = time.perf_counter()
    made.engine.api.kill(container)
    made.reached(run, "FAILURE")
    failed = time.perf_counter() - began
    again = made.launch("slow_run_cell", f"solo/{seed}")
    made.reached(again, "STARTED", *ENDED)
    started = time.perf_counter() - began
    made.reached(again, "SUCCESS")
    return failed, started


def killed_service(made: Deployment, name: str, is_back: Callable[[], object]) -> float:
    """Seconds from the end of a service's process until it does its work again: the engine starts it anew."""
    init = psutil.Process(process_of(made.engine, service(made, name)))
    began = time.perf_counter()
    for one in init.children():
        os.kill(one.pid, 9)
    made.until(f"{name} again", is_back)
    return time.perf_counter() - began


def restarted_engine(made: Deployment, seed: int) -> Restart | None:
    """Restart the engine in the middle of a cell; None where it is not ours to restart."""
    run = run_at_work(made, seed)
    began = time.perf_counter()
    if not restart_engine():
        return None
    made.until("the UI", made.runs)
    shown = time.perf_counter() - began
    made.reached(run, *ENDED)
    failed = time.perf_counter() - began
    made.reached(made.launch("slow_run_cell", f"solo/{seed}"), "SUCCESS")
    outcomes = set(made.experiment("slow").view(slow_cell(made, seed)).pairs["outcome"])
    return Restart(shown, failed, time.perf_counter() - began, is_whole=outcomes <= {"pass", "fail"})


def measure(place: Path, quick: bool) -> Section:
    """The deployment as it is shipped, built here, with the images of this machine's own programs."""
    chosen = experiments(quick)
    alone = make_project(place / "alone", chosen)
    (alone.root / "state").mkdir()
    (alone.root / "state" / "slots.toml").write_text(SLOTS)
    with running_engine(), Engine.connect() as engine, prepared(engine, place / "deployed", chosen) as made:
        (made.project.data / "state" / "slots.toml").write_text(SLOTS)
        return _measured(made, alone, quick)


def _measured(made: Deployment, alone: Project, quick: bool) -> Section:
    began = time.perf_counter()
    made.up()
    healthy = time.perf_counter() - began
    in_container(made, "small_run_cell", "solo/0")
    green = time.perf_counter() - began
    time.sleep(SETTLE_SECONDS)
    memory = {name: memory_mib(process_of(made.engine, service(made, name))) for name in SERVICES}
    in_process(alone, "small_run_cell", "solo/0")  # It makes the dataset, as the first run in a container did.
    inside, outside = [], []
    for seed in range(1 if quick else 3):
        inside.append(in_container(made, "cell_run_cell", f"solo/{seed}"))
        outside.append(in_process(alone, "cell_run_cell", f"solo/{seed}"))
    small, pairs = (len(made.experiment(name).subset().pairs) for name in ("small", "cell"))
    failed, started = killed_run(made, 0)

    def runs_are_launched() -> bool:
        return made.reached(made.launch("small_run_cell", "solo/1"), "STARTED", *ENDED).status != "FAILURE"

    back = {name: killed_service(made, name, runs_are_launched) for name in KILLED}
    ours, theirs, is_equal = whole_demo(made, alone)
    restart = restarted_engine(made, 1)
    all_pairs = pairs * len(made.experiment("demo").cells)
    records = [
        Record(name="docker compose up, until all are healthy", role="ours", seconds=healthy),
        Record(name="docker compose up, until the first partition is green", role="ours", seconds=green, n=small),
        _cost("a run in a container: launch to green", "ours", inside, pairs),
        _cost("the same in one process, dagster job execute", "floor", outside, pairs),
        Record(name="the demo by a backfill, retry sensor on", role="ours", seconds=ours, n=all_pairs),
        Record(name="the demo by its command, with the report", role="floor", seconds=theirs, n=all_pairs),
        Record(name="a run's container is killed: until it has failed in the UI", role="part", seconds=failed),
        Record(name="the same, until the cell's next run has started", role="part", seconds=started),
        *(
            Record(name=f"{one} is killed: until a new run has started", role="part", seconds=back[one])
            for one in KILLED
        ),
    ]
    targets = [
        Target(
            text="the demo's rows equal those of one process",
            value=f"{all_pairs} pairs, {'equal' if is_equal else 'different'}",
            met=is_equal,
        ),
        Target(text="compose up to green ≤ 2 minutes", value=f"{green:.0f} s", met=green <= 120),
    ]
    if restart is not None:
        records += _restart(restart)
        value = "every pair judged" if restart.is_whole else "pairs lost"
        targets.append(Target(text="the engine is restarted in mid-run", value=value, met=restart.is_whole))
    return Section(
        name="deployment",
        title="A deployment in containers",
        records=records,
        targets=targets,
        table=_memory(memory),
        text=TEXT,
    )


def _restart(found: Restart) -> list[Record]:
    steps = {
        "until the UI answers": found.shown,
        "until the run at work has failed": found.failed,
        "until the cell's next run has ended": found.complete,
    }
    return [Record(name=f"the engine is restarted: {step}", role="part", seconds=took) for step, took in steps.items()]


def _cost(name: str, role: Any, found: list[tuple[float, float]], pairs: int) -> Record:
    seconds, memory = (median(column) for column in zip(*found, strict=True))
    return Record(name=name, role=role, seconds=seconds, peak_mib=memory, rounds=len(found), n=pairs)


def _memory(memory: Mapping[str, float]) -> list[list[str]]:
    cells = [[name, f"{mib:.0f}"] for name, mib in memory.items()]
    return [["service, idle", "MiB"], *cells, ["all", f"{sum(memory.values()):.0f}"]]


TEXT = (
    "deploy/ as it is shipped, its image built before, with Postgres and Redis, on a machine of its own; n is pairs. A "
    "run's memory is the most that was seen of its processes in looks half a second apart, shared pages counted once. "
    "The cell is the demo's, without injected faults; both ways have 4 slots for agents and 4 for evaluations. A "
    "container's run waits for the queue, which the daemon looks at every 5 s; a killed one for the next look at runs, "
    "every 10 s. The floor of the whole demo makes its report, too, and has the harness imported once."
)
