"""Differences of settings, or of experiments, over common pairs, with intervals and what non-verdicts allow.

What belongs here: ``paired_comparisons`` and ``experiment_comparisons`` drawn. What does not: rates by themselves
(``charts.success``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from cooperbench_assets.report.charts.verdicts import marks
from cooperbench_assets.report.headline_filter import ACROSS, CONTRAST, with_standing
from cooperbench_assets.report.style import GREY, WIDTH, Chart, MarkStyle, Row, Unit, data, shortened
from cooperbench_assets.wording import count

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NO_COMMON_SETTING = "No two of these experiments have a setting in common, so that nothing is compared."
ONE_SETTING = "There are not two settings with seeds, so that nothing is compared."


_HOW = (
    "Point: mean over common pairs of (mean over seeds of the first − of the second), percentage points.",
    "Line: 95 % interval on other tasks like these. Grey bar: where it may lie, whatever non-verdicts were.",
)


def paired_comparisons(results: Mapping[str, pl.DataFrame], look: MarkStyle) -> Chart | str:
    """Every contrast of settings over clean pairs, by both verdicts."""
    found = results["paired_comparisons"].filter(population="clean", endpoint="success")
    if found.is_empty():
        return ONE_SETTING
    rows = with_standing(found, CONTRAST).with_columns(label=pl.format("{} − {}", "setting_a", "setting_b"))
    return _drawn(rows, look, "Differences of settings over the pairs that both were judged on", "settings")


def experiment_comparisons(comparisons: pl.DataFrame, look: MarkStyle) -> Chart | str:
    """Every contrast of experiments in one setting over clean pairs, by both verdicts."""
    found = comparisons.filter(population="clean")
    if found.is_empty():
        return NO_COMMON_SETTING
    label = pl.format("{}: {} − {}", "setting", "experiment_a", "experiment_b")
    rows = with_standing(found, ACROSS).with_columns(label=label)
    return _drawn(rows, look, "Differences of experiments over the pairs that both were judged on", "experiments")


def _drawn(found: pl.DataFrame, look: MarkStyle, title: str, what: str) -> Chart | str:
    rows = [_row(row) for row in found.iter_rows(named=True)]
    if found["difference"].is_null().all():
        return f"No two {what} are compared. " + " ".join(f"{text}." for text in dict.fromkeys(found["statement"]))
    order = list(dict.fromkeys(row["label"] for row in rows))
    return _chart(rows, order).properties(width=WIDTH - 60, height=66 * len(order), title=look.title(title, *_HOW))


def _row(row: Mapping[str, Any]) -> Row:
    """One contrast by one verdict: without a headline only its extremes are drawn."""
    extremes = ("difference_lowest", "difference_highest")
    figures = ("difference", "low", "high", *extremes)
    drawn = figures if row["shown"] else extremes
    points = {name: 100 * row[name] if name in drawn and row[name] is not None else None for name in figures}
    note = shortened("; ".join(_notes(row)), 75)
    return {**points, "verdict": row["verdict"], "label": row["label"], "note": note}


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
    zero = Unit(data([{"zero": 0}])).mark_rule(strokeDash=[4, 3], color=GREY).encode(x=alt.X("zero:Q"))
    beside = Unit(data(rows)).encode(y=drawn.y, yOffset=drawn.offset, x=alt.value(WIDTH - 50), text=alt.Text("note:N"))
    note = beside.mark_text(align="left", fontSize=12)
    return alt.layer(drawn.bar, zero, drawn.line, drawn.point, note)
