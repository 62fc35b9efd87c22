"""An experiment that is left alone for a weekend: every pair that can be had gets its verdict, with no hand on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl
import pytest

from cooperbench_assets.demo import build_dataset
from cooperbench_assets.demo.endings import setting_of
from cooperbench_assets.demo.injected_faults import FaultPolicy, agent_fault, eval_fault
from cooperbench_assets.store.read import query
from cooperbench_assets_tests.automation.driving import ALWAYS_FAILS, Driver, bind_demo
from cooperbench_assets_tests.demo.bench import write_share

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.experiment_context import ExperimentContext

pytestmark = pytest.mark.slow

AGENT_TRIES = 3
FAULTS: dict[str, Any] = {"rate": 0.2, "most": 2}
THREE_CELLS = {
    "solo": {"mode": "solo", "seeds": [0]},
    "coop-comm": {"mode": "coop", "seeds": [0]},
    "coop-nocomm": {"mode": "coop", "messaging": False, "seeds": [0]},
}
TWO_CELLS = {"solo": {"mode": "solo", "seeds": [0]}, "coop-comm": {"mode": "coop", "seeds": [0]}}


def leave_alone(experiment: ExperimentContext, instance: dg.DagsterInstance) -> Driver:
    """Launch every cell once, as a person would; then only the sensor, whose daemon starts anew for each stretch."""
    driver = Driver(experiment, instance)
    for cell in experiment.cells:
        assert driver.launch(cell.cell).success
    again = Driver(experiment, instance, now=driver.now)
    again.leave_alone()
    assert Driver(experiment, instance, now=again.now).leave_alone() == 0
    assert again.materialize(["results_store"]).success
    return again


def failed_tries(experiment: ExperimentContext, policy: FaultPolicy) -> dict[tuple[str, int, str, str], int]:
    """How many tries of each pair fail by injected faults, by setting, seed, pair and stage, within the limits."""
    found: dict[tuple[str, int, str, str], int] = {}
    for cell in experiment.cells:
        assert cell.mode is not None
        how = setting_of(cell.mode, messaging=cell.messaging)
        for pair in experiment.subset().pairs:
            for stage, fault, limit in (("agent", agent_fault, AGENT_TRIES), ("eval", eval_fault, 2)):
                count = 0
                while count < limit and fault(pair.name, how, cell.cell.seed, count + 1, policy):
                    count += 1
                if stage == "eval" and found[cell.cell.setting, cell.cell.seed, pair.name, "agent"] == AGENT_TRIES:
                    count = 0  # It never came to be evaluated.
                found[cell.cell.setting, cell.cell.seed, pair.name, stage] = count
    return found


def recorded_tries(experiment: ExperimentContext) -> dict[tuple[str, int, str, str], int]:
    """How many tries infrastructure ended, from the attempts table of the results store."""
    sql = (
        "SELECT setting, seed, pair, stage, count(*) FILTER (outcome IN ('infra_error', 'interrupted')) AS n "
        "FROM attempts GROUP BY ALL"
    )
    rows = query(experiment.project.database, sql).rows()
    return {(setting, seed, pair, stage): n for setting, seed, pair, stage, n in rows}


def without_conflicts(
    experiment: ExperimentContext, tries: dict[tuple[str, int, str, str], int]
) -> dict[tuple[str, int, str, str], int]:
    """Without evaluations of patches that conflict: killed tests of one side cannot change that they failed."""
    sql = "SELECT setting, seed, pair FROM pairs WHERE reason = 'conflict'"
    conflicting = set(query(experiment.project.database, sql).rows())
    return {key: n for key, n in tries.items() if n and not (key[-1] == "eval" and key[:-1] in conflicting)}


def verdicts(experiment: ExperimentContext) -> list[tuple[int, int]]:
    """Verdicts and infrastructure failures of each cell in the store."""
    frame = query(experiment.project.database, 'SELECT "pass" + "fail" AS verdicts, infra_error FROM cells')
    return frame.select(pl.col("verdicts").cast(pl.Int64), pl.col("infra_error").cast(pl.Int64)).rows()


def test_two_small_cells_come_to_their_end_and_a_pair_that_always_fails_is_shown(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    faults = {**FAULTS, "rate": 0.4, "always": [ALWAYS_FAILS]}
    experiment = bind_demo(tmp_path, settings=TWO_CELLS, faults=faults, subset="tiny")
    driver = leave_alone(experiment, instance)
    assert verdicts(experiment) == [(5, 1), (5, 1)]
    expected = without_conflicts(
        experiment, failed_tries(experiment, FaultPolicy.from_config({"injected_faults": faults}))
    )
    recorded = recorded_tries(experiment)
    assert sum(expected.values()) > 6, "more than the one pair fails"
    assert expected == {key: n for key, n in recorded.items() if n}
    sql = "SELECT passed, sample FROM check_results WHERE asset = 'pair_results' AND check_name = 'retries_exhausted'"
    for passed, sample in query(experiment.project.database, sql).rows():
        assert not passed
        assert ALWAYS_FAILS in str(sample)
    assert {request.partition_key for request in driver.launched} == {"solo/0", "coop-comm/0"}


def test_pairs_of_every_task_with_faults_at_both_stages_all_get_their_verdict_in_every_cell(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    dataset = build_dataset(tmp_path / "dataset")
    experiment = bind_demo(
        tmp_path,
        settings=THREE_CELLS,
        faults=FAULTS,
        dataset=str(dataset),
        # Pairs know nothing of each other: more of the same task meet the same faults again.
        subset=str(write_share(9, dataset, tmp_path / "share.json")),
        limits={"concurrency": 4, "eval_concurrency": 10, "pair_timeout_minutes": 1, "test_timeout_seconds": 30},
    )
    driver = leave_alone(experiment, instance)
    assert verdicts(experiment) == [(12, 0)] * 3
    expected = without_conflicts(
        experiment, failed_tries(experiment, FaultPolicy.from_config({"injected_faults": FAULTS}))
    )
    assert expected == {key: n for key, n in recorded_tries(experiment).items() if n}
    assert sum(n for (*_, stage), n in expected.items() if stage == "agent") > 10
    assert sum(n for (*_, stage), n in expected.items() if stage == "eval") > 5
    assert max(expected.values()) == FAULTS["most"], "some pair fails as often as it may"
    failed = query(experiment.project.database, "SELECT count(*) FROM check_results WHERE NOT passed").item()
    assert failed == 0
    assert all(seen.complete for seen in driver.looks())
