"""The asset results_store: which cells it keeps, and what a damaged one costs."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from cooperbench_assets import __version__
from cooperbench_assets.assets.keys import asset_key
from cooperbench_assets.assets.results_store import NIGHTLY, kept_cells, publish_experiment
from cooperbench_assets.assets.tables import CELL_UNIT_TABLES
from cooperbench_assets.experiment import experiment_definitions
from cooperbench_assets.sharing.bundle import export_bundle
from cooperbench_assets.sharing.bundle_import import import_bundle
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.partition_tables import write_unit
from cooperbench_assets.store.read import query
from cooperbench_assets.store.units import POINTER, cell_unit
from cooperbench_assets_tests.experiments import bind, fill, view

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.experiment_context import ExperimentContext

ONE = {"solo": {"mode": "solo", "seeds": [0]}}
TWO = {"solo": {"mode": "solo", "seeds": [0, 1]}}
BOTH = [("solo", 0), ("solo", 1)]


def read(experiment: ExperimentContext, *cells: tuple[str, int]) -> None:
    """Cells of finished runs, read into the partition tables."""
    for setting, seed in cells:
        fill(experiment, setting, seed)
        found = view(experiment, setting, seed)
        write_unit(experiment.project.tables, cell_unit(found.spec.cell), found.frames, declared=CELL_UNIT_TABLES)


def published(experiment: ExperimentContext) -> list[tuple[Any, ...]]:
    return query(experiment.project.database, "SELECT setting, seed FROM provenance ORDER BY ALL").rows()


def defs_file(experiment: ExperimentContext) -> Path:
    return experiment.project.defs / experiment.name / "defs.yaml"


def co_author(root: Path, seed: int, to: ExperimentContext) -> None:
    """A co-author's seed, imported."""
    theirs = bind(root, settings={"solo": {"mode": "solo", "seeds": [seed]}})
    read(theirs, ("solo", seed))
    publish_experiment(theirs)
    import_bundle(to.project, export_bundle(theirs.project, "made", root / "theirs.tar.gz").file)


def test_a_process_that_loaded_an_older_plan_takes_out_nothing(tmp_path: Path) -> None:
    stale = bind(tmp_path, settings=ONE)
    edited = bind(tmp_path, settings=TWO)
    read(edited, *BOTH)
    publish_experiment(edited)
    publish_experiment(stale)
    assert published(stale) == BOTH
    assert kept_cells(stale) == {Cell("made", "solo", 0): True, Cell("made", "solo", 1): True}


def test_a_cell_goes_when_its_experiment_drops_it_whoever_publishes(tmp_path: Path) -> None:
    stale = bind(tmp_path, settings=TWO)
    read(stale, *BOTH)
    publish_experiment(stale)
    bind(tmp_path, settings=ONE)
    publish_experiment(stale)
    assert published(stale) == BOTH[:1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "content", ["type: [", "", "type: other.Component", None], ids=["broken", "cut", "other", "gone"]
)
def test_while_defs_yaml_is_broken_its_cells_stay(tmp_path: Path, content: str | None) -> None:
    experiment = bind(tmp_path, settings=TWO)
    read(experiment, *BOTH)
    publish_experiment(experiment)
    if content is None:
        defs_file(experiment).unlink()
    else:
        defs_file(experiment).write_text(content)
    stale = type(experiment)("made", bind(tmp_path / "elsewhere", settings=ONE).spec, experiment.project)
    publish_experiment(stale)
    assert published(stale) == BOTH
    assert set(kept_cells(stale)) == {Cell("made", "solo", seed) for seed in (0, 1)}


def test_imported_seeds_stay_until_their_folder_is_deleted(tmp_path: Path) -> None:
    experiment = bind(tmp_path / "mine", settings=ONE)
    read(experiment, ("solo", 0))
    publish_experiment(experiment)
    co_author(tmp_path / "theirs", 1, experiment)
    publish_experiment(experiment)
    assert published(experiment) == BOTH
    assert kept_cells(experiment) == {Cell("made", "solo", 0): True, Cell("made", "solo", 1): False}
    shutil.rmtree(cell_unit(Cell("made", "solo", 1)).folder(experiment.project.tables))
    publish_experiment(experiment)
    assert published(experiment) == BOTH[:1]


def test_an_imported_seed_that_was_made_again_here_goes_when_it_is_dropped(tmp_path: Path) -> None:
    experiment = bind(tmp_path / "mine", settings=ONE)
    read(experiment, ("solo", 0))
    co_author(tmp_path / "theirs", 1, experiment)
    planned = bind(tmp_path / "mine", settings=TWO)
    read(planned, ("solo", 1))
    publish_experiment(planned)
    assert published(planned) == BOTH
    publish_experiment(bind(tmp_path / "mine", settings=ONE))
    assert published(experiment) == BOTH[:1]


