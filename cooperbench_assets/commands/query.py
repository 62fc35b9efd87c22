"""query: SQL to the results store, read-only; an answer as a table, CSV or JSON."""

from __future__ import annotations

import csv
import json
import math
import sys
from datetime import date, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Final

import click

from cooperbench_assets.commands.context import find_project
from cooperbench_assets.commands.output import UNKNOWN, console, emit, emit_json, natural_width, new_table, rows_to
from cooperbench_assets.wording import count

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl
    from rich.table import Table

ROWS_SHOWN: Final = 100
"""Rows that a table shows; CSV and JSON give all."""

RECORDS_SHOWN: Final = 20
"""Rows that are shown below one another."""

CELL_SHOWN: Final = 80
"""Characters of a text that a table shows."""


class SqlError(click.ClickException):
    """The store does not understand the query."""

    exit_code: ClassVar[int] = 2


@click.command()
@click.argument("sql")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help=f"table: for people, {ROWS_SHOWN} rows at most; csv, json: everything.",
)
def query(sql: str, form: str) -> None:
    """Ask the results store something, in SQL.

    SQL is a query in DuckDB's dialect, or - to read it from standard input. data/results.duckdb is opened read-only.
    Start with the views outcomes (a row a pair), cells and costs (a row a cell each):

    \b
      cooperbench-assets query "FROM cells"
      cooperbench-assets query "SELECT family, count(*) FROM outcomes GROUP BY ALL" --format csv
      cooperbench-assets query "FROM duckdb_columns() SELECT table_name, column_name, comment"
    """
    answer = ask(find_project().database, sys.stdin.read() if sql == "-" else sql)
    if form == "json":
        emit_json([{name: _json(value) for name, value in row.items()} for row in answer.iter_rows(named=True)])
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(answer.columns)
        writer.writerows([_csv(value) for value in row] for row in answer.iter_rows())
    else:
        show(answer)


def ask(database: Path, sql: str) -> pl.DataFrame:
    """The answer to a query.

    Raises:
        SqlError: if the store does not understand it, or it would do more than read.
        StoreError: if there is no store that can be opened.
    """
    from cooperbench_assets.store.errors import StoreError
    from cooperbench_assets.store.read import snapshot

    with snapshot(database) as store:
        try:
            return store.query(sql)
        except StoreError as error:
            message = str(error).strip()
            if "Table with name" in message:
                message += f"\nThere are: {', '.join(store.names())}"
            raise SqlError(message) from error


def show(answer: pl.DataFrame) -> None:
    """The first rows, and how many there are; below one another where a terminal is too narrow for a table."""
    if not answer.columns:
        click.echo("Done; nothing to show.")
        return
    table = _table(answer)
    if (target := console()).is_terminal and natural_width(table) > target.width:
        shown = RECORDS_SHOWN
        for row in answer.head(shown).iter_rows():
            record = new_table("", "")
            record.show_header = False
            emit(rows_to(record, zip(answer.columns, map(_shown, row), strict=True)))
            click.echo()
    else:
        shown = ROWS_SHOWN
        emit(table)
    rows = count(answer.height, "row")
    click.echo(f"({rows}, the first {shown} shown; --format csv gives all)" if answer.height > shown else f"({rows})")


def _table(answer: pl.DataFrame) -> Table:
    numbers = [dtype.is_numeric() for dtype in answer.dtypes]
    names = [name + ">" * is_number for name, is_number in zip(answer.columns, numbers, strict=True)]
    rows = ([_shown(value) for value in row] for row in answer.head(ROWS_SHOWN).iter_rows())
    return rows_to(new_table(*names), rows)


def _shown(value: object) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, float):
        return f"{value:.6g}"
    text = _text(value).replace("\n", " ")
    return text if len(text) <= CELL_SHOWN else text[: CELL_SHOWN - 1] + "…"


def _csv(value: object) -> object:
    return "" if value is None else value if isinstance(value, float) else _text(value)


def _text(value: object) -> str:
    """A value as text: lists and structs as JSON, times in ISO form."""
    if isinstance(value, list | dict):
        return json.dumps(_json(value), ensure_ascii=False)
    plain = _json(value)
    return plain if isinstance(plain, str) else json.dumps(plain)


def _json(value: object) -> Any:
    """A value as JSON can say it: times in ISO form, what is no number as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return float(value) if value.is_finite() else None
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    return value
