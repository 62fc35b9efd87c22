"""An experiment with a mistake in its defs.yaml, in the real UI: what is seen, and what is left of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from cooperbench_assets_tests.automation.ui_actions import (
    LOCATION,
    REPOSITORY,
    graphql,
    open_page,
    start_sensor,
    stop_sensor,
    until,
)

if TYPE_CHECKING:
    from cooperbench_assets_tests.dagster_ui.place import Place

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SENSORS = (
    "query ($r: RepositorySelector!) { sensorsOrError(repositorySelector: $r) { ... on Sensors { results "
    "{ name sensorState { status ticks(limit: 1) { timestamp } } } } } }"
)
RELOAD = "mutation ($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }"


def sensors(address: str) -> dict[str, tuple[str, float]]:
    """Whether each sensor is on, and when it last looked."""
    selector = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY}
    found: list[dict[str, Any]] = graphql(address, SENSORS, r=selector)["sensorsOrError"]["results"]
    states = {one["name"]: one["sensorState"] for one in found}
    return {
        name: (state["status"], max([tick["timestamp"] for tick in state["ticks"]], default=0.0))
        for name, state in states.items()
    }


def until_it_looks(address: str, sensor: str) -> None:
    """Wait for a tick of a sensor that begins after now."""
    now = time.time()
    until(lambda: sensors(address)[sensor][1] >= now, lambda: sensors(address))


def test_a_broken_experiment_is_one_red_asset_and_comes_back_as_it_was(place: Place) -> None:
    page, address = place.page, place.address
    file = place.project.defs / "edited" / "defs.yaml"
    sound = file.read_text()
    others = {name for name in sensors(address) if not name.startswith("edited_")}
    start_sensor(address, "edited_retry")
    until_it_looks(address, "edited_retry")

    file.write_text(sound.replace("0 2 * * *", "99 2 * * *"))
    graphql(address, RELOAD, name=LOCATION)
    assert set(sensors(address)) == {*others, "not_loaded_watch"}
    until_it_looks(address, "not_loaded_watch")
    sentence = "nightly: '99 2 * * *': minute: '99' is not 0 to 59; write a cron expression such as '0 2 * * *'"
    page.goto(f"{address}/assets/edited/experiment?view=checks&checkDetail=loads")
    expect(page.get_by_text(f"cooperbench_assets/defs/edited/defs.yaml: {sentence}")).to_be_visible()
    expect(page.get_by_text("Failed", exact=True).first).to_be_visible()
    open_page(page, f"{address}/assets/edited/experiment")
    expect(page.get_by_text("Not loaded: cooperbench_assets/defs/edited/defs.yaml").first).to_be_visible()
    open_page(page, f"{address}/assets/edited")
    expect(page.get_by_text("experiment", exact=True).first).to_be_visible()

    file.write_text(sound)
    graphql(address, RELOAD, name=LOCATION)
    assert sensors(address)["edited_retry"][0] == "RUNNING"
    until_it_looks(address, "edited_retry")
    page.goto(f"{address}/assets/edited")
    expect(page.get_by_text("pair_results", exact=True).first).to_be_visible()
    expect(page.get_by_text("experiment", exact=True)).to_have_count(0)
    stop_sensor(address, "edited_retry")
