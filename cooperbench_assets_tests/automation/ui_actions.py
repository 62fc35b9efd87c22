"""What a person does in the Dagster UI with an experiment, and what they wait for."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from playwright.sync_api import Page, expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Locator

LOCATION = "cooperbench_assets"
REPOSITORY = "__repository__"
PATIENCE_SECONDS = 180.0
FOLLOW = "url => { history.pushState(null, '', url); dispatchEvent(new PopStateEvent('popstate')) }"


def open_page(page: Page, url: str) -> None:
    """Open a page of the UI; from another one of it as a link there does, without loading all of the UI again."""
    here, there = urlsplit(page.url), urlsplit(url)
    if (here.scheme, here.netloc) == (there.scheme, there.netloc):
        page.evaluate(FOLLOW, url)
    else:
        page.goto(url)


def launch_cell(page: Page, address: str, experiment: str, setting: str, seed: int) -> None:
    """Materialise a cell by the job's button; ends on the page of the run."""
    page.goto(f"{address}/locations/{LOCATION}/jobs/{experiment}_run_cell/")
    page.get_by_role("button", name="Materialize").first.click()
    sure = page.get_by_role("button", name="Confirm")
    dialog = page.get_by_role("dialog").filter(has_text="Launch runs to materialize")
    expect(sure.or_(dialog).first).to_be_visible()
    if sure.is_visible():
        sure.click()  # subset_pairs was never materialised: the cell reads the subset itself.
    selector = dialog.locator("[class*=tagSelectorContainer]").first
    selector.click()
    choices = page.locator(".dagster-popover[role=dialog]")
    choices.get_by_title(f"{setting}/{seed}", exact=True).click()
    expect(selector).to_contain_text(f"{setting}/{seed}")
    page.keyboard.press("Escape")
    expect(choices).to_be_hidden()
    page.get_by_role("button", name="Launch 1 run").click()
    # The toast has a button of its own beside the page's "View 3 assets".
    page.get_by_text("View", exact=True).first.click()
    page.wait_for_url(re.compile(r"/runs/[0-9a-f-]{36}"), wait_until="commit")


def switch_on(page: Page, address: str, kind: str, name: str) -> None:
    """Start a sensor or schedule by its switch.

    Args:
        page: The browser's page.
        address: The UI's address.
        kind: sensors or schedules.
        name: The sensor's or schedule's name.
    """
    open_page(page, f"{address}/locations/{LOCATION}/{kind}/{name}")
    switch = page.get_by_role("switch").or_(page.locator("input[type=checkbox]")).first
    expect(switch).to_be_attached()
    switch.dispatch_event("click")  # The input itself is hidden behind what is drawn.
    expect(switch).to_be_checked()


def wait_for(page: Page, url: str, wanted: Locator, seconds: float = PATIENCE_SECONDS) -> None:
    """Look at a page again and again until it shows something."""
    deadline = time.monotonic() + seconds
    open_page(page, url)
    while time.monotonic() < deadline:
        try:
            expect(wanted).to_be_visible(timeout=12_000)
        except AssertionError:
            page.goto(url)
            continue
        return
    raise AssertionError(f"{url} did not show {wanted} within {seconds:g} seconds:\n{page.inner_text('body')[:3000]}")


def until(holds: Callable[[], bool], saw: Callable[[], object] = lambda: "", seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for something to come true; where it does not, the error says what `saw` gives instead."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} seconds: {saw()}"
        time.sleep(0.5)


def check_page(address: str, experiment: str, asset: str, check: str) -> str:
    """The page of an asset check."""
    return f"{address}/assets/{experiment}/{asset}?view=checks&checkDetail={check}"


def partition_page(address: str, experiment: str, asset: str, setting: str, seed: int) -> str:
    """The page of a partition of an asset."""
    return f"{address}/assets/{experiment}/{asset}?view=partitions&partition={setting}%2F{seed}"


def graphql(address: str, query: str, **variables: Any) -> Any:
    """Ask the webserver.

    Raises:
        AssertionError: if it answers with errors.
    """
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{address}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        content = json.loads(answer.read())
    assert "errors" not in content, content["errors"]
    return content["data"]


def start_sensor(address: str, name: str) -> None:
    """Start a sensor without a browser."""
    selector = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY, "sensorName": name}
    query = "mutation ($s: SensorSelector!) { startSensor(sensorSelector: $s) { __typename } }"
    assert graphql(address, query, s=selector)["startSensor"]["__typename"] == "Sensor"


