"""A dataset that a module of the user's makes, named in defs.yaml: made before use, with variables for its tests."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from cooperbench_assets.assets.execution import job_of
from cooperbench_assets.dataset_module import DatasetModuleError
from cooperbench_assets.experiment_context import ExperimentContext, MissingInputError
from cooperbench_assets.project import Project
from cooperbench_assets.spec import ExperimentError, parse_experiment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAKES = """
import json

def build_dataset(root):
    (root / "subsets").mkdir(parents=True, exist_ok=True)
    file = root / "subsets" / "own.json"
    file.write_text(json.dumps({"tasks": [{"repo": "mine_task", "task_id": 1, "pairs": [[1, 2]]}]}))
    with (root / "made").open("a") as record:
        record.write("made\\n")
"""
HAS_VARIABLES = """
def eval_environment(pairs, *, mode, messaging, seed, agent_config):
    return {"MINE": f"{' '.join(pairs)} {mode} {messaging} {seed} {agent_config['depth']}"}
"""
_numbers = itertools.count()


@pytest.fixture
def bind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ExperimentContext]:
    """An experiment whose dataset_module has this source."""
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))

    def make(source: str, **changes: Any) -> ExperimentContext:
        name = f"own_tasks_{next(_numbers)}"
        (tmp_path / "modules").mkdir(exist_ok=True)
        (tmp_path / "modules" / f"{name}.py").write_text(source)
        attributes = {
            "model_name": "m",
            "agent": "mine",
            "agent_config": {"depth": 3},
            "subset": "own",
            "dataset": "own tasks",
            "dataset_module": name,
            "execution": "process",
            "settings": {"coop": {"mode": "coop", "messaging": False, "seeds": [0, 7]}},
            **changes,
        }
        spec = parse_experiment("mine", attributes, tmp_path / "defs.yaml")
        return ExperimentContext("mine", spec, Project(tmp_path))

    return make


def test_it_is_made_before_each_use_and_not_by_a_mere_look(bind: Callable[..., ExperimentContext]) -> None:
    experiment = bind(MAKES)
    with pytest.raises(MissingInputError, match="mine: its dataset is made when it is first materialised"):
        experiment.subset_at_hand()
    assert not experiment.dataset.exists()
    assert [pair.name for pair in experiment.subset().pairs] == ["mine_task/1/f1_f2"]
    experiment.subset()
    assert (experiment.dataset / "made").read_text().splitlines() == ["made", "made"]
    assert experiment.subset_at_hand() == experiment.subset()


def test_tests_of_a_cell_see_the_variables_that_the_module_has_for_it(
    bind: Callable[..., ExperimentContext],
) -> None:
    experiment = bind(MAKES + HAS_VARIABLES)
    jobs = [job_of(experiment, cell, experiment.subset()) for cell in experiment.cells]
    said = [job.sandbox["environment"] for job in jobs]
    assert said == [{"MINE": f"mine_task/1/f1_f2 coop False {seed} 3"} for seed in (0, 7)]


def test_a_module_need_not_have_variables_nor_an_experiment_a_module(
    bind: Callable[..., ExperimentContext],
) -> None:
    experiment = bind(MAKES)
    assert job_of(experiment, experiment.cells[0], experiment.subset()).sandbox["environment"] == {}
    alone = bind("", dataset_module=None)
    assert "environment" not in job_of(alone, alone.cells[0], experiment.subset()).sandbox


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", r"own_tasks_\d+ has no function build_dataset\(root\); add it"),
        ("import no_such_thing_anywhere", r"own_tasks_\d+ cannot be imported \(ModuleNotFoundError: .*install it"),
        ("def build_dataset(root): raise OSError(28, 'disk full')", r"own_tasks_\d+\.build_dataset: .*disk full"),
    ],
)
def test_one_that_cannot_make_it_is_one_sentence(
    source: str, said: str, bind: Callable[..., ExperimentContext]
) -> None:
    with pytest.raises(MissingInputError, match=f"mine: dataset_module: {said}"):
        bind(source).subset()


def test_variables_that_cannot_be_made_are_one_sentence(bind: Callable[..., ExperimentContext]) -> None:
    experiment = bind(MAKES + HAS_VARIABLES, agent_config={"depths": 3})
    with pytest.raises(DatasetModuleError, match=r"dataset_module: own_tasks_\d+\.eval_environment: 'depth'"):
        job_of(experiment, experiment.cells[0], experiment.subset())


def test_what_cannot_be_a_modules_name_is_refused_as_the_file_is_read(
    bind: Callable[..., ExperimentContext],
) -> None:
    with pytest.raises(ExperimentError, match="dataset_module: "):
        bind("", dataset_module="tasks/build.py")
