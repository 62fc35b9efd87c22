"""Whole commands from start to end, and ticks of the automation, in instances with and without a history."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import dagster as dg

from cooperbench_assets.demo import build_dataset
from cooperbench_assets.project import Project
from cooperbench_assets_tests import trees
from cooperbench_assets_tests.automation.driving import demo_attributes
from cooperbench_assets_tests.projects import add_experiment, environment, make_project
from perf import inputs
from perf.history import lengthen
from perf.measure import run_command
from perf.results import Section, Target

HISTORIES = (0, 1_000, 10_000)
QUICK_HISTORIES = (0, 50)
CELLS, PAIRS = 100, 20
WATCHED = 200
OVER_STATUS_SECONDS, AGAIN_TIMES, HUNDRED_SECONDS, HISTORY_TIMES, TICK_SECONDS = 4.0, 1.2, 30.0, 1.2, 2.0
DONE = (0, 1)
"""Exit codes of materialize: the real logs have infrastructure errors that only their owner could run again."""

PARTS = """
import json, time
at = [time.perf_counter()]
from cooperbench_assets.commands import materialize
from cooperbench_assets.local_runs import Launcher
from cooperbench_assets.project import find_project
from cooperbench_assets.spec import load_experiments
project = find_project()
spec = load_experiments(project.defs)["flash"]
with Launcher(project, "flash", spec) as launcher:
    at.append(time.perf_counter())
    launcher.read_cells(spec.cells("flash"), lambda one: None)
    at.append(time.perf_counter())
    launcher.run_store()
    at.append(time.perf_counter())
print(json.dumps([b - a for a, b in zip(at, at[1:])]))
"""
"""What `materialize flash` does, with the time that each part takes."""


ANALYSIS_LIBRARIES = {"polars", "_polars_runtime_32", "numpy", "scipy", "duckdb", "_duckdb", "charset_normalizer"}


@dataclass(frozen=True)
class Parts:
    """Seconds of a first `materialize flash` by part, in one process."""

    imports: float
    cells: float
    store: float
    imported: dict[str, float]
    """Seconds of importing, in whichever part it fell, by whose modules they are."""

    def __str__(self) -> str:
        by_owner = ", ".join(f"{seconds:.1f} s {owner}" for owner, seconds in sorted(self.imported.items()))
        return (
            f"By part, in one process: {self.imports:.1f} s to load the definitions, {self.cells:.1f} s for the run"
            f" that reads, judges, checks and writes the cells, {self.store:.1f} s for the run that publishes the store"
            f" and makes the analyses. Imports are {sum(self.imported.values()):.1f} s of them: {by_owner}."
        )


def _imported(importtime: str) -> dict[str, float]:
    """Seconds by owner, from what `python -X importtime` writes: microseconds of each module alone."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for own, name in re.findall(r"import time: +(\d+) \| +\d+ \| +(\w+)", importtime):
        if name == "cooperbench_assets":
            owner = "our own modules"
        elif name in ANALYSIS_LIBRARIES:
            owner = "polars, DuckDB, numpy and scipy"
        else:
            owner = "Dagster, what it brings, and the standard library"
        seconds[owner] += int(own) / 1e6
    return seconds


