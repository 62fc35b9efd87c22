"""Stages of cells as Dagster runs them: what is told while they run, and what they do when it cannot be stored."""

from __future__ import annotations

import itertools
import sqlite3
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
import yaml

from cooperbench_assets.assets import execution
from cooperbench_assets.assets.keys import asset_key, partition_key
from cooperbench_assets.demo import build_dataset
from cooperbench_assets.local_runs import Launcher
from cooperbench_assets.spec import parse_experiment
from cooperbench_assets_tests.automation.driving import demo_attributes
from cooperbench_assets_tests.demo.bench import write_pairs
from cooperbench_assets_tests.projects import CHECKOUT, make_project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cooperbench_assets.execution.runner.progress import Progress
    from cooperbench_assets.project import Project
    from cooperbench_assets.store.cells import Cell

pytestmark = pytest.mark.slow
NAME = "drill"


@pytest.fixture(autouse=True)
def own_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COOPERBENCH_ASSETS_STATE", str(tmp_path / "state"))


@pytest.fixture(scope="module", autouse=True)
def said_often() -> Iterator[None]:
    """Several looks at each state of quick agents: with and without news, and while a storage is away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "SAY_SECONDS", 0.4)
        yield


PAIRS = (("inkline_task", 3, (1, 4)), ("plainconf_task", 5, (1, 4)), ("slotbook_task", 8, (1, 4)))
AT_ONCE = 2
"""Fewer than pairs: one is to begin while others have ended."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in one, made once."""
    return build_dataset(tmp_path_factory.mktemp("demo") / "dataset")


def launcher(folder: Path, dataset: Path, **changes: Any) -> Launcher:
    pairs = write_pairs(PAIRS, folder / "few.json")
    attributes = demo_attributes(dataset=str(dataset), subset=str(pairs), **changes)
    attributes["limits"]["concurrency"] = AT_ONCE
    project = make_project(folder / "project", {NAME: attributes})
    return Launcher(project, NAME, parse_experiment(NAME, attributes, project.defs / NAME / "defs.yaml"))


class Events:
    """The database of the events of the newest run."""

    def __init__(self, project: Project) -> None:
        files = (project.dagster / "history" / "runs").glob("*-*.db")
        self._file = max(files, key=lambda file: file.stat().st_mtime)
        self._away = self._file.with_suffix(".away")
        self._connection = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False)

    def lock(self) -> None:
        """Nobody else can write to it: writers wait for a minute or more, and fail then."""
        self._connection.execute("BEGIN EXCLUSIVE")

    def unlock(self) -> None:
        self._connection.rollback()
        self._connection.close()

    def remove(self) -> None:
        """It cannot be opened: whoever writes fails at once."""
        self._connection.close()
        self._file.rename(self._away)
        self._file.mkdir()

    def restore(self) -> None:
        self._file.rmdir()
        self._away.rename(self._file)


@pytest.mark.parametrize(("lose", "regain"), [(Events.lock, Events.unlock), (Events.remove, Events.restore)])
def test_a_storage_that_is_locked_or_away_for_a_while_ends_no_agent_and_holds_up_none(
    tmp_path: Path, dataset: Path, lose: Callable[[Events], None], regain: Callable[[Events], None]
) -> None:
    lost: list[Events] = []
    back: list[int] = []

    def listen(_cell: Cell, progress: Progress) -> None:
        if progress.stage == "agent" and progress.running and not lost:
            lost.append(Events(runs.experiment.project))
            lose(lost[0])
        if lost and not back and progress.done == progress.total:
            regain(lost[0])
            back.append(progress.done)

    with launcher(tmp_path, dataset, agent_config={"injected_faults": {"rate": 0.0}, "pace_seconds": 0.1}) as runs:
        runs.run_subset()
        runs.listen(listen)
        (ended,) = runs.run_cells(runs.experiment.cells)
        observed = observations(runs)
    assert back == [len(PAIRS)], "all agents ended while the storage was away"
    assert ended.ran.error is None
    said = ended.ran.metadata["run_logs"]
    assert (said["launched"], said["tries_done"], said["tries_failed"]) == (3, 3, 0)
    assert observed[0]["done"] == len(PAIRS), "what could not be stored was said again"


def observations(runs: Launcher) -> list[dict[str, object]]:
    """What was observed of the agents, the newest first, without times."""
    assert runs._instance is not None
    records = runs._instance.fetch_observations(asset_key(NAME, "run_logs"), limit=100).records
    made = [record.asset_observation for record in records]
    assert {one.partition for one in made if one} == {partition_key(cell.cell) for cell in runs.experiment.cells}
    return [{name: value.value for name, value in one.metadata.items() if name != "seconds"} for one in made if one]


@pytest.fixture(scope="module")
def watched(
    tmp_path_factory: pytest.TempPathFactory, dataset: Path, said_often: None
) -> tuple[dg.DagsterRun, list[dict[str, object]]]:
    """A run of a whole cell, and what was observed of its agents."""
    folder = tmp_path_factory.mktemp("watched")
    with launcher(folder, dataset, agent_config={"injected_faults": {"rate": 0.0}, "pace_seconds": 0.2}) as runs:
        runs.run_subset()
        (ended,) = runs.run_cells(runs.experiment.cells)
        assert ended.ran.error is None
        assert runs._instance is not None
        run = runs._instance.get_run_by_id(ended.ran.run_id)
        assert run is not None
        return run, observations(runs)


def test_a_run_of_the_command_line_is_of_the_code_location_that_workspace_yaml_names(
    watched: tuple[dg.DagsterRun, list[dict[str, object]]],
) -> None:
    """Home shows runs of code locations alone; Dagster's own in-process runs are of none."""
    run, _ = watched
    assert run.remote_job_origin is not None
    (place,) = yaml.safe_load((CHECKOUT / "workspace.yaml").read_text())["load_from"]
    name = place["python_module"]["location_name"]
    assert run.remote_job_origin.repository_origin.code_location_origin.location_name == name


def test_an_observation_is_made_where_something_changed_and_only_there(
    watched: tuple[dg.DagsterRun, list[dict[str, object]]],
) -> None:
    _, told = watched
    assert told[0]["done"] == len(PAIRS)
    assert all(one != another for one, another in itertools.pairwise(told))
