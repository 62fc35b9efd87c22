"""The project's Dagster instance, opened for the first time by several processes at once."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cooperbench_assets_tests.experiments import SETTINGS, bind, fill
from cooperbench_assets_tests.projects import CHECKOUT, environment, make_project
from cooperbench_assets_tests.ui import dagster_dev

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.project import Project

pytestmark = pytest.mark.slow

OPEN_EACH_AS_IT_IS_NAMED = """
import os, sys
import dagster as dg
from dagster._core.instance.ref import InstanceRef
print("ready", flush=True)
for line in sys.stdin:
    os.chdir(line.strip())
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(line.strip())) as instance:
        instance.get_runs(limit=1)
    print("opened", flush=True)
"""


def test_processes_that_open_a_fresh_instance_at_once_all_get_it(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_EACH_AS_IT_IS_NAMED],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    assert [answer(process) for process in processes] == ["ready"] * 4
    for n in range(5):
        root = tmp_path / str(n)
        root.mkdir()
        shutil.copy(CHECKOUT / "dagster.yaml", root)
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(f"{root}\n")
            process.stdin.flush()
        assert [answer(process) for process in processes] == ["opened"] * 4
    for process in processes:
        process.communicate()


def answer(process: subprocess.Popen[str]) -> str:
    """The next line that a process says; how it ended if it says nothing more."""
    assert process.stdout is not None
    return process.stdout.readline().strip() or process.communicate()[1][-500:]


def test_two_first_commands_beside_a_first_dagster_dev_all_work_without_a_warning_and_in_no_temporary_folder(
    tmp_path: Path,
) -> None:
    project = make_project(
        tmp_path / "project", {"made": {"subset": "some", "run_name": "{setting}{seed_suffix}", "settings": SETTINGS}}
    )
    experiment = bind(project.root)
    for cell in experiment.cells:
        fill(experiment, cell.cell.setting, cell.cell.seed)
    options, variables = as_make_starts_it(project)
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", "cooperbench_assets.cli", "materialize", "made", "--setting", setting],
            cwd=project.root,
            env=environment(project),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for setting in ("solo", "coop-comm")
    ]
    with dagster_dev(project, options, **variables):
        ends = [command.communicate() for command in commands]
        # Read before it is stopped: while it shuts down, Dagster may warn that its code server has ended.
        said = (project.root / "dagster-dev.log").read_text()
    assert [command.returncode for command in commands] == [0, 0], ends
    assert "Serving dagster-webserver" in said
    assert not [word for word in ("temporary", "warning", "superseded") if word in said.lower()], said


def as_make_starts_it(project: Project) -> tuple[list[str], dict[str, str]]:
    """Options of Python and variables with which `make ui` starts `dagster dev`, for another project."""
    shown = subprocess.run(["make", "-n", "ui"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    (command,) = (line for line in shown.replace("\\\n", " ").splitlines() if "dagster dev" in line)
    words = shlex.split(command)
    first, dashes = words.index(".venv/bin/python"), words.index("--")
    assert words[first + 1 : dashes] == ["-m", "cooperbench_assets.viewer.beside"]
    python, module = dashes + 1, words.index("-m", dashes)
    variables = dict(word.split("=", 1) for word in words[:first])
    return words[python + 1 : module], {
        name: value.replace(str(CHECKOUT), str(project.root)) for name, value in variables.items()
    }
