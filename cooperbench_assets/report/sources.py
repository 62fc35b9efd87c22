"""What a report is made of: the store's tables and the analyses of one experiment, of one state of the store.

What belongs here: reading them, and what all figures of an experiment share. What does not: drawing and writing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import polars as pl

from cooperbench_assets.analysis.registry import ANALYSES, run_all
from cooperbench_assets.errors import UserError
from cooperbench_assets.report.style import MarkStyle
from cooperbench_assets.store import schema
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.read import snapshot
from cooperbench_assets.viewer_links import USUAL, list_page, pair_page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

NO_MODEL: Final = "scripted/"
"""What a model's name begins with if there is none: the agents do what a script says."""

SCRIPTED: Final = "Scripted agents: these figures say nothing about any model."
INPUTS: Final = frozenset(
    {name for analysis in ANALYSES for name in analysis.needs} | {t.name for t in schema.CORE_TABLES}
)


class ReportError(UserError):
    """A report that cannot be made; says why and what to do."""


@dataclass(frozen=True)
class Source:
    """One experiment, ready to be drawn."""

    experiment: str
    tables: Mapping[str, pl.DataFrame]
    """The store's tables: pairs, provenance, check_results, …"""

    results: Mapping[str, pl.DataFrame]
    """The analyses' tables."""

    logs: Path | None = None
    """Root of the log trees that ``path`` is relative to; None where it is not known here."""

    viewer: str = USUAL
    """Address of the viewer, which links to pairs and cells lead to."""

    look: MarkStyle = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "look", look_of(self.tables, self.results))

    def link(self, row: Mapping[str, Any], folder: Path) -> str | None:
        """The address of a row's raw files as seen from `folder`: relative, each part quoted."""
        path = row.get("path")
        if self.logs is None or not path:
            return None
        relative = os.path.relpath(self.logs / str(path), folder).replace(os.sep, "/")
        return "./" + "/".join(quote(part) for part in relative.split("/")) + "/"

    def page(self, row: Mapping[str, Any]) -> str | None:
        """The address of a row's pair in the viewer: of its cell, or of all its results where the row has no cell."""
        pair, setting, seed = (row.get(name) for name in ("pair", "setting", "seed"))
        if not isinstance(pair, str):
            return None
        if isinstance(setting, str) and isinstance(seed, int):
            return self.viewer + pair_page(Cell(self.experiment, setting, seed), pair)
        return self.viewer + list_page(self.experiment, pair=pair)


def look_of(tables: Mapping[str, pl.DataFrame], results: Mapping[str, pl.DataFrame]) -> MarkStyle:
    """The settings of an experiment in order, and what every figure must say."""
    columns = results["pair_grid"].unique("column").sort("column")
    settings = tuple(dict.fromkeys(columns["setting"].to_list()))
    remarks = []
    if tables["provenance"]["model"].str.starts_with(NO_MODEL).any():
        remarks.append(SCRIPTED)
    refused = results["setting_summary"].filter(
        (pl.col("level") == "setting") & (pl.col("verdict") == "strict") & ~pl.col("headline")
    )
    if refused.height:
        remarks.append(f"No headline for: {', '.join(refused['setting'].to_list())}; see the warnings.")
    return MarkStyle(settings, " ".join(remarks) or None)


def read_sources(
    database: Path, experiments: Sequence[str], logs: Mapping[str, Path], viewer: str = USUAL
) -> list[Source]:
    """Each experiment's tables and analyses, all from one state of the store.

    Args:
        database: The results store.
        experiments: Which ones; all in the store if none is named.
        logs: Roots of log trees by experiment, as far as they are known.
        viewer: Address of the viewer.

    Raises:
        ReportError: if an experiment has no row in the store.
        StoreError: if the store cannot be read.
    """
    with snapshot(database) as store:
        there = store.query("SELECT DISTINCT experiment FROM provenance ORDER BY 1")["experiment"].to_list()
        wanted = list(experiments) or there
        for name in wanted:
            if name not in there:
                raise ReportError(
                    f"{name} is not in the results store; make it with: cooperbench-assets materialize {name}"
                )
        names = INPUTS.intersection(store.names())
        read = {name: {table: store.table(table, name) for table in sorted(names)} for name in wanted}
    return [source_of(name, tables, logs.get(name), viewer) for name, tables in read.items()]


def source_of(
    experiment: str, tables: Mapping[str, pl.DataFrame], logs: Path | None = None, viewer: str = USUAL
) -> Source:
    """An experiment from its tables; one that is not given is empty."""
    given = {table.name: tables.get(table.name, table.schema.to_frame()) for table in schema.CORE_TABLES}
    given |= {name: frame for name, frame in tables.items() if name not in given}
    return Source(experiment, given, run_all(given), logs, viewer)
