from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.content_hash import content_sha256
from cooperbench_assets.store.errors import FrameError, UnitError
from cooperbench_assets.store.files import unheld
from cooperbench_assets.store.partition_tables import list_units, load_record, opened, read_unit, write_unit
from cooperbench_assets.store.schema import CELL_TABLES, CORE_TABLES, SCHEMA_VERSION, Column, Table
from cooperbench_assets.store.units import (
    POINTER,
    Unit,
    analysis_unit,
    cell_unit,
    check_unit,
    parse_name,
    quote,
)
from cooperbench_assets_tests.store.frames import START, cell_frames, check_frame, random_frame
from cooperbench_assets_tests.store.worker import finish, generations, start, write_for_ever

CELL = Cell("demo", "coop-comm", 0)
UNIT = cell_unit(CELL)

ANY = Table(
    "any",
    "Every type that the store holds",
    (
        Column("experiment", pl.String, ""),
        Column("text", pl.String, ""),
        Column("whole", pl.Int64, ""),
        Column("half", pl.Float64, ""),
        Column("flag", pl.Boolean, ""),
        Column("time", pl.Datetime("us"), ""),
        Column("words", pl.List(pl.String), ""),
        Column("read_at", pl.Datetime("us"), ""),
    ),
    key=("experiment",),
    volatile=("read_at",),
)
ANY_UNIT = analysis_unit("demo", "any")

values = {
    "text": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    "whole": st.none() | st.integers(-(2**63), 2**63 - 1),
    "half": st.none() | st.floats(),
    "flag": st.none() | st.booleans(),
    "time": st.none() | st.datetimes(),
    "words": st.none() | st.lists(st.none() | st.sampled_from(["", "a", "b", "ab", "[", ","]), max_size=3),
    "read_at": st.none() | st.datetimes(),
}
rows = st.lists(st.fixed_dictionaries({"experiment": st.just("demo"), **values}), max_size=4)


def content_folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("@"))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    frames = cell_frames(CELL, 25)
    written = write_unit(tmp_path, UNIT, frames, declared=CORE_TABLES)
    assert written.changed
    assert written.rows == {name: frame.height for name, frame in frames.items()}
    back = read_unit(tmp_path, UNIT)
    assert back.keys() == frames.keys()
    assert all(back[name].equals(frame) for name, frame in frames.items())


@settings(max_examples=60, deadline=None)
@given(rows)
def test_any_values_are_read_back(tmp_path_factory: pytest.TempPathFactory, some: list[dict[str, object]]) -> None:
    root = tmp_path_factory.mktemp("tables")
    frame = ANY.frame(some)
    write_unit(root, ANY_UNIT, {"any": frame}, declared=[ANY])
    assert read_unit(root, ANY_UNIT)["any"].equals(frame)
    assert not write_unit(root, ANY_UNIT, {"any": frame}, declared=[ANY]).changed


def test_the_same_content_is_not_written_again(tmp_path: Path) -> None:
    first = write_unit(tmp_path, UNIT, cell_frames(CELL), declared=CORE_TABLES)
    pointer = UNIT.folder(tmp_path) / POINTER
    before = pointer.stat()
    second = write_unit(tmp_path, UNIT, dict(reversed(cell_frames(CELL).items())), declared=CORE_TABLES)
    assert (second.changed, second.content_sha256) == (False, first.content_sha256)
    assert (second.folder, second.rows) == (first.folder, first.rows)
    assert os.path.samestat(pointer.stat(), before)


def test_the_time_of_reading_is_no_content(tmp_path: Path) -> None:
    frames = cell_frames(CELL, read_at=START)
    write_unit(tmp_path, UNIT, frames, declared=CORE_TABLES)
    later = {
        **frames,
        "provenance": frames["provenance"].with_columns(pl.col("read_at") + timedelta(hours=1)),
    }
    assert not write_unit(tmp_path, UNIT, later, declared=CORE_TABLES).changed
    assert read_unit(tmp_path, UNIT)["provenance"]["read_at"].to_list() == [START]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(rows.filter(bool), st.data())
def test_one_changed_value_is_another_content(some: list[dict[str, object]], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(some) - 1))
    column = data.draw(st.sampled_from([name for name in values if name != "read_at"]))
    value = data.draw(values[column])
    before = some[place][column]
    changed = [*some[:place], {**some[place], column: value}, *some[place + 1 :]]
    hashes = [content_sha256([(ANY, ANY.frame(these))]) for these in (some, changed)]
    assert (hashes[0] == hashes[1]) == (repr(value) == repr(before))


