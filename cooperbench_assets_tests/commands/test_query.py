from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import pytest

from cooperbench_assets_tests.commands.store import read_into_store

if TYPE_CHECKING:
    from cooperbench_assets_tests.commands.place import Place


@pytest.fixture
def mine(place: Place) -> Place:
    """The place with a published experiment of one run with three pairs."""
    place.add_run("s_1")
    done = place.run("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", "--run", "solo=s_{seed}")
    assert done.exit_code == 0, done.output
    read_into_store(place.project, "mine")
    return place


def test_a_table_says_how_many_rows_it_has(mine: Place) -> None:
    done = mine.run("query", "SELECT pair, outcome, cost_usd FROM outcomes ORDER BY pair")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["pair", "outcome", "cost_usd"]
    assert lines[1].split() == ["click_task/7/f1_f2", "pass", "0.25"]
    assert lines[-1] == "(3 rows)"


def test_a_long_answer_is_cut_in_a_table_and_whole_in_csv(mine: Place) -> None:
    sql = "SELECT i, repeat('x', 200) AS text FROM range(250) t(i)"
    table = mine.run("query", sql).stdout.splitlines()
    assert len(table) == 102
    assert table[-1] == "(250 rows, the first 100 shown; --format csv gives all)"
    assert table[1].endswith("xxx…")
    rows = list(csv.reader(io.StringIO(mine.run("query", sql, "--format", "csv").stdout)))
    assert len(rows) == 251
    assert rows[250] == ["249", "x" * 200]


def test_values_of_every_kind_survive_csv_and_json(mine: Place) -> None:
    sql = """SELECT NULL AS nothing, true AS yes, 1.5 AS number, 'a,"b"' AS text, [1, 2] AS list, {'a': 1} AS struct,
        TIMESTAMP '2026-05-01 10:00:00' AS at, DATE '2026-05-01' AS day, 'nan'::DOUBLE AS nan, 7::HUGEINT AS big,
        0.25::DECIMAL(4, 2) AS price, INTERVAL 90 SECONDS AS took, 'ab'::BLOB AS bytes"""
    (row,) = json.loads(mine.run("query", sql, "--format", "json").stdout)
    assert row.pop("took")
    assert row == {
        "nothing": None,
        "yes": True,
        "number": 1.5,
        "text": 'a,"b"',
        "list": [1, 2],
        "struct": {"a": 1},
        "at": "2026-05-01T10:00:00",
        "day": "2026-05-01",
        "nan": None,
        "big": 7,
        "price": 0.25,
        "bytes": "6162",
    }
    (cells,) = csv.DictReader(io.StringIO(mine.run("query", sql, "--format", "csv").stdout))
    assert (cells["nothing"], cells["yes"], cells["text"], cells["list"]) == ("", "true", 'a,"b"', "[1, 2]")
    assert mine.run("query", sql).exit_code == 0


def test_sql_comes_from_standard_input_where_it_is_a_dash(mine: Place) -> None:
    from click.testing import CliRunner

    from cooperbench_assets.cli import cli

    done = CliRunner().invoke(cli, ["query", "-", "--format", "csv"], input="SELECT count(*) AS n FROM pairs")
    assert done.stdout.splitlines() == ["n", "3"]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT nothing FROM pairs", "nothing"),
        ("DELETE FROM pairs", "read-only"),
        ("DROP TABLE pairs", "read-only"),
        ("SELECT * FROM read_csv('/etc/hostname')", "disabled"),
        ("COPY pairs TO '/tmp/pairs.csv'", "disabled"),
    ],
)
def test_sql_that_cannot_be_answered_is_an_error_without_a_traceback(mine: Place, sql: str, said: str) -> None:
    before = mine.project.database.read_bytes()
    done = mine.run("query", sql)
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: the query cannot be answered: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert mine.project.database.read_bytes() == before


def test_an_unknown_table_is_answered_with_those_there_are(mine: Place) -> None:
    done = mine.run("query", "SELECT * FROM resluts")
    assert done.exit_code == 2
    assert "outcomes" in done.stderr.splitlines()[-1]
    assert "provenance" in done.stderr.splitlines()[-1]


def test_without_a_store_the_way_to_one_is_said(place: Place) -> None:
    done = place.run("query", "SELECT 1")
    assert done.exit_code == 3
    assert "cooperbench-assets materialize" in done.stderr


def test_an_empty_answer_still_has_its_columns(mine: Place) -> None:
    sql = "SELECT pair FROM pairs WHERE false"
    assert mine.run("query", sql).stdout.splitlines() == ["pair", "(0 rows)"]
    assert mine.run("query", sql, "--format", "csv").stdout == "pair\n"
    assert json.loads(mine.run("query", sql, "--format", "json").stdout) == []
