"""The checks of a cell: each on a tree where it holds, and on one where it does not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.checks.eval_outputs import EVAL_OUTPUTS_CHECKS
from cooperbench_assets.checks.finding import found
from cooperbench_assets.checks.pair_results import PAIR_RESULTS_CHECKS
from cooperbench_assets.checks.run_logs import RUN_LOGS_CHECKS
from cooperbench_assets.wording import count, plural
from cooperbench_assets_tests import trees
from cooperbench_assets_tests.benchmark.looking import DIED, WELL
from cooperbench_assets_tests.experiments import bind, fill, tree, view

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.checks.finding import Finding
    from cooperbench_assets.experiment_context import ExperimentContext

CHECKS = {check.name: check for check in (*RUN_LOGS_CHECKS, *EVAL_OUTPUTS_CHECKS, *PAIR_RESULTS_CHECKS)}


@pytest.fixture
def experiment(tmp_path: Path) -> ExperimentContext:
    return bind(tmp_path)


def finding(experiment: ExperimentContext, name: str, setting: str) -> Finding:
    return CHECKS[name].find(view(experiment, setting))


@pytest.mark.parametrize("setting", ["solo", "coop-comm", "coop-nocomm"])
@pytest.mark.parametrize("name", CHECKS)
def test_every_check_passes_on_a_finished_cell(experiment: ExperimentContext, name: str, setting: str) -> None:
    fill(experiment, setting)
    found = finding(experiment, name, setting)
    assert found.passed
    assert found.affected == 0


def test_a_missing_and_an_unreadable_result_are_named(experiment: ExperimentContext) -> None:
    first, second, *_ = fill(experiment, "solo")
    (tree(experiment, "solo").folder(first) / "result.json").unlink()
    tree(experiment, "solo").write(second, "result.json", b'{"repo": ')
    found = finding(experiment, "expected_results", "solo")
    assert found.description == "2 of 4 results; 2 missing or unreadable"
    assert found.sample == (first.name, second.name)
    assert "materialize made --setting solo --seed 0" in found.remedy
    assert not finding(experiment, "expected_rows", "solo").passed


def test_after_a_launch_of_a_chosen_few_what_was_asked_for_is_counted(experiment: ExperimentContext) -> None:
    _, second, *others = fill(experiment, "solo")
    provenance = tree(experiment, "solo").run_dir / "provenance.json"
    for pair in others:
        shutil.rmtree(tree(experiment, "solo").folder(pair))
    provenance.write_text(json.dumps({"asked_whole": False}))
    found = finding(experiment, "expected_results", "solo")
    assert found.description == "2 of 2 results that were asked for; the other 2 planned pairs were not yet"
    assert not found.passed, "the cell is not complete"
    rows = finding(experiment, "expected_rows", "solo")
    assert rows.description == (
        "2 of 2 rows that were asked for have a readable result; the other 2 planned pairs were not yet"
    )
    (tree(experiment, "solo").folder(second) / "result.json").write_text("{")
    record = {"n": 1, "campaign": 1, "stage": "agent", "outcome": "infra_error", "started_at": "2026-01-01T00:00:00Z"}
    tried = tree(experiment, "solo").run_dir / "attempts" / "solo" / second.name / "agent-1"
    tried.mkdir(parents=True)
    (tried / "attempt.json").write_text(json.dumps(record))
    assert view(experiment, "solo").unasked == {pair.name for pair in others}
    assert finding(experiment, "expected_results", "solo").description == (
        "1 of 2 results that were asked for; 1 missing or unreadable; the other 2 planned pairs were not yet"
    )
    provenance.write_text(json.dumps({"asked_whole": True}))
    assert finding(experiment, "expected_results", "solo").description == "1 of 4 results; 3 missing or unreadable"


def test_a_pair_that_nobody_planned_blocks(experiment: ExperimentContext) -> None:
    fill(experiment, "solo")
    tree(experiment, "solo").pair(Pair("other_task", 1, (1, 2)))
    found = finding(experiment, "only_planned_pairs", "solo")
    assert (found.passed, found.affected) == (False, 1)
    assert "other_task/1/f1_f2" in found.sample[0]
    assert CHECKS["only_planned_pairs"].blocking


def test_a_misplaced_pair_blocks_and_its_place_counts_as_missing(experiment: ExperimentContext) -> None:
    first, second, *_ = fill(experiment, "solo")
    tree(experiment, "solo").write(first, "result.json", trees.result(second))
    assert not finding(experiment, "only_planned_pairs", "solo").passed
    assert finding(experiment, "expected_results", "solo").sample == (first.name,)


def test_a_dead_agent_is_an_infrastructure_failure_until_it_is_accepted(tmp_path: Path) -> None:
    experiment = bind(tmp_path)
    first, *_ = fill(experiment, "solo")
    dead = trees.agent(status="Error", error="litellm.AuthenticationError: 401 invalid api key")
    tree(experiment, "solo").result(first, agents=[dead])
    found = finding(experiment, "no_agent_infra_error", "solo")
    assert (found.passed, found.sample) == (False, (f"{first.name} family=auth",))
    experiment = bind(tmp_path, accepted=[{"pair": first.name, "reason": "the key was revoked"}])
    assert finding(experiment, "no_agent_infra_error", "solo").passed
    assert finding(experiment, "no_agent_infra_error", "solo").numbers["infra_error_agent"] == 1


def test_a_test_timeout_is_counted_apart(experiment: ExperimentContext) -> None:
    first, *_ = fill(experiment, "solo")
    said = "Command timed out after 600 seconds"
    tree(experiment, "solo").evaluation(first, passed=(False, False), outputs=(said, said))
    found = finding(experiment, "no_eval_infra_error", "solo")
    assert (found.passed, found.numbers["test_timeouts"]) == (False, 1)
    assert not finding(experiment, "expected_verdicts", "solo").passed


def test_two_agents_in_solo_are_noticed(experiment: ExperimentContext) -> None:
    first, *_ = fill(experiment, "coop-comm")
    one = trees.result(first, "coop")
    one["agents"].pop("agent2")
    tree(experiment, "coop-comm").write(first, "result.json", one)
    assert finding(experiment, "agents_as_set", "coop-comm").sample == (f"{first.name} agents=1",)


def test_messages_without_messaging_are_noticed(experiment: ExperimentContext) -> None:
    first, second, *_ = fill(experiment, "coop-nocomm")
    tree(experiment, "coop-nocomm").conversation(first, trees.message())
    (tree(experiment, "coop-nocomm").folder(second) / "conversation.json").unlink()
    found = finding(experiment, "messages_as_set", "coop-nocomm")
    assert found.affected == 2
    assert set(found.sample) == {
        f"{first.name}: 1 messages without messaging",
        f"{second.name}: no readable conversation.json",
    }


@pytest.mark.parametrize("change", [{"ended_at": "2026-07-16T09:00:00"}, {"agent": trees.agent(cost=-1.0)}])
def test_times_out_of_order_and_negative_usage_are_noticed(experiment: ExperimentContext, change: trees.Json) -> None:
    first, *_ = fill(experiment, "solo")
    if "agent" in change:
        change = {**change, "total_cost": -1.0}
    tree(experiment, "solo").result(first, **change)
    assert finding(experiment, "plausible_usage", "solo").affected == 1


def test_a_verdict_older_than_its_result_is_stale(experiment: ExperimentContext) -> None:
    first, *_ = fill(experiment, "solo")
    tree(experiment, "solo").evaluation(first, evaluated_at="2026-07-16T10:01:00")
    assert not finding(experiment, "no_stale_verdict", "solo").passed
    assert finding(experiment, "expected_verdicts", "solo").sample == (f"{first.name} outcome=unevaluated",)


def test_a_merge_in_solo_and_none_in_coop_are_noticed(experiment: ExperimentContext) -> None:
    first, *_ = fill(experiment, "solo")
    merge = {"status": "clean", "strategy": "naive", "diff": "x"}
    tree(experiment, "solo").write(first, "eval.json", trees.evaluation(first) | {"merge": merge})
    assert not finding(experiment, "merge_recorded", "solo").passed
    fill(experiment, "coop-comm")
    tree(experiment, "coop-comm").evaluation(first, merge=("clean", None))
    assert not finding(experiment, "merge_recorded", "coop-comm").passed


def test_a_verdict_that_disagrees_with_its_features_is_noticed(experiment: ExperimentContext) -> None:
    _, second, *_ = fill(experiment, "solo")
    tree(experiment, "solo").evaluation(second, passed=(True, False), both_passed=True)
    assert finding(experiment, "verdict_agrees", "solo").affected == 1


def test_an_agent_that_submitted_behind_an_error_is_suspect_until_it_has_run_again(
    experiment: ExperimentContext,
) -> None:
    first, *_ = fill(experiment, "solo")
    tree(experiment, "solo").write(first, "solo_stream.jsonl", json.dumps(DIED))
    found = finding(experiment, "no_suspect_agent", "solo")
    assert (found.passed, found.sample) == (False, (first.name,))
    assert found.description.startswith("1 pair graded that should not be trusted")
    assert found.remedy == "read the streams of the pairs named before you quote a rate"
    assert CHECKS["no_suspect_agent"].warns
    tree(experiment, "solo").write(first, "solo_stream.jsonl", json.dumps(WELL))
    assert finding(experiment, "no_suspect_agent", "solo").passed


def test_an_agent_that_the_step_limit_stopped_behind_an_error_is_not_suspect(experiment: ExperimentContext) -> None:
    first, *_ = fill(experiment, "solo")
    tree(experiment, "solo").result(first, agents=[trees.agent(status="LimitsExceeded")])
    tree(experiment, "solo").write(first, "solo_stream.jsonl", json.dumps(DIED))
    assert finding(experiment, "no_suspect_agent", "solo").passed


def test_a_pair_with_two_rows_is_named_and_blocks(experiment: ExperimentContext) -> None:
    # Reading a subset refuses a pair that stands in it twice: this is the guard behind it, of what is written.
    first, *_ = fill(experiment, "solo")
    planned = experiment.subset()
    twice = replace(planned, pairs=(*planned.pairs, first))
    found = CHECKS["distinct_pairs"].find(experiment.view(experiment.cells[0], twice))
    assert (found.passed, found.affected, found.sample) == (False, 1, (first.name,))
    assert found.description == "1 row of a pair that has one already or that nobody planned"
    assert "please report it" in found.remedy
    assert CHECKS["distinct_pairs"].blocking
    assert CHECKS["distinct_pairs"].find(experiment.view(experiment.cells[0], planned)).passed


def test_a_row_of_a_pair_that_nobody_planned_is_named(experiment: ExperimentContext) -> None:
    first, second, *_ = fill(experiment, "solo")
    whole = view(experiment, "solo")
    fewer = replace(whole, subset=replace(whole.subset, pairs=(first,)))
    found = CHECKS["distinct_pairs"].find(fewer)
    assert (found.passed, found.affected, found.sample[0]) == (False, 3, second.name)
    assert CHECKS["distinct_pairs"].find(whole).passed


def test_affected_pairs_are_counted_and_a_sample_is_named(tmp_path: Path) -> None:
    experiment = bind(tmp_path, count=25)
    experiment.run_dir(experiment.cells[0]).mkdir(parents=True)
    found = CHECKS["expected_results"].find(experiment.view(experiment.cells[0]))
    assert (found.affected, len(found.sample)) == (25, 10)


@pytest.mark.parametrize(("number", "said"), [(1, "1 pair has none"), (2, "2 pairs have none")])
def test_a_finding_is_said_in_singular_and_plural(number: int, said: str) -> None:
    affected = [f"pair {one}" for one in range(number)]
    finding = found(affected, good="none", bad=lambda n: f"{count(n, 'pair')} {plural(n, 'has', 'have')} none")
    assert finding.description == said