def test_rows_in_another_order_are_another_content() -> None:
    frame = cell_frames(CELL)["pairs"]
    pairs = CELL_TABLES[0]
    assert content_sha256([(pairs, frame)]) != content_sha256([(pairs, frame.reverse())])


def test_the_hash_of_a_content_is_the_same_in_every_process_and_version() -> None:
    frame = ANY.frame(
        [
            {"experiment": "demo", "text": "naïve\n\x00", "whole": -1, "half": 0.1, "flag": True, "time": START},
            {"experiment": "demo", "half": math.nan, "words": ["a", None], "read_at": START},
        ]
    )
    assert content_sha256([(ANY, frame)]) == "24dadfc5625c7f34ec0fc7daa322fb980fcf0301baebfcea977b72181100f82f"


def test_a_frame_that_differs_from_its_declaration_is_refused_with_what_differs(tmp_path: Path) -> None:
    frames = cell_frames(CELL)
    wrong = frames["pairs"].drop("outcome").with_columns(extra=1, steps=pl.lit("many"))
    with pytest.raises(FrameError, match="lacks outcome") as error:
        write_unit(tmp_path, UNIT, {"pairs": wrong}, declared=CORE_TABLES)
    assert "table pairs" in str(error.value)
    assert "has unknown extra" in str(error.value)
    assert "steps is String, not Int64" in str(error.value)
    turned = frames["pairs"].select(reversed(frames["pairs"].columns))
    with pytest.raises(FrameError, match="in another order"):
        write_unit(tmp_path, UNIT, {"pairs": turned}, declared=CORE_TABLES)
    with pytest.raises(FrameError, match="no table 'nothing' is declared; declared are pairs, agents"):
        write_unit(tmp_path, UNIT, {"nothing": frames["pairs"]}, declared=CORE_TABLES)
    assert list_units(tmp_path) == []


@pytest.mark.parametrize("column", ["experiment", "setting", "seed"])
def test_rows_of_another_unit_are_refused(tmp_path: Path, column: str) -> None:
    frames = cell_frames(CELL)
    other = {"experiment": "other", "setting": "solo", "seed": 7}[column]
    strange = frames["pairs"].with_columns(
        pl.when(pl.int_range(pl.len()) == 3)
        .then(pl.lit(other).cast(frames["pairs"].schema[column]))
        .otherwise(pl.col(column))
        .alias(column)
    )
    with pytest.raises(FrameError, match=f"table pairs: {column} is .*, which holds"):
        write_unit(tmp_path, UNIT, {"pairs": strange}, declared=CORE_TABLES)


def test_a_table_kept_by_another_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="is kept by experiment, and unit demo/cells/coop-comm/0 by"):
        write_unit(tmp_path, UNIT, {"any": ANY.frame([{"experiment": "demo"}])}, declared=[ANY])


@pytest.mark.parametrize(
    "unit",
    [
        Unit("demo", "cells", ("solo", "0"), cell_unit(CELL).key),
        Unit("other", "cells", (CELL.setting, str(CELL.seed)), cell_unit(CELL).key),
        Unit("demo", "cells", ("all",), (("experiment", "demo"),)),
        Unit("demo", "second_verdicts", ("solo", "0"), cell_unit(CELL).key),
        Unit("demo", "checks", ("pair_results", "all"), check_unit("demo", "pair_results", CELL).key),
        Unit("demo", "checks", ("run_logs", "all"), check_unit("demo", "pair_results").key),
    ],
    ids=lambda unit: unit.name,
)
def test_a_unit_with_the_key_of_another_is_refused(tmp_path: Path, unit: Unit) -> None:
    with pytest.raises(FrameError, match=f"unit {unit.name} has the key of another one"):
        write_unit(tmp_path, unit, {}, declared=CORE_TABLES)
    assert list_units(tmp_path) == []


