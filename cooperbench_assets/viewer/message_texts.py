"""The texts of all messages of a source, for the search: from partition tables where they are, else from the logs.

What belongs here: that. What does not: a pair's messages as its page shows them (``transcripts.conversation``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cooperbench_assets.benchmark.logtree import LogTreeError, read_run
from cooperbench_assets.store.schema import MESSAGES
from cooperbench_assets.transcripts.listing import stored

if TYPE_CHECKING:
    from collections.abc import Sequence

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
