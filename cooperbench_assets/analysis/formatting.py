"""Numbers in sentences: singular and plural, percentage points, shares.

What belongs here: expressions that write a number as a reader expects it. What does not: what the sentences say.
"""

from __future__ import annotations

import polars as pl

MINUS = "\u2212"
"""The minus sign, which is not a hyphen."""


def counted(n: str | pl.Expr, one: str, many: str | None = None) -> pl.Expr:
    """``3 tasks``, ``1 task``; `many` where it is not `one` with an s."""
    number = pl.col(n) if isinstance(n, str) else n
    word = pl.when(number == 1).then(pl.lit(one)).otherwise(pl.lit(many or f"{one}s"))
    return pl.concat_str(number.cast(pl.String), pl.lit(" "), word)


def signed(value: pl.Expr, digits: int = 1) -> pl.Expr:
    """A number with a true minus sign; what rounds to 0 has none.

    Sums over threads differ in their last digits, which must not decide which way a half is rounded.
    """
    rounded = value.round_sig_figs(12).round(digits)
    return pl.when(rounded == 0).then(0.0).otherwise(rounded).cast(pl.String).str.replace("-", MINUS, literal=True)


def points(share: str) -> pl.Expr:
    """A column of shares in percentage points, without the unit."""
    return signed(pl.col(share) * 100)


def percent(share: pl.Expr) -> pl.Expr:
    """A share as ``12.5 %``."""
    return pl.concat_str(signed(share * 100), pl.lit(" %"))
