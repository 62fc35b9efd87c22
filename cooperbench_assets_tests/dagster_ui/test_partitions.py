"""Partitions that are the planned cells, in the real UI: all of them materialised, judged, blocked, cancelled.

What takes long, a backfill of an experiment that runs pairs, is launched first.
"""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import dagster as dg
import psutil
import pytest
from playwright.sync_api import expect

from cooperbench_assets.assets.reading import CELL_CHECKS
from cooperbench_assets.automation.dagster_runs import cell_runs
from cooperbench_assets.checks.results_store import RESULTS_STORE_CHECKS
from cooperbench_assets.local_runs import open_instance
from cooperbench_assets.store.read import query
from cooperbench_assets.viewer.shelves import library_of_project
from cooperbench_assets_tests.automation.ui_actions import LOCATION, open_page, partition_counts, start_sensor
from cooperbench_assets_tests.automation.ui_actions import until as until_true
from cooperbench_assets_tests.dagster_ui.pages import (
    OVER,
    backfill_of,
    execute_all,
    listed_checks,
    materialize_all,
    never_materialised,
    overview,
    runs,
    shown_check,
)
from cooperbench_assets_tests.dagster_ui.place import BLOCKED, CELLS, PAIRS, WAIT_SECONDS, Place
from cooperbench_assets_tests.viewer.places import serving
from perf import inputs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cooperbench_assets.project import Project

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CHECKS = {
    **{asset: {check.name for check in checks} for asset, checks in CELL_CHECKS.items()},
    "results_store": {check.name for check in RESULTS_STORE_CHECKS},
}
NEVER_READ_IN = "tablewright_task/37/f1_f5"
"""The pair of the demo's subset tiny whose second agent hands in without reading the last message."""


@pytest.fixture(scope="module", autouse=True)
def _launched(place: Place) -> None:
    start_sensor(place.address, "wide_downstream")
    materialize_all(place.page, f"{place.address}/locations/{LOCATION}/asset-groups/drill/lineage")
    for name in ("wide", "read"):
        materialize_all(place.page, job(place, name))


def job(place: Place, experiment: str) -> str:
    return f"{place.address}/locations/{LOCATION}/jobs/{experiment}_run_cell/"


def backfill(place: Place, experiment: str) -> tuple[str, list[tuple[str, str]]]:
    """How the one backfill of an experiment ended, and its runs."""
    place.until(
        lambda: backfill_of(place.address, experiment)[0] in OVER, lambda: backfill_of(place.address, experiment)
    )
    return backfill_of(place.address, experiment)


def partitions_say(place: Place, experiment: str, asset: str, **counts: int) -> None:
    """The page of an asset's partitions counts them so."""
    open_page(place.page, f"{place.address}/assets/{experiment}/{asset}?view=partitions")
    for name in ("Failed", "Materialized", "Materializing", "Missing"):
        expect(place.page.get_by_text(f"{name} ({counts.get(name, 0)})")).to_be_visible()


def all_executed(place: Place, experiment: str, *assets: str) -> None:
    """Click "Execute all" on each of these assets, and wait until all their runs have succeeded."""
    launched = {execute_all(place.page, place.address, experiment, asset) for asset in assets}
    place.until(lambda: place.statuses(launched) <= {"SUCCESS", "FAILURE", "CANCELED"}, lambda: runs(place.address))
    assert place.statuses(launched) == {"SUCCESS"}


def pages_agree(place: Place, experiment: str, asset: str, red: dict[str, str] | None = None) -> None:
    """Overview, list and page of the checks say the same: these fail, in this partition, and no other does."""
    red = red or {}
    counts = {"check_circle": len(CHECKS[asset]) - len(red), "cancel": len(red)}
    found = overview(place.page, place.address, experiment, asset)
    assert found == {icon: count for icon, count in counts.items() if count}, (experiment, asset)
    place.page.get_by_role("tab", name="Checks").click()
    assert listed_checks(place.page, len(CHECKS[asset])) == {
        name: "Failed" if name in red else "Succeeded" for name in CHECKS[asset]
    }
    green = min(CHECKS[asset] - set(red))
    assert shown_check(place.page, place.address, experiment, asset, green).state == "Passed"
    for name, partition in red.items():
        shown = shown_check(place.page, place.address, experiment, asset, name)
        assert (shown.state, shown.partition) == ("Failed", partition)


def process_of(project: Project, run_id: str) -> psutil.Process:
    """The process that works on a run; waits for it."""
    pids: list[int] = []

    def found() -> bool:
        events = instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        data = [entry.dagster_event.engine_event_data.metadata for entry in events if entry.dagster_event]
        pids.extend(int(str(one["pid"].value)) for one in data if "pid" in one)
        return bool(pids)

    with open_instance(project) as instance:
        until_true(found, lambda: instance.get_run_by_id(run_id), WAIT_SECONDS)
    return psutil.Process(pids[-1])


@contextmanager
def stopped_between_writes(process: psutil.Process, storage: Path) -> Iterator[None]:
    """Have a process stand still, at a moment at which it keeps nobody else from writing to Dagster's storage."""
    process.suspend()
    while not all(writable(file) for file in storage.rglob("*.db")):
        process.resume()
        time.sleep(0.01)
        process.suspend()
    try:
        yield
    finally:
        process.resume()


def writable(database: Path) -> bool:
    with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.rollback()
        return True