def test_check_results_of_a_cell_and_of_the_experiment_lie_apart(tmp_path: Path) -> None:
    of_cell = check_unit("demo", "pair_results", CELL)
    of_all = check_unit("demo", "pair_results")
    for unit, cell in ((of_cell, CELL), (of_all, None)):
        frames = check_frame(cell, experiment="demo", asset="pair_results", passed={"count": cell is None})
        write_unit(tmp_path, unit, frames, declared=CORE_TABLES)
    assert [listed.name for listed in list_units(tmp_path)] == sorted([of_cell.name, of_all.name])
    assert read_unit(tmp_path, of_all)["check_results"]["seed"].to_list() == [None]
    assert read_unit(tmp_path, of_cell)["check_results"]["passed"].to_list() == [False]


LABELS = ["a/b", "..", ".", ".hidden", "current.json", "@x", "%41", "A b", "ünï", "🙂", "planned.json", "a\\b", "x\n"]


@pytest.mark.parametrize("label", LABELS)
def test_any_label_is_a_folder_of_its_own_inside_the_tables(tmp_path: Path, label: str) -> None:
    tables = tmp_path / "tables"
    cell = Cell("demo", label, 0)
    write_unit(tables, cell_unit(cell), cell_frames(cell), declared=CORE_TABLES)
    write_unit(tables, UNIT, cell_frames(CELL), declared=CORE_TABLES)
    assert [path.name for path in tmp_path.iterdir()] == ["tables"]
    assert len(list(tables.glob("demo/cells/*/0/current.json"))) == 2
    assert {parse_name(listed.name)[2] for listed in list_units(tables)} == {label, CELL.setting}
    assert read_unit(tables, cell_unit(cell))["pairs"]["setting"].unique().to_list() == [label]


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], min_codepoint=1), min_size=1, max_size=20), min_size=2)
)
def test_quoting_is_reversible_and_plain(names: list[str]) -> None:
    quoted = [quote(name) for name in names]
    assert [unquote(name) for name in quoted] == names
    assert len(set(quoted)) == len(set(names))
    for name in quoted:
        assert not set(name) & set("/\\@\0 \n")
        assert name[0] != "."
        assert name != POINTER


def test_names_that_cannot_be_folders_are_refused() -> None:
    for name in ("", "a\0b"):
        with pytest.raises(ValueError, match="cannot name a folder"):
            quote(name)
    with pytest.raises(ValueError, match="is too long"):
        quote("x" * 201)
    with pytest.raises(ValueError, match="not valid Unicode"):
        quote("\ud800")


def damage_table(folder: Path) -> None:
    (table,) = folder.glob("@*/pairs.parquet")
    table.write_bytes(table.read_bytes()[:-20])


def damage_folder(folder: Path) -> None:
    (content,) = folder.glob("@*")
    for path in content.iterdir():
        path.unlink()
    content.rmdir()


def damage_pointer(folder: Path) -> None:
    (folder / POINTER).write_bytes(b"{}")


def lose_pointer(folder: Path) -> None:
    (folder / POINTER).unlink()


