"""How polars types are called in DuckDB, and how names and text are written in SQL; nothing that runs SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

_PLAIN: Final = {
    "String": "VARCHAR",
    "Boolean": "BOOLEAN",
    "Int8": "TINYINT",
    "Int16": "SMALLINT",
    "Int32": "INTEGER",
    "Int64": "BIGINT",
    "UInt8": "UTINYINT",
    "UInt16": "USMALLINT",
    "UInt32": "UINTEGER",
    "UInt64": "UBIGINT",
    "Float32": "FLOAT",
    "Float64": "DOUBLE",
    "Date": "DATE",
    str(pl.Datetime("us")): "TIMESTAMP",
}


def sql_type(dtype: PolarsDataType) -> str:
    """The DuckDB type of a column.

    Raises:
        ValueError: for a type that the store does not hold (zoned times, categories, decimals, structs, …).
    """
    if isinstance(dtype, pl.List):
        return f"{sql_type(dtype.inner)}[]"
    try:
        return _PLAIN[str(dtype)]
    except KeyError:
        raise ValueError(
            f"the store holds no {dtype} columns; use text, numbers, booleans, dates, lists of these, "
            "or Datetime('us') in UTC"
        ) from None


def identifier(name: str) -> str:
    """A name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str | int | None) -> str:
    """A text, number or NULL as SQL."""
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
