"""An experiment that is left alone, in the real UI: `dagster dev` with its daemon, and a person's browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.benchmark.outcomes import judge
from cooperbench_assets.demo.endings import solo_ending
from cooperbench_assets.demo.injected_faults import FaultPolicy, agent_fault
from cooperbench_assets.execution.attempts.records import scan_attempts
from cooperbench_assets.local_runs import open_instance
from cooperbench_assets_tests.automation.ui_actions import (
    backfill_titles,
    check_page,
    launch_cell,
    launch_run,
    open_page,
    partition_page,
    run_statuses,
    start_sensor,
    switch_on,
    until,
    wait_for,
)
from cooperbench_assets_tests.demo.bench import TRAITS
from cooperbench_assets_tests.ui import dagster_daemon

if TYPE_CHECKING:
    from cooperbench_assets.experiment_context import ExperimentContext
    from cooperbench_assets_tests.dagster_ui.place import Place

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NIGHT = "Nightly: 1 cell (1 never run)"


def outcomes(experiment: ExperimentContext, seed: int = 0) -> dict[str, str]:
    cell = experiment.spec.cell(experiment.name, "solo", seed)
    reading = read_run(experiment.run_dir(cell), cell.mode)
    return {pair.name: judge(reading.pairs.get(pair)).outcome for pair in experiment.subset().pairs}


def finished(experiment: ExperimentContext, seed: int = 0) -> bool:
    """Whether every pair of the cell has its verdict."""
    return set(outcomes(experiment, seed).values()) <= {"pass", "fail"}


def infra_failed(experiment: ExperimentContext) -> int:
    """In how many pairs of solo/0 the first try of the agent ends by an injected fault."""
    policy = FaultPolicy.from_config(experiment.spec.agent_config)
    pairs = experiment.subset().pairs
    return sum(agent_fault(pair.name, "solo", 0, 1, policy) is not None for pair in pairs)


def test_a_cell_is_materialised_brought_to_its_end_and_the_missing_one_filled_by_night(place: Place) -> None:
    page, address, experiment = place.page, place.address, place.experiment("unattended")
    launch_cell(page, address, "unattended", "solo", 0)
    expect(page.get_by_text(re.compile(r"[1-6] of 6 pairs done")).first).to_be_visible()
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    assert 0 < infra_failed(experiment) < 5, "the breaker stays closed"

    cell = partition_page(address, "unattended", "pair_results", "solo", 0)
    open_page(page, cell)
    expect(page.get_by_text("pairs_that_need_attention")).to_be_visible()
    infra = page.locator("tr", has=page.get_by_text("infra_error", exact=True)).first
    assert int(infra.locator("td").nth(1).inner_text()) >= infra_failed(experiment)
    check = check_page(address, "unattended", "run_logs", "no_agent_infra_error")
    open_page(page, check)
    expect(page.get_by_text("This is a non-blocking asset check.")).to_be_visible()
    page.get_by_role("tab", name="Partitions").last.click()
    expect(page.get_by_text("Failed (1)", exact=True)).to_be_visible()

    switch_on(page, address, "sensors", "unattended_retry")
    place.until(lambda: finished(experiment), lambda: outcomes(experiment))
    wait_for(page, f"{address}/runs", page.get_by_text("unattended_retry").first)
    wait_for(page, check, page.get_by_text("no infrastructure failure at the agent stage"))
    page.get_by_role("tab", name="Partitions").last.click()
    expect(page.get_by_text("Passed (1)", exact=True)).to_be_visible()
    open_page(page, cell)
    expect(page.get_by_text("run_folder").first).to_be_visible()
    expect(page.locator("tr", has=page.get_by_text("pairs_that_need_attention"))).to_have_count(0)

    switch_on(page, address, "schedules", "unattended_nightly")
    place.until(lambda: finished(experiment, 1), lambda: outcomes(experiment, 1))
    wait_for(page, f"{address}/runs?view=backfills", page.get_by_text("why: 1 cell (1 never run)").first)
    place.until(lambda: all_over(place, "unattended"))
    wait_for(
        page, f"{address}/assets/unattended/pair_results?view=partitions", page.get_by_text("Materialized (2)").first
    )
    assert set(run_statuses(address, "unattended")) == {"SUCCESS"}
    # A night comes every minute here: one between a fault and its retry leaves the cell to the sensor.
    assert backfill_titles(address, "unattended") == [NIGHT], "nothing is left to run in later nights"


def test_stopping_dagster_in_the_middle_and_starting_it_again_changes_nothing_in_the_outcome(place: Place) -> None:
    """The last test: it stops what the others share. Only the daemon is started again, as nobody looks any more."""
    experiment = place.experiment("stopped")
    run_dir = experiment.run_dir(experiment.cells[0])
    start_sensor(place.address, "stopped_retry")
    launch_run(place.address, "stopped", "solo", 0)
    until(lambda: bool(scan_attempts(run_dir, "solo")))
    place.stop()
    tried = scan_attempts(run_dir, "solo")
    assert len(tried) < len(experiment.subset().pairs) or set(outcomes(experiment).values()) != {"pass"}
    with dagster_daemon(place.project):
        until(lambda: finished(experiment), lambda: outcomes(experiment))
        with open_instance(place.project) as instance:
            until(lambda: all(run.is_finished for run in instance.get_runs()), instance.get_runs)
    for several in scan_attempts(run_dir, "solo").values():
        assert len([one for one in several if one.stage == "agent"]) <= 3
    # What the scripted agents' endings promise is what an undisturbed run comes to (`demo/test_verdicts`).
    stopped = outcomes(experiment)
    assert stopped == {pair: "pass" if solo_ending(pair, 0, TRAITS[pair]).passes() else "fail" for pair in stopped}


def all_over(place: Place, experiment: str) -> bool:
    """Whether no run of the experiment is left in any queue."""
    return set(run_statuses(place.address, experiment)) <= {"SUCCESS", "FAILURE", "CANCELED"}
