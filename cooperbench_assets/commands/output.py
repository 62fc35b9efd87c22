"""How commands speak: tables for a terminal, plain columns for a pipe, JSON for a program.

What belongs here: consoles, tables, and how a number is written. What does not: what is said.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

PIPED_WIDTH: Final = 10_000
"""Columns of a console that writes to a file or a pipe: a table is never cut there, and none is so wide."""

UNKNOWN: Final = "–"
"""What stands for a value that is not known."""

OUTCOME_STYLES: Final = {
    "pass": "green",
    "fail": "red",
    "infra_error": "yellow",
    "unevaluated": "cyan",
    "missing": "magenta",
}
"""Colour of each outcome, in tables and progress bars."""


def console(*, stderr: bool = False) -> Console:
    """A console on standard output or error as it is now; wide where nobody watches."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPED_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def new_table(*columns: str, gap: int = 2) -> Table:
    """An empty table; a column whose name ends with ``>`` holds numbers, set to the right."""
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold underline")
    for column in columns:
        table.add_column(column.removesuffix(">"), justify="right" if column.endswith(">") else "left")
    return table


def natural_width(renderable: RenderableType) -> int:
    """Columns that a renderable takes if nothing of it is wrapped or cut."""
    wide = Console(width=PIPED_WIDTH)
    return wide.measure(renderable).maximum


def emit(renderable: RenderableType) -> None:
    """Print on standard output; without trailing blanks where it is a pipe."""
    target = console()
    if target.is_terminal:
        target.print(renderable)
        return
    with target.capture() as capture:
        target.print(renderable)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def emit_json(value: object) -> None:
    """Print a value as JSON on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str, allow_nan=False))


def note(text: str) -> None:
    """Say something beside the result: on standard error, so that the result can be piped."""
    console(stderr=True).print(Text(text, style="dim"))


def warn(text: str) -> None:
    """Say on standard error that something deserves a look."""
    console(stderr=True).print(Text(text, style="yellow"))


def number(value: int | None, style: str = "") -> Text:
    """A count for a table; zero is dim, unknown a dash."""
    if value is None:
        return Text(UNKNOWN, style="dim")
    return Text(str(value), style=style if value else "dim")


def dollars(value: float | None) -> Text:
    """An amount in USD, to the cent."""
    return Text(UNKNOWN, style="dim") if value is None else Text(f"{value:.2f}")


def rows_to(table: Table, rows: Iterable[Sequence[Any]]) -> Table:
    """Add rows of plain values and texts to a table."""
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return table
