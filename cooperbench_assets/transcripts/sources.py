"""Where pairs come from: the planned cells of an experiment, or whatever runs lie in a folder of logs.

What belongs here: which run folders there are, what they are called in pages, and finding a pair by its path. What
does not: reading what is in them (``listing``, ``page``).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import platformdirs

from cooperbench_assets.benchmark.jsonfiles import printable
from cooperbench_assets.benchmark.pairfolder import MODES
from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.errors import UserError
from cooperbench_assets.redaction import Redactor

if TYPE_CHECKING:
    from pathlib import Path

_SEED = re.compile(r"(?:^|[-_])(?:seed|s)?[-_]?(\d{1,4})$")
_SILENT = re.compile(r"no[-_]?(?:comm|msg|messag)", re.IGNORECASE)


class SourceError(UserError):
    """A folder holds no runs, or a path names no pair; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class SourceCell:
    """One run folder, and what its pairs are called."""

    run_dir: Path
    setting: str
    seed: int
    mode: str | None = None
    """solo, coop or team; None in an older tree, where the results say it."""

    experiment: str | None = None
    pairs: tuple[Pair, ...] | None = None
    """The pairs that are planned; None: those that are there."""

    accepted: frozenset[str] = frozenset()
    """Names of pairs whose infrastructure failure a person has accepted."""


@dataclass(frozen=True)
class Source:
    """Runs whose pairs are shown together."""

    logs: Path
    """Root that paths of pairs are relative to."""

    cells: tuple[SourceCell, ...]
    cache: Path
    """Folder for indexes of transcripts, which are made again when it is emptied."""

    redactor: Redactor = field(default_factory=lambda: Redactor().personal())
    """A `personal` one: e-mail addresses and users' names in home paths go, too."""

    tables: Path | None = None
    """Root of the partition tables, from which `pair_rows` is fast; None: the logs are read."""

    notes: Path | None = None
    """File of a person's notes; None: none are kept."""


def source_of_logs(logs: Path, cache: Path | None = None) -> Source:
    """The runs in a folder: one run, or a folder of them. Nothing is written into it.

    A run's setting is its mode (solo, coop, team), ``coop-nocomm`` where the run's name says so; its seed is the number
    that its name ends in, else 0.

    Raises:
        SourceError: if there is no run in it.
    """
    if not logs.is_dir():
        raise SourceError(f"{logs} is no folder; name a folder of CooperBench runs, or one run")
    runs = [logs] if _is_run(logs) else sorted(one for one in _folders(logs) if _is_run(one))
    root = logs.parent if runs == [logs] else logs
    cells = tuple(cell for run in runs for cell in _cells(run))
    if not cells:
        raise SourceError(
            f"{logs} holds no CooperBench run; a run is a folder with config.json, or with solo/ or coop/ in it"
        )
    return Source(root, cells, cache or platformdirs.user_cache_path("cooperbench-assets") / "transcripts")


def find(source: Source, path: str) -> tuple[SourceCell, Pair]:
    """The cell and the pair that a `PairRow.path` names.

    Raises:
        SourceError: if it names none of this source. No file is looked at.
    """
    for cell in source.cells:
        base = run_path(source, cell)
        if path.startswith(f"{base}/"):
            rest = path[len(base) + 1 :]
            if rest.partition("/")[0] in MODES:
                mode, _, rest = rest.partition("/")
                if cell.mode not in (None, mode):
                    continue
            try:
                pair = Pair.parse(rest)
            except ValueError:
                continue
            # Of a cell that plans pairs, only those have rows, and so pages.
            if rest == pair.name and ".." not in pair.repo and (cell.pairs is None or pair in cell.pairs):
                return cell, pair
    raise SourceError(f"{path[:300]!r} is no pair here; take a path from the list of pairs")


def run_path(source: Source, cell: SourceCell) -> str:
    """A cell's run folder, relative to the log root where it lies in it."""
    relative = os.path.relpath(cell.run_dir, source.logs)
    return printable(cell.run_dir.name if relative.startswith("..") or relative == "." else relative)


def _folders(folder: Path) -> list[Path]:
    return [one for one in folder.iterdir() if one.is_dir() and not one.name.startswith(".")]


def _is_run(folder: Path, *, named_like_a_mode: bool = False) -> bool:
    """Whether a folder holds modes; one that is named like a mode may be a run among others, and then is none."""
    modes = [folder / mode for mode in MODES if (folder / mode).is_dir()]
    own = modes if named_like_a_mode else [one for one in modes if not _is_run(one, named_like_a_mode=True)]
    return bool(own) or (folder / "config.json").is_file()


def _cells(run: Path) -> list[SourceCell]:
    """A cell for each mode that a run holds; one without a mode for an older tree."""
    modes: list[str | None] = [mode for mode in MODES if (run / mode).is_dir()]
    match = _SEED.search(run.name)
    seed = int(match[1]) if match else 0
    cells = []
    for mode in modes or [None]:
        setting = "coop-nocomm" if mode == "coop" and _SILENT.search(run.name) else mode or "solo"
        cells.append(SourceCell(run, setting, seed, mode))
    return cells
