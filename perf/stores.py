"""Stores of many cells, made of the tables of a few generated ones."""

from __future__ import annotations

import random
from pathlib import Path

import polars as pl

from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.partition_tables import write_unit
from cooperbench_assets.store.publish import Published, publish
from cooperbench_assets.store.rows import cell_frames
from cooperbench_assets.store.schema import CELL_TABLES
from cooperbench_assets.store.units import cell_unit
from perf import inputs

Frames = dict[str, pl.DataFrame]
CELLS_OF_EXPERIMENT = (("solo", 0), ("solo", 1), ("solo", 2), ("coop-comm", 0), ("coop-nocomm", 0))
"""The user's shape: three seeds of solo, one of coop with and without messages."""


def templates(place: Path, pairs: int = 100, messages: int = 5) -> list[Frames]:
    """Tables of six generated cells, solo and coop in turn."""
    logs = place / f"logs-{pairs}-{messages}"
    planned = inputs.subset(place, pairs)
    return [
        cell_frames(Cell("made", setting, seed), planned, read_run(run), logs_root=logs)
        for setting, seed, run in inputs.generate(logs, cells=6, pairs=pairs, messages=messages)
    ]


def cells(count: int) -> list[Cell]:
    """So many cells, five to an experiment."""
    return [Cell(f"made-{n // 5:03}", *CELLS_OF_EXPERIMENT[n % 5]) for n in range(count)]


DIFFER = ("cost_usd", "duration_seconds", "patch_sha256", "run_id", "message")
"""Columns that no two cells have alike; equal ones would be packed into almost nothing."""


def of_cell(cell: Cell, frames: Frames) -> Frames:
    """The tables of another cell: the same outcomes, with costs, times, hashes and texts of its own."""
    key = {"experiment": cell.experiment, "setting": cell.setting, "seed": cell.seed}
    own = {}
    for name, frame in frames.items():
        columns = [pl.lit(value).cast(frame.schema[column]).alias(column) for column, value in key.items()]
        own[name] = frame.with_columns(
            *columns, *(_its_own(cell, frame, column) for column in DIFFER if column in frame)
        )
    return own


def _its_own(cell: Cell, frame: pl.DataFrame, column: str) -> pl.Series:
    chance = random.Random(f"{cell} {column}")
    values = frame[column].to_list()
    if frame.schema[column] == pl.Float64:
        changed: list[object] = [None if value is None else value * chance.uniform(0.5, 2) for value in values]
    elif column == "message":
        changed = [None if value is None else f"{value} {chance.getrandbits(160):x}" for value in values]
    else:
        changed = [
            None if value is None else f"{chance.getrandbits(4 * len(value)):0{len(value)}x}" for value in values
        ]
    return pl.Series(column, changed, dtype=frame.schema[column])


def template_of(cell: Cell, made: list[Frames]) -> Frames:
    """The generated tables that fit a cell: solo ones for solo."""
    return made[2 * (cell.seed % 3) + (cell.setting != "solo")]


def write(tables: Path, count: int, made: list[Frames]) -> None:
    """Partition tables of so many cells; those that are there stay."""
    for cell in cells(count):
        if not cell_unit(cell).folder(tables).exists():
            write_unit(tables, cell_unit(cell), of_cell(cell, template_of(cell, made)), declared=CELL_TABLES)


def build(place: Path, count: int, made: list[Frames]) -> tuple[Path, Path, Published]:
    """A published store: its file, its partition tables, and what publishing it came to."""
    folder = place / f"store-{count}"
    write(folder / "tables", count, made)
    database = folder / "results.duckdb"
    return database, folder / "tables", publish(database, folder / "tables")