def test_a_range_that_is_cancelled_keeps_what_was_read_and_is_not_asked_for_again(place: Place) -> None:
    def runs_of_long() -> list[str]:
        return [str(run["runId"]) for run in runs(place.address) if run["jobName"] == "long_run_cell"]

    # Here, not with the others: whichever test is the first one, it is to be cancelled while it is at work.
    materialize_all(place.page, job(place, "long"))
    place.until(lambda: bool(runs_of_long()))
    [run_id] = runs_of_long()
    process = process_of(place.project, run_id)
    tables = place.project.tables / "long" / "cells"
    while len(list(tables.glob("*/*/current.json"))) < 3:
        assert place.statuses({run_id}) <= {"STARTING", "STARTED"}
    # However fast it reads, it is at work until somebody has terminated it.
    with stopped_between_writes(process, place.project.dagster):
        place.page.goto(f"{place.address}/runs/{run_id}")
        place.page.get_by_role("button", name="Terminate").click()
        place.page.get_by_role("dialog").get_by_role("button", name="Terminate").click()
        until_true(lambda: place.statuses({run_id}) == {"CANCELING"}, lambda: place.statuses({run_id}))
    assert backfill(place, "long") == ("COMPLETED_FAILED", [(run_id, "CANCELED")])
    left = partition_counts(place.address, "long", "pair_results")
    assert 0 < left.materialised < CELLS["long"]
    assert (left.failed, left.materialising) == (0, 0)
    partitions_say(
        place, "long", "pair_results", Materialized=left.materialised, Missing=CELLS["long"] - left.materialised
    )
    experiment = place.experiment("long")
    with open_instance(place.project) as instance:
        found = cell_runs(instance, experiment, experiment.cells).values()
    assert sum(one.cancelled == run_id for one in found) == CELLS["long"] - left.materialised
    assert not any(one.active for one in found)


def test_a_finished_experiment_has_nothing_missing_and_a_lost_file_is_one_red_check_on_every_page(
    place: Place,
) -> None:
    ended, [(_, status)] = backfill(place, "read")
    assert (ended, status) == ("COMPLETED_SUCCESS", "SUCCESS")
    for asset in CELL_CHECKS:
        partitions_say(place, "read", asset, Materialized=CELLS["read"])
        pages_agree(place, "read", asset)

    lost = place.project.root / "data" / "read" / "coop-comm-seed0" / "coop" / inputs.planned(1)[0].name / "result.json"
    content = lost.read_bytes()
    lost.unlink()
    all_executed(place, "read", "run_logs")
    pages_agree(place, "read", "run_logs", {"expected_results": "coop-comm/0"})  # It ends on the page of that check.
    for said in (f"2 of {PAIRS} results; 1 missing or unreadable", inputs.planned(1)[0].name):
        expect(place.page.get_by_text(said).first).to_be_visible()
    lost.write_bytes(content)
    all_executed(place, "read", "run_logs")
    pages_agree(place, "read", "run_logs")


def test_a_blocked_cell_among_others_is_named_with_reason_and_fix_and_the_others_are_published(place: Place) -> None:
    ended, [(run_id, status)] = backfill(place, "wide")
    assert (ended, status) == ("COMPLETED_FAILED", "FAILURE")
    place.page.goto(f"{place.address}/runs/{run_id}")
    reason = "wide coop-comm seed 4: blocked by only_planned_pairs: 1 pair extra, duplicate or misplaced"
    expect(place.page.get_by_text(re.compile(re.escape(reason))).last).to_be_visible()
    expect(place.page.get_by_text(re.compile("how to fix: move them out of the run folder")).last).to_be_visible()
    partitions_say(place, "wide", "run_logs", Materialized=CELLS["wide"])
    for asset in ("eval_outputs", "pair_results"):
        partitions_say(place, "wide", asset, Materialized=CELLS["wide"] - 1, Failed=1)
    pages_agree(place, "wide", "run_logs", {"only_planned_pairs": BLOCKED})
    shown = shown_check(place.page, place.address, "wide", "pair_results", "expected_rows")
    assert (shown.state, shown.partition) == ("Failed", BLOCKED)
    expect(place.page.get_by_text("not evaluated: blocked by only_planned_pairs").first).to_be_visible()

    published = "SELECT count(DISTINCT (setting, seed)) FROM cells WHERE experiment = 'wide'"
    place.until(
        lambda: (
            place.project.database.is_file()
            and query(place.project.database, published).rows() == [(CELLS["wide"] - 1,)]
        ),
    )
    place.until(lambda: partition_counts(place.address, "wide", "pair_results").materialising == 0)


def test_an_experiment_that_runs_pairs_has_nothing_missing_after_all_was_materialised(place: Place) -> None:
    assert backfill(place, "drill")[0] == "COMPLETED_SUCCESS"
    for asset in CELL_CHECKS:
        partitions_say(place, "drill", asset, Materialized=2)
    assert never_materialised(place.address, "drill") == set()
    all_executed(place, "drill", *CHECKS)
    for asset in CHECKS:
        pages_agree(place, "drill", asset)


def test_from_the_reports_grid_to_the_message_that_was_never_read_in_three_clicks(place: Place) -> None:
    place.until(lambda: never_materialised(place.address, "drill") == set())
    page = place.page
    with serving(library_of_project(place.project, "drill")) as viewer:
        page.goto(f"{viewer}/report/drill/report.html")
        row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=NEVER_READ_IN))
        row.get_by_role("link", name="in coop-comm/0").click()
        contents = page.get_by_role("navigation", name="On this page")
        contents.get_by_role("button", name=re.compile("^Messages .*1 never read")).click()
        never = page.locator('#messages tr[data-read="never"]')
        expect(never).to_be_in_viewport()
        never.get_by_role("button", name=re.compile("^step")).click()
        command = page.locator('.step.selected [data-kind="command"]')
        expect(command).to_contain_text("Done: ")
        expect(command).to_be_in_viewport()
