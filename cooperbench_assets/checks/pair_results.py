"""What must hold of one cell's table of pairs: exactly the planned number of results."""

from __future__ import annotations

from collections import Counter

import polars as pl

from cooperbench_assets.checks.finding import SAMPLE, CellView, Check, Finding, found
from cooperbench_assets.wording import count

ROWS = 50
"""Pairs not tried any more that the table shows; the rest are counted."""

EVIDENCE = 300
"""Characters of their evidence."""


def expected_rows(view: CellView) -> Finding:
    """Exactly as many rows with a readable result as the subset has pairs (100 for lite)."""
    expected = len(view.subset.pairs)
    readable = int(view.pairs["has_result"].sum())
    unasked = len(view.unasked)
    asked = f"{expected} rows" if not unasked else f"{expected - unasked} rows that were asked for"
    later = f"; the other {unasked} planned pairs were not yet" if unasked else ""
    return Finding(
        passed=readable == expected == view.pairs.height,
        description=f"{readable} of {asked} have a readable result{later}",
        affected=abs(expected - readable),
        sample=tuple(view.pairs.filter(~view.pairs["has_result"])["pair"].head(10)),
        remedy="" if readable == expected else view.again,
        numbers={"rows": view.pairs.height, "readable": readable, "expected": expected},
    )


def distinct_pairs(view: CellView) -> Finding:
    """Each pair has one row, and it is a planned one."""
    planned = {pair.name for pair in view.subset.pairs}
    times = Counter(view.pairs["pair"])
    wrong = [name for name, count in times.items() if count > 1 or name not in planned]
    return found(
        wrong,
        good=f"{view.pairs.height} distinct planned pairs",
        bad=lambda n: f"{count(n, 'row')} of a pair that has one already or that nobody planned",
        remedy="this is a defect of cooperbench-assets: please report it with the run folder's listing",
    )


def retries_exhausted(view: CellView) -> Finding:
    """No pair used up its tries or waits for a person: nothing retries those by itself."""
    if not view.executes:
        return Finding(passed=True, description="this experiment only reads logs: nothing is retried here")
    if view.left_behind is None:
        return Finding(
            passed=False,
            description="what is still to run cannot be told, because the cell cannot be planned",
            remedy=f"{view.again} --dry-run",
        )
    rows = tuple(_left(view, name, why) for name, why in sorted(view.left_behind.items()))
    if not rows:
        return Finding(passed=True, description="no pair used up its tries or waits for a person")
    usd = sum(float(row["cost_usd"] or 0) for row in rows)
    return Finding(
        passed=False,
        description=f"no retry comes by itself for {count(len(rows), 'pair')}: tries used up, or waiting for a person",
        affected=len(rows),
        sample=tuple(f"{row['pair']} ({row['family']}): {row['why']}" for row in rows[:SAMPLE]),
        remedy=f"once the cause is gone: {view.again} --reset-retries\n"
        "or accept them as they are, below attributes in defs.yaml:\naccepted:\n"
        + "\n".join(f"  {row['accept']}" for row in rows[:SAMPLE]),
        numbers={"left_behind": len(rows), "cost_usd": usd},
        rows=rows[:ROWS],
    )


def _left(view: CellView, name: str, why: str) -> dict[str, str | float | None]:
    """A pair that is not tried any more: what ended it, what it cost, and the line that accepts it."""
    row = view.pairs.row(by_predicate=pl.col("pair") == name, named=True)
    tries = view.frames["attempts"].filter(pl.col("pair") == name, pl.col("stage") == "agent")
    family = row["family"] or "not tried"
    cell = view.spec.cell
    evidence = " ".join((row["evidence"] or "").split())
    return {
        "pair": name,
        "why": why,
        "family": family,
        "evidence": evidence[:EVIDENCE],
        "cost_usd": round(float(tries["cost_usd"].sum() or 0.0), 4) if tries.height else row["cost_usd"],
        "path": row["path"],
        "accept": f"- {{pair: {name}, setting: {cell.setting}, seed: {cell.seed}, reason: {family}}}",
    }


PAIR_RESULTS_CHECKS: tuple[Check[CellView], ...] = (
    Check("expected_rows", "Exactly as many rows with a readable result as planned", expected_rows),
    Check("distinct_pairs", "Distinct planned pairs", distinct_pairs, blocking=True),
    Check("retries_exhausted", "No pair used up its tries or waits for a person", retries_exhausted),
)
