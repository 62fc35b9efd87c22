"""How far the planned pairs came, and what became of every one of them.

What belongs here: ``outcome_funnel`` and ``funnel_losses`` drawn. What does not: rates (``charts.success``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt
import polars as pl

from cooperbench_assets.report.style import FATES, GREY, WIDTH, Chart, MarkStyle, Row, Unit, data, number_on_bar

if TYPE_CHECKING:
    from collections.abc import Mapping

NOTHING = "No pair is planned, so that there is nothing to follow."
STAGE_LABELS = {
    "planned": "planned",
    "result": "result readable",
    "submitted": "no agent ended in an error",
    "patches": "every patch holds something",
    "judged": "clean verdict",
    "applied": "every patch applied",
    "merged": "merged (or solo)",
    "passed": "both features pass",
}


def outcome_funnel(results: Mapping[str, pl.DataFrame], look: MarkStyle) -> Chart | str:
    """Stages of every setting, over its seeds, by the strict verdict."""
    found = results["outcome_funnel"].filter(
        pl.col("seed").is_null() & (pl.col("verdict") == "strict") & pl.col("detail").is_null()
    )
    if found.is_empty():
        return NOTHING
    planned = dict(found.filter(stage="planned").select("setting", "pairs").iter_rows())
    rows = [
        {
            "setting": f"{row['setting']}, n = {planned[row['setting']]:,}",
            "stage": STAGE_LABELS.get(row["stage"], row["stage"]),
            "share": row["share"],
            "note": f"{row['pairs']:,}" + (f"  (−{row['lost']:,})" if row["lost"] else ""),
        }
        for row in found.iter_rows(named=True)
    ]
    order = [f"{name}, n = {planned[name]:,}" for name in look.settings if name in planned]
    return _funnel(rows, order, look)


def _funnel(rows: list[Row], order: list[str], look: MarkStyle) -> Chart:
    settings = [name for name in look.settings if any(label.startswith(f"{name}, n = ") for label in order)]
    colours = alt.Scale(domain=order, range=[look.colours[name] for name in settings])
    y = alt.Y("stage:N", sort=list(STAGE_LABELS.values()), title=None, axis=alt.Axis(ticks=False, domain=False))
    share = alt.X(
        "share:Q", scale=alt.Scale(domain=[0, 1.3]), title="of planned pairs",
        axis=alt.Axis(format="%", values=[0, 0.5, 1]),
    )  # fmt: skip
    base = Unit().encode(y=y, x=share)
    bars = base.mark_bar(height=14, opacity=0.85).encode(color=alt.Color("setting:N", scale=colours, legend=None))
    labels = base.mark_text(align="left", dx=4, fontSize=11).encode(text=alt.Text("note:N"))
    columns = min(3, len(order))
    title = look.title(
        "How far the planned pairs came, by the strict verdict",
        "Pairs over all planned seeds that came to each stage; in brackets, those lost on the way to it.",
    )
    header = alt.Header(title=None)
    return (
        alt.layer(bars, labels, data=data(rows))
        .properties(width=(WIDTH + 100) // max(columns, 2), height=22 * len(STAGE_LABELS))
        .facet(facet=alt.Facet("setting:N", sort=order, header=header), columns=columns, title=title)
    )


def outcome_losses(results: Mapping[str, pl.DataFrame], look: MarkStyle) -> Chart | str:
    """Every planned pair once: passed, or what stopped it; by both verdicts."""
    rows = _fates(results, look)
    if not rows:
        return NOTHING
    order = list(dict.fromkeys(row["label"] for row in rows))
    present = [fate for fate in FATES.values() if any(row["kind"] == fate.key for row in rows)]
    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=[fate.key for fate in present], range=[fate.colour for fate in present]),
        legend=alt.Legend(title=None, orient="bottom", columns=5, symbolStrokeColor=GREY, symbolType="square"),
    )
    base = Unit(data(rows)).encode(y=alt.Y("label:N", sort=order, title=None, axis=alt.Axis(ticks=False)))
    x = alt.X("start:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"), title="of planned pairs")
    bars = base.mark_bar(stroke="#FFFFFF", strokeWidth=1).encode(x=x, x2=alt.X2("end:Q"), color=colour)
    frame = base.mark_bar(fill=None, stroke=GREY, strokeWidth=0.6).encode(x=alt.X("start:Q"), x2=alt.X2("end:Q"))
    text = base.mark_text(fontSize=11).encode(
        x=alt.X("middle:Q"), text=alt.Text("note:N"), color=alt.Color("ink:N", scale=None, legend=None)
    )
    title = look.title("What became of every planned pair", "Numbers: pairs, over all planned seeds.")
    return alt.layer(bars, frame, text).properties(width=WIDTH, height=30 * len(order), title=title)


def _fates(results: Mapping[str, pl.DataFrame], look: MarkStyle) -> list[Row]:
    funnel = results["outcome_funnel"].filter(pl.col("seed").is_null() & pl.col("detail").is_null())
    losses = results["funnel_losses"].filter(pl.col("seed").is_null())
    rows: list[Row] = []
    for setting in look.settings:
        for verdict in ("strict", "upstream"):
            of = {"setting": setting, "verdict": verdict}
            stages = dict(funnel.filter(**of).select("stage", "pairs").iter_rows())
            if not stages.get("planned"):
                continue
            lost = dict(losses.filter(**of).group_by("loss").agg(pl.col("pairs").sum()).iter_rows())
            counts = {"pass": stages["passed"], **{name: lost.pop(name, 0) for name in FATES if name != "pass"}}
            counts["other"] += sum(lost.values())
            rows += _stacked(f"{setting}, {verdict}, n = {stages['planned']:,}", counts, stages["planned"])
    return rows


def _stacked(label: str, counts: Mapping[str, int], planned: int) -> list[Row]:
    rows: list[Row] = []
    done = 0
    for name, n in counts.items():
        if n:
            fate, share = FATES[name], n / planned
            rows.append(
                {
                    "label": label, "kind": fate.key, "ink": fate.ink, "start": done / planned,
                    "end": (done + n) / planned, "middle": (done + n / 2) / planned,
                    "note": number_on_bar(fate, n, share),
                }
            )  # fmt: skip
        done += n
    return rows
