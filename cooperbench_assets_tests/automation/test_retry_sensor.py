"""The retry sensor on real runs of the demo: what it asks for, and what it leaves alone."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from dagster._core.events import EngineEventData

from cooperbench_assets.assets.keys import partition_key
from cooperbench_assets.automation.dagster_runs import FINGERPRINT_TAG
from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.benchmark.outcomes import judge
from cooperbench_assets.execution.attempts.records import scan_attempts
from cooperbench_assets.execution.cell_lock import cell_lock
from cooperbench_assets_tests.automation.driving import ALWAYS_FAILS, CELL_ASSETS, Driver, bind_demo, instance_in

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cooperbench_assets.experiment_context import ExperimentContext

pytestmark = pytest.mark.slow

ALWAYS = {"rate": 0.0, "always": [ALWAYS_FAILS]}


def drive(root: Path, instance: dg.DagsterInstance, **changes: Any) -> Driver:
    return Driver(bind_demo(root, **changes), instance)


def outcomes(experiment: ExperimentContext) -> list[str]:
    [cell] = experiment.cells
    reading = read_run(experiment.run_dir(cell), cell.mode)
    return sorted(judge(reading.pairs.get(pair)).outcome for pair in experiment.subset().pairs)


def tries(experiment: ExperimentContext) -> dict[str, int]:
    [cell] = experiment.cells
    found = scan_attempts(experiment.run_dir(cell), "solo")
    return {pair.name: len([one for one in several if one.stage == "agent"]) for pair, several in found.items()}


def reason(result: dg.SensorResult) -> str:
    assert not result.run_requests
    assert isinstance(result.skip_reason, dg.SkipReason)
    return result.skip_reason.skip_message or ""


def test_a_cell_that_nobody_launched_is_not_bought(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    driver = drive(tmp_path, instance)
    assert "nobody has launched it yet" in reason(driver.tick())
    assert not driver.experiment.logs.exists()


def test_a_pair_that_always_fails_is_tried_three_times_and_shown(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    driver = drive(tmp_path, instance, faults=ALWAYS)
    [cell] = driver.experiment.cells
    assert driver.launch(cell.cell).success
    assert "pause before the next try" in reason(driver.tick())
    assert driver.leave_alone() == 2
    assert tries(driver.experiment)[ALWAYS_FAILS] == 3
    assert outcomes(driver.experiment).count("infra_error") == 1
    [request, _] = driver.launched
    assert request.partition_key == "solo/0"
    assert [key.path[-1] for key in request.asset_selection or ()] == list(CELL_ASSETS)
    assert request.run_config["ops"]["drill__run_logs"]["config"]["automatic"] is True

    result = driver.materialize(["pair_results"], partition_key(cell.cell))
    [check] = [one for one in result.get_asset_check_evaluations() if one.check_name == "retries_exhausted"]
    assert (check.passed, check.partition) == (False, "solo/0")
    said = {name: value.value for name, value in check.metadata.items() if name != "pairs"}
    assert said["affected"] == 1
    assert ALWAYS_FAILS in str(said["sample"])
    assert "materialize drill --setting solo --seed 0 --reset-retries" in str(said["remedy"])
    assert f"- {{pair: {ALWAYS_FAILS}, setting: solo, seed: 0, reason: " in str(said["remedy"])
    [row] = check.metadata["pairs"].records  # type: ignore[attr-defined]
    assert "tries exhausted (3 of 3)" in row.data["why"]
    assert row.data["evidence"]


def test_a_refused_key_in_a_launch_of_one_pair_leaves_no_pair_behind_that_nobody_asked_for(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    driver = drive(tmp_path, instance)
    [cell] = driver.experiment.cells
    driver.experiment.subset()
    run_dir = driver.experiment.run_dir(cell)
    record = {"n": 1, "campaign": 1, "stage": "agent", "outcome": "infra_error", "family": "auth", "retryable": False}
    times = {"started_at": "2026-01-01T00:00:00.000+00:00", "ended_at": "2026-01-01T00:00:01.000+00:00"}
    folder = run_dir / "attempts" / "solo" / ALWAYS_FAILS / "agent-1"
    folder.mkdir(parents=True)
    (folder / "attempt.json").write_text(json.dumps({**record, **times}))
    for asked_whole, left in ((False, 1), (True, 2)):
        (run_dir / "provenance.json").write_text(json.dumps({"experiment": "drill", "asked_whole": asked_whole}))
        result = driver.materialize(["pair_results"], partition_key(cell.cell))
        [check] = [one for one in result.get_asset_check_evaluations() if one.check_name == "retries_exhausted"]
        assert check.metadata["affected"].value == left


def test_accepting_the_pair_turns_the_check_green_and_resetting_the_retry_counters_reopens_it(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    driver = drive(tmp_path, instance, faults=ALWAYS)
    [cell] = driver.experiment.cells
    driver.launch(cell.cell)
    driver.leave_alone()
    accepting = drive(tmp_path, instance, faults=ALWAYS, accepted=[{"pair": ALWAYS_FAILS, "reason": "it always fails"}])
    result = accepting.materialize(["pair_results"], partition_key(cell.cell))
    assert {one.check_name for one in result.get_asset_check_evaluations() if not one.passed} == set()
    assert accepting.looks()[0].complete

    assert driver.launch(cell.cell, reset_retries=True).success
    assert tries(driver.experiment)[ALWAYS_FAILS] == 4
    assert driver.leave_alone() == 2
    assert tries(driver.experiment)[ALWAYS_FAILS] == 6


def test_wiping_dagsters_storage_neither_forgets_nor_doubles_tries(tmp_path: Path) -> None:
    with instance_in(tmp_path / "before") as before:
        driver = drive(tmp_path, before, faults=ALWAYS)
        driver.launch(driver.experiment.cells[0].cell)
        driver.now += timedelta(minutes=10)
        [request] = driver.tick().run_requests or ()
        driver.execute(request)
    with instance_in(tmp_path / "after") as after:
        driver = drive(tmp_path, after, faults=ALWAYS)
        driver.now += timedelta(hours=1)
        assert driver.leave_alone() == 1
        assert tries(driver.experiment)[ALWAYS_FAILS] == 3
        assert driver.leave_alone() == 0


def test_nothing_is_asked_for_while_a_run_is_not_over_or_the_lock_is_held(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    driver = drive(tmp_path, instance, faults=ALWAYS)
    [cell] = driver.experiment.cells
    driver.launch(cell.cell)
    driver.now += timedelta(hours=1)
    with cell_lock(driver.experiment.run_dir(cell), "somebody's command"):
        assert "held by somebody's command" in reason(driver.tick())
    begun = instance.create_run_for_job(
        driver.job,
        tags={"dagster/partition": "solo/0"},
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=frozenset([dg.AssetKey(["drill", "pair_results"])]),
    )
    # The clock here is an hour ahead: a run that names no living process would have been silent for too long.
    instance.report_engine_event("Started.", begun, EngineEventData.in_process(os.getpid()))
    assert f"run {begun.run_id[:8]} of it is not over" in reason(driver.tick())
    instance.delete_run(begun.run_id)
    assert len(driver.tick().run_requests or ()) == 1


def test_two_ticks_before_the_run_begins_ask_for_the_same_run(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    driver = drive(tmp_path, instance, faults=ALWAYS)
    driver.launch(driver.experiment.cells[0].cell)
    driver.now += timedelta(hours=1)
    [first] = driver.tick().run_requests or ()
    [second] = driver.tick(cursor="lost").run_requests or ()
    assert first.run_key == second.run_key
    driver.execute(first)
    driver.now += timedelta(hours=1)
    [third] = driver.tick().run_requests or ()
    assert third.run_key != first.run_key


def test_a_smoke_run_is_brought_to_its_end_and_the_other_pairs_are_not_bought(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    driver = drive(tmp_path, instance, faults={"rate": 1.0, "most": 1, "most_eval": 0}, subset="tiny")
    driver.launch(driver.experiment.cells[0].cell, at_most=2)
    assert outcomes(driver.experiment) == ["infra_error"] * 2 + ["missing"] * 4
    assert driver.leave_alone() == 1
    done = outcomes(driver.experiment)
    assert done.count("missing") == 4
    assert set(done) <= {"fail", "pass", "missing"}
    assert "4 pairs were never asked for" in reason(driver.tick())


def test_evaluation_alone_is_asked_for_where_it_alone_is_still_to_run(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    driver = drive(tmp_path, instance, faults={"rate": 0.0, "eval_rate": 1.0, "most": 1})
    driver.launch(driver.experiment.cells[0].cell)
    assert driver.leave_alone() == 1
    [request] = driver.launched
    assert [key.path[-1] for key in request.asset_selection or ()] == ["eval_outputs", "pair_results"]
    assert "infra_error" not in outcomes(driver.experiment)


def test_tables_that_are_older_than_the_tree_are_made_again_and_once_only(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    driver = drive(tmp_path, instance)
    [cell] = driver.experiment.cells
    driver.materialize(CELL_ASSETS[:2], partition_key(cell.cell))
    assert driver.leave_alone() == 1
    assert [key.path[-1] for key in driver.launched[0].asset_selection or ()] == ["pair_results"]
    assert driver.leave_alone() == 0


def test_a_run_that_cannot_work_is_asked_for_three_times_and_then_told(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    driver = drive(tmp_path, instance, faults=ALWAYS)
    driver.launch(driver.experiment.cells[0].cell)
    broken = drive(tmp_path, instance, faults=ALWAYS, secrets=["NO_SUCH_KEY_ANYWHERE"])
    assert broken.leave_alone() == 3
    assert tries(driver.experiment)[ALWAYS_FAILS] == 1
    assert len({request.run_key for request in broken.launched}) == 3
    assert len({request.tags[FINGERPRINT_TAG] for request in broken.launched}) == 1
    assert "3 runs of it as it stands failed" in reason(broken.tick())
    # Put right, it goes on at once: the settings are part of what a cell is.
    assert driver.leave_alone() == 2


def cancel(driver: Driver, tags: Mapping[str, str] | None = None) -> None:
    """A run of the first cell's agents, which a person cancels while it is queued."""
    run = driver.instance.create_run_for_job(
        driver.job,
        tags={"dagster/partition": partition_key(driver.experiment.cells[0].cell), **(tags or {})},
        asset_selection=frozenset([dg.AssetKey([driver.experiment.name, "run_logs"])]),
    )
    driver.instance.report_run_canceling(run)
    driver.instance.report_run_canceled(run)


