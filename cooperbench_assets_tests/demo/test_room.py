"""The room and its neighbours: none knows it, and the harness can import it with nothing else of ours at hand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cooperbench_assets
from cooperbench_assets.assets.execution import job_of
from cooperbench_assets.demo import DEMO_AGENT, DEMO_MODULE
from cooperbench_assets.demo.injected_faults import EVAL_VARIABLE
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.project import Project
from cooperbench_assets.spec import load_experiments

PACKAGE = Path(cooperbench_assets.__file__).parent

ALONE = """
import sys, types, pathlib
package = types.ModuleType("cooperbench_assets")
package.__path__ = [sys.argv[1]]
sys.modules["cooperbench_assets"] = package
import cooperbench_assets.demo as demo
import cooperbench_assets.demo.assignment, cooperbench_assets.demo.conversation, cooperbench_assets.demo.usage
demo.build_dataset(pathlib.Path(sys.argv[2]))
strangers = [name for name in sys.modules if name.partition(".")[0] not in sys.stdlib_module_names]
print(sorted({name for name in strangers if not name.startswith(("cooperbench_assets", "__main__"))}))
"""


def test_no_other_module_knows_the_demo_but_the_table_of_commands_and_its_own() -> None:
    named = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if re.search(r"(?i)(?<![a-z])demo(?![a-z])", file.read_text()) and PACKAGE / "demo" not in file.parents
    }
    assert named == {"cli.py", "commands/demo.py"}


def test_the_experiment_that_ships_makes_its_dataset_and_injects_faults_by_keys_of_its_file(tmp_path: Path) -> None:
    spec = load_experiments(PACKAGE / "defs")["demo"]
    experiment = ExperimentContext("demo", spec, Project(tmp_path))
    subset = experiment.subset()
    assert len(subset.pairs) == 100
    jobs = [job_of(experiment, cell, subset) for cell in experiment.cells]
    faults = [job.sandbox["environment"].get(EVAL_VARIABLE, "").split() for job in jobs]
    assert all(re.fullmatch(r"\w+/\d+/f\d+_f\d+@1=oom", fault) for cell in faults for fault in cell)
    assert len({tuple(cell) for cell in faults}) == 5, "each cell has its own"


def test_all_but_the_agents_need_only_the_standard_library(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ALONE, str(PACKAGE), str(tmp_path / "dataset")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_the_harness_finds_the_agents_by_the_modules_name(harness: object) -> None:
    from cooperbench.agents import get_runner, list_agents

    assert DEMO_AGENT in list_agents()
    assert type(get_runner(DEMO_AGENT)).__module__ == DEMO_MODULE
