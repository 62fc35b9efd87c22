"""An instance whose history has partitions by seed and setting (`0|solo`), as they were before static keys."""

# No `from __future__ import annotations`: Dagster reads the annotations of an op as they are.
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import chdir
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.instance.ref import InstanceRef

from cooperbench_assets.assets.keys import asset_key
from cooperbench_assets.automation.backfills import add_backfill
from cooperbench_assets.automation.dagster_runs import CELL_ASSETS
from cooperbench_assets.automation.nightly_schedule import NIGHTLY_TAG
from cooperbench_assets.local_runs import NO_OUTPUT, QUIET
from cooperbench_assets_tests.automation.driving import Driver
from cooperbench_assets_tests.automation.ui_actions import (
    Counts,
    check_partitions,
    graphql,
    launch_run,
    partition_counts,
    run_statuses,
    until,
)
from cooperbench_assets_tests.experiments import SETTINGS, bind, fill
from cooperbench_assets_tests.projects import make_project
from cooperbench_assets_tests.ui import dagster_dev

OLD = dg.MultiPartitionsDefinition(
    {
        "setting": dg.StaticPartitionsDefinition(["solo", "coop-comm", "coop-nocomm"]),
        "seed": dg.StaticPartitionsDefinition(["0", "1"]),
    }
)
SOLO, COMM, UNPLANNED = (
    dg.MultiPartitionKey({"setting": setting, "seed": seed})
    for setting, seed in (("solo", "0"), ("coop-comm", "0"), ("coop-comm", "1"))
)


def old_asset(name: str) -> dg.AssetsDefinition:
    """An asset as it was: the same key and op, other partitions, a check."""
    key = asset_key("made", name)

    @dg.multi_asset(
        name=f"made__{name}",
        specs=[dg.AssetSpec(key, skippable=True)],
        partitions_def=OLD,
        check_specs=[dg.AssetCheckSpec("expected_results", asset=key, partitions_def=OLD)],
        can_subset=True,
    )
    def old() -> Iterator[dg.MaterializeResult[Any]]:
        failed = dg.AssetCheckResult(check_name="expected_results", passed=False)
        yield dg.MaterializeResult(asset_key=key, check_results=[failed])

    return old


def make_history(instance: dg.DagsterInstance) -> None:
    """Two cells that were materialised, a run whose process was killed, and a nightly backfill that is not over."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        definitions = dg.Definitions(assets=[old_asset(name) for name in CELL_ASSETS])
        job = definitions.resolve_implicit_global_asset_job_def()
        for key in (SOLO, COMM):
            run_config = {"loggers": QUIET}
            assert job.execute_in_process(instance=instance, partition_key=key, run_config=run_config).success
    run = instance.create_run_for_job(
        job,
        tags={"dagster/partition": "0|solo", "dagster/partition/seed": "0"},
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=frozenset([asset_key("made", "run_logs")]),
    )
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    instance.report_engine_event("Started.", run, EngineEventData.in_process(process.pid))
    add_backfill(
        instance,
        OLD,
        [UNPLANNED],
        [asset_key("made", name) for name in CELL_ASSETS],
        title="Nightly: 1 cell (1 never run)",
        description="",
        tags={NIGHTLY_TAG: "made"},
        run_config={},
        now=datetime.now(UTC),
    )


@pytest.mark.slow
def test_old_keys_hinder_no_tick_and_no_run(tmp_path: Path) -> None:
    experiment = bind(tmp_path, nightly="0 2 * * *")
    for cell in experiment.cells:
        fill(experiment, cell.cell.setting, cell.cell.seed)
    with dg.instance_for_test(overrides=dict(NO_OUTPUT)) as instance:
        make_history(instance)
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


@pytest.mark.slow
def test_the_webserver_and_the_daemon_go_on_from_old_keys(tmp_path: Path) -> None:
    attributes = {"subset": "some", "run_name": "{setting}{seed_suffix}", "settings": SETTINGS}
    project = make_project(tmp_path / "project", {"made": attributes})
    experiment = bind(project.root)
    fill(experiment, "solo")
    project.dagster.mkdir(parents=True)
    reference = InstanceRef.from_dir(str(project.root), overrides=NO_OUTPUT)
    with chdir(project.root), dg.DagsterInstance.from_ref(reference) as instance:
        make_history(instance)
    with dagster_dev(project) as address:
        assert partition_counts(address, "made", "pair_results") == Counts(planned=4)
        launch_run(address, "made", "solo", 0)
        until(lambda: partition_counts(address, "made", "pair_results") == Counts(planned=4, materialised=1))
        assert "SUCCESS" in run_statuses(address)
        until(lambda: backfills(address) == {"FAILED"})
        assert check_partitions(address, "made", "run_logs")["expected_results"] == ({"solo/0"}, set())


def backfills(address: str) -> set[str]:
    """The statuses of all backfills."""
    answer = graphql(address, "{ partitionBackfillsOrError { ... on PartitionBackfills { results { status } } } }")
    return {backfill["status"] for backfill in answer["partitionBackfillsOrError"]["results"]}
