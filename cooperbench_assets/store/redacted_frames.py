"""Tables without secrets.

What belongs here: which columns of a frame are looked at. What does not: what a secret is (``redaction``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cooperbench_assets.redaction import Redactor

_TEXTS: Final = (pl.String, pl.List(pl.String))
_NAMES: Final = frozenset({"experiment", "setting", "pair", "repo"})
"""Columns that name a cell or a pair: they are keys, and left as they are."""


def without_secrets(frame: pl.DataFrame, redactor: Redactor) -> pl.DataFrame:
    """The frame with no secret in its texts; the same object if there is none."""
    columns = [one for one in frame.iter_columns() if one.dtype in _TEXTS and one.name not in _NAMES]
    if _are_clean(columns, redactor):
        return frame
    changed = [
        pl.Series(column.name, [_clean(value, redactor) for value in column.to_list()], column.dtype)
        for column in columns
        if not _are_clean([column], redactor)
    ]
    return frame.with_columns(changed)


def _are_clean(columns: Sequence[pl.Series], redactor: Redactor) -> bool:
    """Whether no text holds a secret. All are looked into at once, each once: few hold any."""
    texts = [(one if one.dtype == pl.String else one.explode()).alias("") for one in columns]
    return not texts or redactor.is_clean("\0".join(pl.concat(texts).drop_nulls().unique().to_list()))


def _clean(value: str | list[str] | None, redactor: Redactor) -> str | list[str] | None:
    if isinstance(value, list):
        return [redactor.text(one) for one in value]
    return None if value is None else redactor.text(value)