class Place:
    """A project with the experiments that are measured, and its instance with one history or another."""

    def __init__(self, root: Path, quick: bool) -> None:
        self.cells, self.watched = (10, 10) if quick else (CELLS, WATCHED)
        self.project: Project = make_project(root / "project", {})
        self.variables = environment(self.project, COOPERBENCH_ASSETS_STATE=str(root / "state"))
        self.instance = self.project.data / "dagster"
        self.histories = root / "histories"
        self._import_flash(root, quick)
        self._add_many()
        self._add_watched()

    def run(self, *arguments: str) -> float:
        """Run a command of ours; returns its seconds.

        Raises:
            RuntimeError: if it ends otherwise than it should.
        """
        command = [sys.executable, "-c", "from cooperbench_assets.cli import main; main()", *arguments]
        began = time.perf_counter()
        done = subprocess.run(
            command, env=self.variables, cwd=self.project.root, capture_output=True, text=True, check=False
        )
        took = time.perf_counter() - began
        if done.returncode not in (DONE if arguments[0] == "materialize" else (0,)):
            raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
        return took

    def parts(self) -> Parts:
        """What a first `materialize flash` spends its time on, in one process."""
        self.forget()
        command = [sys.executable, "-X", "importtime", "-c", PARTS]
        done = subprocess.run(
            command, env=self.variables, cwd=self.project.root, capture_output=True, text=True, check=True
        )
        imports, cells, store = json.loads(done.stdout.splitlines()[-1])
        return Parts(imports, cells, store, _imported(done.stderr))

    def _import_flash(self, root: Path, quick: bool) -> None:
        logs, self.real = inputs.flash(root, quick)
        if self.real:
            runs = ["solo=flash_solo_{seed}", "coop-comm=flash_msg_{seed}"]
            subset = inputs.REAL / "flash.json"
        else:
            runs = ["solo=solo-seed{seed}", "coop-comm=coop-comm-seed{seed}"]
            subset = root / "flash.json"
            trees.write_subset(subset, inputs.planned(50))
        chosen = [word for run in runs for word in ("--run", run)]
        self.run("import-logs", str(logs), "--experiment", "flash", "--subset", str(subset), *chosen)

    def _add_many(self) -> None:
        """An experiment of generated logs that are only read."""
        trees.write_subset(self.project.data / "dataset" / "subsets" / "made.json", inputs.planned(PAIRS))
        inputs.generate(self.project.data / "many", cells=self.cells, pairs=PAIRS)
        seeds = list(range(self.cells // 2))
        settings = {name: {"mode": mode, "seeds": seeds} for name, mode in inputs.SETTINGS}
        attributes = {"subset": "made", "settings": settings, "run_name": "{setting}-seed{seed}", "logs": "data/many"}
        add_experiment(self.project, "many", attributes)

    def _add_watched(self) -> None:
        """An experiment that runs pairs, and has run all: one cell is run, the others are copies of its folder."""
        build_dataset(self.project.data / "demo" / "dataset")
        solo = {"mode": "solo", "seeds": list(range(self.watched))}
        attributes = demo_attributes(settings={"solo": solo}, nightly="0 2 * * *", run_name="{setting}-seed{seed}")
        add_experiment(self.project, "watched", {**attributes, "logs": "data/watched"})
        self.run("materialize", "watched", "--seed", "0")
        first = self.project.data / "watched" / "solo-seed0"
        for seed in range(1, self.watched):
            copied = first.with_name(f"solo-seed{seed}")
            shutil.copytree(first, copied)
            for file in copied.rglob("*.json"):
                text = file.read_text()
                if first.name in text:
                    file.write_text(text.replace(first.name, copied.name))

    def make_histories(self, sizes: Sequence[int]) -> None:
        """Instances with so many earlier runs: of cells one by one, and the last one of all cells of each experiment.

        The runs that are copied are those of single cells, as the UI, sensors and a night launch them.
        """
        for setting in ("solo", "coop-comm"):
            for seed in range(1, 4) if self.real else range(3):
                self.run("materialize", "flash", "--setting", setting, "--seed", str(seed))
            for seed in range(4):
                self.run("materialize", "many", "--setting", setting, "--seed", str(seed))
        for size in sizes:
            if size:
                target = self.histories / str(size)
                shutil.copytree(self.instance, target)
                lengthen(target, size)

    def begin(self, size: int) -> None:
        """Take an instance with so many earlier runs, in which every cell has been read once."""
        self.forget()
        if size:
            (self.histories / str(size)).rename(self.instance)
            self.read_all()

    def end(self, size: int) -> None:
        """Keep the instance for another round."""
        if size:
            self.instance.rename(self.histories / str(size))

    def read_all(self) -> None:
        self.run("materialize", "flash")
        self.run("materialize", "many")
        self.run("materialize", "watched", "--read-again")

    def forget(self) -> None:
        """A project in which nothing was read, and without an instance."""
        shutil.rmtree(self.instance, ignore_errors=True)
        self.forget_tables()

    def forget_tables(self) -> None:
        shutil.rmtree(self.project.data / "tables", ignore_errors=True)
        (self.project.data / "results.duckdb").unlink(missing_ok=True)


FIRST, AGAIN = "materialize flash, first", "materialize flash, again"
MANY, MANY_AGAIN = "materialize, {} cells of {} pairs, first", "materialize, {} cells of {} pairs, again"
STATUS, STATUS_MANY = "status flash", "status of {} cells"


def rounds_of(place: Place, sizes: Sequence[int], rounds: int) -> dict[tuple[str, int], list[float]]:
    """Seconds of each command, by its name and the number of earlier runs."""
    found: dict[tuple[str, int], list[float]] = {}
    many, again = MANY.format(place.cells, PAIRS), MANY_AGAIN.format(place.cells, PAIRS)
    steps: list[tuple[str, tuple[str, ...]]] = [
        (FIRST, ("materialize", "flash")),
        (AGAIN, ("materialize", "flash")),
        (STATUS, ("status", "flash")),
        (many, ("materialize", "many")),
        (again, ("materialize", "many")),
        (STATUS_MANY.format(place.cells), ("status", "many")),
    ]
    for number in range(rounds):
        turned = [*sizes[number % len(sizes) :], *sizes[: number % len(sizes)]]
        for size in turned:
            place.begin(size)
            place.forget_tables()
            for name, command in steps:
                found.setdefault((name, size), []).append(place.run(*command))
            if not size:
                place.run("materialize", "watched", "--read-again")
            for name, seconds in ticks(place).items():
                found.setdefault((name, size), []).append(seconds)
            place.end(size)
    return found


def ticks(place: Place) -> dict[str, float]:
    """Seconds of a tick of each sensor and schedule of the watched experiment, in a process of its own."""
    command = [sys.executable, "-m", "perf.commands", str(place.project.root)]
    variables = {**place.variables, "PYTHONPATH": os.pathsep.join([str(place.project.root), str(Path.cwd())])}
    ran = run_command(command, env=variables, cwd=place.project.root)
    said: dict[str, float] = json.loads(ran.output.splitlines()[-1])
    return said


def tick_all(root: Path) -> dict[str, float]:
    """Evaluate every sensor and schedule of the watched experiment as Dagster's daemon does; returns the seconds."""
    from dagster._core.instance.ref import InstanceRef

    from cooperbench_assets.definitions import defs

    definitions = defs()
    repository = definitions.get_repository_def()
    seconds: dict[str, float] = {}
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(root))) as instance:
        for sensor in repository.sensor_defs:
            if "watched" in sensor.name and not isinstance(sensor, dg.AutomationConditionSensorDefinition):
                with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
                    seconds[f"tick: {sensor.name}"] = timed(lambda: sensor.evaluate_tick(context))  # noqa: B023
        for schedule in repository.schedule_defs:
            if "watched" in schedule.name:
                with dg.build_schedule_context(instance=instance, repository_def=repository) as night:
                    seconds[f"tick: {schedule.name}"] = timed(lambda: schedule.evaluate_tick(night))  # noqa: B023
        key = "tick: automation conditions of all experiments"
        seconds[key] = timed(lambda: dg.evaluate_automation_conditions(defs=definitions, instance=instance))
    return seconds


