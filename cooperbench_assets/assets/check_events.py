"""Checks and their findings as Dagster has them: specs, results that an asset yields, evaluations that it logs.

What belongs here: the translation. What does not: what is checked (``checks``), and findings as rows or lines
(``checks.reporting``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg

# Not among Dagster's public names, and the only way to say what a result that is logged is about.
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from cooperbench_assets.checks.reporting import sample_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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


def check_evaluation(
    asset: dg.AssetKey,
    check: Check[View],
    finding: Finding,
    partition: str,
    about: dg.EventLogRecord | None,
    page: str | None = None,
) -> dg.AssetCheckEvaluation:
    """A finding about one partition, as Dagster logs it.

    Args:
        asset: The asset.
        check: Its check.
        finding: What was found.
        partition: The partition.
        about: The materialisation that was looked at; the pages of partitions show no result of an earlier one.
        page: Address of the viewer's page of the affected pairs.
    """
    target = None
    if about is not None:
        target = AssetCheckEvaluationTargetMaterializationData(
            storage_id=about.storage_id, run_id=about.run_id, timestamp=about.timestamp
        )
    return dg.AssetCheckEvaluation(
        asset_key=asset,
        check_name=check.name,
        passed=finding.passed,
        severity=_severity(check),
        description=finding.description,
        metadata=_metadata(finding, page),
        blocking=check.blocking,
        partition=partition,
        target_materialization_data=target,
    )


def _severity(check: Check[View]) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.WARN if check.warns else dg.AssetCheckSeverity.ERROR


def check_results(
    asset: dg.AssetKey,
    findings: Sequence[tuple[Check[View], Finding]],
    page: Callable[[Finding], str | None] = lambda _: None,
) -> list[dg.AssetCheckResult]:
    """Findings as Dagster check results, with counts, the sample and the remedy as metadata.

    Args:
        asset: The asset.
        findings: Its checks with what they found.
        page: Address of the viewer's page of the affected pairs.
    """
    return [
        dg.AssetCheckResult(
            asset_key=asset,
            check_name=check.name,
            passed=finding.passed,
            severity=_severity(check),
            description=finding.description,
            metadata=_metadata(finding, page(finding)),
        )
        for check, finding in findings
    ]


def _metadata(finding: Finding, page: str | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"affected": finding.affected}
    if page is not None:
        metadata["open_affected_pairs"] = dg.MetadataValue.url(page)
    metadata |= {name: value for name, value in finding.numbers.items() if value is not None}
    if finding.sample:
        metadata["sample"] = "\n".join(sample_lines(finding))  # The UI shows Markdown only after a further click.
    if finding.rows:
        metadata["pairs"] = _table(finding.rows)
    if finding.remedy:
        metadata["remedy"] = finding.remedy
    return metadata


def _table(rows: Sequence[Mapping[str, str | float | None]]) -> dg.TableMetadataValue:
    columns = [dg.TableColumn(name) for name in rows[0]]
    records = [dg.TableRecord(dict(row)) for row in rows]
    return dg.MetadataValue.table(records=records, schema=dg.TableSchema(columns))
