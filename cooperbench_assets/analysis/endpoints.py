"""What of a pair is compared: success, merging, conflicts, and the success that is left of solo's.

What belongs here: the score of a pair by each endpoint. What does not: contrasts of scores (``contrasts``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from cooperbench_assets.analysis.frames import SCORE, Frames, reference_settings, scores_of
from cooperbench_assets.analysis.merges import is_conflict

if TYPE_CHECKING:
    from collections.abc import Iterator


ENDPOINTS = {
    "success": "both features pass",
    "merging": "the merge is clean or identical (strict: of two patches that applied and are not empty)",
    "conflict": "the plain merge conflicts, whoever judges",
    "retained": "success, over the pairs that solo passes in some seed",
}
"""All but success are of settings that merge."""


def endpoint_scores(frames: Frames, cells: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """``frames.scores_of`` of one endpoint after the other, with its name as column ``endpoint``."""
    scores = scores_of(frames, cells)
    yield scores.with_columns(endpoint=pl.lit("success"))
    names = reference_settings(cells)
    solo = scores.join(names, left_on=["experiment", "setting"], right_on=["experiment", "reference"], how="semi")
    passed = solo.filter(pl.col("score") == 1).select(*SCORE, "pair").unique()
    left = scores.filter(pl.col("mode") != "solo").join(passed, on=[*SCORE, "pair"], how="semi")
    yield left.with_columns(endpoint=pl.lit("retained"))
    for endpoint, made in {"merging": merged, "conflict": lambda _: is_conflict()}.items():
        others = scores_of(frames, cells, made).filter(pl.col("mode") != "solo")
        yield others.with_columns(endpoint=pl.lit(endpoint))


def merged(verdict: str) -> pl.Expr:
    """1 where two patches were merged into one tree, 0 where not, NULL where no merge is on record."""
    status = pl.col("merge_status")
    clean = status.is_in(["clean", "identical"])
    if verdict == "strict":
        applied = ((pl.col("apply_a") == "applied") & (pl.col("apply_b") == "applied")).fill_null(True)
        written = (pl.col("patches") >= pl.col("agents")).fill_null(True) & ~pl.col("hollow").fill_null(False)
        clean = clean & applied & written
    return pl.when(status.is_not_null()).then(clean.cast(pl.Int8))
