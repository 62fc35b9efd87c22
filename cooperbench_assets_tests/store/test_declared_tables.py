"""Tables that the store is published with: of analyses, renamed, widened, better described, or no longer declared."""

from __future__ import annotations

import polars as pl
import pytest

from cooperbench_assets.store import read
from cooperbench_assets.store.partition_tables import write_unit
from cooperbench_assets.store.schema import CORE_TABLES, Column, Table
from cooperbench_assets.store.units import POINTER, analysis_unit
from cooperbench_assets_tests.store.stores import COOP, SUMMARY, Store


def test_tables_of_an_analysis_are_published_beside_the_cells(store: Store) -> None:
    declared = [*CORE_TABLES, SUMMARY]
    store.write(COOP)
    store.write_summary("demo", 0.25)
    store.write_summary("other", None)
    store.publish(declared=declared)
    assert store.table("summary", "demo").rows() == [("demo", "solo", 0.25, ["a", "b"])]
    store.write_summary("demo", 0.75)
    done = store.publish(declared=declared)
    assert done.changed == ("demo/analysis/summary",)
    assert store.table("summary")["rate"].to_list() == [0.75, None]


@pytest.mark.slow
def test_a_table_that_nobody_declares_any_more_leaves_and_comes_back_with_its_declaration(store: Store) -> None:
    store.write(COOP)
    store.write_summary("demo", 0.25)
    first = store.publish(declared=[*CORE_TABLES, SUMMARY])
    done = store.publish()
    assert (done.undeclared, list(done.unreadable)) == (("demo/analysis/summary",), [])
    assert "summary" not in store.contents()
    assert store.holds(COOP)
    assert store.publish(declared=[*CORE_TABLES, SUMMARY]).content == first.content
    assert store.table("summary")["rate"].to_list() == [0.25]


WIDER = Table(
    "summary",
    "One row for every setting",
    (
        Column("experiment", pl.String, "Name of the experiment"),
        Column("n", pl.Int64, "How many"),
        Column("rate", pl.String, "Share that passed, in words"),
        Column("setting", pl.String, "Setting"),
    ),
    key=("experiment",),
)


def test_a_table_whose_columns_change_is_made_anew_from_parquet(store: Store) -> None:
    store.write(COOP)
    for experiment in ("demo", "other", "third"):
        store.write_summary(experiment, 0.25)
    store.publish(declared=[*CORE_TABLES, SUMMARY])
    frame = WIDER.frame([{"experiment": "demo", "n": 4, "rate": "half", "setting": "solo"}])
    write_unit(store.tables, analysis_unit("demo", "summary"), {"summary": frame}, declared=[WIDER])
    (analysis_unit("third", "summary").folder(store.tables) / POINTER).unlink()
    done = store.publish(declared=[*CORE_TABLES, WIDER])
    assert store.table("summary").schema == WIDER.schema
    assert store.table("summary").rows() == [
        ("demo", 4, "half", "solo"),
        ("other", None, "0.25", "solo"),
        ("third", None, "0.25", "solo"),
    ]
    assert done.outdated == ("other/analysis/summary",)
    assert list(done.unreadable) == ["third/analysis/summary"]
    assert done.rebuilt == "its tables are declared otherwise by now, or DuckDB is of another version"
    assert done.warnings == (), "the earlier file was ours"
    assert store.holds(COOP)
    assert not store.publish(declared=[*CORE_TABLES, WIDER]).replaced
    store.write_summary("third", 0.25)
    assert store.publish(declared=[*CORE_TABLES, WIDER]).changed == ("third/analysis/summary",)


def test_a_better_description_reaches_the_file(store: Store) -> None:
    store.write_summary("demo", 0.25)
    store.publish(declared=[SUMMARY])
    columns = (*SUMMARY.columns[:2], Column("rate", pl.Float64, "It's a share"), SUMMARY.columns[3])
    better = Table("summary", "The user's summary", columns, key=("experiment",))
    store.publish(declared=[better])
    found = read.query(
        store.database, "SELECT comment FROM duckdb_columns() WHERE table_name = 'summary' AND column_name = 'rate'"
    )
    assert found.rows() == [("It's a share",)]
    assert store.table("summary")["rate"].to_list() == [0.25]
    assert not store.publish(declared=[better]).replaced


@pytest.mark.parametrize("name", ["cells", "published", "pairs"])
def test_a_table_may_not_take_the_name_of_another(store: Store, name: str) -> None:
    taken = Table(name, "Mine", SUMMARY.columns, key=("experiment",))
    with pytest.raises(ValueError, match="already has a table or view"):
        store.publish(declared=[*CORE_TABLES, taken])
