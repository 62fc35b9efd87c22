"""Cells side by side in one process, each a real Dagster run with real agents and tests."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import chdir
from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
import psutil
import pytest
import yaml
from dagster._core.instance.ref import InstanceRef

from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.local_runs import Launcher
from cooperbench_assets.project import Project
from cooperbench_assets.spec import parse_experiment
from cooperbench_assets_tests.automation.driving import demo_attributes
from cooperbench_assets_tests.demo.bench import write_pairs
from cooperbench_assets_tests.projects import add_experiment, environment, make_project

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

SETTINGS = {"solo": {"mode": "solo", "seeds": [0]}, "coop-comm": {"mode": "coop", "seeds": [0]}}
NAME = "drill"
PAIRS = (("inkline_task", 3, (1, 2)), ("plainconf_task", 5, (1, 4)), ("slotbook_task", 8, (1, 4)))
"""As few as tell cells from each other; no test here is about their number."""

CODE = "from cooperbench_assets.cli import main; main()"


def drill(root: Path, **changes: Any) -> dict[str, Any]:
    return demo_attributes(settings=SETTINGS, subset=str(write_pairs(PAIRS, root / "few.json")), **changes)


def launcher(project: Project) -> Launcher:
    return Launcher(project, NAME, drill_in(project).spec)


def drill_in(project: Project) -> ExperimentContext:
    file = project.defs / NAME / "defs.yaml"
    attributes = yaml.safe_load(file.read_text())["attributes"]
    return ExperimentContext(NAME, parse_experiment(NAME, attributes, file), project)


def tries(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_bytes()) for file in sorted(run_dir.rglob("attempt.json"))]


def spans(records: list[dict[str, Any]]) -> list[tuple[datetime, datetime]]:
    return [(datetime.fromisoformat(one["started_at"]), datetime.fromisoformat(one["ended_at"])) for one in records]


def run_statuses(project: Project) -> list[str]:
    with chdir(project.root), dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(project.root))) as instance:
        runs = [run for run in instance.get_runs() if "dagster/partition" in run.tags]
    return sorted(run.status.value for run in runs)


def outcomes(project: Project) -> dict[str, dict[str, str]]:
    experiment = drill_in(project)
    return {
        f"{cell.cell}": dict(experiment.view(cell).pairs.select("pair", "outcome").iter_rows())
        for cell in experiment.cells
    }


def test_cells_side_by_side_give_what_cells_one_after_another_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COOPERBENCH_ASSETS_STATE", str(tmp_path / "state"))
    paced = drill(tmp_path, agent_config={"injected_faults": {"rate": 0.0}, "pace_seconds": 0.05})
    for at_once in (4, 1):
        project = make_project(tmp_path / f"{at_once}", {NAME: paced})
        with launcher(project) as runs:
            assert runs.run_subset().error is None
            ended = list(runs.run_cells(runs.experiment.cells, at_once=at_once))
        assert [one.ran.error for one in ended] == [None] * 2
        assert {one.cell.cell for one in ended} == runs.experiment.planned
        assert run_statuses(project) == ["SUCCESS"] * 2
    together, alone = (Project(tmp_path / number) for number in ("4", "1"))
    assert outcomes(together) == outcomes(alone)
    times = {cell.run_name: spans(tries(drill_in(together).run_dir(cell))) for cell in drill_in(together).cells}
    left, right = times.values()
    assert any(a[0] < b[1] and b[0] < a[1] for a in left for b in right)


def test_a_cell_with_faults_is_run_again_while_others_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COOPERBENCH_ASSETS_STATE", str(tmp_path / "state"))
    faults = {"rate": 0.4, "eval_rate": 0.0}
    project = make_project(tmp_path / "project", {NAME: drill(tmp_path, faults=faults)})
    with launcher(project) as runs:
        runs.run_subset()
        ended = list(runs.run_cells(runs.experiment.cells, rounds=5))
    last = {one.cell.cell: one for one in ended}
    assert not any(one.again for one in last.values())
    assert any(one.again for one in ended), "some cell was ended by infrastructure"
    assert [one.ran.error for one in ended if one.ran.error] == []
    assert {outcome for cell in outcomes(project).values() for outcome in cell.values()} <= {"pass", "fail"}


def test_an_interrupt_ends_every_cell_and_the_next_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COOPERBENCH_ASSETS_STATE", str(tmp_path / "state"))
    # Room for every pair of every cell, so that none waits for slots of another.
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "slots.toml").write_text("agents = 12\nevaluations = 2\n")
    limits = {"concurrency": 12, "eval_concurrency": 2, "pair_timeout_minutes": 10, "test_timeout_seconds": 30}
    slow = drill(tmp_path, agent_config={"injected_faults": {"rate": 0.0}, "pace_seconds": 60}, limits=limits)
    project = make_project(tmp_path / "project", {NAME: slow})
    for number in (signal.SIGINT, signal.SIGTERM):
        interrupt(project, number)
        assert set(run_statuses(project)) == {"CANCELED"}
        assert below(project) == []
        for cell in drill_in(project).cells:
            assert {record["outcome"] for record in tries(drill_in(project).run_dir(cell))} == {"interrupted"}

    shutil.rmtree(project.defs / NAME)
    add_experiment(project, NAME, drill(tmp_path))
    with launcher(project) as runs:
        assert [one.ran.error for one in runs.run_cells(runs.experiment.cells)] == [None] * 2
    assert {outcome for cell in outcomes(project).values() for outcome in cell.values()} <= {"pass", "fail"}


def interrupt(project: Project, number: signal.Signals) -> None:
    """Begin the command that runs all cells, and send it a signal when each has agents at work."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "materialize", NAME],
        cwd=project.root,
        env=environment(project),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 120
    while running_cells(project) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, (output, errors)
    assert "Traceback" not in errors


def running_cells(project: Project) -> int:
    """Cells in which an agent is at work."""
    run_dirs = [drill_in(project).run_dir(cell) for cell in drill_in(project).cells]
    return sum(any(record["outcome"] == "running" for record in tries(run_dir)) for run_dir in run_dirs)


def below(project: Project) -> list[str]:
    """Processes that work below a project."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(project.root)):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found
