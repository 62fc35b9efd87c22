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
    if row["headline"] or row["refused"] or row["difference"] is None:
        return f"{row['statement']}."
    return f"{name}: no headline: {row['why_not']}."


def statements_across(comparisons: pl.DataFrame) -> Iterator[str]:
    """The contrasts of experiments that may stand as results, the refusals, and what else may explain them."""
    for row in comparisons.filter(verdict="strict", population="clean").iter_rows(named=True):
        caution = f" Careful: {row['caution']}." if row["caution"] and row["headline"] else ""
        yield _contrast(row, f"{row['setting']}: {row['experiment_a']} − {row['experiment_b']}") + caution


def changing(results: Mapping[str, pl.DataFrame]) -> str | None:
    """What changes the conclusion of a planned contrast, in a sentence; None where nothing does."""
    found = results["conclusions"].filter((pl.col("family") == "planned") & pl.col("flips").fill_null(False))
    if found.is_empty():
        return None
    return "What changes the conclusion: " + "; ".join(_changes(results["conclusions"], found)) + "."


def _changes(conclusions: pl.DataFrame, flips: pl.DataFrame) -> Iterator[str]:
    """For each contrast, what is concluded first, and what else by which way of counting."""
    key = ["setting_a", "setting_b", "endpoint"]
    for names, own in flips.group_by(key, maintain_order=True):
        first = conclusions.filter(pl.col(name) == value for name, value in zip(key, names, strict=True))["conclusion"]
        ways = dict.fromkeys((_way(row), row["conclusion"]) for row in own.iter_rows(named=True))
        others = ", ".join(f"{said} {way}" for way, said in ways)
        yield f"{names[0]} − {names[1]} on {names[2]} is “{first[0]}”, but {others}"


def _way(row: Mapping[str, Any]) -> str:
    parts = (
        "by upstream's verdict" if row["verdict"] == "upstream" else "",
        "with dead pairs left in" if row["dead_pairs"] == "in" else "",
        "without pairs that gold shows broken" if row["which_pairs"] != "all" else "",
    )
    return " and ".join(part for part in parts if part)


def _named(row: Mapping[str, Any]) -> str:
    return f"{row['setting_a']} − {row['setting_b']}"


def statements(results: Mapping[str, pl.DataFrame]) -> Iterator[str]:
    """The contrasts and retentions of one experiment that may stand as results, and the refusals, in words."""
    endpoint = next(iter(results["analysis_plan"]["endpoint"]), "success")
    yield from results["analysis_plan"]["statement"]
    found = results["paired_comparisons"].filter(verdict="strict", population="clean", family="planned")
    for row in found.filter(endpoint=endpoint).iter_rows(named=True):
        yield f"{endpoint.capitalize()}: {_contrast(row, _named(row))}"
    merges = found.filter((pl.col("endpoint") == "merging") & (endpoint != "merging") & (pl.col("pairs") > 0))
    for row in merges.filter(pl.col("refused").is_null()).iter_rows(named=True):
        yield f"Merging, not the primary endpoint: {row['statement']}."
    for row in results["retention"].filter(verdict="strict", population="clean").iter_rows(named=True):
        if row["headline"]:
            interval = "" if row["low"] is None else f" (95 % {percent(row['low'])} to {percent(row['high'])})"
            yield (
                f"{row['setting']} retains {percent(row['retention'])}{interval} of {row['reference']}'s success, "
                f"over {count(row['pairs'], 'common pair')} of {count(row['tasks'], 'task')}."
            )
        elif row["note"]:
            yield f"Retention of {row['setting']}: {row['note']}."
