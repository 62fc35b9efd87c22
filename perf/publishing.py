"""Publishing after one changed cell, in a small store and in a large one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import polars as pl

from cooperbench_assets.store.files import copy, sync
from cooperbench_assets.store.partition_tables import write_unit
from cooperbench_assets.store.publish import publish
from cooperbench_assets.store.schema import CELL_TABLES
from cooperbench_assets.store.units import cell_unit
from perf import stores
from perf.measure import Contender, race
from perf.results import Section, Target, find


def changer(tables: Path, made: list[stores.Frames]) -> Callable[[], None]:
    """A function that changes a row of one cell's tables."""
    cell = stores.cells(5)[3]
    frames = stores.of_cell(cell, stores.template_of(cell, made))
    ticks = itertools.count(1)

    def change() -> None:
        pairs = frames["pairs"].with_columns(pl.lit(float(next(ticks))).alias("cost_usd"))
        write_unit(tables, cell_unit(cell), frames | {"pairs": pairs}, declared=CELL_TABLES)

    return change


def copier(database: Path) -> Callable[[], None]:
    """A function that copies a file as publishing does, and has the disk hold it."""
    target = database.with_name("copy")

    def copy_it() -> None:
        target.unlink(missing_ok=True)
        copy(database, target)
        sync(target)

    return copy_it


def contenders(place: Path, count: int, made: list[stores.Frames]) -> list[Contender]:
    """Publishing, and copying the file, with so many cells."""
    database, tables, _ = stores.build(place, count, made)

    def publish_it() -> None:
        assert publish(database, tables).changed

    size = database.stat().st_size / 1e6
    return [
        Contender(f"ours: {count} cells", "ours", publish_it, n=count, before=changer(tables, made)),
        Contender(f"copy of the file: {count} cells", "floor", copier(database), n=count, note=f"{size:.1f} MB"),
        Contender(f"nothing changed: {count} cells", "part", lambda: publish(database, tables), n=count),
    ]


def measure(place: Path, quick: bool) -> Section:
    """The table's third row."""
    few, many = 5, 10 if quick else 200
    made = stores.templates(place)
    records = race([*contenders(place, few, made), *contenders(place, many, made)], rounds=1 if quick else 15, warm=1)

    def grown(what: str) -> float:
        small, large = (find(records, f"{what}: {count} cells").seconds or 0.0 for count in (few, many))
        return 1000 * (large - small)

    ours, copied = grown("ours"), grown("copy of the file")
    share = 1000 * (find(records, f"nothing changed: {many} cells").seconds or 0.0)
    size = (place / f"store-{many}" / "results.duckdb").stat().st_size
    return Section(
        name="publishing",
        title="Publish after one changed cell",
        records=records,
        targets=[
            Target(
                text="grows only by the file copy",
                value=f"{ours:+.0f} ms from {few} to {many} cells, the copy {copied:+.0f} ms",
                met=ours <= copied + 10,
                why=f"Finding out what changed reads the record of every unit: with {many} cells and nothing changed, "
                f"copying, opening and comparing take {share:.0f} ms.",
            )
        ],
        text=(
            "Cells of 100 pairs; one row of one cell is changed before each round. The copy is that of the whole "
            "file, synced. Within 10 ms counts as equal."
        ),
        facts={
            "publish_seconds": find(records, f"ours: {many} cells").seconds or 0.0,
            "store_bytes_per_pair": size / (100 * many),
            "publish_small_seconds": find(records, f"ours: {few} cells").seconds or 0.0,
            "publish_cells": many,
            "publish_small_cells": few,
        },
    )
