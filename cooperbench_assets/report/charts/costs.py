"""Money: what was spent on a pair in each setting, on what, and what a pass cost.

What belongs here: ``cost_report`` drawn. What does not: tokens and time (tables). What is not known is said, and never
drawn as 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from cooperbench_assets.report.style import (
    BLUE,
    GREY,
    ORANGE,
    SKY,
    VERDICT_COLOURS,
    WIDTH,
    Chart,
    MarkStyle,
    Row,
    Unit,
    data,
)
from cooperbench_assets.wording import count

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_COST = "No cost is on record, so that there is nothing to draw."
_REACH = 3
"""Times the largest cost of a pass at which the line of a long interval ends; its note has the number."""
PARTS = {"judged": BLUE, "not judged": ORANGE, "wasted on failed tries": SKY}


def cost_report(results: Mapping[str, pl.DataFrame], look: MarkStyle) -> Chart | str:
    """Known spending on a pair by setting in parts, and money per pass with its interval."""
    found = results["cost_report"].filter(level="setting")
    if found.is_empty() or not found["spent_usd"].drop_nulls().sum():
        return NO_COST
    rows = list(found.iter_rows(named=True))
    order = [name for name in look.settings if name in {row["setting"] for row in rows}]
    title = look.title(
        "What was spent on a pair, and what a pass cost",
        "Left: known cost of every try over pairs, a pair counted in each of its seeds.",
        "Right: all that was spent over passes, 95 % interval over tasks; a dash where a cost is not known.",
    )
    both = alt.hconcat(_spent(rows, order), _per_pass(rows, order), spacing=60, title=title)
    drawn: Chart = both.resolve_scale(color="independent")
    return drawn


def _spent(rows: list[Row], order: list[str]) -> Chart:
    parts: list[Row] = []
    notes: list[Row] = []
    for row in rows:
        if row["spent_usd"] is None:
            notes.append({"setting": row["setting"], "end": 0, "note": "not known"})
            continue
        spent, lost, unjudged = (
            (row[name] or 0.0) / row["pairs"] for name in ("spent_usd", "lost_usd", "unjudged_usd")
        )
        amounts = {
            "judged": max(0.0, spent - lost - unjudged),
            "not judged": unjudged,
            "wasted on failed tries": lost,
        }
        start = 0.0
        for part, amount in amounts.items():
            parts.append({"setting": row["setting"], "part": part, "start": start, "end": start + amount})
            start += amount
        notes.append({"setting": row["setting"], "end": start, "note": _spent_note(row)})
    y = alt.Y("setting:N", sort=order, title=None, axis=alt.Axis(ticks=False))
    most = max(note["end"] for note in notes) or 1.0
    x = alt.X(
        "start:Q", scale=alt.Scale(domain=[0, most * 1.8]), axis=alt.Axis(format="$,.3~r", tickCount=4),
        title="USD per pair",
    )  # fmt: skip
    colour = alt.Color(
        "part:N", scale=alt.Scale(domain=list(PARTS), range=list(PARTS.values())),
        legend=alt.Legend(title=None, orient="bottom", symbolType="square"),
    )  # fmt: skip
    bars = Unit(data(parts)).mark_bar(height=22).encode(x=x, x2=alt.X2("end:Q"), y=y, color=colour)
    text = (
        Unit(data(notes))
        .mark_text(align="left", dx=5, fontSize=11, lineBreak="\n")
        .encode(x=alt.X("end:Q"), y=y, text=alt.Text("note:N"))
    )
    return alt.layer(bars, text).properties(width=(WIDTH + 40) // 2, height=46 * len(order))


def dollars(value: float | None) -> str:
    """An amount to three digits: ``$45.8``, ``$0.0123``."""
    return "–" if value is None else f"${value:,.0f}" if value >= 100 else f"${value:.3g}"


def _spent_note(row: Mapping[str, Any]) -> str:
    unknown = f", {row['spent_unknown']} unknown" if row["spent_unknown"] else ""
    each = f"{dollars(row['spent_usd'] / row['pairs'])} a pair"
    return f"{each}\n{dollars(row['spent_usd'])}, {count(row['pairs'], 'pair')}{unknown}"


def _pass_cost(row: Mapping[str, Any], verdict: str) -> str:
    name = f"usd_per_pass_{verdict}"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    ends = "" if low is None else f" [{dollars(low)}, {'no end' if high is None else dollars(high)}]"
    return dollars(row[name]) + ends


def _per_pass(rows: list[Row], order: list[str]) -> Chart:
    shown: list[Row] = [
        {
            "setting": row["setting"], "verdict": f"{verdict} verdict", "usd": row[f"usd_per_pass_{verdict}"] or 0.0,
            "low": row[f"usd_per_pass_{verdict}_low"], "high": row[f"usd_per_pass_{verdict}_high"],
            "note": f"{_pass_cost(row, verdict)}  ({count(row[f'passes_{verdict}'], 'pass', 'passes')})",
        }
        for row in rows
        for verdict in VERDICT_COLOURS
    ]  # fmt: skip
    reach = _REACH * max(row["usd"] for row in shown) or 1.0
    for row in shown:
        row["high"] = None if row["low"] is None else min(row["high"] or reach, reach)
        row["end"] = max(row["usd"], row["high"] or 0.0)
    most = max(row["end"] for row in shown) or 1.0
    domain, colours = [f"{name} verdict" for name in VERDICT_COLOURS], list(VERDICT_COLOURS.values())
    base = Unit(data(shown)).encode(
        y=alt.Y("setting:N", sort=order, title=None, axis=alt.Axis(labels=False, ticks=False)),
        yOffset=alt.YOffset("verdict:N", sort=domain),
        x=alt.X(
            "usd:Q",
            scale=alt.Scale(domain=[0, most * 2]),
            axis=alt.Axis(format="$,.3~r", tickCount=4),
            title="USD per pass",
        ),
    )
    colour = alt.Color(
        "verdict:N",
        scale=alt.Scale(domain=domain, range=colours),
        legend=alt.Legend(title=None, orient="bottom", symbolType="square"),
    )
    bars = base.mark_bar(stroke=GREY, strokeWidth=0.5, opacity=0.85).encode(color=colour)
    ends = alt.X("low:Q", title="USD per pass")
    line = base.mark_rule(strokeWidth=1.5).encode(x=ends, x2=alt.X2("high:Q"))
    text = base.mark_text(align="left", dx=5, fontSize=11).encode(x=alt.X("end:Q"), text=alt.Text("note:N"))
    layers: Chart = alt.layer(bars, line, text).resolve_scale(color="independent")
    return layers.properties(width=(WIDTH - 80) // 2, height=46 * len(order))
