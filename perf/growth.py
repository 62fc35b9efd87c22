"""How time and memory grow with cells, pairs a cell and messages a pair."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import polars as pl

from cooperbench_assets.analysis.registry import run_all
from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.partition_tables import write_unit
from cooperbench_assets.store.publish import publish
from cooperbench_assets.store.rows import cell_frames
from cooperbench_assets.store.schema import CELL_TABLES
from cooperbench_assets.store.units import cell_unit
from perf import inputs, publishing, stores
from perf.measure import Contender, race
from perf.results import Section

CELL = Cell("grown", "coop-comm", 0)


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The slope of seconds over sizes on logarithmic scales, by least squares: 1 is in proportion, 2 the square."""
    x, y = [math.log(size) for size in sizes], [math.log(one) for one in seconds]
    mean_x, mean_y = fmean(x), fmean(y)
    across = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return across / sum((a - mean_x) ** 2 for a in x)


class Growth:
    """One thing that grows, and what is measured of it."""

    def __init__(self, what: str, sizes: Sequence[int], rounds: int) -> None:
        self.what, self.sizes, self.rounds = what, sizes, rounds
        self.works: dict[str, list[Contender]] = {}

    def add(self, name: str, work: Callable[[], object], before: Callable[[], object] | None = None) -> None:
        """What is measured at the next size."""
        self.works.setdefault(name, []).append(Contender(name, "ours", work, before=before))

    def rows(self) -> list[list[str]]:
        """A row of the table for each thing measured."""
        found = []
        for name, contenders in self.works.items():
            records = race(contenders, self.rounds)
            seconds = [record.seconds or 0.0 for record in records]
            figures = [f"{size:,}: {1000 * took:.1f} ms" for size, took in zip(self.sizes, seconds, strict=True)]
            found.append([self.what, name, ", ".join(figures), f"{exponent(self.sizes, seconds):.2f}"])
        return found


def of_cells(place: Path, sizes: Sequence[int], rounds: int) -> list[list[str]]:
    """Cells in the store: publishing one that changed, and the analysis of all."""
    growth = Growth("cells", sizes, rounds)
    made = stores.templates(place)
    for count in sizes:
        database, tables, _ = stores.build(place, count, made)
        frames = _together([stores.of_cell(cell, stores.template_of(cell, made)) for cell in stores.cells(count)])
        growth.add("publish one changed cell", _publisher(database, tables), publishing.changer(tables, made))
        growth.add("copy of the file", publishing.copier(database))
        growth.add("the whole analysis", _analyser(frames))
    return growth.rows()


def of_pairs(place: Path, sizes: Sequence[int], rounds: int) -> list[list[str]]:
    """Pairs in a cell: reading, tables, writing."""
    growth = Growth("pairs a cell", sizes, rounds)
    for count in sizes:
        _add_cell(growth, place, count, 5)
    return growth.rows()


def of_messages(place: Path, sizes: Sequence[int], rounds: int) -> list[list[str]]:
    """Messages in a pair, in a cell of 100 pairs."""
    growth = Growth("messages a pair", sizes, rounds)
    for count in sizes:
        frames = _add_cell(growth, place, 100, count)
        growth.add("the whole analysis", _analyser(frames))
    return growth.rows()


def _add_cell(growth: Growth, place: Path, pairs: int, messages: int) -> stores.Frames:
    """What is done with one coop cell of a size, and its tables."""
    logs = place / f"grown-{pairs}-{messages}"
    ((_, _, run),) = inputs.generate(logs, cells=1, pairs=pairs, messages=messages, settings=inputs.SETTINGS[1:])
    planned = inputs.subset(place, pairs)
    reading = read_run(run)
    frames = cell_frames(CELL, planned, reading, logs_root=logs)
    tables = place / f"tables-{pairs}-{messages}"
    growth.add("read and check", lambda: read_run(run))
    growth.add("judge, make tables", lambda: cell_frames(CELL, planned, reading, logs_root=logs))
    growth.add(
        "write the partition tables",
        lambda: write_unit(tables, cell_unit(CELL), frames, declared=CELL_TABLES),
        before=lambda: shutil.rmtree(tables, ignore_errors=True),
    )
    return frames


def _publisher(database: Path, tables: Path) -> Callable[[], object]:
    return lambda: publish(database, tables)


def _analyser(frames: stores.Frames) -> Callable[[], object]:
    return lambda: run_all(frames)


def _together(cells: Sequence[stores.Frames]) -> stores.Frames:
    return {name: pl.concat(frames[name] for frames in cells) for name in cells[0]}


def measure(place: Path, quick: bool) -> Section:
    """The table's last row."""
    rounds = 1 if quick else 5
    head = ["what grows", "what is measured", "medians", "exponent"]
    rows = of_cells(place, (5, 20) if quick else (5, 20, 50, 100, 200), rounds)
    rows += of_pairs(place, (100, 400) if quick else (100, 1000, 10_000), rounds)
    rows += of_messages(place, (5, 50) if quick else (5, 50, 500), rounds)
    exponents = {f"exponent: {row[0]}, {row[1]}": float(row[3]) for row in rows}
    return Section(
        name="growth",
        title="Growth",
        table=[head, *rows],
        text=(
            "The exponent is the slope on logarithmic scales, by least squares over the sizes shown: 0 does not grow, "
            "1 grows in proportion. Fixed costs make it smaller than it is in the long run."
        ),
        facts=exponents,
    )
