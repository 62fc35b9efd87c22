"""The pictures of the documentation, from the real UI: python -m cooperbench_assets_tests.screenshots docs

What belongs here: a project with the built-in experiment, left to its nightly schedule and its sensors, and pictures
of it on the way and at its end. What does not: asserting (``dagster_ui``).
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from playwright.sync_api import Page, expect

from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.local_runs import Launcher
from cooperbench_assets.spec import load_experiments
from cooperbench_assets.viewer.shelves import library_of_project
from cooperbench_assets_tests.automation.ui_actions import (
    LOCATION,
    check_page,
    graphql,
    partition_page,
    run_statuses,
    start_sensor,
    switch_on,
    wait_for,
)
from cooperbench_assets_tests.projects import CHECKOUT, make_project
from cooperbench_assets_tests.ui import browser, dagster_dev
from cooperbench_assets_tests.viewer.places import serving

if TYPE_CHECKING:
    from cooperbench_assets.project import Project

EXPERIMENT = "demo"
MINUTES = 20.0
SETTLING_SECONDS = 4.0
WIDTH, HEIGHT = 1500, 900


def demo_attributes() -> dict[str, Any]:
    """The built-in experiment, with a night every minute and no patience."""
    content = yaml.safe_load((CHECKOUT / "cooperbench_assets" / "defs" / EXPERIMENT / "defs.yaml").read_text())
    return {**content["attributes"], "nightly": "* * * * *", "retry": {"backoff_minutes": 0, "every_seconds": 5}}


def take(page: Page, folder: Path, name: str, what: str = "ui") -> None:
    """One picture, when the page has come to rest."""
    time.sleep(SETTLING_SECONDS)
    file = folder / f"{what}-{name}.png"
    page.screenshot(path=file)
    sys.stdout.write(f"{file}\n")


def on_the_way(page: Page, address: str, folder: Path) -> None:
    """Pictures of the nightly backfill and of one of its runs, while they run."""
    switch_on(page, address, "schedules", f"{EXPERIMENT}_nightly")
    wait_for(page, f"{address}/runs?view=backfills", page.get_by_text(re.compile("why: 5 cells")).first)
    take(page, folder, "backfill")
    until(lambda: "STARTED" in run_statuses(address))
    answer = graphql(address, "{ runsOrError { ... on Runs { results { runId status } } } }")
    started = next(run["runId"] for run in answer["runsOrError"]["results"] if run["status"] == "STARTED")
    page.goto(f"{address}/runs/{started}")
    expect(page.get_by_text(re.compile(r"\d+ of 100 pairs done")).first).to_be_visible()
    take(page, folder, "run")


def at_the_end(page: Page, address: str, folder: Path) -> None:
    """Pictures of what is there when every cell has its hundred verdicts."""
    page.set_viewport_size({"width": 2200, "height": 1400})  # The graph shows figures where it is not too small.
    page.goto(f"{address}/locations/{LOCATION}/asset-groups/{EXPERIMENT}/lineage")
    expect(page.get_by_text("pair_results").first).to_be_visible()
    expect(page.get_by_text("Materialized").first).to_be_visible()
    expect(page.get_by_text(re.compile("^Loading"))).to_have_count(0)
    take(page, folder, "lineage")
    page.set_viewport_size({"width": 1800, "height": HEIGHT})
    page.goto(partition_page(address, EXPERIMENT, "pair_results", "coop-comm", 0))
    expect(page.get_by_text("content_sha256").first).to_be_visible()
    take(page, folder, "partitions")
    page.goto(check_page(address, EXPERIMENT, "pair_results", "retries_exhausted"))
    expect(page.get_by_text("This is a non-blocking asset check.")).to_be_visible()
    page.get_by_role("tab", name="Partitions").last.click()
    expect(page.get_by_text(re.compile(r"Passed \(5\)")).first).to_be_visible()
    page.get_by_text("coop-comm/0", exact=True).filter(visible=True).last.click()
    take(page, folder, "checks")
    page.goto(f"{address}/locations/{LOCATION}/sensors/{EXPERIMENT}_retry")
    expect(page.get_by_text("Evaluations").first).to_be_visible()
    take(page, folder, "retry")
    page.goto(f"{address}/runs")
    expect(page.get_by_text("demo_retry").first).to_be_visible()
    take(page, folder, "runs")


def of_the_viewer(page: Page, project: Project, folder: Path) -> None:
    """Pictures of the viewer's pages: the experiment, its pairs, one pair with a message that was not read in time."""
    with serving(library_of_project(project)) as viewer:
        page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        page.goto(f"{viewer}/#/e/{EXPERIMENT}")
        expect(page.get_by_role("heading", name="Headline")).to_be_visible()
        take(page, folder, "experiment", "viewer")
        page.goto(f"{viewer}/#/e/{EXPERIMENT}/pairs?rows=pairs")
        expect(page.get_by_text("500 of 500 results, 100 pairs")).to_be_visible()
        take(page, folder, "pairs", "viewer")
        page.goto(f"{viewer}/#/e/{EXPERIMENT}/pairs?outcome=fail&setting=coop-comm&sort=-messages")
        expect(page.get_by_text(re.compile(r"^\d+ of 500 results$"))).to_be_visible()
        page.get_by_role("cell").get_by_role("link").first.click()
        page.locator("#tests .failing").first.wait_for()
        take(page, folder, "pair", "viewer")
        page.keyboard.press("s")
        page.locator(".strip").scroll_into_view_if_needed()
        page.keyboard.press("m")
        page.keyboard.press("o")
        page.locator(".step-body .text").first.wait_for()
        take(page, folder, "steps", "viewer")


def everything_is_done(experiment: ExperimentContext, address: str) -> bool:
    """Whether the experiment is complete, and no run is left."""
    told = list((experiment.project.data / "alerts" / experiment.name).glob("complete-*.json"))
    return bool(told) and set(run_statuses(address)) <= {"SUCCESS", "FAILURE", "CANCELED"}


def until(holds: Callable[[], bool]) -> None:
    """Wait for something to come true.

    Raises:
        TimeoutError: if it does not.
    """
    deadline = time.monotonic() + 60 * MINUTES
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {MINUTES:g} minutes")
        time.sleep(1.0)


def make_pictures(project: Project, folder: Path) -> None:
    """All pictures, into a folder."""
    experiment = ExperimentContext(EXPERIMENT, load_experiments(project.defs)[EXPERIMENT], project)
    expect.set_options(timeout=120_000)
    with Launcher(project, EXPERIMENT, experiment.spec) as launcher:
        launcher.run_subset()
    with dagster_dev(project) as address, browser(WIDTH, HEIGHT) as page:
        for name in ("retry", "downstream"):
            start_sensor(address, f"{EXPERIMENT}_{name}")
        on_the_way(page, address, folder)
        until(lambda: everything_is_done(experiment, address))
        at_the_end(page, address, folder)
        of_the_viewer(page, project, folder)


def main() -> None:
    """Make the pictures in the folder that the command line names."""
    if len(sys.argv) != 2:
        raise SystemExit("name the folder for the pictures: python -m cooperbench_assets_tests.screenshots docs")
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="screenshots-") as scratch:
        make_pictures(make_project(Path(scratch) / "project", {EXPERIMENT: demo_attributes()}), folder)


if __name__ == "__main__":
    main()
