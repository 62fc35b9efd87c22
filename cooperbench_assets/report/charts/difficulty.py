"""Success over difficulty: the curves of the paper's Figure 4, on natural levels and on its ten buckets.

What belongs here: ``success_by_difficulty`` drawn by either method. What does not: areas (a table) and what difficulty
is (``analysis.difficulty``).

Points are joined only where there are three or more: two points are no curve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt
import polars as pl

from cooperbench_assets.analysis.curves import LEAVE_ONE_OUT, REPRODUCTION
from cooperbench_assets.report.headline_filter import not_drawn, refusals_of
from cooperbench_assets.report.style import GREY, Chart, MarkStyle, Row, Unit, data

if TYPE_CHECKING:
    from collections.abc import Mapping

FEWEST_POINTS = 3
NO_SOLO = "There is no solo setting with a verdict, so that no pair has a difficulty."
ONE_SEED = (
    "Leaving one solo seed out needs at least two of them; with one, only the paper's own curve can be drawn, in which "
    "solo is scored on the seed that difficulty is made from."
)
_PANELS = {"level": "Natural levels", "bucket": "The paper's ten buckets"}
_PANEL_WIDTH = 330


def success_by_difficulty(results: Mapping[str, pl.DataFrame], look: MarkStyle) -> Chart | str:
    """Curves with leave-one-seed-out difficulty."""
    return _figure(
        results, look, LEAVE_ONE_OUT,
        "Success over difficulty (Figure 4), difficulty from the other solo seeds",
        "Solo is scored on the seed left out; every setting on the same difficulties.",
    )  # fmt: skip


def success_by_difficulty_paper(results: Mapping[str, pl.DataFrame], look: MarkStyle) -> Chart | str:
    """Curves with difficulty from all solo seeds, as the paper draws them."""
    return _figure(
        results, look, REPRODUCTION,
        "Success over difficulty as the paper draws it: a reproduction, circular for solo",
        "Difficulty is 1 − solo's own mean, so that solo's curve is an identity and shows nothing.",
    )  # fmt: skip


def _figure(results: Mapping[str, pl.DataFrame], look: MarkStyle, method: str, title: str, how: str) -> Chart | str:
    found = results["success_by_difficulty"].filter(
        pl.col("held_out").is_null() & (pl.col("n") > 0), verdict="strict", population="clean"
    )
    if found.is_empty():
        return NO_SOLO
    found = found.filter(method=method)
    if found.is_empty():
        return ONE_SEED
    refused = refusals_of(found, "refused")
    found = found.filter(pl.col("refused").is_null())
    if found.is_empty():
        return f"No curve may stand as a result. {'; '.join(refused)}."
    levels = found.filter(scale="level")["level"].unique().to_list()
    if len(levels) < 2:
        return f"Every judged pair has the same difficulty ({levels[0]}), so that there is no curve over it."
    settings = [name for name in look.settings if name in set(found["setting"].to_list())]
    panels = [_panel(found.filter(scale=scale), settings, look, name) for scale, name in _PANELS.items()]
    points = (
        "Joined from three points on. Lines up and down: 95 % intervals over tasks. Below: pairs at each difficulty."
    )
    below = (f"{how} Strict verdict.", points, *not_drawn(refused))
    return alt.hconcat(*panels, spacing=34, title=look.title(title, *below))


def _panel(found: pl.DataFrame, settings: list[str], look: MarkStyle, name: str) -> Chart:
    rows: list[Row] = []
    for place, setting in enumerate(settings):
        points = found.filter(setting=setting).sort("x")
        shift = 0.012 * (place - (len(settings) - 1) / 2)
        rows += [
            {
                **{key: row[key] for key in ("setting", "rate", "low", "high", "pairs", "n")},
                "at": min(1.03, max(-0.03, row["x"] + shift)), "joined": points.height >= FEWEST_POINTS,
            }
            for row in points.iter_rows(named=True)
        ]  # fmt: skip
    return alt.vconcat(_curves(rows, settings, look, name), _counts(found, settings, look), spacing=4)


def _x(title: str | None) -> alt.X:
    shown = title is not None
    axis = alt.Axis(values=[n / 10 for n in range(0, 11, 2)], format=".1f", labels=shown, ticks=shown, domain=shown)
    return alt.X("at:Q", scale=alt.Scale(domain=[-0.04, 1.04], nice=False), axis=axis, title=title)


def _curves(rows: list[Row], settings: list[str], look: MarkStyle, name: str) -> Chart:
    base = Unit(data(rows)).encode(
        x=_x("difficulty: share of solo seeds that fail"),
        color=alt.Color("setting:N", scale=look.scale_of_colours(settings), title="setting"),
    )
    y = alt.Y("rate:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"), title="pairs × seeds that pass")
    lines = [
        base.transform_filter(alt.FieldEqualPredicate(field="setting", equal=setting))
        .transform_filter("datum.joined")
        .mark_line(strokeWidth=2, strokeDash=look.dash(setting))
        .encode(y=y)
        for setting in settings
    ]
    interval = base.mark_rule(strokeWidth=1.2, opacity=0.8).encode(y=alt.Y("low:Q"), y2=alt.Y2("high:Q"))
    point = base.mark_point(filled=True, size=80, opacity=1).encode(
        y=y, shape=alt.Shape("setting:N", scale=look.scale_of_shapes(settings), title="setting")
    )
    return alt.layer(interval, *lines, point).properties(
        width=_PANEL_WIDTH, height=240, title=alt.TitleParams(name, fontSize=13)
    )


def _counts(found: pl.DataFrame, settings: list[str], look: MarkStyle) -> Chart:
    """Pairs at every difficulty, as numbers under the curves."""
    rows = [
        {"setting": row["setting"], "at": row["x"], "note": f"{row['pairs']:,}"} for row in found.iter_rows(named=True)
    ]
    y = alt.Y("setting:N", sort=settings, title=None, axis=alt.Axis(ticks=False, domain=False, labelFontSize=11))
    colour = alt.Color("setting:N", scale=look.scale_of_colours(settings))
    text = Unit(data(rows)).mark_text(fontSize=11).encode(x=_x(None), y=y, text=alt.Text("note:N"), color=colour)
    frame = alt.ViewBackground(stroke=GREY, strokeOpacity=0.2)
    drawn: Chart = text.properties(width=_PANEL_WIDTH, height=16 * len(settings), view=frame)
    return drawn
