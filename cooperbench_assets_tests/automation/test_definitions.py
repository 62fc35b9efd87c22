"""Jobs, the downstream sensor and the machine's limits, as Dagster loads them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
import yaml

from cooperbench_assets.analysis.registry import ANALYSES
from cooperbench_assets.assets.keys import asset_key, partition_key
from cooperbench_assets_tests.automation.driving import CELL_ASSETS, Driver, bind_demo
from cooperbench_assets_tests.experiments import bind, fill

if TYPE_CHECKING:
    from cooperbench_assets.experiment_context import ExperimentContext

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def made(tmp_path: Path) -> ExperimentContext:
    """An experiment that only reads, with two of its four cells on disk; of one pair a report has few figures."""
    experiment = bind(tmp_path, 1)
    fill(experiment, "solo")
    fill(experiment, "coop-comm")
    return experiment


def requested(driver: Driver, cursor: Any = None) -> tuple[set[str], Any]:
    """What the condition sensor would materialise now, and its cursor."""
    result = dg.evaluate_automation_conditions(defs=driver.definitions, instance=driver.instance, cursor=cursor)
    keys = driver.repository.asset_graph.get_all_asset_keys()
    return {key.path[-1] for key in keys if result.get_num_requested(key)}, result.cursor


@pytest.mark.slow
def test_what_lies_downstream_follows_each_new_cell_and_rests_otherwise_and_refresh_results_makes_it_too(
    made: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    driver = Driver(made, instance)
    _, cursor = requested(driver)
    driver.materialize(CELL_ASSETS, partition_key(made.cells[0].cell))
    asked, cursor = requested(driver, cursor)
    assert "results_store" in asked
    assert {analysis.name for analysis in ANALYSES} <= asked
    assert not asked & {"subset_pairs", *CELL_ASSETS}
    driver.materialize(sorted(asked))
    quiet, cursor = requested(driver, cursor)
    assert quiet == set()
    [other] = [cell for cell in made.cells if cell.cell.setting == "coop-comm"]
    driver.materialize(CELL_ASSETS, partition_key(other.cell))
    again, _ = requested(driver, cursor)
    assert again == asked
    result = driver.repository.get_job("made_refresh_results").execute_in_process(instance=instance)
    assert result.success
    done = {event.asset_key.path[-1] for event in result.get_asset_materialization_events() if event.asset_key}
    assert again <= done, "who does not switch the sensor on has a job for it"


def test_the_downstream_sensor_is_off_and_covers_every_asset_that_follows(
    made: ExperimentContext, instance: dg.DagsterInstance
) -> None:
    driver = Driver(made, instance)
    sensor = driver.repository.get_sensor_def("made_downstream")
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED
    graph = driver.repository.asset_graph
    follows = {key for key in graph.get_all_asset_keys() if graph.get(key).automation_condition is not None}
    assert asset_key("made", "results_store") in follows
    assert not follows & {asset_key("made", name) for name in CELL_ASSETS}
    assert isinstance(sensor, dg.AutomationConditionSensorDefinition)
    assert follows <= sensor.asset_selection.resolve(graph)
    assert not driver.repository.has_sensor_def("default_automation_condition_sensor")


@pytest.mark.slow
def test_the_smoke_job_runs_five_pairs_of_a_cell(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    experiment = bind_demo(tmp_path, subset="tiny")
    job = Driver(experiment, instance).repository.get_job("drill_smoke")
    result = job.execute_in_process(instance=instance, partition_key=partition_key(experiment.cells[0].cell))
    assert result.success
    said = {
        event.asset_key.path[-1]: event.step_materialization_data.materialization.metadata  # type: ignore[union-attr]
        for event in result.get_asset_materialization_events()
    }
    assert said["run_logs"]["launched"].value == 5
    assert said["pair_results"]["missing"].value == 1


def test_the_jobs_are_those_that_make_sense(
    made: ExperimentContext, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    reading = {job.name for job in Driver(made, instance).repository.get_all_jobs()}
    running = {job.name for job in Driver(bind_demo(tmp_path / "demo"), instance).repository.get_all_jobs()}
    assert {"made_run_cell", "made_refresh_results"} <= reading
    assert "made_smoke" not in reading
    assert {"drill_run_cell", "drill_refresh_results", "drill_smoke"} <= running


def test_the_machine_carries_no_more_than_it_says_and_dead_runs_free_their_place() -> None:
    content = yaml.safe_load((CHECKOUT / "dagster.yaml").read_text())
    assert content["concurrency"]["pools"] == {"granularity": "op", "default_limit": 1}
    assert content["concurrency"]["runs"]["max_concurrent_runs"] == 4
    assert content["run_monitoring"]["enabled"] is True
    assert content["run_monitoring"]["free_slots_after_run_end_seconds"] > 0
    assert "run_retries" not in content, "the retry sensor alone owns retries"
