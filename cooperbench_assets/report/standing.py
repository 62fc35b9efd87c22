"""Which rows may be shown as results: those whose strict row over clean pairs is a headline.

What belongs here: that one rule, for both verdicts side by side. What does not: why a row is refused (``analysis``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Sequence

SUMMARY = ("experiment", "level", "setting", "seed")
CONTRAST = ("experiment", "setting_a", "setting_b")


def with_standing(frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """`frame` with ``shown``: whether the strict row of the same `by` is a headline.

    Upstream's verdict is never a headline by itself: it stands beside the strict one, and falls with it.
    """
    strict = (pl.col("verdict") == "strict") & pl.col("headline").fill_null(False)
    return frame.with_columns(shown=strict.any().over(by))
