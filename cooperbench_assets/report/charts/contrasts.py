"""Differences between settings over common pairs, with intervals and the extremes that non-verdicts allow.

What belongs here: ``paired_comparisons`` and ``retention`` drawn. What does not: rates by themselves
(``charts.success``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from cooperbench_assets.report.charts.verdicts import marks
from cooperbench_assets.report.standing import CONTRAST, with_standing
from cooperbench_assets.report.style import (
    GREY,
    WIDTH,
    Chart,
    Look,
    Row,
    count,
    data,
    shortened,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ONE_SETTING = "There are not two settings with seeds, so that nothing is compared."


def paired_comparisons(results: Mapping[str, pl.DataFrame], look: Look) -> Chart | str:
    """Every contrast over clean pairs, by both verdicts."""
    found = results["paired_comparisons"].filter(population="clean")
    if found.is_empty():
        return ONE_SETTING
    rows = [_row(row) for row in with_standing(found, CONTRAST).iter_rows(named=True)]
    if found["difference"].is_null().all():
        return "No two settings are compared. " + " ".join(dict.fromkeys(found["statement"].to_list())) + "."
    order = list(dict.fromkeys(row["label"] for row in rows))
    title = look.title(
        "Differences of settings over the pairs that both were judged on",
        "Point: mean over common pairs of (mean over seeds of the first − of the second), percentage points.",
        "Line: 95 % interval clustered by task. Grey bar: where the difference may lie, whatever non-verdicts were.",
    )
    return _chart(rows, order).properties(width=WIDTH - 60, height=66 * len(order), title=title)


def _row(row: Mapping[str, Any]) -> Row:
    """One contrast by one verdict: without a headline only its extremes are drawn."""
    extremes = ("difference_lowest", "difference_highest")
    figures = ("difference", "low", "high", *extremes)
    drawn = figures if row["shown"] else extremes
    points = {name: 100 * row[name] if name in drawn and row[name] is not None else None for name in figures}
    label = f"{row['setting_a']} − {row['setting_b']}"
    note = shortened("; ".join(_notes(row)), 75)
    return {**points, "verdict": row["verdict"], "label": label, "note": note}


def _notes(row: Mapping[str, Any]) -> Iterator[str]:
    """What stands beside a contrast: why it is refused; or n once, p, and that it is no headline."""
    if row["refused"]:
        if row["verdict"] == "strict":
            yield f"refused: {row['refused']}"
        return
    if row["verdict"] == "strict":
        yield f"{count(row['pairs'] or 0, 'pair')}, {count(row['tasks'] or 0, 'task')}"
    if not row["shown"]:
        if row["verdict"] == "strict":
            yield "no headline: the table says why"
    elif row["p_holm"] is not None:
        yield f"p = {row['p_holm']:.2g} (Holm over {row['contrasts']})"


def _chart(rows: list[Row], order: list[str]) -> Chart:
    spread = [abs(value) for row in rows for name, value in row.items() if isinstance(value, float)]
    reach = min(100.0, max([10.0, *spread]) * 1.08)
    x = alt.X(
        "difference:Q", scale=alt.Scale(domain=[-reach, reach], nice=False),
        axis=alt.Axis(labelExpr="datum.value > 0 ? '+' + datum.label : datum.label", format="d", tickCount=9),
        title="difference of success, percentage points",
    )  # fmt: skip
    drawn = marks(rows, order, x, ("difference_lowest", "difference_highest"))
    zero = alt.Chart(data([{"zero": 0}])).mark_rule(strokeDash=[4, 3], color=GREY).encode(x="zero:Q")
    beside = alt.Chart(data(rows)).encode(y=drawn.y, yOffset=drawn.offset, x=alt.value(WIDTH - 50), text="note:N")
    note = beside.mark_text(align="left", fontSize=12)
    return alt.layer(drawn.bar, zero, drawn.line, drawn.point, note)
