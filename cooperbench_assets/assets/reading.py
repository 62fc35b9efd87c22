"""Reading cells in one step of a run, one or hundreds, and reporting each by itself.

What belongs here: what a step says of each cell that it reads (materialisation, metadata, check results), and of those
that cannot be read or are blocked. What does not: how the assets are declared (``cells``), how pairs are run
(``execution``), what a check asserts (``checks``).

Of many cells each event is logged by itself: what a step yields, Dagster takes for all partitions of its run, those
that cannot be read too. Check results are logged in any case: for each one that is yielded, Dagster looks up what it
is about, in a history that grows, and a blocking one stops what is downstream in the same run only. So blocking is
kept here: what is blocked is not written.
"""

from __future__ import annotations

import functools
import traceback
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import dagster as dg
import polars as pl

from cooperbench_assets.assets.check_events import check_evaluation, check_results
from cooperbench_assets.assets.describe import CELL_METADATA, table_value
from cooperbench_assets.assets.execution import STAGES, LaunchConfig, plan_of
from cooperbench_assets.assets.keys import HOST_TAG, asset_key, cell_of, group_name, partition_key
from cooperbench_assets.assets.redacted_steps import keeping_secrets
from cooperbench_assets.assets.tables import CELL_UNIT_TABLES
from cooperbench_assets.benchmark.logtree import LogTreeError
from cooperbench_assets.checks.eval_outputs import EVAL_OUTPUTS_CHECKS
from cooperbench_assets.checks.finding import Finding
from cooperbench_assets.checks.pair_results import PAIR_RESULTS_CHECKS
from cooperbench_assets.checks.reporting import check_rows
from cooperbench_assets.checks.run_logs import RUN_LOGS_CHECKS
from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.processes import namespace
from cooperbench_assets.experiment_context import CellReport, MissingInputError
from cooperbench_assets.store.partition_tables import write_unit
from cooperbench_assets.store.schema import CHECK_RESULTS
from cooperbench_assets.store.units import cell_unit, check_unit
from cooperbench_assets.viewer_links import affected_page, cell_list_page, viewer_address

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from cooperbench_assets.checks.finding import CellView, Check
    from cooperbench_assets.experiment_context import ExperimentContext
    from cooperbench_assets.spec import CellSpec
    from cooperbench_assets.store.cells import Cell

    Context: TypeAlias = dg.AssetExecutionContext | dg.OpExecutionContext
    Results: TypeAlias = Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]
    Findings: TypeAlias = Sequence[tuple[Check[CellView], Finding]]

CELL_CHECKS: Final[Mapping[str, Sequence[Check[CellView]]]] = {
    "run_logs": RUN_LOGS_CHECKS,
    "eval_outputs": EVAL_OUTPUTS_CHECKS,
    "pair_results": PAIR_RESULTS_CHECKS,
}
"""The assets of a cell, in their order, and what is asserted of each."""

FOR_PEOPLE: Final = (MissingInputError, LaunchError, LogTreeError)
"""Errors whose text says all; any other keeps its traceback in the log."""

ONE_EACH: Final = (
    "this experiment runs pairs: launch a run for each partition (not one run for all of them), so that the results "
    "of a cell are there as soon as it ends; the job read_again reads all cells in one run"
)

BACKFILL_TAG: Final = "dagster/backfill"

AT_ONCE: Final = 30
"""Check results are logged after so many assets of cells: what they are about is one question for all of them."""

NAMED: Final = 25
"""Cells that the error of a run names; the rest are counted, and the table of the run has them all."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a cell was not read to its end."""

    cell: Cell
    asset: str
    """The asset at which it ended."""

    reason: str
    fix: str = ""

    @property
    def text(self) -> str:
        """All of it as one sentence."""
        named = self.reason if str(self.cell) in self.reason else f"{self.cell}: {self.reason}"
        return f"{named}; how to fix: {self.fix}" if self.fix else named


