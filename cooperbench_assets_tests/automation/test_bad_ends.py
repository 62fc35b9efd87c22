"""What goes wrong while nobody watches: one damaged cell, a lost dataset, a full disk, a slow webhook, a clock."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from cooperbench_assets.assets.keys import partition_key
from cooperbench_assets.automation.alert_rules import run_alerts
from cooperbench_assets.automation.alerts import Alert, Notifier
from cooperbench_assets.automation.policy import LONGEST_PAUSE, CellState, Launch, Wait, decide
from cooperbench_assets.execution.provenance import read_provenance
from cooperbench_assets.store.cells import Cell
from cooperbench_assets_tests.automation.driving import ALWAYS_FAILS, CELL_ASSETS, Driver, bind_demo
from cooperbench_assets_tests.automation.test_alerts import VARIABLE, Hook, Lines, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cooperbench_assets.spec import CellSpec

TWO_CELLS = {"solo": {"mode": "solo", "seeds": [0, 1]}}
ALWAYS = {"rate": 0.0, "always": [ALWAYS_FAILS]}
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC).replace(tzinfo=None)


@pytest.fixture
def hook() -> Iterator[Hook]:
    with serving() as one:
        yield one


@pytest.fixture
def driver(tmp_path: Path, instance: dg.DagsterInstance) -> Driver:
    """Two cells that somebody launched, each with a pair that failed; its pause is over."""
    driver = Driver(bind_demo(tmp_path, settings=TWO_CELLS, faults=ALWAYS), instance)
    for cell in driver.experiment.cells:
        driver.launch(cell.cell, pairs=[ALWAYS_FAILS])
    driver.now += timedelta(hours=1)
    return driver


def asked(driver: Driver) -> list[str]:
    return [request.partition_key or "" for request in driver.tick().run_requests or ()]


def told(driver: Driver, kind: str) -> list[str]:
    files = sorted((driver.experiment.project.data / "alerts" / "drill").glob(f"{kind}-*.json"))
    return [json.loads(file.read_text())["text"] for file in files]


def damage(driver: Driver, cell: CellSpec) -> None:
    """A record of a cell that nobody wrote so."""
    folder = driver.experiment.run_dir(cell)
    record = {**read_provenance(folder), "campaigns": {"agent": "many"}}
    (folder / "provenance.json").write_text(json.dumps(record))


@pytest.mark.slow
def test_a_cell_that_cannot_be_read_stops_no_other_and_is_told_of(driver: Driver) -> None:
    damaged, sound = driver.experiment.cells
    damage(driver, damaged)
    assert asked(driver) == [partition_key(sound.cell)]
    [text] = told(driver, "problem")
    assert text.startswith("drill solo seed 0: it cannot be looked at, and nothing is tried any more: ")
    assert "many" in text
    driver.tick()
    assert len(told(driver, "problem")) == 1


@pytest.mark.slow
def test_a_dataset_that_is_lost_in_the_night_is_told_of_where_somebody_has_launched_the_experiment(
    driver: Driver, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    changes: dict[str, Any] = {"settings": TWO_CELLS, "faults": ALWAYS, "subset": "lost"}
    lost = Driver(bind_demo(tmp_path, **changes), instance, now=driver.now)
    assert "lost" in lost.watch()
    assert len(told(lost, "problem")) == 1
    assert lost.tick().run_requests in (None, [])
    assert len(told(lost, "problem")) == 1
    fresh = Driver(bind_demo(tmp_path / "fresh", **changes), instance)
    assert "lost" in fresh.watch()
    assert told(fresh, "problem") == [], "it was never set up: nobody waits for it"


@pytest.mark.slow
def test_where_nothing_can_be_told_cells_are_retried_all_the_same(driver: Driver) -> None:
    damage(driver, driver.experiment.cells[0])
    (driver.experiment.project.data / "alerts").write_text("a file where the folder of messages should be")
    assert asked(driver) == [partition_key(driver.experiment.cells[1].cell)]
    assert driver.watch().endswith("0 dead runs reported")


@pytest.mark.slow
def test_a_cell_whose_run_was_launched_by_somebody_else_during_the_tick_is_not_asked_for(driver: Driver) -> None:
    first, second = driver.experiment.cells

    def meanwhile() -> bool:
        if not driver.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
            driver.instance.create_run_for_job(
                driver.job,
                tags={"dagster/partition": partition_key(first.cell)},
                status=dg.DagsterRunStatus.STARTED,
                asset_selection=frozenset(dg.AssetKey(["drill", name]) for name in CELL_ASSETS),
            )
        return False

    result = driver.tick(is_over=meanwhile)
    assert [request.partition_key for request in result.run_requests or ()] == [partition_key(second.cell)]


def test_a_slow_webhook_gets_the_other_messages_on_later_ticks(
    tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = bind_demo(tmp_path, alerts={"webhook_variable": VARIABLE})
    monkeypatch.setenv(VARIABLE, hook.address)
    alerts = [Alert("breaker", f"message {n}", str(n)) for n in range(3)]
    now = 0.0

    def four_seconds_later() -> float:
        nonlocal now
        now += 4.0
        return now

    for expected in (2, 3, 3):
        Notifier(experiment, Lines(), clock=four_seconds_later).send_all(alerts)
        assert len(hook.got) == expected


def failed(driver: Driver, count: int) -> list[dg.DagsterRun]:
    """Runs of the experiment that failed just now."""
    selected = frozenset([dg.AssetKey(["drill", "report"])])
    runs = [dg.DagsterRun("__ASSET_JOB", asset_selection=selected) for _ in range(count)]
    for run in runs:
        driver.instance.add_run(run)
        driver.instance.report_run_failed(run, "it failed")
    return runs


def test_runs_that_failed_while_nobody_looked_are_told_of_when_somebody_does_again(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    driver = Driver(bind_demo(tmp_path), instance)
    driver.watch()
    failed(driver, 1)
    driver.now += timedelta(days=3)  # Dagster was down for a weekend.
    assert driver.watch() == "1 new alerts, 0 dead runs reported"
    assert driver.watch() == "0 new alerts, 0 dead runs reported"
    driver.now -= timedelta(days=3, hours=1)  # A clock was set back.
    failed(driver, 1)
    assert driver.watch() == "1 new alerts, 0 dead runs reported"


def test_old_failures_are_not_told_of_by_a_sensor_that_looks_for_the_first_time(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    driver = Driver(bind_demo(tmp_path), instance)
    failed(driver, 1)
    driver.now += timedelta(days=3)
    assert driver.watch() == "0 new alerts, 0 dead runs reported"


@pytest.mark.slow
def test_every_failed_run_is_told_of_however_many_there_are(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    driver = Driver(bind_demo(tmp_path), instance)
    runs = failed(driver, 120)
    since = driver.now - timedelta(hours=1)
    alerts = list(run_alerts(instance, driver.experiment, since, lambda _: False))
    assert {alert.run_id for alert in alerts} == {run.run_id for run in runs}
    assert list(run_alerts(instance, driver.experiment, since, lambda _: True)) == [], "what was told is not read again"


@pytest.mark.slow
def test_a_run_of_a_cell_that_was_dropped_while_it_was_queued_is_told_of_and_stops_nothing(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    before = Driver(bind_demo(tmp_path, settings=TWO_CELLS), instance)
    queued = instance.create_run_for_job(
        before.job,
        tags={"dagster/partition": "solo/1"},
        asset_selection=frozenset(dg.AssetKey(["drill", name]) for name in CELL_ASSETS),
    )
    after = Driver(bind_demo(tmp_path), instance)
    assert [seen.state.active_run for seen in after.looks()] == [None]
    # What Dagster does with a run of a partition that is none any more.
    instance.report_run_failed(queued, "Could not find a partition with key `solo/1`")
    assert after.watch() == "1 new alerts, 0 dead runs reported"
    assert "partition solo/1: run" in told(after, "run_failed")[0]


STATE = CellState(Cell("drill", "solo", 0), NOON, fingerprint="f", agents=("a/1/f1_f2",), rounds=1)


@pytest.mark.parametrize(
    "ahead",
    [
        {"newest_end": NOON + timedelta(days=1)},
        {"newest_end": NOON, "not_before": NOON + timedelta(days=400)},
        {"fruitless": 1, "asked": 1, "newest_failure": NOON + timedelta(days=400)},
    ],
)
def test_times_of_a_clock_that_was_wrong_keep_no_cell_waiting(ahead: dict[str, Any]) -> None:
    state = replace(STATE, **ahead)
    assert isinstance(decide(replace(state, now=NOON + timedelta(hours=1))), Launch)


def test_a_clock_that_goes_back_an_hour_makes_a_pause_longer_and_no_shorter() -> None:
    state = replace(STATE, newest_end=NOON, now=NOON - timedelta(minutes=4))
    decision = decide(state)
    assert isinstance(decision, Wait)
    assert decision.until == NOON + timedelta(minutes=5)
    late = replace(STATE, newest_end=NOON, rounds=9, now=NOON - LONGEST_PAUSE)
    assert isinstance(decide(late), Wait)
