"""From the results store to ``data/report/<experiment>/``: page, figures, tables, macros, manifest.

What belongs here: which files a report has, and putting them in place at once. What does not: what is in them.

Nothing that is written holds a time but the store's own, so that the same store gives the same bytes; but
for PDF, whose writer puts its objects in another order each time.
"""

from __future__ import annotations

import json
import secrets
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
from filelock import FileLock

from cooperbench_assets.analysis.comparability import NotComparable
from cooperbench_assets.report.font import with_font
from cooperbench_assets.report.numbers import numbers_tex
from cooperbench_assets.report.page import (
    draw,
    page,
    side_by_side,
    tables_of,
)
from cooperbench_assets.report.paper_tables import paper_tables
from cooperbench_assets.report.sections import DECLARED, WARNINGS
from cooperbench_assets.report.sources import read_sources
from cooperbench_assets.report.tables import csv_of, tex_of
from cooperbench_assets.viewer_links import USUAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cooperbench_assets.report.figure import Figure
    from cooperbench_assets.report.page import Tables, Together
    from cooperbench_assets.report.sources import Source

PAGE = "report.html"
JOINED = "+"
"""Stands between names in the folder of several experiments; no experiment's name has it."""


@dataclass(frozen=True)
class Built:
    """A report that is in place."""

    experiments: tuple[str, ...]
    folder: Path
    figures: Mapping[str, Figure]
    """Figures by name: of one experiment, or those that hold several against each other."""

    warnings: Mapping[str, int]
    """Findings by level: error, warning, info."""

    bytes: int
    """Size of the page."""

    @property
    def page(self) -> Path:
        """The HTML file."""
        return self.folder / PAGE


def build_reports(
    database: Path,
    reports: Path,
    experiments: Sequence[str] = (),
    logs: Mapping[str, Path] | None = None,
    viewer: str = USUAL,
) -> list[Built]:
    """Make the report of each experiment, in a folder of its own.

    Args:
        database: The results store.
        reports: Folder of reports; each gets ``<reports>/<experiment>``, replaced at once.
        experiments: Which ones; all in the store if none is named.
        logs: Roots of log trees by experiment, for links to raw files.
        viewer: Address of the viewer, for links to pairs and cells.

    Raises:
        ReportError: if an experiment is not in the store.
        StoreError: if the store cannot be read.
    """
    return [build_one(source, reports)[0] for source in read_sources(database, experiments, logs or {}, viewer)]


def build_side_by_side(
    database: Path,
    reports: Path,
    experiments: Sequence[str],
    logs: Mapping[str, Path] | None = None,
    viewer: str = USUAL,
) -> tuple[list[Built], str | None]:
    """Make each experiment's report and one page with all of them, which comes last.

    Returns:
        What was made, and why there is no page with all of them, if they may not be set side by side.

    Raises:
        ReportError: as `build_reports` does.
    """
    sources = read_sources(database, experiments, logs or {}, viewer)
    try:
        together = side_by_side(sources)
    except NotComparable as error:
        return [build_one(source, reports)[0] for source in sources], str(error)
    single = [build_one(source, reports) for source in sources]
    joint = _build_joint(sources, together, {one.experiments[0]: drawn for one, drawn in single}, reports)
    return [*(built for built, _ in single), joint], None


def _build_joint(
    sources: Sequence[Source], together: Together, figures: Mapping[str, Mapping[str, Figure]], reports: Path
) -> Built:
    """Make the page of several experiments; `figures` are those of each, by experiment and name."""
    folder = reports / JOINED.join(source.experiment for source in sources)
    text = page(sources, figures, folder, together).encode()
    results = {name: pl.concat(source.results[name] for source in sources) for name in DECLARED}
    results[together.table.name] = together.comparisons
    drawn = {figure.name: figure for figure in together.figures}
    files = {
        PAGE: text,
        "numbers.tex": numbers_tex(results).encode(),
        f"tables/{together.table.name}.csv": csv_of(together.comparisons).encode(),
        f"tables/{together.table.name}.tex": tex_of(together.table).encode(),
        **_figure_files(drawn),
    }
    _put(folder, files)
    names = tuple(source.experiment for source in sources)
    return Built(names, folder, drawn, _warnings(sources), len(text))


def build_one(source: Source, reports: Path) -> tuple[Built, dict[str, Figure]]:
    """Make one experiment's report."""
    folder = reports / source.experiment
    figures, tables = draw(source), tables_of(source, folder)
    text = page([source], {source.experiment: figures}, folder, tables={source.experiment: tables}).encode()
    files = {
        PAGE: text,
        "numbers.tex": numbers_tex(source.results).encode(),
        "manifest.json": (json.dumps(manifest(source), indent=1, ensure_ascii=False) + "\n").encode(),
        **_figure_files(figures),
        **_table_files(source, tables),
    }
    _put(folder, files)
    return Built((source.experiment,), folder, figures, _warnings([source]), len(text)), figures


def manifest(source: Source) -> dict[str, object]:
    """What was run: ``results_manifest`` of the experiment, its settings and its cells; unknown is null."""
    rows = source.results["results_manifest"].drop("experiment")
    whole, settings, cells = (rows.filter(level=level).drop("level") for level in ("experiment", "setting", "cell"))
    return {
        "all": next(iter(whole.drop("setting", "seed").to_dicts()), None),
        "settings": settings.drop("seed").to_dicts(),
        "cells": cells.to_dicts(),
    }


def _figure_files(figures: Mapping[str, Figure]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for name, figure in figures.items():
        if figure.svg is not None:
            files[f"figures/{name}.svg"] = with_font(figure.svg).encode()
            files[f"figures/{name}.pdf"] = figure.pdf()
            files[f"figures/{name}.png"] = figure.png()
        else:
            files[f"figures/{name}.txt"] = f"{figure.sentence}\n".encode()
    return files


def _table_files(source: Source, tables: Tables) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    frames = {**source.results, **{name: source.tables[name] for name in ("check_results", "quarantine")}}
    frames["provenance"] = source.tables["provenance"].drop("record", "agent_config")
    frames["no_verdict"] = source.tables["pairs"].filter(~pl.col("outcome").is_in(["pass", "fail"]) | pl.col("suspect"))
    for name, table in {**tables.results, **tables.store}.items():
        files[f"tables/{name}.csv"] = csv_of(frames[name]).encode()
        files[f"tables/{name}.tex"] = tex_of(table).encode()
    for name, table in paper_tables(source.results).items():
        files[f"tables/{name}.csv"] = csv_of(table.frame()).encode()
        files[f"tables/{name}.tex"] = tex_of(table).encode()
    return files


def _warnings(sources: Sequence[Source]) -> dict[str, int]:
    found = pl.concat(source.results[WARNINGS].select("level") for source in sources)
    counts = dict(found.group_by("level").len().iter_rows())
    return {level: counts.get(level, 0) for level in ("error", "warning", "info")}


def _put(folder: Path, files: Mapping[str, bytes]) -> None:
    """Replace a folder by these files: written beside it first, then put in its place by renaming.

    Who reads meanwhile sees the old files or the new ones; a killed build leaves the old ones, or, between two
    renames, their folder under a name that begins with a dot, which the next build removes.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        for left in folder.parent.glob(f".{folder.name}.*.part"):
            shutil.rmtree(left, ignore_errors=True)
        token = secrets.token_hex(4)
        new, old = (folder.parent / f".{folder.name}.{kind}-{token}.part" for kind in ("new", "old"))
        for name, content in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(content)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
