"""What a person reads on the pages of the Dagster UI, and the two buttons that are about all cells.

What belongs here: reading pages, "Materialize all" and "Execute all". What does not: asserting what an experiment is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from playwright.sync_api import expect

from cooperbench_assets_tests.automation.ui_actions import check_page, graphql, open_page, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

RUNS = "{ runsOrError { ... on Runs { results { runId status jobName assetSelection { path } tags { key value } } } } }"
BACKFILLS = (
    "{ partitionBackfillsOrError { ... on PartitionBackfills { results { id status "
    "assetSelection { path } runs { runId status } } } } }"
)
OVER = {"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}
"""Statuses of a backfill that does nothing any more."""


class Shown(NamedTuple):
    """What the page of a check shows."""

    state: str
    """Passed or Failed, or another state."""

    partition: str


def materialize_all(page: Page, url: str) -> None:
    """Click "Materialize all" on the page of a job or of an experiment's graph, choose all partitions and launch."""
    page.goto(url)
    page.get_by_role("button", name="Materialize").first.click()
    sure = page.get_by_role("button", name="Confirm")
    dialog = page.get_by_role("dialog").filter(has_text="Launch runs to materialize")
    expect(sure.or_(dialog).first).to_be_visible()
    if sure.is_visible():
        sure.click()  # subset_pairs was never materialised: the cells read the subset themselves.
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_role("button", name="Launch backfill").click()
    expect(dialog).to_be_hidden()


def execute_all(page: Page, address: str, experiment: str, asset: str) -> str:
    """Click "Execute all" beside the checks of an asset; returns the id of the run that was launched."""
    before = {run["runId"] for run in runs(address)}
    open_page(page, f"{address}/assets/{experiment}/{asset}?view=checks")
    page.get_by_role("button", name="Execute all").click()
    expect(page.get_by_text(re.compile("Launched run")).first).to_be_visible()

    def launched() -> list[str]:
        return [
            str(run["runId"])
            for run in runs(address)
            if run["runId"] not in before and not run["assetSelection"] and not run["tags_of_partitions"]
        ]

    until(lambda: bool(launched()))  # What is seen may still tell of the one before.
    [run_id] = launched()
    return run_id


def runs(address: str) -> list[dict[str, object]]:
    """All runs, the newest first."""
    found = graphql(address, RUNS)["runsOrError"]["results"]
    for run in found:
        run["tags_of_partitions"] = [tag["value"] for tag in run["tags"] if "partition" in tag["key"]]
    return list(found)


def backfill_of(address: str, experiment: str) -> tuple[str, list[tuple[str, str]]]:
    """The state of the one backfill of an experiment, and its runs with theirs."""
    [found] = [
        one
        for one in graphql(address, BACKFILLS)["partitionBackfillsOrError"]["results"]
        if one["assetSelection"][0]["path"][0] == experiment
    ]
    return found["status"], [(run["runId"], run["status"]) for run in found["runs"]]


def overview(page: Page, address: str, experiment: str, asset: str) -> dict[str, int]:
    """How many checks an asset's page counts by what became of them: the icon's name, such as check_circle, cancel."""
    open_page(page, f"{address}/assets/{experiment}/{asset}")
    tags = page.get_by_text("Latest check results").locator("..").locator("[class*=BaseTag_baseTag]")
    expect(tags.first).to_be_visible()
    expect(tags.get_by_role("progressbar")).to_have_count(0)
    return {str(tag.get_by_role("img").get_attribute("aria-label")): int(tag.inner_text()) for tag in tags.all()}


def listed_checks(page: Page, count: int) -> dict[str, str]:
    """The list of checks beside the page of a check: each with its state."""
    names = page.locator("[class*=MiddleTruncate_container]:has(+ span)")
    expect(names).to_have_count(count)
    states = page.locator("[class*=MiddleTruncate_container] + span")
    expect(states.filter(has_text=re.compile(r"^$"))).to_have_count(0)
    return {
        str(name.get_attribute("title")): state.inner_text()
        for name, state in zip(names.all(), states.all(), strict=True)
    }


def shown_check(page: Page, address: str, experiment: str, asset: str, check: str) -> Shown:
    """What the page of a check shows; its description comes later, with the code that draws Markdown."""
    open_page(page, check_page(address, experiment, asset, check))
    expect(page.get_by_text("Evaluation result")).to_be_visible()
    shown = re.search(rf"\b{check}\s+Execute\s+Overview\b.*", page.inner_text("body"), re.DOTALL)
    assert shown is not None
    state = re.search(r"Evaluation result\s+([^\n]+)", shown[0])
    partition = re.search(r"\nPartition\n\s*([^\n]+)", shown[0])
    assert state is not None
    assert partition is not None
    return Shown(state[1], partition[1].strip())


def never_materialised(address: str, experiment: str) -> set[str]:
    """Assets of an experiment without a single materialisation."""
    query = "{ assetNodes { assetKey { path } assetMaterializations(limit: 1) { runId } } }"
    nodes = graphql(address, query)["assetNodes"]
    mine = [node for node in nodes if node["assetKey"]["path"][0] == experiment]
    assert mine
    return {node["assetKey"]["path"][-1] for node in mine if not node["assetMaterializations"]}
