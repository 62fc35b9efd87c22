"""Which rows may be shown as results: those whose strict row over clean pairs is a headline.

What belongs here: that one rule, for both verdicts side by side. What does not: why a row is refused (``analysis``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from cooperbench_assets.report.style import shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

SUMMARY = ("experiment", "level", "setting", "seed")
CONTRAST = ("experiment", "setting_a", "setting_b")
ACROSS = ("setting", "experiment_a", "experiment_b")


def with_standing(frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """`frame` with ``shown``: whether the strict row of the same `by` is a headline.

    Upstream's verdict is never a headline by itself: it stands beside the strict one, and falls with it.
    """
    strict = (pl.col("verdict") == "strict") & pl.col("headline").fill_null(False)
    return frame.with_columns(shown=strict.any().over(by))


def refusals_of(frame: pl.DataFrame, reason: str = "why_not") -> list[str]:
    """Why settings of `frame` may have no headline, in its order; a `reason` that names a setting stands by itself."""
    found = frame.filter(pl.col(reason).is_not_null()).unique("setting", keep="first", maintain_order=True)
    names = tuple(f"{setting}: " for setting in frame["setting"].unique())
    texts = (why if why.startswith(names) else f"{setting}: {why}" for setting, why in _pairs(found, reason))
    return list(dict.fromkeys(texts))


def _pairs(frame: pl.DataFrame, reason: str) -> list[tuple[str, str]]:
    return frame.select("setting", reason).rows()


def not_drawn(refusals: Sequence[str]) -> list[str]:
    """The line of a figure that names what it leaves out; none where it leaves out nothing."""
    return [shortened(f"Not drawn, because it may have no headline: {'; '.join(refusals)}", 150)] if refusals else []