@dataclass
class CellReader:
    """Reads cells and logs what there is to say of each."""

    context: Context
    experiment: ExperimentContext
    checks: Collection[dg.AssetCheckKey]
    """The checks whose results are wanted."""

    cells: int
    """How many cells the step is about."""

    log_each: bool
    """Log each materialisation as it comes, instead of yielding at the end what is of the one cell of the run."""

    problems: list[Problem] = field(default_factory=list)
    _to_yield: list[dg.MaterializeResult[Any]] = field(default_factory=list, init=False)
    _to_log: list[tuple[str, str, Findings]] = field(default_factory=list, init=False)
    """Asset, partition and findings of cells whose check results are not logged yet."""

    def __post_init__(self) -> None:
        self.subset = self.experiment.subset()
        self.viewer = viewer_address(self.experiment.project.root)

    def read(
        self,
        spec: CellSpec,
        materialise: Collection[str],
        evaluate: Collection[str],
        before: Callable[[CellSpec], Mapping[str, Any]] | None = None,
    ) -> None:
        """Read one cell. What is wrong with it is kept for `end`, and the other cells go on.

        Args:
            spec: The cell.
            materialise: The assets to materialise.
            evaluate: The assets whose checks are evaluated besides.
            before: Does what comes before the reading; returns what the materialisation says of it.
        """
        said = CellReport(spec)
        try:
            extra = {} if before is None else before(spec)
            self._report(spec, materialise, {*materialise, *evaluate}, extra, said)
        except Exception as error:
            if self.cells == 1:
                raise
            if not isinstance(error, FOR_PEOPLE):
                self._end_if_cancelled()
                self.context.log.error(f"{spec.cell} could not be read:\n{traceback.format_exc()}")
            reason = str(error) if isinstance(error, FOR_PEOPLE) else f"{type(error).__name__}: {error}"
            self._failed(
                Problem(spec.cell, next(iter(materialise or evaluate)), self.experiment.redactor.text(reason)), said
            )
        if said.problem is not None:
            self._not_evaluated(self.problems[-1], {*materialise, *evaluate})
        if self.log_each and len(self._to_log) >= AT_ONCE:
            self._end_if_cancelled()
            self._log_checks()
        if self.experiment.on_read is not None:
            self.experiment.on_read(said)

    def end(self) -> Results:
        """End the step; yields what was not logged, so that steps behind it in its run begin.

        Raises:
            dg.Failure: if a cell is blocked or could not be read, naming each, with the reason and how to fix it.
        """
        yield from self._to_yield
        if not self.log_each:
            yield from self._passed_blocking()
        self._log_checks()
        if self.problems:
            raise failure(self.problems, self.cells, self._hint())

    def leave(self) -> None:
        """End before the last cell: somebody cancelled the run. What was found of those that were read stays."""
        if self.log_each:
            self._log_checks()

    def _end_if_cancelled(self) -> None:
        """End the step if somebody has cancelled the run.

        Dagster says so by an error that it raises wherever the process is at work. Two in a thousand get lost: where
        Polars calls back into Python, it makes a TypeError of any error, and one in a weak reference's callback is
        printed and forgotten. The step would read on to its end.

        Raises:
            dg.DagsterExecutionInterruptedError: if the run is being cancelled.
        """
        run = self.context.instance.get_run_by_id(self.context.run.run_id)
        if run is not None and run.status == dg.DagsterRunStatus.CANCELING:
            raise dg.DagsterExecutionInterruptedError

    def _hint(self) -> str:
        """What to do about the results of the other cells: a backfill makes nothing that comes after a failed cell."""
        if self.cells == 1 or BACKFILL_TAG not in self.context.run.tags:
            return ""
        name = group_name(self.experiment.name)
        return (
            f"to publish the others, launch the job {name}_refresh_results; "
            f"the sensor {name}_downstream does so by itself while it is on"
        )

    def _passed_blocking(self) -> Iterator[dg.AssetCheckResult]:
        """Take out the blocking checks that passed: Dagster warns of each that it is not given before a next step."""
        for number, (asset, partition, findings) in enumerate(self._to_log):
            passed = [(check, finding) for check, finding in findings if check.blocking and finding.passed]
            self._to_log[number] = (asset, partition, [one for one in findings if one not in passed])
            page = functools.partial(self._page, cell_of(self.experiment.name, partition))
            yield from check_results(asset_key(self.experiment.name, asset), passed, page)

    def _failed(self, problem: Problem, said: CellReport) -> None:
        self.problems.append(problem)
        said.problem = problem.text
        if self.cells > 1:
            self.context.log.error(problem.text)

    def _report(
        self,
        spec: CellSpec,
        materialise: Collection[str],
        evaluate: Collection[str],
        extra: Mapping[str, Any],
        said: CellReport,
    ) -> None:
        view = self.experiment.view(spec, self.subset)
        for asset in [name for name in CELL_CHECKS if name in evaluate]:
            wanted = asset in materialise
            if asset == "pair_results":
                view = replace(view, left_behind=self._left_behind(spec, view))
                upstream = blocked_by(view, "run_logs") if wanted else None
                if upstream is not None:
                    self._failed(Problem(spec.cell, asset, *upstream), said)
                    return
            findings = [(check, check.find(view)) for check in CELL_CHECKS[asset]]
            blocked = blocked_by(view, asset) if wanted else None
            if wanted and not (blocked and asset == "pair_results"):
                written = write_tables(self.experiment, view) if asset == "pair_results" else {}
                pages = {"open_pairs": dg.MetadataValue.url(self.viewer + cell_list_page(spec.cell))}
                self._materialised(spec, asset, {**pages, **CELL_METADATA[asset](view), **extra, **written}, said)
            self._evaluated(spec, asset, findings, said)
            if blocked is not None:
                self._failed(Problem(spec.cell, asset, *blocked), said)
                return

    def _materialised(self, spec: CellSpec, asset: str, metadata: Mapping[str, Any], said: CellReport) -> None:
        key, partition = asset_key(self.experiment.name, asset), partition_key(spec.cell)
        if self.log_each:
            self.context.log_event(dg.AssetMaterialization(asset_key=key, partition=partition, metadata=metadata))
        else:
            self._to_yield.append(dg.MaterializeResult(asset_key=key, metadata=metadata))
        said.metadata[asset] = metadata

    def _evaluated(self, spec: CellSpec, asset: str, findings: Findings, said: CellReport) -> None:
        """Keep what the checks of an asset found in a cell: for Dagster, and as a table of the store."""
        cell, asked = spec.cell, self._asked(asset, findings)
        self._to_log.append((asset, partition_key(cell), asked))
        said.failed_checks += [(f"{asset}.{check.name}", found) for check, found in asked if not found.passed]
        columns = {"experiment": cell.experiment, "setting": cell.setting, "seed": cell.seed, "asset": asset}
        rows = check_rows(columns, findings, datetime.now(UTC).replace(tzinfo=None))
        unit = check_unit(cell.experiment, asset, cell)
        write_unit(self.experiment.project.tables, unit, {CHECK_RESULTS.name: rows}, declared=(CHECK_RESULTS,))

    def _not_evaluated(self, problem: Problem, assets: Collection[str]) -> None:
        """Say on the pages of checks that were to be evaluated why they were not: else they show an earlier result."""
        partition = partition_key(problem.cell)
        done = {asset for asset, key, _ in self._to_log if key == partition}
        why = Finding(passed=False, description=f"not evaluated: {problem.reason}", remedy=problem.fix)
        for asset in [name for name in CELL_CHECKS if name in assets and name not in done]:
            asked = self._asked(asset, [(check, why) for check in CELL_CHECKS[asset]])
            self._to_log.append((asset, partition, asked))

    def _asked(self, asset: str, findings: Findings) -> Findings:
        """Those of the checks whose results are wanted."""
        key = asset_key(self.experiment.name, asset)
        return [one for one in findings if dg.AssetCheckKey(key, one[0].name) in self.checks]

    def _log_checks(self) -> None:
        """Log check results, each with the materialisation that it is about: those of an earlier one do not count."""
        for asset in CELL_CHECKS:
            found = {partition: findings for name, partition, findings in self._to_log if name == asset}
            key = asset_key(self.experiment.name, asset)
            targets = newest_materialisations(self.context.instance, key, set(found)) if found else {}
            for partition, findings in found.items():
                for check, finding in findings:
                    page = self._page(cell_of(self.experiment.name, partition), finding)
                    event = check_evaluation(key, check, finding, partition, targets.get(partition), page)
                    # An op's log_event takes check results too; only its annotation does not say so.
                    self.context.log_event(event)  # type: ignore[arg-type]
        self._to_log.clear()

    def _page(self, cell: Cell, finding: Finding) -> str | None:
        """Address of the viewer's page of the pairs that a finding names."""
        page = affected_page(cell, finding.sample)
        return None if page is None else self.viewer + page

    def _left_behind(self, spec: CellSpec, view: CellView) -> dict[str, str] | None:
        try:
            # What nobody asked for yet is not given up, whatever ended the others.
            return {pair: why for pair, why in left_behind(self.experiment, spec).items() if pair not in view.unasked}
        except LaunchError as error:
            self.context.log.warning(f"{spec.cell}: what is still to run cannot be told: {error}")
            return None


