"""Every pair in every cell as a table that scrolls: the page's grid, each square a link to the pair's page.

What belongs here: ``pair_grid`` as rows and squares. What does not: the same as a figure file (``charts.grid``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cooperbench_assets.report.charts.grid import MOST_SQUARES, owner_state_of
from cooperbench_assets.report.style import FATES
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.viewer_links import cell_list_page, list_page, pair_page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cooperbench_assets.report.sources import Source
    from cooperbench_assets.report.style import OutcomeStyle


@dataclass(frozen=True, slots=True)
class Square:
    """A pair in a cell."""

    style: str
    """Name in ``FATES``."""

    letter: str
    said: str
    """What became of it, in words."""

    href: str


@dataclass(frozen=True, slots=True)
class PairTable:
    """The grid."""

    cells: Sequence[tuple[str, str]]
    """Name of each cell, and the address of its pairs."""

    rows: Sequence[tuple[str, str, Sequence[Square | None]]]
    """Each pair, the address of its results, and its squares; None where it is not planned in a cell."""

    styles: Mapping[str, OutcomeStyle]
    """Those that occur, for the legend."""


def pair_table(source: Source) -> PairTable | None:
    """The grid by the strict verdict, the pairs that pass most first; None where it is empty or too large."""
    found = source.results["pair_grid"].sort("row", "column")
    if found.is_empty() or found.height > MOST_SQUARES:
        return None
    columns = found.unique("column").sort("column").select("setting", "seed").rows()
    rows: dict[str, dict[tuple[str, int], Square]] = {}
    used: set[str] = set()
    for row in found.iter_rows(named=True):
        style = owner_state_of(row)
        used.add(style)
        cell = Cell(source.experiment, row["setting"], row["seed"])
        square = Square(
            style,
            FATES[style].letter + ("?" if row["suspect"] else ""),
            f"{FATES[style].label} in {cell.setting}/{cell.seed}{', suspect' if row['suspect'] else ''}",
            source.viewer + pair_page(cell, row["pair"]),
        )
        rows.setdefault(row["pair"], {})[row["setting"], row["seed"]] = square
    return PairTable(
        [
            (f"{setting} {seed}", source.viewer + cell_list_page(Cell(source.experiment, setting, seed)))
            for setting, seed in columns
        ],
        [
            (pair, source.viewer + list_page(source.experiment, pair=pair), [squares.get(column) for column in columns])
            for pair, squares in rows.items()
        ],
        {name: style for name, style in FATES.items() if name in used},
    )