def timed(function: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def measure(place: Path, quick: bool) -> Section:
    """What a person waits for at the command line."""
    sizes, rounds = (QUICK_HISTORIES, 1) if quick else (HISTORIES, 3)
    here = Place(place, quick)
    here.make_histories(sizes)
    middle = {key: median(values) for key, values in rounds_of(here, sizes, rounds).items()}
    many = MANY.format(here.cells, PAIRS)
    return Section(
        name="commands",
        title="Commands from start to end",
        table=table(middle, sizes),
        targets=targets(middle, sizes, here),
        text=(
            f"Each command in a process of its own; medians of {rounds} rounds in turn. flash: 6 cells of 50 pairs"
            f"{' (the real runs)' if here.real else ''}. *First*: nothing was read yet, there is no store; *again*: "
            "nothing changed. Earlier runs are copies, with all their events and check results, of real runs of single "
            f"cells. Ticks are those of an experiment of {here.watched} cells that are complete."
        ),
        facts={
            "read_flash_seconds": middle[FIRST, 0],
            "read_flash_with_history_seconds": middle[FIRST, sizes[-1]],
            "read_many_seconds": middle[many, 0],
            "many_cells": float(here.cells),
            "history": float(sizes[-1]),
        },
    )


def table(middle: dict[tuple[str, int], float], sizes: Sequence[int]) -> list[list[str]]:
    """A row for each command and tick, a column for each number of earlier runs."""
    rows = [["seconds", *(f"{size:,} earlier runs" for size in sizes), "× of the first column"]]
    for name in dict.fromkeys(name for name, _ in middle):
        row = [middle[name, size] for size in sizes]
        bold = f"**{name}**" if name.startswith("materialize") else name
        rows.append([bold, *(f"{one:.2f}" for one in row), f"{row[-1] / row[0]:.2f}"])
    return rows


def targets(middle: dict[tuple[str, int], float], sizes: Sequence[int], here: Place) -> list[Target]:
    """What is wanted of them, and what came of it."""
    many = middle[MANY.format(here.cells, PAIRS), 0]
    over, again = middle[FIRST, 0] - middle[STATUS, 0], middle[AGAIN, 0] / middle[FIRST, 0]
    commands = {name for name, _ in middle if not name.startswith("tick")}
    grown, worst = max((middle[name, sizes[-1]] / middle[name, sizes[0]], name) for name in commands)
    tick, slowest = max((seconds, name) for (name, _), seconds in middle.items() if name not in commands)
    return [
        Target(
            text=f"first materialize flash ≤ {OVER_STATUS_SECONDS:.0f} s over status",
            value=f"{over:.1f} s",
            met=over <= OVER_STATUS_SECONDS,
            why=str(here.parts()),
        ),
        Target(text=f"again ≤ {AGAIN_TIMES} × the first", value=f"{again:.2f} ×", met=again <= AGAIN_TIMES),
        Target(
            text=f"{here.cells} cells of {PAIRS} pairs ≤ {HUNDRED_SECONDS:.0f} s",
            value=f"{many:.1f} s",
            met=many <= HUNDRED_SECONDS,
        ),
        Target(
            text=f"{sizes[-1]:,} earlier runs ≤ {HISTORY_TIMES} × none",
            value=f"{grown:.2f} × ({worst})",
            met=grown <= HISTORY_TIMES,
        ),
        Target(
            text=f"every tick < {TICK_SECONDS:.0f} s with {here.watched} cells",
            value=f"{tick:.2f} s ({slowest.removeprefix('tick: ')})",
            met=tick < TICK_SECONDS,
        ),
    ]


if __name__ == "__main__":
    print(json.dumps(tick_all(Path(sys.argv[1]))))