def newest_materialisations(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: set[str]
) -> dict[str, dg.EventLogRecord]:
    """The newest materialisation of each of these partitions, in two questions however many there are."""
    ids = instance.get_latest_storage_id_by_partition(asset, dg.DagsterEventType.ASSET_MATERIALIZATION, partitions)
    if not ids:
        return {}
    wanted = dg.AssetRecordsFilter(asset_key=asset, storage_ids=list(ids.values()))
    records = instance.fetch_materializations(wanted, limit=len(ids)).records
    return {record.partition_key: record for record in records if record.partition_key is not None}


def failure(problems: Sequence[Problem], cells: int, hint: str = "") -> dg.Failure:
    """The error of a step in which some of its cells are blocked or could not be read; the hint is its last line."""
    rows = pl.DataFrame(
        [{"cell": str(one.cell), "asset": one.asset, "reason": one.reason, "fix": one.fix} for one in problems]
    )
    lines = [one.text for one in problems[:NAMED]]
    if len(problems) > NAMED:
        lines.append(f"… and {len(problems) - NAMED} more")
    if cells > 1:
        fine = cells - len(problems)
        verb = "is" if len(problems) == 1 else "are"
        lines.insert(0, f"{fine} of {cells} cells are done; {len(problems)} {verb} blocked or could not be read:")
    if hint:
        lines.append(hint)
    # Trying again by itself would read the same.
    return dg.Failure("\n".join(lines), metadata={"cells": table_value(rows)}, allow_retries=False)


