"""What a reader sees first: one row for every setting with both verdicts' rates and bounds, or why there is none.

What belongs here: the headline table and the sentences under it. What does not: any other table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from cooperbench_assets.report.headline_filter import SUMMARY, with_standing
from cooperbench_assets.report.style import percent
from cooperbench_assets.wording import count

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class HeadlineRow:
    """One setting."""

    experiment: str
    setting: str
    seeds: int
    """Those with a clean verdict."""

    cells: int
    """Seeds that are planned."""

    planned: int
    judged: int
    infra_error: int
    rates: Mapping[str, str]
    """By verdict: success over clean verdicts with its interval."""

    over_planned: Mapping[str, str]
    """By verdict: success over all planned pairs."""

    bounds: Mapping[str, str]
    """By verdict: from every non-verdict as fail to every one as pass."""

    refused: str | None
    """Why its rates may not stand as a result; they are then not shown here."""


def headline_rows(summary: pl.DataFrame) -> list[HeadlineRow]:
    """The settings of ``setting_summary``, in its order."""
    found = with_standing(summary, SUMMARY).filter((pl.col("level") == "setting") & (pl.col("planned") > 0))
    by_setting: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in found.iter_rows(named=True):
        by_setting.setdefault((row["experiment"], row["setting"]), {})[row["verdict"]] = row
    return [_headline_row(rows) for rows in by_setting.values()]


def _headline_row(rows: Mapping[str, Mapping[str, Any]]) -> HeadlineRow:
    strict = rows["strict"]
    return HeadlineRow(
        strict["experiment"],
        strict["setting"],
        strict["seeds"],
        strict["cells"],
        strict["planned"],
        strict["clean"],
        strict["infra_error"],
        {verdict: _rate(row) for verdict, row in rows.items()},
        {verdict: percent(row["rate_planned"]) if row["shown"] else "" for verdict, row in rows.items()},
        {verdict: f"{percent(row['bound_low'])} to {percent(row['bound_high'])}" for verdict, row in rows.items()},
        None if strict["shown"] else strict["why_not"],
    )


def _rate(row: Mapping[str, Any]) -> str:
    if not row["shown"]:
        return ""
    interval = "" if row["clean_low"] is None else f" [{percent(row['clean_low'])}, {percent(row['clean_high'])}]"
    return percent(row["rate_clean"]) + interval


def _contrast(row: Mapping[str, Any], name: str) -> str:
    p = "" if row["p_holm"] is None else f"; p\u00a0=\u00a0{row['p_holm']:.2g} (sign-flip over tasks, Holm)"
    if row["headline"] or row["refused"] or row["difference"] is None:
        return f"{row['statement']}{p if row['headline'] else ''}."
    return f"{name}: no headline: {row['why_not']}."


def statements_across(comparisons: pl.DataFrame) -> Iterator[str]:
    """The contrasts of experiments that may stand as results, the refusals, and what else may explain them."""
    for row in comparisons.filter(verdict="strict", population="clean").iter_rows(named=True):
        caution = f" Careful: {row['caution']}." if row["caution"] and row["headline"] else ""
        yield _contrast(row, f"{row['setting']}: {row['experiment_a']} − {row['experiment_b']}") + caution


def statements(results: Mapping[str, pl.DataFrame]) -> Iterator[str]:
    """The contrasts and retentions of one experiment that may stand as results, and the refusals, in words."""
    for row in results["paired_comparisons"].filter(verdict="strict", population="clean").iter_rows(named=True):
        yield _contrast(row, f"{row['setting_a']} − {row['setting_b']}")
    for row in results["retention"].filter(verdict="strict", population="clean").iter_rows(named=True):
        if row["headline"]:
            interval = "" if row["low"] is None else f" (95 % {percent(row['low'])} to {percent(row['high'])})"
            yield (
                f"{row['setting']} retains {percent(row['retention'])}{interval} of {row['reference']}'s success, "
                f"over {count(row['pairs'], 'common pair')} of {count(row['tasks'], 'task')}."
            )
        elif row["note"]:
            yield f"Retention of {row['setting']}: {row['note']}."
