"""A history of partitions by seed and setting, as they were, in the real UI and with the real daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cooperbench_assets.local_runs import open_instance
from cooperbench_assets_tests.assets.old_keys import make_history
from cooperbench_assets_tests.automation.ui_actions import (
    Counts,
    check_partitions,
    launch_run,
    partition_counts,
    until,
)
from cooperbench_assets_tests.dagster_ui.pages import backfill_of

if TYPE_CHECKING:
    from cooperbench_assets_tests.dagster_ui.place import Place

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_the_webserver_and_the_daemon_go_on_from_old_keys(place: Place) -> None:
    with open_instance(place.project) as instance:
        make_history(instance, "old")
    address = place.address
    assert partition_counts(address, "old", "pair_results") == Counts(planned=4)
    run_id = launch_run(address, "old", "solo", 0)
    until(lambda: partition_counts(address, "old", "pair_results") == Counts(planned=4, materialised=1))
    until(lambda: place.statuses({run_id}) == {"SUCCESS"}, lambda: place.statuses({run_id}))
    until(lambda: backfill_of(address, "old")[0] == "FAILED", lambda: backfill_of(address, "old"))
    assert check_partitions(address, "old", "run_logs")["expected_results"] == ({"solo/0"}, set())
