from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from cooperbench_assets.store.cells import Cell
from cooperbench_assets_tests.commands.store import fail_a_check, read_into_store

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets_tests.commands.place import Place

KEYS = [
    *("experiment", "setting", "seed", "planned", "expected", "results", "evals", "pass", "fail"),
    *("infra_error", "unevaluated", "missing", "cost_usd", "checks_failed"),
]


@pytest.fixture
def mine(place: Place) -> Place:
    """The place with an experiment of three runs: all passed, one pair missing, not evaluated."""
    place.add_run("s_1")
    place.add_run("s_2", pairs=[(1, 2), (1, 3)], passed=False)
    place.add_run("talk", "coop", messages=1, evaluated=False)
    done = place.run(
        *("import-logs", "logs", "--experiment", "mine", "--subset", "three.json"),
        *("--run", "solo=s_{seed}", "--run", "coop-comm=talk"),
    )
    assert done.exit_code == 0, done.output
    return place


def cells(place: Place, *arguments: str) -> list[dict[str, Any]]:
    done = place.run("status", *arguments, "--json")
    assert done.exit_code == 0, done.output
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def test_json_has_one_object_a_cell_with_exactly_these_keys(mine: Place) -> None:
    read_into_store(mine.project, "mine")
    rows = cells(mine, "mine")
    assert [list(row) for row in rows] == [KEYS] * 3
    first, second, third = rows
    assert first == {
        "experiment": "mine",
        "setting": "solo",
        "seed": 1,
        "planned": True,
        "expected": 3,
        "results": 3,
        "evals": 3,
        "pass": 3,
        "fail": 0,
        "infra_error": 0,
        "unevaluated": 0,
        "missing": 0,
        "cost_usd": 0.75,
        "checks_failed": None,
    }
    assert [second[key] for key in ("results", "evals", "pass", "fail", "missing")] == [2, 2, 0, 2, 1]
    assert [third[key] for key in ("setting", "seed", "results", "evals", "unevaluated")] == ["coop-comm", 0, 3, 0, 3]


def test_a_cell_that_is_not_in_the_store_is_unknown_and_not_zero(mine: Place) -> None:
    rows = cells(mine)
    assert [(row["planned"], row["expected"]) for row in rows] == [(True, 3)] * 3
    assert all(row[key] is None for row in rows for key in KEYS[5:])
    shown = mine.run("status")
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[0] == "mine"
    assert shown.stdout.splitlines()[2].split() == ["solo", "1", *["–"] * 9]
    assert "cooperbench-assets materialize mine" in shown.stderr


def test_the_table_shows_results_of_expected_and_money_to_the_cent(mine: Place) -> None:
    read_into_store(mine.project, "mine")
    lines = [line.split() for line in mine.run("status", "mine").stdout.splitlines()]
    assert lines[2] == ["solo", "1", "3/3", "3/3", "3", "0", "0", "0", "0", "0.75", "–"]
    assert lines[3] == ["solo", "2", "2/3", "2/3", "0", "2", "0", "0", "1", "0.50", "–"]


def test_failed_checks_are_counted_and_the_way_to_them_is_said(mine: Place) -> None:
    read_into_store(mine.project, "mine")
    fail_a_check(mine.project, Cell("mine", "solo", 1))
    assert [row["checks_failed"] for row in cells(mine)] == [1, None, None]
    said = mine.run("status").stderr
    command = said[said.index('"') + 1 : said.rindex('"')]
    answer = mine.run("query", command, "--format", "csv")
    assert answer.stdout.splitlines()[1].startswith("mine,solo,1,run_logs,counts,false")
    assert len(answer.stdout.splitlines()) == 2


def test_a_cell_that_is_no_longer_planned_is_shown_as_that(mine: Place) -> None:
    read_into_store(mine.project, "mine")
    file = mine.project.defs / "mine" / "defs.yaml"
    file.write_text(file.read_text().replace("seeds: [1, 2]", "seeds: [2]"))
    rows = cells(mine, "mine")
    assert [(row["setting"], row["seed"], row["planned"]) for row in rows] == [
        ("solo", 2, True),
        ("coop-comm", 0, True),
        ("solo", 1, False),
    ]
    assert rows[2]["expected"] == 3
    assert "not planned" in mine.run("status", "mine").stdout


def test_an_experiment_whose_folder_is_gone_is_still_shown_from_the_store(mine: Place) -> None:
    read_into_store(mine.project, "mine")
    shutil.rmtree(mine.project.defs / "mine")
    assert [row["planned"] for row in cells(mine, "mine")] == [False] * 3
    assert [row["planned"] for row in cells(mine)] == [False] * 3


def test_a_subset_that_cannot_be_read_leaves_expected_unknown_and_says_why(mine: Place) -> None:
    read_into_store(mine.project, "mine")
    mine.subset.unlink()
    done = mine.run("status", "--json")
    assert [row["expected"] for row in json.loads(done.stdout)] == [None] * 3
    assert "three.json" in done.stderr
    assert mine.run("status").stdout.splitlines()[2].split()[2] == "3"


def test_an_unknown_experiment_is_a_mistake_of_usage(mine: Place) -> None:
    done = mine.run("status", "yours")
    assert done.exit_code == 2
    assert "no experiment 'yours' (there are: mine)" in done.stderr


def test_without_an_experiment_there_is_an_empty_list_and_a_hint(place: Place) -> None:
    assert cells(place) == []
    assert "cooperbench-assets import-logs" in place.run("status").stderr


def test_a_store_that_cannot_be_read_is_one_sentence(mine: Place) -> None:
    mine.project.data.mkdir(exist_ok=True)
    mine.project.database.write_text("no database")
    done = mine.run("status")
    assert done.exit_code == 3
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.real_logs
def test_the_real_flash_runs_come_out_as_their_figures_say(place: Place, real_logs: Path, flash_subset: Path) -> None:
    done = place.run(
        *("import-logs", real_logs, "--experiment", "flash", "--subset", flash_subset),
        *("--run", "solo=flash_solo_{seed}", "--run", "coop-comm=flash_msg_{seed}"),
    )
    assert done.exit_code == 0, done.output
    read_into_store(place.project, "flash")
    told = [
        line.strip("| ").split(" | ")
        for line in (flash_subset.parent / "README.md").read_text().splitlines()
        if line.startswith("| flash_")
    ]
    rows = cells(place, "flash")
    assert len(rows) == len(told) == 6
    for row, (run, results, evals, passed, failed, agents_failed, timeouts, no_eval, cost) in zip(
        rows, told, strict=True
    ):
        setting = "solo" if "solo" in run else "coop-comm"
        assert (row["setting"], row["seed"]) == (setting, int(run[-1]))
        assert (row["expected"], row["results"], row["evals"]) == (50, int(results), int(evals))
        assert (row["pass"], row["fail"], row["missing"]) == (int(passed), int(failed), 0)
        # A pair without an eval is infra_error where eval_summary.json kept the error's text, else unevaluated.
        assert row["infra_error"] + row["unevaluated"] == int(agents_failed) + int(timeouts) + int(no_eval)
        assert row["unevaluated"] <= int(no_eval)
        assert f"{row['cost_usd']:.2f}" == cost
    dead = place.run(
        "query",
        "SELECT count(*) AS n FROM pairs JOIN agents USING (experiment, setting, seed, pair) "
        "WHERE pairs.outcome = 'fail' AND agents.status = 'Error'",
        "--format",
        "json",
    )
    assert json.loads(dead.stdout) == [{"n": 0}]
