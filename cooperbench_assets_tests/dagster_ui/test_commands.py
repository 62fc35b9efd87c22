"""What a person sees of what the command line made, in a project that is new."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from cooperbench_assets_tests.automation.ui_actions import open_page

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from cooperbench_assets_tests.dagster_ui.place import Place

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def metadata_value(page: Page, name: str) -> str:
    row = page.locator("tr", has=page.get_by_text(name, exact=True)).first
    return row.locator("td").nth(1).inner_text()


def test_two_first_commands_beside_a_first_dagster_dev_all_work_without_a_warning_and_in_no_temporary_folder(
    place: Place,
) -> None:
    assert [command.code for command in place.first] == [0, 0], place.first
    assert "solo seed 1: 3 pass, 1 infra_error" in place.first[0].stdout
    assert "Serving dagster-webserver" in place.said
    assert not [word for word in ("temporary", "warning", "superseded") if word in place.said.lower()], place.said


def test_a_person_finds_the_figures_the_partitions_and_the_checks(place: Place) -> None:
    page, address = place.page, place.address
    page.goto(address)
    expect(page.get_by_text("Jobless asset materializations").first).to_be_visible()
    expect(page.get_by_text("No runs")).not_to_be_visible()

    open_page(page, f"{address}/assets/made/pair_results?view=partitions&partition=solo%2F1")
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

    open_page(page, f"{address}/assets/made/run_logs?view=checks&checkDetail=no_agent_infra_error")
    expect(page.get_by_text("This is a non-blocking asset check.")).to_be_visible()
    page.get_by_role("tab", name="Partitions").last.click()
    expect(page.get_by_text("Failed (1)", exact=True)).to_be_visible()
    expect(page.get_by_text("Passed (3)", exact=True)).to_be_visible()
    from_the_red_check_to_the_tests_output_in_two_clicks(page)

    open_page(page, f"{address}/assets/made/results_store?view=checks&checkDetail=equals_partition_tables")
    expect(page.get_by_text("rows equal to the partition tables")).to_be_visible()


def from_the_red_check_to_the_tests_output_in_two_clicks(page: Page) -> None:
    page.get_by_text("solo/1", exact=True).filter(visible=True).last.click()
    page.locator('a[href*="/#/e/made/solo/1/"]').first.wait_for()
    with page.expect_popup() as opened:
        page.locator('a[href*="/#/e/made/solo/1/"]').first.click()
    pair = opened.value
    pair.get_by_role("navigation", name="On this page").get_by_role("button", name="Tests").click()
    expect(pair.get_by_role("region", name="test output of feature 1")).to_contain_text("1 failed, 2 passed")
    expect(pair.get_by_role("region", name="test output of feature 1")).to_be_in_viewport()
    pair.close()
