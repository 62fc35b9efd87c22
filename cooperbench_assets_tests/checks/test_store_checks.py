"""The checks of an experiment's cells together: each on a store where it fails, and again once it is fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cooperbench_assets.assets.results_store import publish_experiment, store_view
from cooperbench_assets.assets.tables import CELL_UNIT_TABLES
from cooperbench_assets.checks.results_store import RESULTS_STORE_CHECKS
from cooperbench_assets.store.partition_tables import write_unit
from cooperbench_assets.store.units import cell_unit
from cooperbench_assets_tests.experiments import bind, fill, view

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.checks.finding import Finding
    from cooperbench_assets.experiment_context import ExperimentContext

ONE = {"solo": {"mode": "solo", "seeds": [0]}}
TWO = {"solo": {"mode": "solo", "seeds": [0, 1]}}


def publish(experiment: ExperimentContext, *seeds: int) -> None:
    """Bring finished runs into the store."""
    for seed in seeds:
        fill(experiment, "solo", seed)
        found = view(experiment, "solo", seed)
        write_unit(experiment.project.tables, cell_unit(found.spec.cell), found.frames, declared=CELL_UNIT_TABLES)
    publish_experiment(experiment)


def findings(experiment: ExperimentContext) -> dict[str, Finding]:
    """What every check finds in the store as it is."""
    seen = store_view(experiment)
    return {check.name: check.find(seen) for check in RESULTS_STORE_CHECKS}


def failed(experiment: ExperimentContext) -> dict[str, Finding]:
    return {name: finding for name, finding in findings(experiment).items() if not finding.passed}


def test_every_check_passes_where_all_cells_are_in_the_store(tmp_path: Path) -> None:
    experiment = bind(tmp_path, settings=TWO)
    publish(experiment, 0, 1)
    for finding in findings(experiment).values():
        assert (finding.passed, finding.affected, finding.sample, finding.remedy) == (True, 0, (), "")


@pytest.mark.slow
def test_a_planned_cell_that_is_not_in_the_store_is_named_until_it_is_materialised(tmp_path: Path) -> None:
    experiment = bind(tmp_path, settings=TWO)
    publish(experiment, 0)
    [(name, finding)] = failed(experiment).items()
    assert (name, finding.sample) == ("planned_cells_present", ("made solo seed 1",))
    assert finding.description == "1 of 2 planned cells is not in the store"
    assert finding.numbers == {"cells": 1, "planned_cells": 2}
    assert finding.remedy == "cooperbench-assets materialize made"
    publish(experiment, 1)
    assert failed(experiment) == {}


def test_an_empty_store_lacks_every_planned_cell(tmp_path: Path) -> None:
    experiment = bind(tmp_path, settings=TWO)
    publish_experiment(experiment)
    assert failed(experiment)["planned_cells_present"].affected == 2


@pytest.mark.slow
def test_a_cell_of_another_subset_is_named_until_all_are_read_with_one(tmp_path: Path) -> None:
    publish(bind(tmp_path, count=4, settings=ONE), 0)
    experiment = bind(tmp_path, count=6, settings=TWO)
    publish(experiment, 1)
    found = failed(experiment)
    assert set(found) == {"same_pairs_everywhere", "one_recipe"}, "the subset's hash differs too"
    finding = found["same_pairs_everywhere"]
    assert finding.description == "1 cell has pairs that others lack"
    assert finding.sample == ("solo seed 1: sprout_task/7/f3_f40, sprout_task/8/f3_f40 not in every cell",)
    assert finding.remedy == "give all settings one subset, and materialise the cells that were read with another"
    publish(experiment, 0)
    assert failed(experiment) == {}


def test_a_cell_that_was_dropped_since_the_last_publish_is_named_until_the_next(tmp_path: Path) -> None:
    experiment = bind(tmp_path, settings=TWO)
    publish(experiment, 0, 1)
    bind(tmp_path, settings=ONE)
    [(name, finding)] = failed(experiment).items()
    assert (name, finding.sample) == ("nothing_dropped_remains", ("solo seed 1",))
    assert finding.description == "1 cell in the store that the experiment has dropped"
    assert finding.remedy == "cooperbench-assets materialize made"
    publish_experiment(experiment)
    assert failed(experiment) == {}
