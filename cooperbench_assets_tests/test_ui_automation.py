"""An experiment that is left alone, in the real UI: `dagster dev` with its daemon, and a person's browser."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.benchmark.outcomes import judge
from cooperbench_assets.demo.endings import solo_ending
from cooperbench_assets.demo.injected_faults import FaultPolicy, agent_fault
from cooperbench_assets.execution.attempts.records import scan_attempts
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.spec import load_experiments
from cooperbench_assets_tests.automation.driving import demo_attributes
from cooperbench_assets_tests.automation.ui_actions import (
    backfill_titles,
    check_page,
    launch_cell,
    launch_run,
    partition_page,
    run_statuses,
    start_sensor,
    switch_on,
    until,
    wait_for,
)
from cooperbench_assets_tests.demo.bench import TRAITS
from cooperbench_assets_tests.projects import make_project
from cooperbench_assets_tests.ui import browser, dagster_dev

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.project import Project

pytestmark = pytest.mark.slow

FAULTS = {"rate": 0.5, "most": 1}
TWO_SEEDS = {"solo": {"mode": "solo", "seeds": [0, 1]}}


def bind(project: Project) -> ExperimentContext:
    return ExperimentContext("drill", load_experiments(project.defs)["drill"], project)


def outcomes(experiment: ExperimentContext, seed: int = 0) -> dict[str, str]:
    cell = experiment.spec.cell("drill", "solo", seed)
    reading = read_run(experiment.run_dir(cell), cell.mode)
    return {pair.name: judge(reading.pairs.get(pair)).outcome for pair in experiment.subset().pairs}


@pytest.mark.browser
def test_a_cell_is_materialised_brought_to_its_end_and_the_missing_one_filled_by_night(tmp_path: Path) -> None:
    attributes = demo_attributes(
        TWO_SEEDS, FAULTS, retry={"backoff_minutes": 0, "every_seconds": 5}, nightly="* * * * *"
    )
    project = make_project(tmp_path / "project", {"drill": attributes})
    experiment = bind(project)
    pairs = [pair.name for pair in experiment.subset().pairs]
    infra_failed = sum(
        agent_fault(pair, "solo", 0, 1, FaultPolicy.from_config({"injected_faults": FAULTS})) is not None
        for pair in pairs
    )
    assert 0 < infra_failed < 5, "the breaker stays closed"

    with dagster_dev(project) as address, browser() as page:
        expect.set_options(timeout=90_000)
        launch_cell(page, address, "drill", "solo", 0)
        expect(page.get_by_text(re.compile(r"[1-6] of 6 pairs done")).first).to_be_visible()
        expect(page.get_by_text("Success", exact=True).first).to_be_visible()

        cell = partition_page(address, "drill", "pair_results", "solo", 0)
        page.goto(cell)
        expect(page.get_by_text("pairs_that_need_attention")).to_be_visible()
        infra = page.locator("tr", has=page.get_by_text("infra_error", exact=True)).first
        assert int(infra.locator("td").nth(1).inner_text()) >= infra_failed
        check = check_page(address, "drill", "run_logs", "no_agent_infra_error")
        page.goto(check)
        expect(page.get_by_text("This is a non-blocking asset check.")).to_be_visible()
        page.get_by_role("tab", name="Partitions").last.click()
        expect(page.get_by_text("Failed (1)", exact=True)).to_be_visible()

        switch_on(page, address, "sensors", "drill_retry")
        done = page.locator("tr", has=page.get_by_text("pairs_that_need_attention"))
        wait_for(page, f"{address}/runs", page.get_by_text("drill_retry").first)
        deadline = time.monotonic() + 150
        while set(outcomes(experiment).values()) - {"pass", "fail"} and time.monotonic() < deadline:
            time.sleep(1)
        assert set(outcomes(experiment).values()) <= {"pass", "fail"}
        wait_for(page, check, page.get_by_text("no infrastructure failure at the agent stage"))
        page.get_by_role("tab", name="Partitions").last.click()
        expect(page.get_by_text("Passed (1)", exact=True)).to_be_visible()
        page.goto(cell)
        expect(page.get_by_text("run_folder").first).to_be_visible()
        assert done.count() == 0

        switch_on(page, address, "schedules", "drill_nightly")
        wait_for(page, f"{address}/runs?view=backfills", page.get_by_text("why: 1 cell (1 never run)").first)
        assert backfill_titles(address) == ["Nightly: 1 cell (1 never run)"]
        wait_for(
            page, f"{address}/assets/drill/pair_results?view=partitions", page.get_by_text("Materialized (2)").first
        )
        deadline = time.monotonic() + 150
        while set(outcomes(experiment, 1).values()) - {"pass", "fail"} and time.monotonic() < deadline:
            time.sleep(1)
        assert set(outcomes(experiment, 1).values()) <= {"pass", "fail"}
        until(lambda: all_over(address))
        assert set(run_statuses(address)) == {"SUCCESS"}
        # A night comes every minute here: one between a fault and its retry leaves the cell to the sensor.
        assert backfill_titles(address) == ["Nightly: 1 cell (1 never run)"], "nothing is left to run in later nights"


def test_stopping_the_daemon_in_the_middle_and_starting_it_again_changes_nothing_in_the_outcome(
    tmp_path: Path,
) -> None:
    attributes = demo_attributes(
        faults={"rate": 0.4, "eval_rate": 0.0, "most": 1},
        limits={"concurrency": 1, "pair_timeout_minutes": 1, "test_timeout_seconds": 30},
        retry={"backoff_minutes": 0, "every_seconds": 5},
    )
    project = make_project(tmp_path / "project", {"drill": attributes})
    experiment = bind(project)
    run_dir = experiment.run_dir(experiment.cells[0])
    with dagster_dev(project) as address:
        start_sensor(address, "drill_retry")
        launch_run(address, "drill", "solo", 0)
        until(lambda: bool(scan_attempts(run_dir, "solo")))
    tried = scan_attempts(run_dir, "solo")
    assert len(tried) < len(experiment.subset().pairs) or set(outcomes(experiment).values()) != {"pass"}
    with dagster_dev(project) as address:
        at_rest(experiment, address)
    stopped = outcomes(experiment)
    assert set(stopped.values()) <= {"pass", "fail"}
    for several in scan_attempts(run_dir, "solo").values():
        assert len([one for one in several if one.stage == "agent"]) <= 3
    # What the scripted agents' endings promise is what an undisturbed run comes to (`demo/test_verdicts`).
    assert stopped == {pair: "pass" if solo_ending(pair, 0, TRAITS[pair]).passes() else "fail" for pair in stopped}


def at_rest(experiment: ExperimentContext, address: str) -> None:
    """Wait until every pair has its verdict and no run is left in any queue."""
    until(lambda: set(outcomes(experiment).values()) <= {"pass", "fail"})
    until(lambda: all_over(address))


def all_over(address: str) -> bool:
    """Whether no run is left in any queue."""
    return set(run_statuses(address)) <= {"SUCCESS", "FAILURE", "CANCELED"}
