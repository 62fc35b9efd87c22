"""What release 0.1 left on disk, read by the code of today: outcomes, counts of tries, the store, switches, keys."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
from contextlib import chdir
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl
import pytest
import yaml
from click.testing import CliRunner
from dagster._core.definitions.selector import InstigatorSelector
from dagster._core.instance.ref import InstanceRef

from cooperbench_assets.assets.execution import STAGES
from cooperbench_assets.assets.keys import asset_key, partition_key
from cooperbench_assets.assets.results_store import publish_experiment
from cooperbench_assets.assets.tables import CELL_UNIT_TABLES
from cooperbench_assets.cli import cli
from cooperbench_assets.definitions import project_definitions
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.project import ROOT_VARIABLE, Project
from cooperbench_assets.sharing.bundle_import import import_bundle
from cooperbench_assets.spec import load_experiments
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.partition_tables import read_unit, write_unit
from cooperbench_assets.store.units import cell_unit
from cooperbench_assets_tests.compatibility import make
from cooperbench_assets_tests.projects import CHECKOUT, environment, make_project

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FIGURES: dict[str, Any] = json.loads(make.FIGURES.read_text())
PLACE = re.compile(rb"/(?:home|root|Users)/")
OUTCOMES = ("setting", "seed", "pair", "outcome", "reason", "stage", "family", "accepted")
TRIES = ("setting", "seed", "pair", "stage", "n", "campaign", "outcome", "counted", "family")


def unpack(root: Path) -> Project:
    """The project as that release left it, with the settings of the checkout of today."""
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(make.ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(CHECKOUT / name, root)
    return Project(root)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """For tests that change nothing."""
    return unpack(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def project(kept: Project, tmp_path: Path) -> Project:
    """For tests that do."""
    return Project(shutil.copytree(kept.root, tmp_path / "project", symlinks=True))


def bind(project: Project) -> ExperimentContext:
    return ExperimentContext("mine", load_experiments(project.defs)["mine"], project)


def recorded(table: str, settings: Iterable[str]) -> list[list[Any]]:
    """The rows that the release recorded, of these settings."""
    wanted = set(settings)
    return [row for row in FIGURES[table] if row[0] in wanted]


def rows(frame: pl.DataFrame, columns: tuple[str, ...]) -> list[list[Any]]:
    return sorted(map(list, frame.select(columns).rows()), key=lambda row: [str(value) for value in row])


def in_order(listed: list[list[Any]]) -> list[list[Any]]:
    return sorted(listed, key=lambda row: [str(value) for value in row])


def in_store(project: Project) -> dict[str, list[list[Any]]]:
    """What the store says, as the release's own figures were taken."""
    return {
        "outcomes": make.rows(project, f"SELECT {', '.join(OUTCOMES)} FROM pairs"),
        "attempts": make.rows(project, f"SELECT {', '.join(TRIES)} FROM attempts"),
        "gold": make.rows(project, 'SELECT mode, pair, "first", second, sound FROM gold_baseline'),
    }


def store_figures() -> dict[str, list[list[Any]]]:
    return {name: FIGURES[name] for name in ("outcomes", "attempts", "gold")}


def test_its_log_trees_have_the_same_outcomes_and_counts_of_tries(kept: Project) -> None:
    experiment = bind(kept)
    subset = experiment.subset_at_hand()
    frames = [experiment.view(cell, subset).frames for cell in experiment.cells]
    settings = {cell.cell.setting for cell in experiment.cells}
    for table, figures, columns in (("pairs", "outcomes", OUTCOMES), ("attempts", "attempts", TRIES)):
        read = rows(pl.concat([frame[table] for frame in frames]), columns)
        assert read == in_order(recorded(figures, settings)), table


def test_what_is_left_alone_is_the_same(kept: Project) -> None:
    experiment = bind(kept)
    found = {
        f"{cell.cell.setting} {asset}": make.blocked(experiment, cell, asset)
        for cell in experiment.cells
        for asset in STAGES
    }
    assert found == FIGURES["blocked"]
    assert make.PAIRS["exhausted"] in found["solo run_logs"]
    assert make.PAIRS["waits"] in found["solo run_logs"]


@pytest.mark.parametrize("setting", ["solo", "coop-comm", "gold-solo", "gold-coop"])
def test_its_partition_tables_are_read(kept: Project, setting: str) -> None:
    frames = read_unit(kept.tables, cell_unit(Cell("mine", setting, 0)))
    assert rows(frames["pairs"], OUTCOMES) == in_order(recorded("outcomes", [setting]))
    assert rows(frames["attempts"], TRIES) == in_order(recorded("attempts", [setting]))


