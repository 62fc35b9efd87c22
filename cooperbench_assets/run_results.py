"""What a run in this process came to, as the command line says it.

What belongs here: from Dagster's result, or from what was read of a cell, to plain values. What does not: running
(``local_runs``), and printing (``commands``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import dagster as dg

from cooperbench_assets.automation.dagster_runs import error_text
from cooperbench_assets.checks.reporting import sample_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cooperbench_assets.experiment_context import CellReport
    from cooperbench_assets.spec import CellSpec

SAMPLE_SHOWN: Final = 3
"""Affected pairs that a failed check names on the command line; the UI and the store have more."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How one run ended."""

    run_id: str
    materialized: tuple[str, ...]
    error: str | None
    """What a person must fix; None if the run succeeded."""

    failed_checks: tuple[tuple[str, str], ...] = field(default=())
    """Asset and check, with what was found."""

    metadata: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """What each asset said of itself, plain values only."""


@dataclass(frozen=True, slots=True)
class CellRan:
    """How one run of one cell ended."""

    cell: CellSpec
    ran: Ran
    round: int
    """Which run of this cell it was, from 1."""

    pause_seconds: float | None
    """After which a further round follows; None if none does."""

    @property
    def again(self) -> bool:
        """There was an infrastructure error, a retry can help, and one follows."""
        return self.pause_seconds is not None


def is_interrupt(event: dg.DagsterEvent) -> bool:
    """Whether SIGINT in the main thread ended a step: Dagster tells of it as of a failure."""
    error = event.step_failure_data.error if event.is_step_failure else None
    return error is not None and error.cls_name in (dg.DagsterExecutionInterruptedError.__name__, "KeyboardInterrupt")


def of_report(said: CellReport) -> Ran:
    """What a cell that was read together with others came to: such a run has no result of its own."""
    failed = tuple(
        (name, _text(finding.description, sample_lines(finding), finding.remedy))
        for name, finding in said.failed_checks
    )
    return Ran("", tuple(said.metadata), said.problem, failed, said.metadata)


def summarise(result: dg.ExecuteInProcessResult) -> Ran:
    """What a run came to."""
    events = result.get_asset_materialization_events()
    materializations = [event.step_materialization_data.materialization for event in events]
    evaluations = result.get_asset_check_evaluations()
    return Ran(
        result.run_id,
        tuple(found.asset_key.path[-1] for found in materializations),
        error=None if result.success else "; ".join(_errors(result)),
        failed_checks=tuple(
            (f"{check.asset_key.path[-1]}.{check.check_name}", _found(check))
            for check in evaluations
            if not check.passed
        ),
        metadata={
            found.asset_key.path[-1]: {name: value.value for name, value in found.metadata.items()}
            for found in materializations
        },
    )


def _found(check: dg.AssetCheckEvaluation) -> str:
    """What a failed check found: its sentence, the first pairs, how to fix it."""
    said = {name: str(value.value) for name, value in check.metadata.items() if name in ("sample", "remedy")}
    return _text(check.description or "", said.get("sample", "").splitlines(), said.get("remedy", ""))


def _text(description: str, sample: Sequence[str], fix: str) -> str:
    lines = [description, *sample[:SAMPLE_SHOWN], f"how to fix: {fix}" if fix else ""]
    return "\n    ".join(line for line in lines if line)


def _errors(result: dg.ExecuteInProcessResult) -> Iterator[str]:
    """What each failed step raised."""
    for event in result.all_events:
        if not event.is_step_failure:
            continue
        yield error_text(event.step_failure_data.error) or "unknown error"
