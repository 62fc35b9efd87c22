"""Ticks whose time ends before every cell was looked at: the next ones go on, and nothing is missed."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.automation.backfills import still_to_launch
from cooperbench_assets.automation.tick_budget import Place, by_reason, look_on, read_place, time_box, write_place
from cooperbench_assets.store.cells import Cell
from cooperbench_assets_tests.automation.driving import Driver, bind_demo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def solo(count: int) -> dict[str, Any]:
    """Settings of so many cells."""
    return {"solo": {"mode": "solo", "seeds": list(range(count))}}


def slow_looks() -> Callable[[], bool]:
    """A time box in which each look takes 15 s: three fit."""
    ticking = itertools.count(0.0, 15.0)
    return time_box(clock=lambda: next(ticking))


@pytest.mark.slow
def test_a_round_of_cells_goes_on_where_the_last_tick_ended_and_begins_anew_behind_the_last_cell(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    driver = Driver(bind_demo(tmp_path, settings=solo(7)), instance)
    place, seen = Place(), []
    for _ in range(3):
        portion = look_on(driver.experiment, instance, driver.now, place, slow_looks())
        assert not portion.whole
        place = read_place(write_place(portion.place))
        seen += [one.state.cell.seed for one in portion.looks]
    assert seen == [0, 1, 2, 3, 4, 5, 6, 0, 1]
    assert look_on(driver.experiment, instance, driver.now, place, lambda: False).whole


@pytest.mark.slow
def test_every_cell_is_retried_and_the_end_is_told_though_a_tick_has_time_for_one_cell_alone(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    infra_failed = {"rate": 1.0, "most": 1, "most_eval": 0}
    limits = {"pair_timeout_minutes": 1, "test_timeout_seconds": 30, "breaker": 20}
    driver = Driver(bind_demo(tmp_path, settings=solo(3), faults=infra_failed, limits=limits), instance)
    for cell in driver.experiment.cells:
        driver.launch(cell.cell)
    driver.now += timedelta(hours=1)
    cursor: str | None = None
    requests: list[dg.RunRequest] = []
    for _ in driver.experiment.cells:
        result = driver.tick(cursor, lambda: True)
        requests += result.run_requests or ()
        cursor = result.cursor
    assert sorted(request.partition_key or "" for request in requests) == ["solo/0", "solo/1", "solo/2"]
    for request in requests:
        assert driver.execute(request).success
    said = [driver.watch(lambda: True) for _ in range(4)]
    assert [line.split()[0] for line in said] == ["0", "0", "1", "0"], "complete is told when the last cell was seen"


@pytest.mark.slow
def test_a_night_of_a_thousand_cells_is_left_to_a_run_and_buys_nothing_in_its_tick(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    driver = Driver(bind_demo(tmp_path, settings=solo(1000), nightly="0 2 * * *"), instance)
    night = driver.night(slow_looks())
    assert isinstance(night, dg.RunRequest)
    assert night.tags["why"] == "1000 cells, of which a tick has time for 3"
    assert instance.get_backfills() == []
    schedule = driver.repository.get_schedule_def("drill_nightly")
    assert schedule.job_name == "drill_fill"


@pytest.mark.slow
def test_the_run_looks_at_every_cell_and_the_next_night_waits_for_it(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    driver = Driver(bind_demo(tmp_path, settings=solo(8), nightly="0 2 * * *"), instance)
    job = driver.repository.get_job("drill_fill")
    begun = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert driver.nightly() == f"run {begun.run_id[:8]} of an earlier night is not over"
    instance.report_run_failed(begun)
    assert job.execute_in_process(instance=instance).success
    [backfill] = instance.get_backfills()
    assert backfill.title == "Nightly: 8 cells (8 never run)"
    waiting = still_to_launch(instance, dg.AssetKey(["drill", "pair_results"]))
    assert len(waiting) == 8


@given(st.one_of(st.none(), st.text(max_size=40), st.just('{"next": 7}'), st.just("drill solo seed 0")))
def test_a_cursor_that_nobody_can_read_is_the_first_place(cursor: str | None) -> None:
    assert read_place(cursor) == Place()


@given(st.text(max_size=20), st.integers(0, 2000), st.text(max_size=20))
def test_a_place_is_read_as_it_was_written(following: str, complete: int, cells: str) -> None:
    try:
        following.encode(), cells.encode()
    except UnicodeEncodeError:
        return
    place = Place(following, complete, cells)
    assert read_place(write_place(place)) == place


def test_cells_with_one_reason_share_a_line() -> None:
    cells = [Cell("drill", "solo", seed) for seed in range(1000)]
    assert by_reason((cell, "why") for cell in cells[:1]) == ["drill solo seed 0: why"]
    lines = by_reason([(cell, "nothing is left to run") for cell in cells] + [(cells[7], "it is held")])
    assert lines == [
        "drill solo seed 0, drill solo seed 1, drill solo seed 2 and 997 more cells: nothing is left to run",
        "drill solo seed 7: it is held",
    ]