@pytest.mark.slow
def test_its_store_opens_and_is_published_anew_with_the_same_content(project: Project) -> None:
    assert in_store(project) == store_figures()
    published = publish_experiment(bind(project))
    assert (published.unreadable, published.dropped) == ({}, ())
    assert in_store(project) == store_figures()


@pytest.mark.slow
def test_its_store_is_built_anew_from_its_partition_tables(project: Project) -> None:
    project.database.unlink()
    published = publish_experiment(bind(project))
    assert published.unreadable == {}
    assert in_store(project) == store_figures()


@pytest.mark.slow
def test_its_cells_are_read_anew_and_published_with_the_same_outcomes(project: Project) -> None:
    experiment = bind(project)
    subset = experiment.subset_at_hand()
    for cell in experiment.cells:
        write_unit(
            project.tables, cell_unit(cell.cell), experiment.view(cell, subset).frames, declared=CELL_UNIT_TABLES
        )
    publish_experiment(experiment)
    assert in_store(project) == store_figures()


def test_its_bundle_is_imported(kept: Project, tmp_path: Path) -> None:
    there = Project(tmp_path / "there")
    there.defs.mkdir(parents=True)
    taken = import_bundle(there, kept.root / "mine.tar.gz")
    assert {(cell.setting, cell.seed) for cell in taken.added} == {(row[0], row[1]) for row in FIGURES["outcomes"]}
    assert in_store(there) == store_figures()


def test_status_says_the_same(kept: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(kept.root))
    done = CliRunner().invoke(cli, ["status", "mine", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == FIGURES["status"]


def test_its_runs_and_what_they_materialised_are_known(project: Project) -> None:
    with chdir(project.root), dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(project.root))) as instance:
        statuses = [run.status.value for run in instance.get_runs()]
        assert {status: statuses.count(status) for status in set(statuses)} == FIGURES["runs"]
        for asset, partitions in FIGURES["partitions"].items():
            assert sorted(instance.get_materialized_partitions(asset_key("mine", asset))) == partitions
    planned = {partition_key(cell.cell) for cell in bind(project).cells}
    assert set(FIGURES["partitions"]["pair_results"]) == planned, "each is still a partition"


def test_what_was_switched_on_is_on_under_the_same_name(project: Project) -> None:
    (code,) = yaml.safe_load((CHECKOUT / "workspace.yaml").read_text())["load_from"]
    repository = project_definitions(project).get_repository_def()
    named = {one.name for one in repository.sensor_defs} | {one.name for one in repository.schedule_defs}
    with chdir(project.root), dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(project.root))) as instance:
        states = {state.name: state for state in instance.all_instigator_state() if state.status.value == "RUNNING"}
    assert sorted(states) == FIGURES["switched_on"]
    for name, state in states.items():
        assert name in named
        # Dagster finds a switch by the code location, the repository and the name.
        there = InstigatorSelector(
            location_name=code["python_module"]["location_name"], repository_name=repository.name, name=name
        )
        assert state.selector_id == there.get_id()


@pytest.mark.slow
def test_dagster_itself_says_that_they_are_on(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", {})
    unpack(project.root)
    shutil.rmtree(project.defs / "every_key")
    lists = [f"cli([{kind!r}, 'list', '-w', 'workspace.yaml'], standalone_mode=False)" for kind in make.SWITCHED_ON]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(["from dagster._cli import cli", *lists])],
        cwd=project.root,
        env=environment(project, DAGSTER_HOME=str(project.root)),
        capture_output=True,
        text=True,
        check=True,
    )
    for name in (name for names in make.SWITCHED_ON.values() for name in names):
        assert f"{name} [RUNNING]" in done.stdout


def test_every_key_of_its_defs_yaml_is_known_and_means_the_same(kept: Project) -> None:
    for name in ("mine", "every_key"):
        said = yaml.safe_load((kept.defs / name / "defs.yaml").read_text())["attributes"]
        spec = load_experiments(kept.defs)[name].model_dump()
        for path, value in leaves(said):
            found: Any = spec
            for key in path:
                found = found[key]
            assert found == value, path


def leaves(content: Any, path: tuple[str | int, ...] = ()) -> Iterable[tuple[tuple[str | int, ...], Any]]:
    """Every value of a tree of mappings and lists, with the way to it."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else None
    if items is None:
        yield path, content
        return
    for key, value in items:
        yield from leaves(value, (*path, key))


def test_none_of_its_files_names_a_place_of_the_machine_that_made_them(kept: Project) -> None:
    files = [file for file in kept.root.rglob("*") if file.is_file()]
    assert len(files) > 100
    for file in files:
        assert not PLACE.search(file.read_bytes()), file