THREE_CELLS = {"solo": {"mode": "solo", "seeds": [0, 1, 2]}}


def asked(result: dg.SensorResult) -> list[str]:
    """The partitions that a tick asked for."""
    return [request.partition_key or "" for request in result.run_requests or ()]


def test_an_outage_of_three_cells_alike_ends_with_all_three_finished(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    limits = {"concurrency": 4, "pair_timeout_minutes": 1, "test_timeout_seconds": 30, "breaker": 20}
    outage = {"rate": 1.0, "most": 1, "most_eval": 0}
    driver = drive(tmp_path, instance, settings=THREE_CELLS, faults=outage, limits=limits)
    for cell in driver.experiment.cells:
        driver.launch(cell.cell)
    driver.now += timedelta(hours=1)
    first, *others = driver.tick().run_requests or ()
    driver.execute(first)
    assert asked(driver.tick()) == [request.partition_key or "" for request in others], (
        "one that is done stops no other"
    )
    assert driver.leave_alone() == 2
    assert all(seen.complete for seen in driver.looks())


def test_failed_runs_of_three_cells_alike_count_once_for_each(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    driver = drive(tmp_path, instance, settings=THREE_CELLS, faults=ALWAYS)
    for cell in driver.experiment.cells:
        driver.launch(cell.cell)
    changes: dict[str, Any] = {"faults": ALWAYS, "secrets": ["NO_SUCH_KEY_ANYWHERE"]}
    broken = drive(tmp_path, instance, settings=THREE_CELLS, **changes)
    broken.now += timedelta(hours=1)
    for request in broken.tick().run_requests or ():
        assert not broken.execute(request).success
    broken.now += timedelta(hours=1)
    assert [seen.state.fruitless for seen in broken.looks()] == [1, 1, 1]
    assert len(asked(broken.tick())) == 3


def test_a_cancelled_cell_waits_for_the_person_who_cancelled_it(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    driver = drive(tmp_path, instance, faults=ALWAYS)
    driver.launch(driver.experiment.cells[0].cell)
    cancel(driver)
    driver.now += timedelta(hours=1)
    assert "a person cancelled its last run" in reason(driver.tick())
    driver.launch(driver.experiment.cells[0].cell)
    driver.now += timedelta(hours=1)
    assert driver.leave_alone() == 1


def test_the_run_key_of_a_cancelled_run_is_not_used_again(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    driver = drive(tmp_path, instance, faults=ALWAYS)
    [cell] = driver.experiment.cells
    driver.launch(cell.cell)
    driver.now += timedelta(hours=1)
    [request] = driver.tick().run_requests or ()
    cancel(driver, {**request.tags, "dagster/run_key": request.run_key or ""})
    assert "a person cancelled its last run" in reason(driver.tick())
    # The person goes on, and that run fails before it has changed anything.
    broken = drive(tmp_path, instance, faults=ALWAYS, secrets=["NO_SUCH_KEY_ANYWHERE"])
    assert not broken.launch(cell.cell).success
    [again] = driver.tick().run_requests or ()
    assert again.run_key != request.run_key, "Dagster launches a run key once, and says nothing when it comes again"


def test_a_missing_subset_is_a_reason_and_no_error(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    driver = drive(tmp_path, instance, subset="no-such-subset")
    assert "no-such-subset" in reason(driver.tick())


@pytest.mark.filterwarnings("ignore:Non-compliant tag keys:DeprecationWarning")  # Dagster's own tags
def test_the_sensor_that_dagster_loads_asks_for_the_same(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    driver = drive(tmp_path, instance, faults=ALWAYS, retry={"backoff_minutes": 0, "every_seconds": 7})
    driver.launch(driver.experiment.cells[0].cell)
    sensor = driver.repository.get_sensor_def("drill_retry")
    assert sensor.minimum_interval_seconds == 7
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED
    data = sensor.evaluate_tick(driver.context())
    [request] = data.run_requests or ()
    driver.now += timedelta(minutes=1)
    [expected] = driver.tick().run_requests or ()
    assert (request.run_key, request.partition_key) == (expected.run_key, "solo/0")
    assert instance.get_runs_count() == 1


def test_an_experiment_that_only_reads_has_no_retry_sensor(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    driver = drive(tmp_path, instance, execution="none")
    assert not driver.repository.has_sensor_def("drill_retry")
    assert driver.repository.has_sensor_def("drill_watch")
