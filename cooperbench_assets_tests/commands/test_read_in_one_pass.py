"""materialize of an experiment that only reads: all its cells in one run, and one line for each."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import chdir
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from dagster._core.instance.ref import InstanceRef

from cooperbench_assets.automation.dagster_runs import CELL_ASSETS, RANGE_TAGS
from cooperbench_assets.cli import INTERRUPTED, NOT_DONE
from cooperbench_assets.faultpoints import VARIABLE
from cooperbench_assets.local_runs import NO_OUTPUT
from cooperbench_assets_tests.commands.place import PAIRS, write_run
from cooperbench_assets_tests.projects import environment, make_project

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.project import Project
    from cooperbench_assets_tests.commands.place import Place

SEEDS = (0, 1, 2)


@pytest.fixture
def mine(place: Place) -> Place:
    """An experiment of two settings and three seeds."""
    for seed in SEEDS:
        place.add_run(f"s_{seed}")
        place.add_run(f"c_{seed}", "coop", messages=1, passed=seed > 0)
    done = place.run(
        *("import-logs", place.logs, "--experiment", "mine", "--subset", place.subset),
        *("--run", "solo=s_{seed}", "--run", "coop=c_{seed}"),
    )
    assert done.exit_code == 0, done.output
    return place


def runs(project: Project) -> list[dg.DagsterRun]:
    """The runs of the project that read cells, the oldest first."""
    with (
        chdir(project.root),
        dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(project.root), overrides=NO_OUTPUT)) as instance,
    ):
        every = instance.get_runs()
    wanted = {dg.AssetKey(["mine", name]) for name in CELL_ASSETS}
    return [run for run in reversed(every) if wanted & (run.asset_selection or set())]


def said_of_cells(output: str) -> list[str]:
    """The line of each cell."""
    return [line for line in output.splitlines() if line.startswith(("coop seed", "solo seed"))]


@pytest.mark.slow
def test_all_cells_are_read_in_one_run_with_a_line_for_each(mine: Place) -> None:
    done = mine.run("materialize", "mine")
    assert done.exit_code == 0, done.output
    assert said_of_cells(done.output) == [
        "coop seed 0: 3 fail",
        "coop seed 1: 3 pass",
        "coop seed 2: 3 pass",
        *(f"solo seed {seed}: 3 pass" for seed in SEEDS),
    ]
    assert "results_store: 15 pass, 3 fail" in done.output
    [run] = runs(mine.project)
    assert [run.tags[tag] for tag in RANGE_TAGS] == ["coop/0", "solo/2"]
    again = mine.run("materialize", "mine")
    assert "coop seed 0: 3 fail (unchanged)" in again.output


@pytest.mark.slow
def test_chosen_cells_alone_are_read_though_they_do_not_lie_side_by_side(mine: Place) -> None:
    done = mine.run("materialize", "mine", "--seed", "1")
    assert done.exit_code == 0, done.output
    assert said_of_cells(done.output) == [
        "coop seed 1: 3 pass",
        "solo seed 1: 3 pass",
    ]
    assert [run.tags["dagster/partition"] for run in runs(mine.project)] == ["coop/1", "solo/1"]


@pytest.mark.slow
def test_a_blocked_and_an_unreadable_cell_are_said_with_reason_and_fix_and_the_others_are_published(
    mine: Place,
) -> None:
    write_run(mine.logs / "more", "coop", [(3, 4)])
    shutil.copytree(mine.logs / "more" / "coop", mine.logs / "c_1" / "coop", dirs_exist_ok=True)
    shutil.rmtree(mine.logs / "s_2")
    done = mine.run("materialize", "mine")
    assert done.exit_code == NOT_DONE
    said = " ".join(done.output.split())
    assert "coop seed 1: mine coop seed 1: blocked by only_planned_pairs: 1 pair extra, duplicate" in said
    assert "how to fix: move them out of the run folder, or correct subset: or run_name: in defs.yaml" in said
    assert "solo seed 2: mine solo seed 2: no run folder" in said
    assert "results_store: 9 pass, 3 fail" in said
    assert [run.status for run in runs(mine.project)] == [dg.DagsterRunStatus.FAILURE]


@pytest.mark.slow
def test_an_interrupt_ends_the_reading_as_cancelled(tmp_path: Path) -> None:
    seeds = list(range(150))
    attributes = {"subset": "three", "run_name": "s_{seed}", "settings": {"solo": {"mode": "solo", "seeds": seeds}}}
    project = make_project(tmp_path / "project", {"mine": attributes})
    subsets = project.root / "data" / "dataset" / "subsets"
    subsets.mkdir(parents=True)
    tasks = '[{"repo": "click_task", "task_id": 7, "pairs": [[1, 2], [1, 3], [2, 3]]}]'
    (subsets / "three.json").write_text(f'{{"name": "three", "tasks": {tasks}}}')
    for seed in seeds:
        write_run(project.root / "data" / "logs" / f"s_{seed}", "solo", PAIRS)
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "cooperbench_assets.cli", "materialize", "mine"],
        cwd=project.root,
        env=environment(project),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "solo seed 0: 3 pass\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED, errors
    assert "Traceback" not in errors
    assert [run.status for run in runs(project)] == [dg.DagsterRunStatus.CANCELED]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_command_that_was_killed_while_it_published_keeps_no_other_one_waiting(mine: Place) -> None:
    killed = subprocess.run(
        [sys.executable, "-m", "cooperbench_assets.cli", "materialize", "mine"],
        cwd=mine.project.root,
        env={**os.environ, VARIABLE: "publish:locked"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    write_run(mine.logs / "other", "solo", PAIRS)
    added = mine.run(
        *("import-logs", mine.logs, "--experiment", "other", "--subset", mine.subset, "--run", "solo=other")
    )
    assert added.exit_code == 0, added.output
    for name in ("other", "mine"):
        done = mine.run("materialize", name)
        assert done.exit_code == 0, done.output
        assert "results_store: " in done.output


@pytest.mark.slow
def test_a_subset_that_is_not_there_is_said_once(mine: Place) -> None:
    mine.subset.unlink()
    done = mine.run("materialize", "mine")
    assert done.exit_code == NOT_DONE
    assert said_of_cells(done.output) == []
    assert done.output.startswith("subset_pairs: mine: ")
    assert done.output.count("three.json") == 1
