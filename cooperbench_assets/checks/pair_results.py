"""What must hold of one cell's table of pairs: exactly the planned number of results."""

from __future__ import annotations

from collections import Counter

from cooperbench_assets.checks.finding import CellView, Check, Finding, found


def expected_rows(view: CellView) -> Finding:
    """Exactly as many rows with a readable result as the subset has pairs (100 for lite)."""
    expected = len(view.subset.pairs)
    readable = int(view.pairs["has_result"].sum())
    return Finding(
        passed=readable == expected == view.pairs.height,
        description=f"{readable} of {expected} rows have a readable result",
        offenders=abs(expected - readable),
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
        bad="{n} rows are of a pair that has one already or that nobody planned",
        remedy="this is a defect of cooperbench-assets: please report it with the run folder's listing",
    )


PAIR_RESULTS_CHECKS: tuple[Check[CellView], ...] = (
    Check("expected_rows", "Exactly as many rows with a readable result as planned", expected_rows),
    Check("distinct_pairs", "Distinct planned pairs", distinct_pairs, blocking=True),
)
