"""Findings as lines of text, and as rows of the store's check_results table.

What belongs here: what needs no Dagster. What does not: the same findings as Dagster's events
(``assets.check_events``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from cooperbench_assets.store.schema import CHECK_RESULTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import polars as pl

    from cooperbench_assets.checks.finding import Check, Finding

View = TypeVar("View")


def sample_lines(finding: Finding) -> list[str]:
    """The pairs that a finding names, a line each, and how many more there are."""
    rest = finding.affected - len(finding.sample)
    return [*(f"- {one_affected}" for one_affected in finding.sample), *([f"- … and {rest} more"] if rest > 0 else [])]


def check_rows(
    key: Mapping[str, object],
    findings: Sequence[tuple[Check[View], Finding]],
    now: datetime,
) -> pl.DataFrame:
    """Findings as rows of the store's check_results table.

    Args:
        key: Values of experiment, setting, seed (None where the check has no cells) and asset.
        findings: The checks of one asset in one cell, with what they found.
        now: The time of evaluation, UTC without a zone.
    """
    return CHECK_RESULTS.frame(
        [
            {
                **key,
                "check_name": check.name,
                "passed": finding.passed,
                "blocking": check.blocking,
                "offenders": finding.affected,
                "description": finding.description,
                "sample": list(finding.sample),
                "remedy": finding.remedy or None,
                "checked_at": now,
            }
            for check, finding in findings
        ]
    )
