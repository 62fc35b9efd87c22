"""Merge conflicts (the paper's Figure 5) and what merging came to.

What belongs here: ``merge_conflicts`` and ``merge_kinds`` drawn. What does not: outcomes (``charts.outcomes``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt
import polars as pl

from cooperbench_assets.analysis.merges import CONDITIONS
from cooperbench_assets.report.headline_filter import not_drawn, refusals_of
from cooperbench_assets.report.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    VERMILION,
    WIDTH,
    Chart,
    MarkStyle,
    OutcomeStyle,
    Row,
    Unit,
    data,
    number_on_bar,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_MERGE = "No merge of two agents' patches is on record, so that there is no conflict rate."
NO_HEADLINE = "No setting of more than one agent may stand as a result."
KINDS = {
    "clean": OutcomeStyle("clean", "c", GREEN, "#FFFFFF"),
    "identical": OutcomeStyle("identical patches", "i", BLUE, "#FFFFFF"),
    "hollow": OutcomeStyle("clean, but empty", "e", PALE),
    "union": OutcomeStyle("union of both", "u", SKY),
    "agent1_alone": OutcomeStyle("conflict, agent 1's patch alone passed", "1", PURPLE),
    "conflict": OutcomeStyle("conflict", "x", ORANGE),
    "not_merged": OutcomeStyle("not merged", "n", VERMILION, "#FFFFFF"),
}


def merge_conflicts(results: Mapping[str, pl.DataFrame], look: MarkStyle) -> Chart | str:
    """Conflict rates of settings with two agents, of all merges first, then by overlap of the patches."""
    found = results["merge_conflicts"].filter(pl.col("seed").is_null() & (pl.col("merges") > 0), population="clean")
    if found.is_empty():
        return NO_MERGE
    refused, found = refusals_of(found), found.filter("headline")
    if found.is_empty():
        return f"{NO_HEADLINE} {'; '.join(refused)}."
    settings = [name for name in look.settings if name in set(found["setting"].to_list())]
    rows = [
        {
            **{name: row[name] for name in ("setting", "rate", "low", "high")},
            "condition": "all merges" if row["condition"] == "all" else row["condition"],
            "note": f"{row['conflicts']:,} of {row['merges']:,}" + ("" if row["low"] is not None else ", no interval"),
        }
        for row in found.iter_rows(named=True)
    ]
    conditions = ["all merges", *(name for name in CONDITIONS if name in {row["condition"] for row in rows})]
    lines = [
        "Point: conflicts over merges of clean pairs. Line: 95 % interval over tasks. Beside it: conflicts of merges."
    ]
    if conditions == ["all merges"]:
        lines.append("Where the patches overlap is not known here, so that no rate is given by overlap.")
    lines += not_drawn(refused)
    title = look.title("How often the plain merge of two agents' patches conflicts (Figure 5)", *lines)
    return _rates(rows, settings, conditions, look).properties(
        width=WIDTH, height=max(40, 30 * len(settings)) * len(conditions), title=title
    )


def _rates(rows: list[Row], settings: list[str], conditions: list[str], look: MarkStyle) -> Chart:
    legend = alt.Legend(title="setting", orient="bottom", titleOrient="left")
    base = Unit(data(rows)).encode(
        y=alt.Y("condition:N", sort=conditions, title=None, axis=alt.Axis(ticks=False, domain=False)),
        yOffset=alt.YOffset("setting:N", sort=settings),
        color=alt.Color("setting:N", scale=look.scale_of_colours(settings), legend=legend),
    )
    share = alt.Axis(format="%", values=[n / 10 for n in range(0, 11, 2)])
    x = alt.X("rate:Q", scale=alt.Scale(domain=[0, 1]), axis=share, title="merges that conflict")
    line = base.mark_rule(strokeWidth=2.5).encode(x=alt.X("low:Q"), x2=alt.X2("high:Q"))
    shape = alt.Shape("setting:N", scale=look.scale_of_shapes(settings), legend=legend)
    point = base.mark_point(filled=True, size=100, opacity=1).encode(x=x, shape=shape)
    note = base.mark_text(align="left", fontSize=12).encode(
        x=alt.value(WIDTH + 10), text=alt.Text("note:N"), color=alt.value(BLACK)
    )
    return alt.layer(line, point, note)


def merge_kinds(results: Mapping[str, pl.DataFrame], look: MarkStyle) -> Chart | str:
    """What the merges came to, as shares."""
    found = results["merge_kinds"].filter(pl.col("seed").is_null(), population="clean")
    refused, found = refusals_of(found), found.filter("headline")
    rows: list[Row] = []
    for setting in look.settings:
        counts = dict(found.filter(setting=setting).select("kind", "pairs").iter_rows())
        total, done = sum(counts.values()), 0
        for name in sorted(counts, key=list(KINDS).index):
            kind, share = KINDS[name], counts[name] / total
            rows.append(
                {
                    "label": f"{setting}, n = {total:,}", "kind": kind.key, "ink": kind.ink,
                    "start": done / total, "end": (done + counts[name]) / total,
                    "middle": (done + counts[name] / 2) / total,
                    "note": number_on_bar(kind, counts[name], share),
                }
            )  # fmt: skip
            done += counts[name]
    if not rows:
        return f"{NO_HEADLINE} {'; '.join(refused)}." if refused else NO_MERGE
    return _stacks(rows, look, refused)


def _stacks(rows: list[Row], look: MarkStyle, refused: list[str]) -> Chart:
    order = list(dict.fromkeys(row["label"] for row in rows))
    present = [kind for kind in KINDS.values() if any(row["kind"] == kind.key for row in rows)]
    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=[kind.key for kind in present], range=[kind.colour for kind in present]),
        legend=alt.Legend(title=None, orient="bottom", columns=4, symbolType="square", symbolStrokeColor=GREY),
    )
    base = Unit(data(rows)).encode(y=alt.Y("label:N", sort=order, title=None, axis=alt.Axis(ticks=False)))
    x = alt.X("start:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"), title="of merged clean pairs")
    bars = base.mark_bar(stroke=GREY, strokeWidth=0.6).encode(x=x, x2=alt.X2("end:Q"), color=colour)
    ink = alt.Color("ink:N", scale=None, legend=None)
    text = base.mark_text(fontSize=11).encode(x=alt.X("middle:Q"), text=alt.Text("note:N"), color=ink)
    lines = ["Number on a bar: pairs, over all planned seeds.", *not_drawn(refused)]
    title = look.title("What merging two agents' patches came to", *lines)
    return alt.layer(bars, text).properties(width=WIDTH, height=32 * len(order), title=title)
