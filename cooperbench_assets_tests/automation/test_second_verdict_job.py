"""The job second_verdict on a real cell: fresh verdicts beside the first, which stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl
import pytest

from cooperbench_assets.assets.keys import partition_key
from cooperbench_assets.automation.second_verdict_job import flake_rate
from cooperbench_assets.store.read import query
from cooperbench_assets.store.verdicts import SECOND_VERDICTS
from cooperbench_assets_tests.automation.driving import Driver, bind_demo
from cooperbench_assets_tests.experiments import bind

if TYPE_CHECKING:
    from pathlib import Path


def run(driver: Driver) -> tuple[dg.ExecuteInProcessResult, dict[str, Any]]:
    job = driver.repository.get_job("drill_second_verdict")
    result = job.execute_in_process(
        instance=driver.instance,
        partition_key=partition_key(driver.experiment.cells[0].cell),
        raise_on_error=False,
    )
    said = [
        event.step_materialization_data.materialization for event in result.all_events if event.is_step_materialization
    ]
    return result, {name: value.value for name, value in said[0].metadata.items()} if said else {}


@pytest.mark.slow
def test_a_whole_cell_is_evaluated_again_and_its_first_verdicts_stay(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    driver = Driver(bind_demo(tmp_path, subset="tiny"), instance)
    driver.launch(driver.experiment.cells[0].cell)
    driver.materialize(["results_store"])
    before = query(driver.experiment.project.database, "SELECT pair, outcome FROM pairs ORDER BY pair").rows()
    result, said = run(driver)
    assert result.success
    sql = 'SELECT pair, "first", verdict, flaky, round FROM second_verdicts ORDER BY pair'
    rows = query(driver.experiment.project.database, sql)
    # Pairs without a test run (an agent's own error) have nothing to evaluate again.
    assert 4 <= rows.height <= 6
    assert said["launched"] == said["compared"] == rows.height
    assert (said["flaky"], said["flake_rate"], said["rounds"]) == (0, 0.0, 1)
    assert rows["first"].to_list() == rows["verdict"].to_list()
    assert set(rows["round"]) == {2}
    assert query(driver.experiment.project.database, "SELECT pair, outcome FROM pairs ORDER BY pair").rows() == before
    assert driver.looks()[0].complete or driver.looks()[0].state.unread
    _, again = run(driver)
    assert again["rounds"] == 2
    assert driver.experiment.run_dir(driver.experiment.cells[0]).is_dir()


@pytest.mark.slow
def test_an_unfinished_cell_is_refused(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    driver = Driver(bind_demo(tmp_path, subset="tiny"), instance)
    driver.launch(driver.experiment.cells[0].cell, at_most=2)
    result, _ = run(driver)
    assert not result.success
    assert "4 pairs have no verdict yet" in str([event for event in result.all_events if event.is_step_failure])


def test_the_flake_rate_counts_pairs_once_and_leaves_out_infrastructure_errors() -> None:
    def row(pair: str, number: int, flaky: bool | None) -> dict[str, object]:
        key = {"experiment": "e", "setting": "s", "seed": 0}
        return {**key, "pair": pair, "round": number, "first": "pass", "flaky": flaky, "tries": 1}

    rows = SECOND_VERDICTS.frame(
        [row("a", 2, False), row("a", 3, True), row("b", 2, False), row("c", 2, None), row("d", 2, False)]
    )
    found = flake_rate(rows)
    assert (found["flaky"], found["compared"], found["flake_rate"]) == (1, 3, 1 / 3)
    assert 0 < found["flake_low"] < 1 / 3 < found["flake_high"] < 1
    assert flake_rate(SECOND_VERDICTS.frame([])) == {"flaky": 0, "compared": 0}
    assert rows.schema["round"] == pl.Int32


def test_an_experiment_that_only_reads_has_no_such_job(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    jobs = {job.name for job in Driver(bind(tmp_path), instance).repository.get_all_jobs()}
    assert "made_second_verdict" not in jobs
