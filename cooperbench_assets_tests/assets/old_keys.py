"""A history that has partitions by seed and setting (`0|solo`), as they were before static keys."""

# No `from __future__ import annotations`: Dagster reads the annotations of an op as they are.
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.events import EngineEventData

from cooperbench_assets.assets.keys import asset_key
from cooperbench_assets.automation.backfills import add_backfill
from cooperbench_assets.automation.dagster_runs import CELL_ASSETS
from cooperbench_assets.automation.nightly_schedule import NIGHTLY_TAG
from cooperbench_assets.local_runs import QUIET

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


def old_asset(experiment: str, name: str) -> dg.AssetsDefinition:
    """An asset as it was: the same key and op, other partitions, a check."""
    key = asset_key(experiment, name)

    @dg.multi_asset(
        name=f"{experiment}__{name}",
        specs=[dg.AssetSpec(key, skippable=True)],
        partitions_def=OLD,
        check_specs=[dg.AssetCheckSpec("expected_results", asset=key, partitions_def=OLD)],
        can_subset=True,
    )
    def old() -> Iterator[dg.MaterializeResult[Any]]:
        failed = dg.AssetCheckResult(check_name="expected_results", passed=False)
        yield dg.MaterializeResult(asset_key=key, check_results=[failed])

    return old


def make_history(instance: dg.DagsterInstance, experiment: str) -> None:
    """Two cells that were materialised, a run whose process was killed, and a nightly backfill that is not over."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        definitions = dg.Definitions(assets=[old_asset(experiment, name) for name in CELL_ASSETS])
        job = definitions.resolve_implicit_global_asset_job_def()
        for key in (SOLO, COMM):
            run_config = {"loggers": QUIET}
            assert job.execute_in_process(instance=instance, partition_key=key, run_config=run_config).success
    run = instance.create_run_for_job(
        job,
        tags={"dagster/partition": "0|solo", "dagster/partition/seed": "0"},
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=frozenset([asset_key(experiment, "run_logs")]),
    )
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    instance.report_engine_event("Started.", run, EngineEventData.in_process(process.pid))
    add_backfill(
        instance,
        OLD,
        [UNPLANNED],
        [asset_key(experiment, name) for name in CELL_ASSETS],
        title="Nightly: 1 cell (1 never run)",
        description="",
        tags={NIGHTLY_TAG: experiment},
        run_config={},
        now=datetime.now(UTC),
    )
