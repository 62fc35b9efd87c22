"""Findings as Dagster reports them, and as rows of the store's check_results table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg

from cooperbench_assets.store.schema import CHECK_RESULTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import polars as pl

    from cooperbench_assets.checks.finding import Check, Finding

View = TypeVar("View")


def check_specs(
    asset: dg.AssetKey, checks: Sequence[Check[View]], partitions: dg.PartitionsDefinition[str] | None = None
) -> list[dg.AssetCheckSpec]:
    """The specs of checks that an asset evaluates itself, partitioned like it."""
    return [
        dg.AssetCheckSpec(
            check.name,
            asset=asset,
            description=check.description,
            blocking=check.blocking,
            partitions_def=partitions,
        )
        for check in checks
    ]


def check_results(asset: dg.AssetKey, findings: Sequence[tuple[Check[View], Finding]]) -> list[dg.AssetCheckResult]:
    """Findings as Dagster check results, with counts, the sample and the remedy as metadata."""
    return [
        dg.AssetCheckResult(
            asset_key=asset,
            check_name=check.name,
            passed=finding.passed,
            severity=dg.AssetCheckSeverity.WARN if check.warns else dg.AssetCheckSeverity.ERROR,
            description=finding.description,
            metadata=_metadata(finding),
        )
        for check, finding in findings
    ]


def _metadata(finding: Finding) -> dict[str, Any]:
    metadata: dict[str, Any] = {"offenders": finding.offenders}
    metadata |= {name: value for name, value in finding.numbers.items() if value is not None}
    if finding.sample:
        rest = finding.offenders - len(finding.sample)
        lines = [f"- `{offender}`" for offender in finding.sample]
        metadata["sample"] = dg.MetadataValue.md("\n".join([*lines, *([f"- … and {rest} more"] if rest > 0 else [])]))
    if finding.rows:
        metadata["pairs"] = _table(finding.rows)
    if finding.remedy:
        metadata["remedy"] = finding.remedy
    return metadata


def _table(rows: Sequence[Mapping[str, str | float | None]]) -> dg.TableMetadataValue:
    columns = [dg.TableColumn(name) for name in rows[0]]
    records = [dg.TableRecord(dict(row)) for row in rows]
    return dg.MetadataValue.table(records=records, schema=dg.TableSchema(columns))


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
                "offenders": finding.offenders,
                "description": finding.description,
                "sample": list(finding.sample),
                "remedy": finding.remedy or None,
                "checked_at": now,
            }
            for check, finding in findings
        ]
    )
