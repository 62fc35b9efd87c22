"""Communication: how much agents write (the paper's Figure 5c) and what kind of thing (Figure 6).

What belongs here: ``communication`` drawn. What does not: what goes with success (a table: it is confounded).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt
import polars as pl

from cooperbench_assets.analysis.messages import LEAST_PRECISION, PRECISION
from cooperbench_assets.report.headline_filter import not_drawn, refusals_of
from cooperbench_assets.report.style import BLACK, WIDTH, Chart, MarkStyle, Row, Unit, data
from cooperbench_assets.wording import count

if TYPE_CHECKING:
    from collections.abc import Mapping

SILENT = "No agent sent a message in any setting, so that there is nothing to draw."
KINDS = {
    "share_plan": "plan",
    "first_turn_plan": "plan in an agent's first message",
    "share_question": "question",
    "share_answer": "answer",
    "share_unanswered": "questions after which nobody writes",
    "share_update": "update",
    "share_acknowledgement": "acknowledgement",
    "share_mentions_file": "names a file",
    "share_mentions_line": "names a line",
}
"""Columns of ``communication`` and what they are called; the share is of messages but where the name says otherwise."""


NO_HEADLINE = "No setting in which agents write may stand as a result."


_IMPRECISE = next(name for name, (right, n) in PRECISION.items() if right < LEAST_PRECISION * n)
"""The one label whose rule is wrong too often to be drawn."""


def _precision(sources: str) -> list[str]:
    """How often the rules are right, where they made labels."""
    if "rules" not in sources:
        return []
    right, n = PRECISION[_IMPRECISE]
    read = ", ".join(f"{name} {k} of {m}" for name, (k, m) in PRECISION.items() if name != _IMPRECISE)
    return [
        f"Right, of rules' labels in one reading of six real runs: {read}.",
        f"Not drawn: {_IMPRECISE}, right {right} times of {n}.",
    ]


def _talking(results: Mapping[str, pl.DataFrame], least: pl.Expr) -> tuple[pl.DataFrame, list[str]]:
    """Settings over their seeds that have `least`: those that may have a headline, and why others may not."""
    found = results["communication"].filter(pl.col("seed").is_null() & least)
    return found.filter("headline"), refusals_of(found)


def _order(found: pl.DataFrame, look: MarkStyle) -> list[str]:
    return [name for name in look.settings if name in set(found["setting"].to_list())]


def _nothing(refused: list[str]) -> str:
    return f"{NO_HEADLINE} {'; '.join(refused)}." if refused else SILENT


def communication(results: Mapping[str, pl.DataFrame], look: MarkStyle) -> Chart | str:
    """Messages per pair and their share of steps, by setting."""
    found, refused = _talking(results, pl.col("pairs") > 0)
    if not found["messages"].sum():
        return _nothing(refused)
    settings = _order(found, look)
    rows = list(found.iter_rows(named=True))
    panels = [
        _bars(rows, settings, look, "messages_per_pair", "messages per pair", ".1f", _of_pairs),
        _bars(rows, settings, look, "share_of_steps", "messages per step of the agents", ".0%", _of_steps),
    ]
    title = look.title(
        "How much agents write to each other (Figure 5c)",
        "Over clean pairs of the planned seeds; a message is taken as one step. Left out: dead agents, not judged.",
        *_known_steps(rows),
        *not_drawn(refused),
    )
    return alt.hconcat(*panels, spacing=50, title=title)


def _known_steps(rows: list[Row]) -> list[str]:
    """What trajectories tell of the steps that messages were sent in, for each setting that has some."""
    return [
        f"{row['setting']}, by trajectory, of {row['writers_known']:,} of {count(row['writers'], 'agent')} that wrote: "
        f"{100 * row['share_message_steps']:.0f} % of steps sent a message, the first one at step "
        f"{row['first_message_step']:.3g} (median)."
        for row in rows
        if row["writers_known"]
    ]


def _of_pairs(row: Row) -> str:
    if row["messages_per_pair"] is None:
        return "no clean pair"
    beside = f", {row['left_out']} left out" if row["left_out"] else ""
    return f"{row['messages_per_pair']:.1f}  (n = {count(row['clean'], 'clean pair')}{beside})"


def _of_steps(row: Row) -> str:
    if row["share_of_steps"] is None:
        return "steps not known"
    return f"{100 * row['share_of_steps']:.0f} %  (n = {count(row['steps'], 'step')})"


def _bars(
    rows: list[Row], settings: list[str], look: MarkStyle, column: str, title: str, form: str, note: object
) -> Chart:
    assert callable(note)
    shown = [{"setting": row["setting"], "value": row[column] or 0, "note": note(row)} for row in rows]
    most = max([row["value"] for row in shown] + [0.01])
    base = Unit(data(shown)).encode(
        y=alt.Y("setting:N", sort=settings, title=None, axis=alt.Axis(ticks=False)),
        x=alt.X(
            "value:Q", scale=alt.Scale(domain=[0, most * 1.75]), axis=alt.Axis(format=form, tickCount=4), title=title
        ),
    )
    colour = alt.Color("setting:N", scale=look.scale_of_colours(settings), legend=None)
    bars = base.mark_bar(height=20, opacity=0.85).encode(color=colour)
    text = base.mark_text(align="left", dx=5, fontSize=11).encode(text=alt.Text("note:N"))
    return alt.layer(bars, text).properties(width=(WIDTH + 60) // 2, height=40 * len(settings))


def message_kinds(results: Mapping[str, pl.DataFrame], look: MarkStyle) -> Chart | str:
    """Shares of messages by what they do, by setting."""
    found, refused = _talking(results, pl.col("messages") > 0)
    if found.is_empty():
        return _nothing(refused)
    settings = _order(found, look)
    rows = [
        {"setting": row["setting"], "kind": label, "share": row[column], "note": f"{100 * row[column]:.0f} %"}
        for row in found.iter_rows(named=True)
        for column, label in KINDS.items()
        if row[column] is not None and (column != f"share_{_IMPRECISE}" or row["labels"] != "rules")
    ]
    n = "; ".join(f"{row['setting']}: {count(row['messages'], 'message')}" for row in found.iter_rows(named=True))
    sources = ", ".join(sorted(set(found["labels"].drop_nulls().to_list())))
    how = f"Labels by: {sources}. A message may do several things. n: {n}."
    title = look.title("What messages do (Figure 6)", how, *_precision(sources), *not_drawn(refused))
    base = Unit(data(rows)).encode(
        y=alt.Y("kind:N", sort=list(KINDS.values()), title=None, axis=alt.Axis(ticks=False)),
        yOffset=alt.YOffset("setting:N", sort=settings),
    )
    x = alt.X(
        "share:Q",
        scale=alt.Scale(domain=[0, 1.1]),
        axis=alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1]),
        title="share",
    )
    legend = alt.Legend(title="setting") if len(settings) > 1 else None
    colour = alt.Color("setting:N", scale=look.scale_of_colours(settings), legend=legend)
    bars = base.mark_bar(opacity=0.85).encode(x=x, color=colour)
    text = base.mark_text(align="left", dx=4, fontSize=11).encode(x=x, text=alt.Text("note:N"), color=alt.value(BLACK))
    height = max(22, 16 * len(settings)) * len({row["kind"] for row in rows})
    return alt.layer(bars, text).properties(width=WIDTH - 60, height=height, title=title)
