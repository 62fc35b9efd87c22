"""The watch sensor on real runs: what it tells, once."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from cooperbench_assets_tests.automation.driving import ALWAYS_FAILS, Driver, bind_demo
from cooperbench_assets_tests.execution.cells import total_cost

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def told(driver: Driver) -> dict[str, str]:
    """Kinds and texts of everything that was said."""
    files = (driver.experiment.project.data / "alerts").rglob("*.json")
    return {content["kind"]: content["text"] for content in (json.loads(file.read_text()) for file in files)}


def drive(root: Path, instance: dg.DagsterInstance, **changes: Any) -> Driver:
    return Driver(bind_demo(root, **changes), instance)


def test_a_complete_experiment_is_told_of_once(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    driver = drive(tmp_path, instance)
    assert driver.watch() == "0 new alerts, 0 dead runs reported"
    driver.launch(driver.experiment.cells[0].cell)
    assert driver.watch() == "1 new alerts, 0 dead runs reported"
    assert told(driver) == {"complete": "drill is complete: 2 of 2 pairs in its one cell"}
    assert driver.watch() == "0 new alerts, 0 dead runs reported"


def test_a_failed_run_is_told_of_with_its_innermost_error(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRILL_TOKEN", "no_such_module_anywhere")
    driver = drive(tmp_path, instance, external_agents=["no_such_module_anywhere"])
    driver.launch(driver.experiment.cells[0].cell)
    driver.watch()
    text = told(driver)["run_failed"]
    assert text.startswith("drill, partition solo/0: run ")
    assert "[redacted:DRILL_TOKEN]" in text
    assert "no_such_module" not in text
    assert driver.watch() == "0 new alerts, 0 dead runs reported"


def test_a_reached_budget_is_told_of_and_the_cells_stop_together(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    both = {"solo": {"mode": "solo", "seeds": [0, 1]}}
    free = drive(tmp_path / "free", instance, settings=both)
    for cell in free.experiment.cells:
        free.launch(cell.cell)
    costs = [_cost(free, cell.cell.seed) for cell in free.experiment.cells]

    limits = {**asdict(free.experiment.spec.limits), "concurrency": 1, "max_cost_usd": costs[0] + costs[1] / 3}
    driver = drive(tmp_path / "tight", instance, settings=both, limits=limits)
    for cell in driver.experiment.cells:
        assert driver.launch(cell.cell).success
    spent = sum(_cost(driver, cell.cell.seed) for cell in driver.experiment.cells)
    largest = max(costs) / 2
    assert limits["max_cost_usd"] <= spent < limits["max_cost_usd"] + largest
    first, second = driver.looks()
    assert (first.state.agents, first.complete) == ((), True)
    assert second.state.agents
    assert second.state.money is not None
    assert "the experiment's budget is reached" in second.state.money
    assert driver.leave_alone() == 0
    assert "the experiment's budget is reached" in told(driver)["budget"]


def _cost(driver: Driver, seed: int) -> float:
    [cell] = [cell for cell in driver.experiment.cells if cell.cell.seed == seed]
    return total_cost(driver.experiment.run_dir(cell))


def test_exhausted_tries_are_told_of_by_whichever_sensor_looks_first(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    driver = drive(tmp_path, instance, faults={"rate": 0.0, "always": [ALWAYS_FAILS]})
    driver.launch(driver.experiment.cells[0].cell)
    driver.leave_alone()
    assert list(told(driver)) == ["exhausted"]
    assert ALWAYS_FAILS in told(driver)["exhausted"]
    assert driver.watch() == "0 new alerts, 0 dead runs reported"