def blocked_by(view: CellView, asset: str) -> tuple[str, str] | None:
    """Why a cell goes no further than this asset, and how to fix it; None where nothing blocks it."""
    for check in CELL_CHECKS[asset]:
        if check.blocking and not (finding := check.find(view)).passed:
            sample = f" ({'; '.join(finding.sample[:3])})" if finding.sample else ""
            return f"blocked by {check.name}: {finding.description}{sample}", finding.remedy
    return None


def left_behind(experiment: ExperimentContext, cell: CellSpec) -> dict[str, str]:
    """Pairs of a cell that no retry will touch, with the reason: their tries are used up, or a person is needed.

    Raises:
        LaunchError: if the cell cannot be planned: the dataset is missing, say.
    """
    if experiment.spec.execution == "none":
        return {}
    reasons: dict[str, str] = {}
    for asset in STAGES:
        for step in plan_of(experiment, cell, asset, LaunchConfig(automatic=True)).given_up:
            reasons[step.pair.name] = step.sentence
    return reasons


def write_tables(experiment: ExperimentContext, view: CellView) -> dict[str, Any]:
    """Write a cell's partition tables; the same content again changes nothing, and says so."""
    written = write_unit(experiment.project.tables, cell_unit(view.spec.cell), view.frames, declared=CELL_UNIT_TABLES)
    return {
        "dagster/row_count": view.pairs.height,
        "content_sha256": written.content_sha256,
        "changed": written.changed,
        "tables": dg.MetadataValue.path(str(written.folder)),
    }


def sign(context: Context) -> None:
    """Say on the run which machine it works on; where it was launched by a command, that stands there already."""
    if HOST_TAG not in context.run.tags:
        context.instance.add_run_tags(context.run.run_id, {HOST_TAG: namespace()})


def read_selected(
    context: dg.AssetExecutionContext,
    experiment: ExperimentContext,
    before: Callable[[CellSpec], Mapping[str, Any]] | None = None,
) -> Results:
    """Do what a run asks of assets of cells: materialise some partitions, or evaluate checks of those that are there.

    "Execute all" on the page of an asset's checks names no partition and no asset: each cell that was materialised
    is judged again.

    Args:
        context: Of the step.
        experiment: The experiment.
        before: What comes before a cell that is materialised is read.

    Yields:
        What `CellReader.end` yields.

    Raises:
        dg.Failure: as `CellReader.end` does.
    """
    sign(context)
    with keeping_secrets(experiment, context.log):
        work = list(_work(context, experiment))
        one = len(work) == 1 and bool(work[0][1])
        reader = CellReader(context, experiment, context.selected_asset_check_keys, len(work), log_each=not one)
        try:
            for spec, materialise, evaluate in work:
                reader.read(spec, materialise, evaluate, before if materialise else None)
        except BaseException:
            reader.leave()
            raise
        yield from reader.end()


def _work(
    context: dg.AssetExecutionContext, experiment: ExperimentContext
) -> Iterator[tuple[CellSpec, list[str], list[str]]]:
    """Each cell with the assets to materialise, and those whose checks to evaluate."""
    materialise = [name for name in CELL_CHECKS if asset_key(experiment.name, name) in context.selected_asset_keys]
    checked = {key.asset_key for key in context.selected_asset_check_keys}
    evaluate = [name for name in CELL_CHECKS if asset_key(experiment.name, name) in checked]
    if context.has_partition_key or context.has_partition_key_range:
        if experiment.spec.execution != "none" and len(context.partition_keys) > 1:
            raise dg.Failure(ONE_EACH, allow_retries=False)
        for key in context.partition_keys:
            cell = cell_of(experiment.name, key)
            yield experiment.spec.cell(experiment.name, cell.setting, cell.seed), materialise, evaluate
        return
    if materialise:
        raise dg.Failure("this run names no partition; choose the cells to materialise", allow_retries=False)
    there = {name: context.instance.get_materialized_partitions(asset_key(experiment.name, name)) for name in evaluate}
    for spec in sorted(experiment.cells, key=lambda one: one.cell):
        if assets := [name for name in evaluate if partition_key(spec.cell) in there[name]]:
            yield spec, [], assets