def test_an_imported_seed_whose_tables_cannot_be_read_keeps_its_rows(tmp_path: Path) -> None:
    experiment = bind(tmp_path / "mine", settings=ONE)
    read(experiment, ("solo", 0))
    co_author(tmp_path / "theirs", 1, experiment)
    pointer = cell_unit(Cell("made", "solo", 1)).folder(experiment.project.tables) / POINTER
    for damage in (lambda: pointer.write_text("{"), pointer.unlink):
        damage()
        publish_experiment(experiment)
        assert published(experiment) == BOTH
    experiment.project.tables.rename(tmp_path / "unmounted")
    publish_experiment(experiment)
    assert published(experiment) == BOTH


def materialize(experiment: ExperimentContext, said: list[str] | None = None) -> dg.ExecuteInProcessResult:
    """Run the asset; what it writes to the run's log is added to `said`."""
    with dg.DagsterInstance.ephemeral() as instance:
        job = experiment_definitions(experiment).resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            instance=instance, asset_selection=[asset_key("made", "results_store")], raise_on_error=False
        )
        if said is not None:
            said += [entry.user_message for entry in instance.all_logs(result.run_id)]
        return result


@pytest.mark.slow
@pytest.mark.parametrize("planned", [True, False])
def test_a_damaged_table_is_named_and_its_last_rows_stay(tmp_path: Path, planned: bool) -> None:
    experiment = bind(tmp_path, settings=TWO if planned else ONE)
    read(experiment, *BOTH)
    assert materialize(experiment).success
    before = query(experiment.project.database, "SELECT * FROM agents ORDER BY ALL").rows()
    (table,) = cell_unit(Cell("made", "solo", 1)).folder(experiment.project.tables).glob("@*/provenance.parquet")
    table.write_bytes(table.read_bytes()[:-9])
    result = materialize(experiment)
    assert result.success
    assert query(experiment.project.database, "SELECT * FROM agents ORDER BY ALL").rows() == before
    found = {one.check_name: one for one in result.get_asset_check_evaluations()}
    assert [name for name, one in found.items() if not one.passed] == ["equals_partition_tables"]
    sample = str(found["equals_partition_tables"].metadata["sample"])
    assert f"{table} is not as it was written; its last rows are kept" in sample


@pytest.mark.slow
def test_what_a_publish_cannot_read_is_said_in_the_runs_log(tmp_path: Path) -> None:
    experiment = bind(tmp_path, settings=TWO)
    read(experiment, *BOTH)
    assert materialize(experiment).success
    pointer = cell_unit(Cell("made", "solo", 1)).folder(experiment.project.tables) / POINTER
    pointer.write_text("{")
    said: list[str] = []
    assert materialize(experiment, said).success
    assert any(text.startswith("made/cells/solo/1 cannot be read, and its last rows are kept: ") for text in said)
    assert published(experiment) == BOTH


def test_whether_imported_agents_shared_git_is_not_known_unless_it_is_said(tmp_path: Path) -> None:
    experiment = bind(tmp_path)
    fill(experiment, "coop-comm")
    assert view(experiment, "coop-comm").frames["provenance"]["git"].to_list() == [None]
    said = bind(tmp_path, settings={"coop-comm": {"mode": "coop", "git": True, "seeds": [0]}})
    assert view(said, "coop-comm").frames["provenance"]["git"].to_list() == [True]


def test_the_ui_learns_of_an_upgrade_of_a_night_that_published_nothing_and_of_whom_to_ask(tmp_path: Path) -> None:
    owners = ["ada@example.org", "team:agents"]
    cells = {"run_logs", "eval_outputs", "pair_results", "subset_pairs"}
    both: dict[str, dict[str, Any]] = {"a": {"nightly": "0 2 * * *", "owners": owners}, "b": {}}
    for root, changes in both.items():
        found = {
            spec.key.path[-1]: spec
            for spec in experiment_definitions(bind(tmp_path / root, **changes)).resolve_all_asset_specs()
        }
        assert {name for name, spec in found.items() if spec.code_version == __version__} == found.keys() - cells
        assert {tuple(spec.owners) for spec in found.values()} == {tuple(changes.get("owners", ()))}
        fresh = {name: spec.freshness_policy for name, spec in found.items() if spec.freshness_policy}
        assert fresh == ({"results_store": NIGHTLY} if changes else {})
