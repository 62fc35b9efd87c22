"""The gold baseline from the command line: its plan, its progress, what it names, and Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import chdir
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl
import pytest
from dagster._core.instance.ref import InstanceRef

from cooperbench_assets.demo import build_dataset
from cooperbench_assets_tests.automation.driving import demo_attributes
from cooperbench_assets_tests.demo.bench import write_pairs
from cooperbench_assets_tests.projects import add_experiment, environment, make_project

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.project import Project
    from cooperbench_assets_tests.commands.place import Place

CONFLICTS = ("inkline_task", 3, (1, 2))
"""A pair whose solutions conflict on purpose."""

TWO = (CONFLICTS, ("plainconf_task", 5, (1, 4)))

CODE = "from cooperbench_assets.cli import main; main()"
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def own_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COOPERBENCH_ASSETS_STATE", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in one, made once."""
    return build_dataset(tmp_path_factory.mktemp("demo") / "dataset")


def files(project: Project) -> set[Path]:
    return {file for file in project.data.rglob("*") if "dataset" not in file.parts}


def test_a_dry_run_shows_the_plan_a_run_its_progress_and_each_solution_that_fails_and_a_reset_tries_one_again(
    place: Place,
) -> None:
    dataset = place.project.root / "data/demo/dataset"
    build_dataset(dataset)
    (dataset / "inkline_task" / "task3" / "combined.patch").write_text("")
    two = str(write_pairs(TWO, place.project.root / "two.json"))
    attributes = demo_attributes(agent="toy", external_agents=["tests_need_none"], subset=two)
    add_experiment(place.project, "mine", attributes)
    before = files(place.project)
    planned = place.run("materialize", "mine", "--gold", "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert planned.stdout.splitlines() == [
        f"gold-{mode}: 2 first and 2 second evaluations of the dataset's own solutions to run"
        for mode in ("solo", "coop")
    ]
    assert files(place.project) == before, "nothing was written"

    done = place.run("materialize", "mine", "--gold")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    for mode in ("solo", "coop"):
        assert any(line.startswith(f"gold-{mode}: 2 of 2 pairs done") for line in lines)
    assert any("inkline_task/3/" in line and " solo: fail" in line for line in lines)
    assert "not in the store" not in done.stdout, "nobody asked for cells"

    again = place.run("materialize", "mine", "--gold", "--dry-run")
    assert again.stdout.splitlines()[0].startswith("gold-solo: 0 first and 0 second evaluations")

    # A solution whose tries are used up is judged after its counters were reset.
    verdict = next(file for file in files(place.project) if file.name == "eval.json" and "attempts" not in file.parts)
    verdict.unlink()
    mode, repo, task, pair = verdict.parent.parts[-4:]
    tried = verdict.parents[4] / "attempts" / mode / repo / task / pair / "eval-1" / "attempt.json"
    record = {**json.loads(tried.read_text()), "outcome": "infra_error", "family": "oom", "retryable": True}
    for n in (1, 2):
        folder = tried.parents[1] / f"eval-{n}"
        folder.mkdir(exist_ok=True)
        (folder / "attempt.json").write_text(json.dumps({**record, "n": n, "promoted": False}))

    used_up = place.run("materialize", "mine", "--gold")
    assert "all_judged: " in used_up.stdout
    assert "materialize mine --gold" in used_up.stdout
    judged = place.run("materialize", "mine", "--gold", "--reset-retries")
    assert judged.exit_code == 0, judged.output
    assert "all_judged" not in judged.stdout
    (table,) = (place.project.tables / "mine").rglob("gold_baseline.parquet")
    verdicts = pl.read_parquet(table).group_by("mode", "first", "second").len().sort("mode", "first").rows()
    assert verdicts == [(mode, end, end, 1) for mode in ("coop", "solo") for end in ("fail", "pass")]


def test_ctrl_c_ends_a_gold_baseline_as_interrupted_and_its_run_as_cancelled(tmp_path: Path, dataset: Path) -> None:
    project = make_project(tmp_path / "project", {"mine": demo_attributes(dataset=str(dataset))})
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "materialize", "mine", "--gold"],
        cwd=project.root,
        env=environment(project),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert any(line.startswith("gold-solo: ") for line in process.stdout), process.communicate()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.strip().endswith("Interrupted")
    assert "Traceback" not in errors
    assert run_statuses(project, "gold_baseline") == ["CANCELED"]


def run_statuses(project: Project, asset: str) -> list[str]:
    """How the runs of an asset ended."""
    with chdir(project.root), dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(project.root))) as instance:
        runs = instance.get_runs()
    chosen = [run for run in runs if dg.AssetKey(["mine", asset]) in (run.asset_selection or ())]
    return [run.status.value for run in chosen]
