"""The list of pairs: one row for every pair of every cell of a source, and the messages that a search looks through.

What belongs here: reading them from partition tables where these are, else from the logs, and what is worked out over
all rows. What does not: one pair in full (``page``).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec

from cooperbench_assets.benchmark.jsonfiles import printable
from cooperbench_assets.benchmark.logtree import LogTreeError, read_run
from cooperbench_assets.benchmark.pairs import Subset
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.errors import UnitError
from cooperbench_assets.store.partition_tables import read_unit
from cooperbench_assets.store.rows import cell_frames
from cooperbench_assets.store.schema import MESSAGES, PAIRS
from cooperbench_assets.store.units import cell_unit
from cooperbench_assets.transcripts.model import PairRow
from cooperbench_assets.transcripts.sources import Source, run_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

    from cooperbench_assets.benchmark.logtree import RunReading
    from cooperbench_assets.redaction import Redactor
    from cooperbench_assets.transcripts.sources import SourceCell

FLAGS = ("suspect", "hollow", "fallback_unseen", "limits_exceeded", "stale", "accepted")
_EVIDENCE = 300
_SAME = (
    *("outcome", "outcome_strict", "reason", "stage", "family", "repo", "task_id", "pair", "model", "agent_framework"),
    *("cost_usd", "steps", "duration_seconds", "agent_tries", "eval_tries"),
)


def pair_rows(source: Source) -> Iterator[PairRow]:
    """Every planned pair of every cell, or every pair there is, in the order of the cells.

    A run that cannot be read as one (`benchmark.logtree.LogTreeError`) has no rows.
    """
    rows = [row for cell in source.cells for row in cell_rows(source, cell)]
    difficulty = _difficulties(rows)
    for row in rows:
        known = difficulty.get((row.experiment, row.pair))
        yield row if known is None else msgspec.structs.replace(row, difficulty=known)


def cell_rows(source: Source, cell: SourceCell) -> list[PairRow]:
    """The rows of one cell, without difficulties."""
    frame = stored(source, cell, PAIRS.name)
    if frame is None:
        try:
            reading = read_run(cell.run_dir, cell.mode, find_steps=False)
        except LogTreeError:
            return []
        frame = frame_of(source, cell, reading)
    return [row_of(source, cell, row) for row in frame.iter_rows(named=True)]


def stored(source: Source, cell: SourceCell, table: str) -> pl.DataFrame | None:
    """A table of a cell as it was materialised; None where it was not."""
    if source.tables is None or cell.experiment is None:
        return None
    try:
        return read_unit(source.tables, cell_unit(Cell(cell.experiment, cell.setting, cell.seed)))[table]
    except (UnitError, KeyError):
        return None


def messages_by_path(source: Source, rows: Sequence[PairRow]) -> dict[str, str]:
    """Path of a pair → its messages without secrets, a line each; pairs with messages only."""
    paths = {(row.run, row.setting, row.seed, row.pair): row.path for row in rows if row.messages}
    found: dict[str, list[str]] = {}
    for cell in source.cells:
        if cell.mode == "solo":
            continue
        for pair, text in _texts(source, cell):
            path = paths.get((cell.run_dir.name, cell.setting, cell.seed, pair))
            if path is not None:
                found.setdefault(path, []).append(text)
    return {path: source.redactor.text("\n".join(texts)) for path, texts in found.items()}


def _texts(source: Source, cell: SourceCell) -> list[tuple[str, str]]:
    """Pair and text of each message of a cell."""
    messages = stored(source, cell, MESSAGES.name)
    if messages is not None:
        return [(pair, text) for pair, text in messages.select("pair", "message").iter_rows() if text]
    try:
        run = read_run(cell.run_dir, cell.mode, find_steps=False)
    except LogTreeError:
        return []
    said = ((pair.name, record.message) for pair, one in run.pairs.items() for record in one.messages or [])
    return [(pair, text) for pair, text in said if isinstance(text, str)]


def frame_of(source: Source, cell: SourceCell, reading: RunReading) -> pl.DataFrame:
    """The table ``pairs`` of what was read of a cell."""
    planned = tuple(sorted(reading.pairs)) if cell.pairs is None else cell.pairs
    frames = cell_frames(
        Cell(cell.experiment or "", cell.setting, cell.seed),
        Subset("", planned, cell.run_dir),
        reading,
        logs_root=source.logs,
        accepted=cell.accepted,
    )
    return frames[PAIRS.name]


def row_of(source: Source, cell: SourceCell, row: dict[str, Any]) -> PairRow:
    """A row of the table ``pairs`` as one of the list."""
    mode = cell.mode or _mode_in(row["path"])
    base = run_path(source, cell)
    return PairRow(
        path="/".join(filter(None, (base, mode, row["pair"]))),
        experiment=cell.experiment,
        run=printable(cell.run_dir.name),
        setting=cell.setting,
        seed=cell.seed,
        mode=mode,
        features=(row["feature_a"], row["feature_b"]),
        evidence=one_line(source.redactor, row["evidence"], _EVIDENCE),
        flags=[flag for flag in FLAGS if row[flag]],
        messages=row["messages_sent"],
        **{name: row[name] for name in _SAME},
    )


def _mode_in(path: str | None) -> str | None:
    return next((part for part in (path or "").split("/") if part in ("solo", "coop", "team")), None)


def one_line(redactor: Redactor, text: str | None, length: int) -> str | None:
    """A text without secrets on one line, cut."""
    if text is None:
        return None
    line = " ".join(redactor.text(text).split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _difficulties(rows: list[PairRow]) -> dict[tuple[str | None, str], float]:
    """1 − mean(pass) over the judged seeds of the setting solo, or the first with that mode."""
    reference: dict[str | None, str] = {}
    for row in rows:
        if row.mode == "solo" and (row.setting == "solo" or row.experiment not in reference):
            reference[row.experiment] = row.setting
    judged: dict[tuple[str | None, str], list[bool]] = defaultdict(list)
    for row in rows:
        if row.setting == reference.get(row.experiment) and row.outcome_strict in ("pass", "fail"):
            judged[row.experiment, row.pair].append(row.outcome_strict == "pass")
    return {key: 1 - sum(passed) / len(passed) for key, passed in judged.items()}
