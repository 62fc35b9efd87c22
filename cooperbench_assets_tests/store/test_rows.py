"""From readings to the rows of a cell's tables."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.benchmark.pairs import Subset, load_subset
from cooperbench_assets.benchmark.prompts import SHARED_GIT
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.counts import cell_counts
from cooperbench_assets.store.rows import CellSettings, cell_frames
from cooperbench_assets.store.schema import CELL_TABLES
from cooperbench_assets_tests.trees import Tree, agent, message, pairs, result, write_subset

ONE, TWO, THREE = pairs(3)
CELL = Cell("fern", "coop-comm", 2)


@pytest.fixture
def solo(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "logs" / "fern-solo")


@pytest.fixture
def coop(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "logs" / "fern-coop", "coop")


def subset(tmp_path: Path) -> Subset:
    return write_subset(tmp_path / "three.json", (ONE, TWO, THREE))


def frames(tree: Tree, tmp_path: Path, **options: Any) -> dict[str, pl.DataFrame]:
    reading = read_run(tree.run_dir, tree.mode, alive=lambda _: False)
    return cell_frames(CELL, subset(tmp_path), reading, logs_root=tree.logs, **options)


def row(frame: pl.DataFrame, **where: object) -> dict[str, Any]:
    for column, value in where.items():
        frame = frame.filter(pl.col(column) == value)
    return frame.row(0, named=True)


def test_every_table_has_exactly_its_columns_and_the_cells_key(coop: Tree, tmp_path: Path) -> None:
    coop.pair(ONE)
    made = frames(coop, tmp_path)
    assert list(made) == [table.name for table in CELL_TABLES]
    for table in CELL_TABLES:
        assert made[table.name].schema == table.schema
        for values in made[table.name].select("experiment", "setting", "seed").iter_rows():
            assert values == ("fern", "coop-comm", 2)


def test_every_planned_pair_has_one_row_in_the_subsets_order(coop: Tree, tmp_path: Path) -> None:
    coop.pair(TWO)
    table = frames(coop, tmp_path)["pairs"]
    assert table["pair"].to_list() == [pair.name for pair in subset(tmp_path).pairs]
    assert dict(table.select("pair", "outcome").iter_rows())[TWO.name] == "pass"
    assert table["outcome"].value_counts(sort=True).rows() == [("missing", 2), ("pass", 1)]


def test_a_run_that_is_not_there_has_a_row_for_every_planned_pair(tmp_path: Path) -> None:
    nowhere = Tree(tmp_path / "logs" / "fern-solo-seed9")
    made = frames(nowhere, tmp_path)
    assert made["pairs"]["outcome"].to_list() == ["missing"] * 3
    assert made["pairs"]["has_result"].to_list() == [False] * 3
    assert made["pairs"]["path"].to_list()[0] == f"fern-solo-seed9/solo/{subset(tmp_path).pairs[0].name}"
    assert (made["agents"].height, made["quarantine"].height, made["provenance"].height) == (0, 0, 1)
    assert row(made["provenance"])["expected_pairs"] == 3


def test_a_pair_nobody_planned_is_extra_and_nothing_of_it_is_lost(solo: Tree, tmp_path: Path) -> None:
    stranger = pairs(5)[4]
    for pair in (ONE, stranger):
        solo.pair(pair)
    solo.attempt(stranger, "agent", 1)
    made = frames(solo, tmp_path)
    assert stranger.name not in made["pairs"]["pair"].to_list()
    entry = row(made["quarantine"])
    assert (entry["kind"], entry["pair"]) == ("extra", stranger.name)
    assert entry["path"] == f"fern-solo/solo/{stranger.name}"
    assert "pass" in entry["message"]
    assert "1 recorded" in entry["message"]


def test_a_finished_pairs_row_says_what_its_files_say(coop: Tree, tmp_path: Path) -> None:
    coop.pair(ONE, passed=(True, False))
    coop.result(ONE, messages_sent=4)
    found = row(frames(coop, tmp_path)["pairs"], pair=ONE.name)
    told = {
        "repo": "sprout_task",
        "task_id": 7,
        "feature_a": 1,
        "feature_b": 40,
        "outcome": "fail",
        "reason": "tests",
        "both_passed": False,
        "both_passed_strict": False,
        "has_result": True,
        "has_eval": True,
        "accepted": False,
        "merge_status": "clean",
        "merge_strategy": "naive",
        "merge_diff_empty": False,
        "apply_a": "applied",
        "apply_b": "applied",
        "feature_a_passed": True,
        "feature_b_passed": False,
        "feature_a_tests_passed": 3,
        "feature_b_tests_failed": 1,
        "agents": 2,
        "agents_submitted": 2,
        "agents_failed": 0,
        "patches": 2,
        "cost_usd": 0.5,
        "steps": 24,
        "input_tokens": 2000,
        "output_tokens": 400,
        "messages_sent": 4,
        "duration_seconds": 300.0,
        "started_at": datetime.fromisoformat("2026-07-16T10:00:00.000001"),
        "evaluated_at": datetime.fromisoformat("2026-07-16T11:00:00.000001"),
        "agent_tries": None,
        "model": "some-model",
        "agent_framework": "mini_swe_agent_v2",
        "run_id": "0f0f0f0f",
        "path": f"fern-coop/coop/{ONE.name}",
        "stage": None,
        "family": None,
        "retryable": None,
    }
    assert {name: found[name] for name in told} == told
    assert (coop.logs / found["path"] / "result.json").is_file()


def test_agents_have_rows_of_their_own_with_their_own_patch(coop: Tree, tmp_path: Path) -> None:
    coop.pair(ONE)
    coop.result(ONE, agents=(agent(cost=0.1), agent(status="Error", error="Error code: 401")))
    table = frames(coop, tmp_path)["agents"]
    first, second = row(table, agent="agent1"), row(table, agent="agent2")
    assert (first["feature_id"], second["feature_id"]) == (1, 40)
    assert (first["failed"], first["family"], first["cost_usd"]) == (False, None, 0.1)
    assert (second["failed"], second["stage"], second["family"], second["retryable"]) == (True, "agent", "auth", False)
    assert second["error"] == second["evidence"] == "Error code: 401"
    assert len({first["patch_sha256"], second["patch_sha256"], None}) == 3


def test_an_agents_own_end_is_no_infrastructure_in_its_row(solo: Tree, tmp_path: Path) -> None:
    solo.result(ONE, agents=[agent(status="Error", error="ContextWindowExceededError")])
    found = row(frames(solo, tmp_path)["agents"])
    assert (found["agent"], found["feature_id"], found["failed"]) == ("solo", None, False)
    assert (found["family"], found["stage"], found["retryable"]) == ("agent_error", None, None)


def test_tokens_that_are_all_zero_after_steps_are_not_known(coop: Tree, tmp_path: Path) -> None:
    silent = dict.fromkeys(("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"), 0)
    coop.result(ONE, agents=(agent(**silent), agent()))
    coop.result(TWO, agents=(agent(**silent, steps=0, status="Error"), agent()))
    made = frames(coop, tmp_path)
    one, two = (row(made["pairs"], pair=pair.name) for pair in (ONE, TWO))
    assert (one["input_tokens"], one["agents_with_tokens"], one["agents"]) == (1000, 1, 2)
    assert row(made["agents"], pair=ONE.name, agent="agent1")["output_tokens"] is None
    assert (two["input_tokens"], two["agents_with_tokens"], two["agents"]) == (1000, 2, 2)
    assert row(made["agents"], pair=TWO.name, agent="agent1")["output_tokens"] == 0


def test_a_dead_agent_leaves_the_living_ones_tokens_and_says_of_how_many_they_are(coop: Tree, tmp_path: Path) -> None:
    unknown = dict.fromkeys(("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"))
    coop.result(ONE, agents=(agent(**unknown, status="Error", error="killed"), agent(cache_write_tokens=None)))
    coop.result(TWO, agents=(agent(**unknown), agent(**unknown)))
    made = frames(coop, tmp_path)
    counts = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "agents_with_tokens")
    living = row(made["agents"], pair=ONE.name, agent="agent2")
    found = row(made["pairs"], pair=ONE.name)
    assert [found[name] for name in counts] == [*(living[name] for name in counts[:3]), None, 1]
    assert [row(made["pairs"], pair=TWO.name)[name] for name in counts] == [None, None, None, None, 0]
    assert row(made["pairs"], pair=THREE.name)["agents_with_tokens"] is None, "there is no result"


def test_costs_that_are_no_numbers_are_not_known_and_negative_ones_are_kept(solo: Tree, tmp_path: Path) -> None:
    solo.write(ONE, "result.json", json.dumps(result(ONE, agents=[agent(cost=float("nan"))], total_cost=float("inf"))))
    solo.result(TWO, agents=[agent(cost=-1.5)], total_cost=-1.5)
    made = frames(solo, tmp_path)
    assert row(made["pairs"], pair=ONE.name)["cost_usd"] is None
    assert row(made["agents"], pair=ONE.name)["cost_usd"] is None
    assert row(made["pairs"], pair=TWO.name)["cost_usd"] == -1.5
    assert made["quarantine"].height == 0


def test_patches_are_counted_by_their_files_and_else_by_their_lines(coop: Tree, tmp_path: Path) -> None:
    coop.result(ONE)
    coop.patches(ONE, "diff\n", " \n")
    coop.result(TWO, agents=(agent(patch_lines=0), agent()))
    coop.result(THREE, agents=(agent(patch_lines=None), agent()))
    table = frames(coop, tmp_path)["pairs"]
    counts = dict(table.select("pair", "patches").iter_rows())
    assert [counts[pair.name] for pair in (ONE, TWO, THREE)] == [1, 1, None]


def test_messages_keep_their_order(coop: Tree, tmp_path: Path) -> None:
    coop.result(ONE)
    coop.conversation(
        ONE,
        message(text="second in time", timestamp=1784198014.0),
        message("agent2", "agent1", "first in time", timestamp=None, feature_id=40),
        message(to=["agent2", "agent3"], text={"kind": "claim"}, timestamp="2026-07-16T10:00:00Z"),  # type: ignore[arg-type]
    )
    rows = frames(coop, tmp_path)["messages"].sort("position").rows(named=True)
    assert [(one["position"], one["sender"], one["recipient"]) for one in rows] == [
        (0, "agent1", "agent2"),
        (1, "agent2", "agent1"),
        (2, "agent1", "agent2, agent3"),
    ]
    assert [one["message"] for one in rows] == ["second in time", "first in time", '{"kind":"claim"}']
    assert [one["sent_at"] is None for one in rows] == [False, True, False]


def test_attempts_are_rows_and_are_counted(coop: Tree, tmp_path: Path) -> None:
    coop.pair(ONE)
    coop.attempt(ONE, "agent", 2, cost_usd=0.75)
    coop.attempt(ONE, "agent", 1, outcome="infra_error", family="auth", evidence="x" * 5000, retryable=False)
    coop.attempt(ONE, "eval", 1, outcome="running", ended_at=None)
    coop.attempt(TWO, "agent", 1, outcome="infra_error", family="oom")
    made = frames(coop, tmp_path)
    rows = made["attempts"].filter(pl.col("pair") == ONE.name).rows(named=True)
    assert [(one["stage"], one["n"]) for one in rows] == [("agent", 1), ("agent", 2), ("eval", 1)]
    assert [one["counted"] for one in rows] == [True, False, True]
    assert [one["family"] for one in rows] == ["auth", None, "interrupted"]
    assert len(rows[0]["evidence"]) == 2000
    assert rows[1]["started_at"] == datetime.fromisoformat("2026-07-16T09:00:00")
    assert rows[1]["cost_usd"] == 0.75
    assert rows[0]["path"] == f"fern-coop/attempts/coop/{ONE.name}/agent-1"
    found = row(made["pairs"], pair=ONE.name)
    assert (found["agent_tries"], found["eval_tries"]) == (2, 1)
    assert row(made["pairs"], pair=TWO.name)["eval_tries"] is None


def test_what_a_person_accepted_stays_infrastructure(solo: Tree, tmp_path: Path) -> None:
    solo.result(ONE, agents=[agent(status="Error", error="Error code: 529")])
    found = row(frames(solo, tmp_path, accepted={ONE.name})["pairs"], pair=ONE.name)
    assert (found["accepted"], found["outcome"]) == (True, "infra_error")


def test_quarantine_is_told_relative_to_the_log_root(solo: Tree, tmp_path: Path) -> None:
    path = solo.write(ONE, "result.json", "{")
    entry = row(frames(solo, tmp_path)["quarantine"])
    assert solo.logs / entry["path"] == path
    assert (entry["kind"], entry["pair"]) == ("cut", ONE.name)


def test_provenance_says_what_is_known_and_nothing_else(coop: Tree, tmp_path: Path) -> None:
    coop.pair(ONE)
    coop.result(TWO, model="another-model")
    read_at = datetime.fromisoformat("2026-08-01T00:00:00")
    made = frames(
        coop, tmp_path, read_at=read_at, settings=CellSettings(planned=False, execution="none", messaging=True)
    )
    found = row(made["provenance"])
    told = {
        "planned": False,
        "run_name": "fern-coop",
        "path": "fern-coop",
        "mode": "coop",
        "messaging": True,
        "git": None,
        "origin": "imported",
        "model": "another-model, some-model",
        "agent": "mini_swe_agent_v2",
        "harness_version": None,
        "harness_version_source": "unknown",
        "merge_policy": "unknown",
        "subset": "three",
        "execution": "none",
        "isolation": None,
        "truncated": None,
        "read_at": read_at,
        "record": None,
    }
    assert {name: found[name] for name in told} == told
    assert found["subset_sha256"] == subset(tmp_path).sha256
    assert found["files_read"] == 6


def test_agents_that_were_told_of_a_git_server_shared_one(coop: Tree, tmp_path: Path) -> None:
    coop.pair(ONE)
    prompt = {"role": "user", "content": f"Add a colour. {SHARED_GIT[0].decode()}."}
    coop.write(ONE, f"agent{ONE.features[0]}_traj.json", {"messages": [prompt]})
    assert row(frames(coop, tmp_path)["provenance"])["git"] is True


def test_recorded_provenance_wins(coop: Tree, tmp_path: Path) -> None:
    coop.pair(ONE)
    coop.attempt(ONE, "eval", 1, isolation="bubblewrap")
    path = coop.provenance(
        origin="executed",
        harness_version="0.0.29",
        messaging=False,
        execution="process",
        truncated=True,
        agent_config={"step_limit": 100},
        git=False,
    )
    found = row(
        frames(coop, tmp_path, settings=CellSettings(execution="docker", messaging=True, git=True))["provenance"]
    )
    told = (
        "origin",
        "harness_version",
        "harness_version_source",
        "merge_policy",
        "messaging",
        "execution",
        "truncated",
    )
    assert [found[name] for name in told] == ["executed", "0.0.29", "recorded", "agent1_alone", False, "process", True]
    assert (found["git"], found["isolation"], found["agent_config"]) == (False, "bubblewrap", '{"step_limit":100}')
    assert found["record"] == path.read_text()


def test_counts_of_a_cell_add_up(solo: Tree, tmp_path: Path) -> None:
    solo.pair(ONE)
    solo.result(TWO, agents=[agent(status="Error", error="Error code: 529")])
    counts = cell_counts(frames(solo, tmp_path, accepted={TWO.name})["pairs"])
    expected = {"planned": 3, "results": 2, "evals": 1, "pass": 1, "fail": 0, "infra_error": 1, "infra_agent": 1}
    expected |= {"infra_eval": 0, "unevaluated": 0, "missing": 1, "accepted": 1, "suspect": 0, "stale": 0}
    assert {name: counts[name] for name in expected} == expected
    assert (counts["cost_usd"], counts["input_tokens"], counts["hours"]) == (0.5, 2000, 600 / 3600)


def test_counts_of_nothing_know_no_cost(tmp_path: Path) -> None:
    counts = cell_counts(frames(Tree(tmp_path / "logs" / "x"), tmp_path)["pairs"])
    assert (counts["planned"], counts["missing"], counts["cost_usd"], counts["hours"]) == (3, 3, None, None)


# The real runs, whose right figures are known.

REAL = {
    "flash_solo_1": (50, 48, 21, 25, 0, 2, 2, 33.21),
    "flash_solo_2": (50, 48, 20, 27, 0, 1, 2, 35.62),
    "flash_solo_3": (50, 47, 21, 23, 2, 1, 3, 28.51),
    "flash_msg_1": (50, 47, 6, 38, 3, 0, 3, 55.67),
    "flash_msg_2": (50, 48, 6, 41, 1, 0, 2, 56.42),
    "flash_msg_3": (50, 47, 6, 40, 1, 0, 3, 56.48),
}
"""Run → results, evals, pass, fail, infra (agent), infra (test timeout), no eval, cost USD."""


@pytest.mark.real_logs
@pytest.mark.parametrize("run", sorted(REAL))
def test_real_runs_read_as_they_should(real_logs: Path, flash_subset: Path, run: str) -> None:
    reading = read_run(real_logs / run)
    made = cell_frames(Cell("flash", "x", 1), load_subset(flash_subset), reading, logs_root=real_logs)
    table = made["pairs"]
    counts = cell_counts(table)
    timeouts = table.filter(pl.col("family") == "test_timeout").height
    no_eval = table.filter(~pl.col("has_eval")).height
    told = [counts[name] for name in ("results", "evals", "pass", "fail", "infra_agent")]
    assert (*told, timeouts, no_eval) == REAL[run][:-1]
    assert counts["cost_usd"] == pytest.approx(REAL[run][-1], abs=0.005)
    assert (counts["missing"], counts["stale"], made["quarantine"].height) == (0, 0, 0)
    assert sum(REAL[run][2:7]) == 50
    assert made["provenance"]["git"].to_list() == [None]
    assert table.filter((pl.col("outcome") == "fail") & (pl.col("agents_failed") > 0)).height == 0
    assert table.filter((pl.col("outcome") == "infra_error") & pl.col("evidence").is_null()).height == 0


@pytest.mark.real_logs
def test_real_failures_have_their_causes(real_logs: Path, flash_subset: Path) -> None:
    found: dict[str, int] = {}
    for run in sorted(REAL):
        reading = read_run(real_logs / run)
        table = cell_frames(Cell("flash", run, 1), load_subset(flash_subset), reading, logs_root=real_logs)["pairs"]
        for family in table["family"].drop_nulls():
            found[family] = found.get(family, 0) + 1
    # 15 evaluations without a verdict; 401 in two pairs of each of two runs; three containers that never started.
    assert found == {"engine": 15, "auth": 4, "container_start": 3, "test_timeout": 4}
