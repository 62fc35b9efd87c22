"""An instance whose history has partitions by seed and setting, as they were; `dagster_ui` has it in `dagster dev`."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from cooperbench_assets.assets.keys import asset_key
from cooperbench_assets.local_runs import open_instance
from cooperbench_assets_tests.assets.old_keys import make_history
from cooperbench_assets_tests.automation.driving import Driver
from cooperbench_assets_tests.experiments import bind, fill
from cooperbench_assets_tests.projects import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_old_keys_hinder_no_tick_and_no_run(tmp_path: Path) -> None:
    experiment = bind(tmp_path, nightly="0 2 * * *")
    for cell in experiment.cells:
        fill(experiment, cell.cell.setting, cell.cell.seed)
    shutil.copy(CHECKOUT / "dagster.yaml", tmp_path)
    with open_instance(experiment.project) as instance:
        make_history(instance, "made")
        driver = Driver(experiment, instance)
        assert "1 dead runs" in driver.watch()
        assert "of an earlier night is still running" in driver.nightly()
        for cell in experiment.cells:
            assert driver.launch(cell.cell).success
        done = instance.get_materialized_partitions(asset_key("made", "pair_results"))
        assert done > {"solo/0", "solo/1", "coop-comm/0", "coop-nocomm/0"}
        assert driver.materialize(["results_store"]).success
        looks = driver.looks()
        assert [(seen.state.active_run, seen.state.unread) for seen in looks] == [(None, False)] * 4
