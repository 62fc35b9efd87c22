"""What must hold of an experiment's gold baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from cooperbench_assets.checks.finding import Check, Finding, found
from cooperbench_assets.wording import count, counted, plural

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOWN = 100
"""Pairs that a finding lists as a table."""


@dataclass(frozen=True, slots=True)
class GoldView:
    """What the checks of the gold baseline look at."""

    experiment: str
    rows: pl.DataFrame
    """The experiment's rows of the table ``gold_baseline``."""


def _described(frame: pl.DataFrame) -> Iterator[str]:
    for row in frame.iter_rows(named=True):
        both = ", then ".join(
            f"{outcome}{f' ({reason})' if reason else ''}"
            for outcome, reason in (
                (row["first"], row["first_reason"]),
                (row["second"], row["second_reason"]),
            )
            if outcome is not None
        )
        yield f"{row['pair']} {row['mode']}: {both}"


def gold_passes(view: GoldView) -> Finding:
    """Every pair's own solution passes, but for what conflicts on purpose and what a person has accepted."""
    bad = view.rows.filter(~pl.col("sound").fill_null(True), ~pl.col("accepted"))
    conflicting = view.rows.filter("conflicts").height
    finding = found(
        _described(bad),
        good=f"every solution passes; {counted(conflicting, 'pair', 'conflicts', 'conflict')} when merged",
        bad=lambda n: (
            f"{count(n, 'solution')} of the dataset failed or flaked: what agents do there says nothing of them"
        ),
        remedy="see whether this machine or the benchmark is at fault; name the pairs in gold_accepted: to buy agents "
        "for them all the same, or leave them out of the subset",
        numbers={
            "sound": view.rows.filter(pl.col("sound").fill_null(False)).height,
            "conflicting": conflicting,
            "flaky": view.rows.filter(pl.col("flaky").fill_null(False)).height,
        },
    )
    rows = tuple(bad.select("pair", "mode", "first", "first_reason", "second", "second_reason").head(SHOWN).to_dicts())
    return finding if not rows else _with_rows(finding, rows)


def _with_rows(finding: Finding, rows: tuple[dict[str, str | None], ...]) -> Finding:
    return Finding(
        finding.passed,
        finding.description,
        finding.affected,
        finding.sample,
        finding.remedy,
        finding.numbers,
        rows,
    )


def all_judged(view: GoldView) -> Finding:
    """Every solution has two clean verdicts."""
    open_ = view.rows.filter(pl.col("sound").is_null())
    return found(
        _described(open_),
        good=f"{view.rows.height} solutions have two verdicts each",
        bad=lambda n: f"{n} of {view.rows.height} solutions {plural(n, 'has', 'have')} no two clean verdicts",
        remedy=f"fix what made them fail, then: cooperbench-assets materialize {view.experiment} --gold, which does "
        "what is missing; with --reset-retries where the tries of a first verdict are used up",
    )


GOLD_BASELINE_CHECKS: tuple[Check[GoldView], ...] = (
    Check("gold_passes", "The dataset's own solutions pass, but for conflicts on purpose", gold_passes, warns=True),
    Check("all_judged", "Every solution has two clean verdicts", all_judged),
)