def stop_sensor(address: str, name: str) -> None:
    """Stop a sensor without a browser."""
    selector = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY, "sensorName": name}
    query = "query ($s: SensorSelector!) { sensorOrError(sensorSelector: $s) { ... on Sensor { id } } }"
    found = graphql(address, query, s=selector)["sensorOrError"]["id"]
    query = "mutation ($id: String!) { stopSensor(id: $id) { __typename } }"
    assert graphql(address, query, id=found)["stopSensor"]["__typename"] == "StopSensorMutationResult"


def launch_run(address: str, experiment: str, setting: str, seed: int) -> str:
    """Launch a cell without a browser, as the UI does; returns the run's id."""
    tags = {"dagster/partition": f"{setting}/{seed}"}
    parameters = {
        "selector": {
            "repositoryLocationName": LOCATION,
            "repositoryName": REPOSITORY,
            "pipelineName": f"{experiment}_run_cell",
        },
        "runConfigData": {},
        "mode": "default",
        "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
    }
    query = (
        "mutation ($p: ExecutionParams!) { launchPipelineExecution(executionParams: $p) "
        "{ __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"
    )
    answer = graphql(address, query, p=parameters)["launchPipelineExecution"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return str(answer["run"]["runId"])


def run_statuses(address: str, experiment: str | None = None) -> list[str]:
    """The statuses of all runs, or of those of an experiment, the newest first."""
    answer = graphql(address, "{ runsOrError { ... on Runs { results { status jobName assetSelection { path } } } } }")
    return [
        run["status"]
        for run in answer["runsOrError"]["results"]
        if experiment is None or run["jobName"].startswith(f"{experiment}_") or _selects(run, experiment)
    ]


def backfill_titles(address: str, experiment: str) -> list[str]:
    """The titles of the backfills of an experiment."""
    query = "{ partitionBackfillsOrError { ... on PartitionBackfills { results { title assetSelection { path } } } } }"
    found = graphql(address, query)["partitionBackfillsOrError"]["results"]
    return [backfill["title"] for backfill in found if _selects(backfill, experiment)]


def _selects(launched: dict[str, Any], experiment: str) -> bool:
    return any(asset["path"][0] == experiment for asset in launched["assetSelection"] or ())


@dataclass(frozen=True)
class Counts:
    """Partitions of an asset, as its page counts them."""

    planned: int
    materialised: int = 0
    failed: int = 0
    materialising: int = 0


def partition_counts(address: str, experiment: str, asset: str) -> Counts:
    """How many partitions of an asset there are, and in which state."""
    query = (
        "query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { partitionStats "
        "{ numPartitions numMaterialized numFailed numMaterializing } } } }"
    )
    found = graphql(address, query, key={"path": [experiment, asset]})["assetNodeOrError"]["partitionStats"]
    return Counts(*(found[f"num{name}"] for name in ("Partitions", "Materialized", "Failed", "Materializing")))


def check_partitions(address: str, experiment: str, asset: str) -> dict[str, tuple[set[str], set[str]]]:
    """Partitions in which each check of an asset passed, and in which it failed, as the pages of checks show them."""
    query = (
        "query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { assetChecksOrError { "
        "... on AssetChecks { checks { name partitionStatuses { ... on AssetCheckDefaultPartitionStatuses "
        "{ succeededPartitions failedPartitions } } } } } } } }"
    )
    answer = graphql(address, query, key={"path": [experiment, asset]})["assetNodeOrError"]
    return {
        check["name"]: (
            set(check["partitionStatuses"]["succeededPartitions"]),
            set(check["partitionStatuses"]["failedPartitions"]),
        )
        for check in answer["assetChecksOrError"]["checks"]
    }
