"""The texts of all messages of a source, for the search: from partition tables where they are, else from the logs.

What belongs here: that. What does not: a pair's messages as its page shows them (``transcripts.conversation``).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cooperbench_assets.benchmark.logtree import LogTreeError, read_run
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.errors import UnitError
from cooperbench_assets.store.partition_tables import read_unit
from cooperbench_assets.store.units import cell_unit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cooperbench_assets.transcripts.model import PairRow
    from cooperbench_assets.transcripts.sources import Source, SourceCell


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


def _texts(source: Source, cell: SourceCell) -> Iterable[tuple[str, str]]:
    """Pair and text of each message of a cell."""
    if source.tables is not None and cell.experiment is not None:
        with contextlib.suppress(UnitError):
            unit = read_unit(source.tables, cell_unit(Cell(cell.experiment, cell.setting, cell.seed)))
            return [(pair, text) for pair, text in unit["messages"].select("pair", "message").iter_rows() if text]
    return _of_logs(cell)


def _of_logs(cell: SourceCell) -> Iterator[tuple[str, str]]:
    try:
        run = read_run(cell.run_dir, cell.mode, find_steps=False)
    except LogTreeError:
        return
    for pair, reading in run.pairs.items():
        for record in reading.messages or []:
            if isinstance(record.message, str):
                yield pair.name, record.message
