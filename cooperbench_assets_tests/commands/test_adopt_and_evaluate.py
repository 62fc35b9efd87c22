from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import chdir
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from cooperbench_assets.cli import cli
from cooperbench_assets.demo.dataset import build_dataset
from cooperbench_assets.project import ROOT_VARIABLE
from cooperbench_assets.spec import load_experiments
from cooperbench_assets_tests.projects import CHECKOUT, make_project

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.project import Project

PAIRS = 2
"""One without a result, and one without an evaluation."""


def call(project: Project, *arguments: str) -> str:
    """The command line, in this process, in a project; what it prints."""
    with pytest.MonkeyPatch.context() as patch, chdir(project.root):
        patch.delenv(ROOT_VARIABLE, raising=False)
        patch.delenv("DAGSTER_HOME", raising=False)
        done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def outcomes(project: Project) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        call(project, "query", "SELECT pair, outcome, reason FROM outcomes ORDER BY pair", "--format", "json")
    )
    return found


def two_pairs(dataset: Path, file: Path) -> Path:
    """A subset of the demo: one pair of each of its first tasks."""
    lite = json.loads((dataset / "subsets" / "lite.json").read_text())
    tasks = [{**task, "pairs": task["pairs"][:1]} for task in lite["tasks"][:PAIRS]]
    file.write_text(json.dumps({"name": "two", "tasks": tasks}))
    return file


@pytest.mark.slow
def test_adopted_results_are_evaluated_here_and_the_originals_stay_as_they_were(tmp_path: Path) -> None:
    dataset = build_dataset(tmp_path / "dataset")
    attributes = yaml.safe_load((CHECKOUT / "cooperbench_assets/defs/demo/defs.yaml").read_text())["attributes"]
    attributes |= {
        "dataset": str(dataset),
        "subset": str(two_pairs(dataset, tmp_path / "two.json")),
        "settings": {"solo": {"mode": "solo", "seeds": [0]}},
    }
    first = make_project(tmp_path / "first", {"theirs": attributes})
    call(first, "materialize", "theirs")
    assert {row["outcome"] for row in outcomes(first)} <= {"pass", "fail"}, "choose pairs that no fault is scripted for"
    run = first.data / "logs" / "theirs-solo"
    for name in ("eval.json", "eval_summary.json", "provenance.json"):
        for file in run.rglob(name):
            file.unlink()
    shutil.rmtree(run / "attempts", ignore_errors=True)
    unfinished = next(iter((run / "solo").rglob("result.json"))).parent
    shutil.rmtree(unfinished)
    before = hashes(run)

    second = make_project(tmp_path / "second", {"mine": attributes})
    call(
        second, "import-logs", str(first.data / "logs"), "--experiment", "mine", "--adopt", "--run", "solo=theirs-solo"
    )
    planned = call(second, "materialize", "mine", "--dry-run")
    assert "run 1: no result yet" in planned
    assert f"run {PAIRS - 1}: not evaluated yet" in planned
    call(second, "materialize", "mine")

    (cell,) = json.loads(call(second, "status", "mine", "--json"))
    assert (cell["results"], cell["evals"]) == (PAIRS, PAIRS)
    assert outcomes(second) == outcomes(first)
    assert hashes(run) == before
    ours = second.data / "logs" / load_experiments(second.defs)["mine"].cells("mine")[0].run_name
    record = json.loads((ours / "provenance.json").read_text())
    assert record["origin"] == "adopted"
    assert record["adopted"]["run"] == "theirs-solo"
    again = call(
        second, "import-logs", str(first.data / "logs"), "--experiment", "mine", "--adopt", "--run", "solo=theirs-solo"
    )
    assert "adopted before" in again
