"""Every pair in every cell, coloured and lettered by its outcome.

What belongs here: ``pair_grid`` drawn. What does not: what is counted in it (tables).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from cooperbench_assets.report.style import FATES, GREY, Chart, MarkStyle, Row, Unit, data
from cooperbench_assets.wording import count

if TYPE_CHECKING:
    from collections.abc import Mapping

NOTHING = "No pair is planned, so that there is no grid."
LABELLED = 120
"""Pairs up to which each row has its name and its letters; more are drawn as narrow rows."""


MOST_SQUARES = 20_000
"""Squares up to which the grid is drawn: more would make a page that no browser opens with ease."""


def pair_grid(results: Mapping[str, pl.DataFrame], look: MarkStyle) -> Chart | str:
    """The grid by the strict verdict, the pairs that pass most first."""
    found = results["pair_grid"]
    if found.is_empty():
        return NOTHING
    if found.height > MOST_SQUARES:
        return f"{found.height:,} pairs × cells are more than a figure can show: see the tables, and their CSV."
    rows = [_square(row) for row in found.iter_rows(named=True)]
    pairs = found.unique("row").sort("row")["pair"].to_list()
    cells = [
        f"{setting} {seed}" for setting, seed in found.unique("column").sort("column").select("setting", "seed").rows()
    ]
    present = [fate for fate in FATES.values() if any(row["fate"] == fate.key for row in rows)]
    title = look.title(
        f"{count(len(pairs), 'pair')} in {count(len(cells), 'cell')}, by the strict verdict",
        "A row is a pair, those that pass most first; a column is a setting and a seed.",
    )
    return _grid(rows, pairs, cells, present).properties(title=title)


def owner_state_of(row: Mapping[str, Any]) -> str:
    """The name in ``FATES`` of what became of a pair by the strict verdict."""
    outcome = row["outcome_strict"]
    if outcome == "fail":
        return row["reason_strict"] if row["reason_strict"] in FATES else "other"
    if outcome == "infra_error":
        return "infra_eval" if row["stage"] == "eval" else "infra_agent"
    return outcome if outcome in FATES else "missing"


def _square(row: Mapping[str, Any]) -> Row:
    fate = FATES[owner_state_of(row)]
    return {
        "pair": row["pair"], "cell": f"{row['setting']} {row['seed']}", "fate": fate.key, "ink": fate.ink,
        "letter": fate.letter + ("?" if row["suspect"] else ""),
    }  # fmt: skip


def _grid(rows: list[Row], pairs: list[str], cells: list[str], present: list[Any]) -> Chart:
    labelled = len(pairs) <= LABELLED
    step = 15 if labelled else 4
    axis = alt.Axis(labelFontSize=11, ticks=False, domain=False, labels=labelled, labelPadding=4)
    above = alt.Axis(orient="top", labelAngle=-40, labelFontSize=12, ticks=False, domain=False, labelAlign="left")
    base = Unit(data(rows)).encode(
        x=alt.X("cell:N", sort=cells, title=None, axis=above),
        y=alt.Y("pair:N", sort=pairs, title=None if labelled else f"{len(pairs)} pairs", axis=axis),
    )
    colour = alt.Color(
        "fate:N",
        scale=alt.Scale(domain=[fate.key for fate in present], range=[fate.colour for fate in present]),
        legend=alt.Legend(title=None, symbolType="square", symbolStrokeColor=GREY, orient="right"),
    )
    squares = base.mark_rect(stroke="#FFFFFF", strokeWidth=1 if labelled else 0).encode(color=colour)
    layers: list[alt.Chart] = [squares]
    if labelled:
        ink = alt.Color("ink:N", scale=None, legend=None)
        layers.append(base.mark_text(fontSize=11).encode(text=alt.Text("letter:N"), color=ink))
    drawn: Chart = alt.layer(*layers).resolve_scale(color="independent")
    return drawn.properties(width=(30 if len(cells) > 8 else 60) * len(cells), height=step * len(pairs))
