"""A cell that defs.yaml has dropped, whose run folder is left over: nothing is bought for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pytest
from click import BadParameter

from cooperbench_assets.assets.keys import asset_key
from cooperbench_assets.commands.materialize import chosen_cells
from cooperbench_assets.execution.attempts.records import scan_attempts
from cooperbench_assets_tests.automation.driving import CELL_ASSETS, Driver, bind_demo

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def test_materialising_everything_after_a_seed_was_dropped_buys_nothing_in_its_run_folder(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    before = Driver(bind_demo(tmp_path, settings={"solo": {"mode": "solo", "seeds": [0, 1]}}), instance)
    kept, dropped = before.experiment.cells
    assert before.launch(dropped.cell, at_most=1).success
    folder = before.experiment.run_dir(dropped)
    bought = scan_attempts(folder, "solo")
    assert len(bought) == 1, "one of its two pairs is missing"

    after = Driver(bind_demo(tmp_path), instance)
    everything = after.repository.asset_graph.get(asset_key("drill", "run_logs")).partitions_def
    assert everything is not None
    assert everything.get_partition_keys() == ["solo/0"]
    for partition in everything.get_partition_keys():
        assert after.materialize(CELL_ASSETS, partition).success
    assert len(scan_attempts(after.experiment.run_dir(kept), "solo")) == 2
    assert scan_attempts(folder, "solo") == bought
    with pytest.raises(dg.DagsterUnknownPartitionError, match="solo/1"):
        after.launch(dropped.cell)
    with pytest.raises(BadParameter, match=r"drill plans no cell with seed 1 there; add it to seeds: in defs\.yaml"):
        chosen_cells("drill", after.experiment.spec, ["solo"], [1])
    assert scan_attempts(folder, "solo") == bought
