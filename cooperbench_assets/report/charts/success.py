"""Success by setting: rates over clean verdicts with intervals, seeds and bounds, by both verdicts.

What belongs here: ``setting_summary`` drawn, for one experiment or for several side by side. What does not: differences
between settings (``charts.contrasts``).
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from cooperbench_assets.report.charts.verdicts import marks
from cooperbench_assets.report.headline_filter import SUMMARY, with_standing
from cooperbench_assets.report.style import GREY, WIDTH, Chart, MarkStyle, Row, Unit, data, shortened
from cooperbench_assets.wording import count

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_CELL = "There is no planned cell with pairs, so that there is no rate to show."
_ROW_HEIGHT = 62
_HOW = (
    "Point: rate over clean verdicts. Line: 95 % interval over tasks. Ticks: single seeds.",
    "Grey bar: bounds, if every pair without a verdict had failed, and if every one had passed.",
)


def success_by_setting(results: Mapping[str, pl.DataFrame], look: MarkStyle) -> Chart | str:
    """Success of every setting of one experiment."""
    rows = setting_rows(results["setting_summary"])
    if not rows:
        return NO_CELL
    seeds = seed_rows(results["setting_summary"])
    order = [name for name in look.settings if name in {row["label"] for row in rows}]
    return _chart(rows, seeds, order, look.title("Success by setting: both features pass", *_HOW))


def success_by_experiment(summary: pl.DataFrame, look: MarkStyle) -> Chart | str:
    """Success of every setting of several experiments, in one scale."""
    rows = setting_rows(summary, named=True)
    if not rows:
        return NO_CELL
    order = list(dict.fromkeys(str(row["label"]) for row in rows))
    title = look.title("Success by setting and experiment: both features pass", *_HOW)
    return _chart(rows, seed_rows(summary, named=True), order, title)


def _label(row: Mapping[str, Any], *, named: bool) -> str:
    return f"{row['setting']} · {row['experiment']}" if named else str(row["setting"])


def setting_rows(summary: pl.DataFrame, *, named: bool = False) -> list[Row]:
    """One row for every setting and verdict with pairs: rates (None where they may not stand alone) and a note."""
    found = with_standing(summary, SUMMARY).filter((pl.col("level") == "setting") & (pl.col("planned") > 0))
    if named:
        # Settings in the order in which the experiments have them, and then the experiments as they were named.
        order = {name: at for at, name in enumerate(found["setting"].unique(maintain_order=True))}
        found = found.sort(pl.col("setting").replace_strict(order, return_dtype=pl.Int64), maintain_order=True)
    return [_setting_row(row, named=named) for row in found.iter_rows(named=True)]


def _setting_row(row: Mapping[str, Any], *, named: bool) -> Row:
    shown = bool(row["shown"])
    kept: Row = {name: row[name] for name in ("verdict", "bound_low", "bound_high")}
    for name, source in (("rate", "rate_clean"), ("low", "clean_low"), ("high", "clean_high")):
        kept[name] = row[source] if shown else None
    judged = f"{row['clean']:,} of {count(row['planned'], 'pair')} judged, {count(row['cells'], 'seed')}"
    why = row["interval_note"] if shown else f"no headline: {row['why_not']}"
    return {**kept, "label": _label(row, named=named), "note": judged, "why": _wrapped(why)}


def _wrapped(text: str | None) -> str:
    """A reason in two lines beside its row."""
    return "\n".join(textwrap.wrap(shortened(text or "", 110), 56)[:2])


def seed_rows(summary: pl.DataFrame, *, named: bool = False) -> list[Row]:
    """One row for every planned cell that has a rate, of settings with more than one seed that may have a headline."""
    rows = with_standing(summary, SUMMARY).filter(pl.col("shown") & pl.col("rate_clean").is_not_null())
    settings = rows.filter(level="setting")
    cells = rows.filter(level="cell").join(settings, on=["experiment", "setting", "verdict"], how="semi")
    cells = cells.filter(pl.len().over("experiment", "setting", "verdict") > 1)
    return [
        {"label": _label(row, named=named), "verdict": row["verdict"], "rate": row["rate_clean"]}
        for row in cells.iter_rows(named=True)
    ]


def _chart(rows: list[Row], seeds: list[Row], order: list[str], title: alt.TitleParams) -> Chart:
    share = alt.Axis(format="%", values=[n / 10 for n in range(0, 11, 2)])
    x = alt.X("rate:Q", scale=alt.Scale(domain=[0, 1]), axis=share, title="pairs in which both features pass")
    drawn = marks(rows, order, x, ("bound_low", "bound_high"))
    ticks = (
        Unit(data(seeds))
        .mark_tick(thickness=2, size=16, opacity=0.75)
        .encode(x=alt.X("rate:Q"), y=drawn.y, yOffset=drawn.offset, color=drawn.colour)
    )
    once = [row for row in rows if row["verdict"] == "strict"]
    beside = Unit(data(once)).encode(y=drawn.y, x=alt.value(WIDTH + 10))
    note = beside.mark_text(align="left", fontSize=12, dy=-8).encode(text=alt.Text("note:N"))
    why = beside.mark_text(align="left", fontSize=11, dy=8, color=GREY, lineBreak="\n").encode(text=alt.Text("why:N"))
    return alt.layer(drawn.bar, drawn.line, ticks, drawn.point, note, why).properties(
        width=WIDTH, height=_ROW_HEIGHT * len(order), title=title
    )
