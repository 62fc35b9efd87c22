"""Rows of a strict and an upstream point, each with its interval and the bar of what non-verdicts allow.

What belongs here: what ``charts.success`` and ``charts.contrasts`` draw alike. What does not: scales and notes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import altair as alt

from cooperbench_assets.report.style import PALE, Chart, Row, Unit, data, verdict_scales

if TYPE_CHECKING:
    from collections.abc import Sequence


class Marks(NamedTuple):
    """What is drawn of rows, to be layered in this order with more in between."""

    bar: Chart
    """From one extreme to the other."""

    line: Chart
    point: Chart
    y: alt.Y
    offset: alt.YOffset
    colour: alt.Color


def marks(rows: list[Row], order: Sequence[str], x: alt.X, extremes: tuple[str, str]) -> Marks:
    """Rows of ``label`` and ``verdict``, with the column of `x`, ``low``, ``high``, and `extremes`; NULL is not drawn.

    Args:
        rows: What is drawn.
        order: Labels from the top.
        x: The encoding of the points.
        extremes: Columns of the ends of the grey bar.
    """
    colour, shape = verdict_scales()
    y = alt.Y("label:N", sort=list(order), title=None, axis=alt.Axis(ticks=False, domain=False, labelPadding=8))
    offset = alt.YOffset("verdict:N", sort=["strict", "upstream"])
    base = Unit(data(rows)).encode(y=y, yOffset=offset)
    bar = base.mark_bar(color=PALE, height=16).encode(
        x=alt.X(f"{extremes[0]}:Q", title=x["title"]), x2=alt.X2(f"{extremes[1]}:Q")
    )
    line = base.mark_rule(strokeWidth=2.5).encode(x=alt.X("low:Q"), x2=alt.X2("high:Q"), color=colour)
    point = base.mark_point(filled=True, size=110, opacity=1).encode(x=x, color=colour, shape=shape)
    return Marks(bar, line, point, y, offset, colour)