@pytest.mark.parametrize("damage", [damage_table, damage_folder, damage_pointer, lose_pointer])
def test_a_damaged_unit_is_an_error_until_it_is_written_again(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    first = write_unit(tmp_path, UNIT, cell_frames(CELL), declared=CORE_TABLES)
    damage(UNIT.folder(tmp_path))
    with pytest.raises(UnitError, match="materialise the unit"):
        read_unit(tmp_path, UNIT)
    again = write_unit(tmp_path, UNIT, cell_frames(CELL), declared=CORE_TABLES)
    assert again.changed
    assert again.content_sha256 == first.content_sha256
    assert read_unit(tmp_path, UNIT)["pairs"].equals(cell_frames(CELL)["pairs"])
    assert len(content_folders(UNIT.folder(tmp_path))) == 1


def test_a_unit_of_a_later_version_is_not_read(tmp_path: Path) -> None:
    write_unit(tmp_path, UNIT, cell_frames(CELL), declared=CORE_TABLES)
    pointer = UNIT.folder(tmp_path) / POINTER
    pointer.write_text(pointer.read_text().replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 99'))
    with pytest.raises(UnitError, match=r"later version \(schema 99, this is"):
        read_unit(tmp_path, UNIT)


def test_a_unit_copied_to_another_place_is_told_from_one_written_there(tmp_path: Path) -> None:
    write_unit(tmp_path, UNIT, cell_frames(CELL), declared=CORE_TABLES)
    UNIT.folder(tmp_path).rename(UNIT.folder(tmp_path).with_name("1"))
    (listed,) = list_units(tmp_path)
    assert listed.record is None
    assert "demo/cells/coop-comm/0: it was moved or copied" in str(listed.problem)
    moved = cell_unit(Cell("demo", "coop-comm", 1))
    with pytest.raises(UnitError, match="rename one of them"):
        write_unit(tmp_path, moved, cell_frames(Cell("demo", "coop-comm", 1)), declared=CORE_TABLES)


def test_a_unit_without_tables_is_empty(tmp_path: Path) -> None:
    write_unit(tmp_path, UNIT, cell_frames(CELL), declared=CORE_TABLES)
    assert write_unit(tmp_path, UNIT, {}, declared=CORE_TABLES).changed
    assert read_unit(tmp_path, UNIT) == {}


def test_only_the_current_folder_is_kept_and_what_is_being_read(tmp_path: Path) -> None:
    folder = UNIT.folder(tmp_path)
    write_unit(tmp_path, UNIT, cell_frames(CELL, draw=1), declared=CORE_TABLES)
    with opened(folder) as (record, content):
        write_unit(tmp_path, UNIT, cell_frames(CELL, draw=2), declared=CORE_TABLES)
        write_unit(tmp_path, UNIT, cell_frames(CELL, draw=3), declared=CORE_TABLES)
        assert content_folders(folder) == sorted([record.folder, load_record(folder).folder])
        assert pl.read_parquet(content / "pairs.parquet").equals(cell_frames(CELL, draw=1)["pairs"])
    write_unit(tmp_path, UNIT, cell_frames(CELL, draw=3), declared=CORE_TABLES)
    assert content_folders(folder) == [load_record(folder).folder]


def test_a_held_folder_is_not_unheld(tmp_path: Path) -> None:
    write_unit(tmp_path, UNIT, cell_frames(CELL), declared=CORE_TABLES)
    with opened(UNIT.folder(tmp_path)) as (_, content), unheld(content) as free:
        assert not free
    with unheld(content) as free:
        assert free


@pytest.mark.slow
def test_readers_under_write_load_never_see_a_mixed_cell(tmp_path: Path) -> None:
    cell = Cell("race", "solo", 0)
    writers = [start(write_for_ever, tmp_path, "solo", begin) for begin in (0, 1_000_000)]
    try:
        pointer = cell_unit(cell).folder(tmp_path / "tables") / POINTER
        while not pointer.exists():
            time.sleep(0.01)
        seen: set[str] = set()
        end = time.monotonic() + 60
        while len(seen) < 60 and time.monotonic() < end:
            frames = read_unit(tmp_path / "tables", cell_unit(cell))
            assert len(generations(frames)) == 1, generations(frames)
            (generation,) = generations(frames)
            assert frames["pairs"].height == 2 + int(generation) % 5
            seen.add(generation)
        assert len(seen) >= 60
        assert {int(generation) >= 1_000_000 for generation in seen} == {True, False}
        assert [writer.poll() for writer in writers] == [None, None]
    finally:
        for writer in writers:
            finish(writer)


def test_the_hash_does_not_depend_on_the_process() -> None:
    program = (
        "from cooperbench_assets.store.cells import Cell;"
        "from cooperbench_assets.store.content_hash import content_sha256;"
        "from cooperbench_assets.store.schema import CELL_TABLES;"
        "from cooperbench_assets_tests.store.frames import cell_frames;"
        "f = cell_frames(Cell('demo', 'coop-comm', 0));"
        "print(content_sha256([(t, f[t.name]) for t in CELL_TABLES]))"
    )
    frames = cell_frames(CELL)
    here = content_sha256([(table, frames[table.name]) for table in CELL_TABLES])
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == here


def test_many_units_are_listed_without_their_parquet(tmp_path: Path) -> None:
    draw = random.Random(0)
    for number in range(30):
        cell = Cell("demo", "solo", number)
        frame = random_frame(draw, CELL_TABLES[0], 2, experiment="demo", setting="solo", seed=number)
        write_unit(tmp_path, cell_unit(cell), {"pairs": frame}, declared=CORE_TABLES)
    for path in tmp_path.rglob("*.parquet"):
        path.unlink()
    listed = list_units(tmp_path)
    assert len(listed) == 30
    assert all(unit.record is not None and unit.record.rows == {"pairs": 2} for unit in listed)


def test_a_unit_of_any_kind_can_be_named() -> None:
    unit = Unit.of("demo", "images", "click", key={"experiment": "demo"})
    assert unit.name == "demo/images/click"
