"""A results store in a temporary folder, its cells, and what it should hold; for tests of this room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from cooperbench_assets.store import read
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.partition_tables import read_unit, write_unit
from cooperbench_assets.store.publish import Published, publish
from cooperbench_assets.store.schema import CORE_TABLES, Column, Table
from cooperbench_assets.store.units import Unit, analysis_unit, cell_unit
from cooperbench_assets_tests.store.frames import cell_frames

if TYPE_CHECKING:
    from pathlib import Path

SOLO = [Cell("demo", "solo", seed) for seed in range(3)]
COOP = Cell("demo", "coop-comm", 0)
OTHER = Cell("other", "solo", 0)

SUMMARY = Table(
    "summary",
    "One row for every setting",
    (
        Column("experiment", pl.String, "Name of the experiment"),
        Column("setting", pl.String, "Setting"),
        Column("rate", pl.Float64, "Share that passed"),
        Column("words", pl.List(pl.String), "Words"),
    ),
    key=("experiment",),
)


class Store:
    """A results store in a temporary folder, with its partition tables."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tables = root / "tables"
        self.database = root / "results.duckdb"

    def write(self, *cells: Cell, draw: int = 0, **provenance: Any) -> None:
        for cell in cells:
            frames = cell_frames(cell, draw=draw, **provenance)
            write_unit(self.tables, cell_unit(cell), frames, declared=CORE_TABLES)

    def write_summary(self, experiment: str, rate: float | None, table: Table = SUMMARY) -> None:
        row = {"experiment": experiment, "setting": "solo", "rate": rate, "words": ["a", "b"]}
        frame = table.frame([{name: row[name] for name in table.schema if name in row}])
        write_unit(self.tables, analysis_unit(experiment, table.name), {table.name: frame}, declared=[table])

    def publish(self, **options: object) -> Published:
        return publish(self.database, self.tables, **options)  # type: ignore[arg-type]

    def table(self, name: str, experiment: str | None = None) -> pl.DataFrame:
        return read.table(self.database, name, experiment)

    def contents(self, *names: str) -> dict[str, list[str]]:
        """Every row of these tables, as text, in an order of their own; of every table of results and view if none."""
        with read.snapshot(self.database) as snapshot:
            every = set(names or snapshot.names()) - {"published", "store_info", "schema_migrations"}
            return {name: sorted(map(repr, snapshot.table(name).rows())) for name in every}

    def expected(self, *units: Unit) -> dict[str, list[str]]:
        """Every row of these units' Parquet files, as text."""
        rows: dict[str, list[str]] = {table.name: [] for table in CORE_TABLES}
        for unit in units:
            for name, frame in read_unit(self.tables, unit).items():
                rows[name] += map(repr, frame.rows())
        return {name: sorted(of_table) for name, of_table in rows.items()}

    def holds(self, *cells: Cell) -> bool:
        """Whether the store holds exactly the rows of these cells' Parquet files in the tables of a cell."""
        expected = self.expected(*map(cell_unit, cells))
        del expected["check_results"]
        return self.contents(*expected) == expected

    def leftovers(self) -> list[str]:
        """What lies in and beside the build folder that should not."""
        beside = {"tables", "results.duckdb", ".results.duckdb"}
        return [path.name for path in self.root.iterdir() if path.name not in beside] + [
            path.name for path in (self.root / ".results.duckdb").iterdir() if path.name != "lock"
        ]
