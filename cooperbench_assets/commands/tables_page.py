"""docs/tables.md, made from the comments of a fresh store: ``python -m cooperbench_assets.commands.tables_page``.

What belongs here: turning tables, views and their comments into a page. What does not: what they say (``store.schema``,
``store.views``, the analyses).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import click
import duckdb

from cooperbench_assets.analysis.registry import ANALYSES, RESULT_TABLES
from cooperbench_assets.assets.tables import STORE_TABLES
from cooperbench_assets.store.publish import publish

PAGE: Final = Path(__file__).parents[2] / "docs" / "tables.md"

HEAD: Final = """# Tables of the results store

<!-- Made by `python -m cooperbench_assets.commands.tables_page` from a fresh store; a test compares the two. -->

`data/results.duckdb` holds all experiments in the same tables. Open it with `duckdb -readonly data/results.duckdb`, or
ask `cooperbench-assets query "SELECT …"`. Every table and column below carries its meaning as a comment in the file
itself (`SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'pairs'`). Times are UTC, without a zone.
What is not known is NULL, never 0.
"""

_RELATIONS: Final = """
SELECT table_name, comment, false FROM duckdb_tables() WHERE NOT internal
UNION ALL SELECT view_name, comment, true FROM duckdb_views() WHERE NOT internal
"""
_COLUMNS: Final = (
    "SELECT column_name, data_type, comment FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index"
)


class Relation(NamedTuple):
    """A table or view of a store, as the store itself describes it."""

    name: str
    comment: str
    is_view: bool
    columns: tuple[tuple[str, str, str | None], ...]
    """Name, DuckDB type and comment, in order; the store's own notes have columns without comments."""


def relations() -> dict[str, Relation]:
    """Every table and view of a store that was made a moment ago, by name."""
    with tempfile.TemporaryDirectory() as folder:
        database, tables = Path(folder) / "results.duckdb", Path(folder) / "tables"
        tables.mkdir()
        publish(database, tables, declared=STORE_TABLES)
        with duckdb.connect(str(database), read_only=True) as store:
            return {
                name: Relation(name, comment, is_view, tuple(store.execute(_COLUMNS, [name]).fetchall()))
                for name, comment, is_view in store.execute(_RELATIONS).fetchall()
            }


def page() -> str:
    """The whole page."""
    found = relations()
    results = {table.name for table in RESULT_TABLES}
    facts = [table.name for table in STORE_TABLES if table.name not in results]
    views = [one.name for one in found.values() if one.is_view]
    own = sorted(found.keys() - results - {*facts, *views})
    parts = [HEAD, _contents(found, views, facts, own)]
    parts += ["## Views\n", *_described(found[name] for name in views)]
    parts += ["## What was run\n", *_described(found[name] for name in facts)]
    for analysis in ANALYSES:
        parts.append(f"## Analysis `{analysis.name}`\n\n{analysis.description}\n")
        parts += _described(found[table.name] for table in analysis.tables)
    parts += ["## The store's own notes\n", "\n".join(f"- `{name}`: {found[name].comment}" for name in own) + "\n"]
    return "\n".join(parts)


def _contents(found: dict[str, Relation], views: list[str], facts: list[str], own: list[str]) -> str:
    """Links to each table, those that are read first in front."""
    results = [table.name for table in RESULT_TABLES]
    rows = (("views", views), ("what was run", facts), ("analyses", results))
    lines = [f"| {kind} | {', '.join(f'[{name}](#{name})' for name in names)} |" for kind, names in rows]
    assert {*views, *facts, *results, *own} == found.keys()
    return "\n".join(["| | |", "| --- | --- |", *lines, ""])


def _described(relations_: Iterable[Relation]) -> Iterator[str]:
    for one in relations_:
        lines = [f"### {one.name}", "", one.comment, "", "| column | type | meaning |", "| --- | --- | --- |"]
        lines += [f"| `{name}` | {kind} | {_cell(meaning or '')} |" for name, kind, meaning in one.columns]
        yield "\n".join([*lines, ""])


def _cell(text: str) -> str:
    """Text that stays one cell of a table of Markdown, and is shown as it is."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(page())
    click.echo(f"Wrote {PAGE}")
