"""Two tables for a paper, of eight columns each: the settings, and the planned contrasts.

What belongs here: which figures they have, and how an estimate and its interval share a column. What does not: every
other table (``tables``), and macros (``numbers``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from cooperbench_assets.analysis.formatting import MINUS
from cooperbench_assets.report.headline_filter import SUMMARY, with_standing
from cooperbench_assets.report.style import UNKNOWN
from cooperbench_assets.report.tables import plain_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cooperbench_assets.report.tables import Shown

SETTINGS = {
    "setting": "Setting",
    "seeds": "Seeds with a clean verdict",
    "judged": "Pairs with a clean verdict, of those planned, over seeds",
    "success, %": "Success by the strict verdict over clean verdicts, 95 % interval by task",
    "bounds, %": "From every pair without a verdict as fail to every one as pass",
    "conflicts, %": "Plain merges that conflict, 95 % interval by task",
    "messages a pair": "Messages of a clean pair",
    "USD a pass": "All that was spent over strict passes, 95 % interval by task",
}
CONTRASTS = {
    "endpoint": "What is compared",
    "contrast": "First setting less second",
    "pairs": "Pairs judged in both",
    "tasks": "Their tasks",
    "difference, points": "Difference of the rates, 95 % interval, other tasks like these",
    "p": "Other tasks like these, adjusted by Holm over the planned contrasts",
    "p, these tasks": "These tasks alone, adjusted alike",
    "conclusion": "What the planned contrast comes to",
}


def paper_tables(results: Mapping[str, pl.DataFrame]) -> dict[str, Shown]:
    """Both tables of one experiment, by the name of their files."""
    made = {
        "paper_settings": (_settings(results), "Settings, by the strict verdict.", SETTINGS),
        "paper_contrasts": (_contrasts(results), "Planned contrasts, strict verdict, clean pairs.", CONTRASTS),
    }
    return {name: plain_rows(rows, name, text, heads) for name, (rows, text, heads) in made.items()}


def _settings(results: Mapping[str, pl.DataFrame]) -> Iterator[dict[str, Any]]:
    summary = with_standing(results["setting_summary"].filter(level="setting"), SUMMARY).filter(verdict="strict")
    merges = results["merge_conflicts"].filter(pl.col("seed").is_null(), population="clean", condition="all")
    talk = results["communication"].filter(pl.col("seed").is_null() & (pl.col("messages") > 0))
    conflicts, messages, costs = (
        {row["setting"]: row for row in rows.iter_rows(named=True)}
        for rows in (merges.filter("headline"), talk.filter("headline"), results["cost_report"].filter(level="setting"))
    )
    for row in summary.iter_rows(named=True):
        name, cost = row["setting"], costs.get(row["setting"], {})
        rate = (row["rate_clean"], row["clean_low"], row["clean_high"]) if row["shown"] else (None,) * 3
        merged = conflicts.get(name, {})
        per_pass = (cost.get(f"usd_per_pass_strict{end}") for end in ("", "_low", "_high"))
        yield dict(
            zip(
                SETTINGS,
                (
                    name, row["seeds"], f"{row['clean']:,} of {row['planned']:,}", _with_ends(rate, scale=100),
                    f"{100 * row['bound_low']:.1f} to {100 * row['bound_high']:.1f}",
                    _with_ends((merged.get(key) for key in ("rate", "low", "high")), scale=100),
                    messages.get(name, {}).get("messages_per_pair"), _with_ends(per_pass, digits=2),
                ),
                strict=True,
            )
        )  # fmt: skip


def _contrasts(results: Mapping[str, pl.DataFrame]) -> Iterator[dict[str, Any]]:
    key = ["setting_a", "setting_b", "endpoint"]
    first = results["conclusions"].filter(verdict="strict", dead_pairs="out", which_pairs="all")
    found = results["paired_comparisons"].filter(verdict="strict", population="clean", family="planned")
    for row in found.join(first.select(*key, "conclusion"), on=key).iter_rows(named=True):
        difference = _with_ends((row["difference"], row["low"], row["high"]), scale=100)
        yield dict(
            zip(
                CONTRASTS,
                (
                    row["endpoint"], f"{row['setting_a']} {MINUS} {row['setting_b']}", row["pairs"], row["tasks"],
                    difference, _p(row["p_holm"]), _p(row["p_these_holm"]),
                    "not compared" if row["refused"] else row["conclusion"],
                ),
                strict=True,
            )
        )  # fmt: skip


def _with_ends(figures: Iterable[float | None], scale: int = 1, digits: int = 1) -> str:
    """An estimate with the ends of its interval in brackets, as far as they are known."""
    said, low, high = (UNKNOWN if one is None else f"{scale * one:.{digits}f}" for one in figures)
    return (said if low == UNKNOWN else f"{said} [{low}, {high}]").replace("-", MINUS)


def _p(value: float | None) -> str:
    return UNKNOWN if value is None else "< 0.0001" if value < 1e-4 else f"{value:.2g}"
