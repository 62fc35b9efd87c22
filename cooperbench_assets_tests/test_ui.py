"""What a person sees: the real `dagster dev`, in a real browser, on results that the command line made."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from cooperbench_assets_tests import trees
from cooperbench_assets_tests.experiments import SETTINGS, bind, fill, tree
from cooperbench_assets_tests.projects import environment, make_project
from cooperbench_assets_tests.ui import browser, dagster_dev
from cooperbench_assets_tests.viewer.places import viewing

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.project import Project

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LOADED_MILLISECONDS = 60_000
EXPERIMENT = {"subset": "some", "run_name": "{setting}{seed_suffix}", "settings": SETTINGS}


def command(project: Project, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cooperbench_assets.cli", *arguments],
        cwd=project.root,
        env=environment(project, **variables),
        capture_output=True,
        text=True,
        check=False,
    )


def metadata_value(page: Page, name: str) -> str:
    row = page.locator("tr", has=page.get_by_text(name, exact=True)).first
    return row.locator("td").nth(1).inner_text()


def test_a_person_finds_the_figures_the_partitions_and_the_checks(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", {"made": EXPERIMENT})
    experiment = bind(project.root)
    for cell in experiment.cells:
        first, *_ = fill(experiment, cell.cell.setting, cell.cell.seed)
    dead = trees.agent(status="Error", error="litellm.RateLimitError: 429 too many requests")
    tree(experiment, "solo", 1).result(first, agents=[dead])
    with viewing(experiment) as viewer, dagster_dev(project) as address, browser() as page:
        done = command(project, "materialize", "made", COOPERBENCH_ASSETS_VIEWER_URL=viewer)
        look(page, address, done)
        from_the_red_check_to_the_tests_output_in_two_clicks(page, address)


def look(page: Page, address: str, done: subprocess.CompletedProcess[str]) -> None:
    expect.set_options(timeout=LOADED_MILLISECONDS)
    assert done.returncode == 0, done.stderr
    assert "solo seed 1: 3 pass, 1 infra_error" in done.stdout

    page.goto(address)
    expect(page.get_by_text("Jobless asset materializations").first).to_be_visible()
    expect(page.get_by_text("No runs")).not_to_be_visible()

    page.goto(f"{address}/assets/made/pair_results?view=partitions&partition=solo%2F1")
    expect(page.get_by_text("Materialized (4)")).to_be_visible()
    expect(page.get_by_text("Missing (0)")).to_be_visible()
    expect(page.get_by_role("heading", name="solo/1").or_(page.get_by_text("solo/1")).first).to_be_visible()
    expect(page.get_by_text("pairs_that_need_attention")).to_be_visible()
    assert [metadata_value(page, name) for name in ("results", "pass", "fail", "infra_error")] == [
        "4",
        "3",
        "0",
        "1",
    ]

    page.goto(f"{address}/assets/made/run_logs?view=checks&checkDetail=no_agent_infra_error")
    expect(page.get_by_text("This is a non-blocking asset check.")).to_be_visible()
    page.get_by_role("tab", name="Partitions").last.click()
    expect(page.get_by_text("Failed (1)", exact=True)).to_be_visible()
    expect(page.get_by_text("Passed (3)", exact=True)).to_be_visible()

    page.goto(f"{address}/assets/made/results_store?view=checks&checkDetail=equals_partition_tables")
    expect(page.get_by_text("rows equal to the partition tables")).to_be_visible()


def from_the_red_check_to_the_tests_output_in_two_clicks(page: Page, address: str) -> None:
    page.goto(f"{address}/assets/made/run_logs?view=checks&checkDetail=no_agent_infra_error")
    expect(page.get_by_text("This is a non-blocking asset check.")).to_be_visible()
    page.get_by_role("tab", name="Partitions").last.click()
    expect(page.get_by_text("Failed (1)", exact=True)).to_be_visible()
    page.get_by_text("solo/1", exact=True).filter(visible=True).last.click()
    page.locator('a[href*="/#/e/made/solo/1/"]').first.wait_for()
    with page.expect_popup() as opened:
        page.locator('a[href*="/#/e/made/solo/1/"]').first.click()
    pair = opened.value
    pair.get_by_role("navigation", name="On this page").get_by_role("button", name="Tests").click()
    expect(pair.get_by_role("region", name="test output of feature 1")).to_contain_text("1 failed, 2 passed")
    expect(pair.get_by_role("region", name="test output of feature 1")).to_be_in_viewport()
