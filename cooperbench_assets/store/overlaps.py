"""What the two patches of a pair change in common: a table that a cell writes beside its others.

What belongs here: the table, and its rows out of two patches. What does not: reading a diff (``benchmark.diffs``),
finding the patch files, which lie in the log tree, and conflict rates (``analysis``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from cooperbench_assets.benchmark.diffs import changes_of, patch_overlap
from cooperbench_assets.store.schema import CELL, Column, Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PATCH_OVERLAPS = Table(
    "patch_overlaps",
    "One row for every pair whose two patch files are kept: what they change in common.",
    (
        *CELL,
        Column("pair", pl.String, "repo/task_id/f<a>_f<b>"),
        Column("files_a", pl.Int64, "Files that feature_a's patch changes"),
        Column("files_b", pl.Int64, "Files that feature_b's patch changes"),
        Column("shared_files", pl.Int64, "Files that both change"),
        Column("shared_lines", pl.Int64, "Lines of the base that both change or remove"),
        Column(
            "touching_places", pl.Int64, "Changed places of a that touch or neighbour one of b's: merges conflict there"
        ),
    ),
)
"""An input of the analysis ``merge_conflicts``."""


def overlaps_of(patches: Iterable[tuple[Mapping[str, object], str, str]]) -> pl.DataFrame:
    """Rows of ``PATCH_OVERLAPS`` from (experiment, setting, seed and pair; feature_a's patch; feature_b's patch)."""
    rows = []
    for key, patch_a, patch_b in patches:
        found = patch_overlap(patch_a, patch_b)
        rows.append(
            {
                **key,
                "files_a": len(changes_of(patch_a)),
                "files_b": len(changes_of(patch_b)),
                "shared_files": len(found.files),
                "shared_lines": found.lines,
                "touching_places": found.places,
            }
        )
    return PATCH_OVERLAPS.frame(rows)
