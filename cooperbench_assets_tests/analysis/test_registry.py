"""The list of analyses: its tables can be published, it says what it needs, and it is fast."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from cooperbench_assets.analysis.frames import POPULATIONS, VERDICTS
from cooperbench_assets.analysis.messages import IMPORTED_LABELS
from cooperbench_assets.analysis.registry import ANALYSES, RESULT_TABLES, run_all, run_analysis
from cooperbench_assets.store import read, schema
from cooperbench_assets.store.overlaps import PATCH_OVERLAPS
from cooperbench_assets.store.partition_tables import write_unit
from cooperbench_assets.store.publish import publish
from cooperbench_assets.store.units import analysis_unit
from cooperbench_assets_tests.analysis.stores import random_frames


def test_names_of_tables_and_analyses_are_distinct_and_described() -> None:
    names = [table.name for table in (*RESULT_TABLES, *schema.CORE_TABLES)]
    assert len(set(names)) == len(names)
    assert len({analysis.name for analysis in ANALYSES}) == len(ANALYSES)
    assert all(analysis.description.endswith(".") for analysis in ANALYSES)
    for table in RESULT_TABLES:
        assert table.description
        assert table.columns[0].name == "experiment"
        assert table.key == ("experiment",)
        assert all(column.description for column in table.columns)
        assert len({column.name for column in table.columns}) == len(table.columns)


@pytest.mark.slow
def test_every_table_is_published_and_read_back_as_it_was(tmp_path: Path) -> None:
    results = run_all(random_frames(1800, 2, pairs=20, tasks=7))
    for experiment in ("e0", "e1"):
        for table in RESULT_TABLES:
            frame = results[table.name].filter(experiment=experiment)
            unit = analysis_unit(experiment, table.name)
            write_unit(tmp_path / "tables", unit, {table.name: frame}, declared=RESULT_TABLES)
    published = publish(tmp_path / "r.duckdb", tmp_path / "tables", declared=(*schema.CORE_TABLES, *RESULT_TABLES))
    assert {name: published.rows[name] for name in results} == {name: frame.height for name, frame in results.items()}
    for name, frame in results.items():
        back = read.table(tmp_path / "r.duckdb", name, "e1")
        assert back.sort(pl.all()).equals(frame.filter(experiment="e1").sort(pl.all())), name


@pytest.fixture(scope="module")
def frames() -> dict[str, pl.DataFrame]:
    return random_frames(600, pairs=20, tasks=7)


@pytest.fixture(scope="module")
def whole(frames: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Every table that is made of them."""
    return run_all(frames)


def test_an_analysis_needs_what_it_says_and_no_more(
    frames: dict[str, pl.DataFrame], whole: dict[str, pl.DataFrame]
) -> None:
    """Given only the tables it names, each gives what it gives with all of them."""
    for analysis in ANALYSES:
        alone = analysis.function({name: frames[name] for name in analysis.needs if name in frames})
        assert list(alone) == [table.name for table in analysis.tables]
        for name, frame in alone.items():
            assert frame.equals(whole[name]), name
    known = {table.name for table in (*schema.CORE_TABLES, PATCH_OVERLAPS, IMPORTED_LABELS)}
    assert {name for analysis in ANALYSES for name in analysis.needs} <= known


def test_an_older_result_table_among_the_frames_is_not_taken_for_input(
    frames: dict[str, pl.DataFrame], whole: dict[str, pl.DataFrame]
) -> None:
    stale = {"message_labels": whole["message_labels"].with_columns(plan=pl.lit(True))}
    assert run_all(frames | stale)["communication"].equals(whole["communication"])


def test_the_strict_verdict_and_the_clean_population_come_first(whole: dict[str, pl.DataFrame]) -> None:
    for table in RESULT_TABLES:
        frame = whole[table.name]
        for column, values in (("verdict", VERDICTS), ("population", POPULATIONS)):
            if column in frame.columns and frame.height:
                assert frame[column][0] == values[0]


def test_the_room_knows_neither_dagster_nor_sql_nor_the_report() -> None:
    room = Path(sys.modules[run_analysis.__module__].__file__ or "").parent
    for file in room.glob("*.py"):
        text = file.read_text()
        for word in ("import dagster", "import duckdb", "cooperbench_assets.report", "cooperbench_assets.execution"):
            assert word not in text, f"{file.name}: {word}"


_LARGEST = """
import resource
from cooperbench_assets.analysis.registry import run_all
from cooperbench_assets_tests.analysis.stores import random_frames
run_all(random_frames(50_000, {experiments}))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("experiments", [1, 40])
def test_fifty_thousand_pairs_take_less_than_a_gigabyte(experiments: int) -> None:
    # Time and memory of many more are measured, not tested: ``python -m perf --only querying``.
    code = _LARGEST.format(experiments=experiments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1e6
