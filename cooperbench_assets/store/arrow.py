"""A polars frame out of an Arrow stream, without pyarrow.

Nothing else belongs here, and duckdb must not be imported here: polars keeps the type of what it is given for as
long as the process lives, and with it the globals of its module; duckdb then complains of leaks at exit.
"""

from __future__ import annotations

import polars as pl


class _Stream:
    """An Arrow stream that can be read once."""

    def __init__(self, capsule: object) -> None:
        self._capsule = capsule

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._capsule


def frame(capsule: object) -> pl.DataFrame:
    """The frame that an Arrow C stream capsule holds."""
    return pl.DataFrame(_Stream(capsule))
