"""From what was read of a run to the rows of a cell's tables.

What belongs here: which field of which record becomes which column. What does not: reading (``benchmark``),
writing Parquet (``partition_tables``), and any rate (``analysis``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

import polars as pl

from cooperbench_assets.benchmark.attempts import place_of
from cooperbench_assets.benchmark.evidence import EVIDENCE_LIMIT
from cooperbench_assets.benchmark.jsonfiles import printable
from cooperbench_assets.benchmark.outcomes import judge
from cooperbench_assets.benchmark.provenance import facts_of
from cooperbench_assets.benchmark.records import TOKENS, parse_time, text_of
from cooperbench_assets.store.schema import (
    AGENTS,
    ATTEMPTS,
    CELL_TABLES,
    MESSAGES,
    PAIRS,
    PROVENANCE,
    QUARANTINE,
    Table,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime
    from pathlib import Path

    from cooperbench_assets.benchmark.evidence import AgentEnd
    from cooperbench_assets.benchmark.logtree import Evaluation, FeatureVerdict, PairReading, RunReading
    from cooperbench_assets.benchmark.outcomes import Outcome
    from cooperbench_assets.benchmark.pairs import Pair, Subset
    from cooperbench_assets.benchmark.records import AgentRecord, ResultRecord
    from cooperbench_assets.store.cells import Cell

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CellSettings:
    """What an experiment says of a cell; where provenance.json says otherwise of how it was run, that holds."""

    planned: bool = True
    """The experiment asks for this cell."""

    run_name: str | None = None
    """Upstream's name of the run; the folder's name unless given."""

    execution: str | None = None
    """Where pairs run: docker, process, modal, gcp or none."""

    messaging: bool | None = None
    """The setting has messages."""

    git: bool | None = None
    """The agents share a git server."""

    gold: bool = False
    """The dataset's own patches stand in for an agent's."""

    analysis: str | None = None
    """What the experiment declares of its analysis, as JSON."""


def cell_frames(
    cell: Cell,
    subset: Subset,
    reading: RunReading,
    *,
    logs_root: Path,
    settings: CellSettings = CellSettings(),
    accepted: Collection[str] = frozenset(),
    read_at: datetime | None = None,
) -> dict[str, pl.DataFrame]:
    """The tables of one cell.

    Every pair of the subset has a row in `pairs`, in the subset's order, whatever was read. A pair that was read
    and is not in the subset goes into `quarantine` (kind ``extra``), with its attempts.

    Args:
        cell: The key that every row carries.
        subset: The pairs that the experiment plans.
        reading: What was read of the cell's run folder.
        logs_root: The root that stored paths are relative to.
        settings: What the experiment says of the cell.
        accepted: Names of the pairs whose infrastructure failure a person has accepted.
        read_at: When the tree was read, UTC without a zone.

    Returns:
        A frame for each table of ``schema.CELL_TABLES``, by name, with exactly its columns.
    """
    base = _relative(reading.run_dir, logs_root)
    rows: dict[str, list[Row]] = {table.name: [] for table in CELL_TABLES}
    for pair in subset.pairs:
        _add_pair(rows, pair, reading, base, pair.name in accepted)
    rows[QUARANTINE.name] = [*_quarantine_rows(reading, base), *_extra_rows(reading, subset, base)]
    rows[PROVENANCE.name] = [{**_provenance_row(reading, subset, base, settings), "read_at": read_at}]
    return {table.name: _frame(table, cell, rows[table.name]) for table in CELL_TABLES}


def _add_pair(rows: dict[str, list[Row]], pair: Pair, reading: RunReading, base: str, accepted: bool) -> None:
    """Add the rows of one planned pair to those of every table."""
    found = reading.pairs.get(pair)
    key = _pair_key(pair)
    own = _pair_row(pair, found, judge(found), base, reading.mode)
    rows[PAIRS.name].append({**key, **own, "accepted": accepted})
    if found is None:
        return
    rows[AGENTS.name] += [{**key, **_agent_row(agent, found)} for agent in found.agents]
    rows[MESSAGES.name] += [{**key, **row} for row in _message_rows(found)]
    rows[ATTEMPTS.name] += [{**key, **row} for row in _attempt_rows(found, base)]


def _frame(table: Table, cell: Cell, rows: Sequence[Row]) -> pl.DataFrame:
    """Rows as a frame of a table's columns; a column that no row names is NULL."""
    if not rows:  # A column after another costs more than all else here, and tables without rows are many.
        return pl.DataFrame(schema=table.schema)
    height = len(rows)
    constant = {"experiment": cell.experiment, "setting": cell.setting, "seed": cell.seed}
    columns = []
    for column in table.columns:
        name = column.name
        values = [constant[name]] * height if name in constant else [row.get(name) for row in rows]
        columns.append(pl.Series(name, values, dtype=column.dtype, strict=True))
    return pl.DataFrame(columns)


def _relative(run_dir: Path, logs_root: Path) -> str:
    """The run folder relative to the log root, or its own path where it lies elsewhere."""
    try:
        path = str(run_dir.relative_to(logs_root))
    except ValueError:
        path = os.path.relpath(run_dir, logs_root)
    return printable(path)


def _pair_key(pair: Pair) -> Row:
    return {
        "pair": pair.name,
        "repo": pair.repo,
        "task_id": pair.task_id,
        "feature_a": pair.features[0],
        "feature_b": pair.features[1],
    }


def _finite(value: float | None) -> float | None:
    """A number; None for one that is not finite."""
    return value if value is not None and isfinite(value) else None


def _pair_row(pair: Pair, reading: PairReading | None, outcome: Outcome, base: str, mode: str | None) -> Row:
    row: Row = {
        "outcome": outcome.outcome,
        "reason": outcome.reason,
        "outcome_strict": outcome.outcome_strict,
        "reason_strict": outcome.reason_strict,
        "stage": outcome.stage,
        "family": outcome.family,
        "evidence": outcome.evidence,
        "evidence_source": outcome.evidence_source,
        "retryable": outcome.retryable,
        "both_passed_strict": outcome.both_passed_strict,
        "suspect": outcome.suspect,
        "hollow": outcome.hollow,
        "fallback_unseen": outcome.fallback_unseen,
        "limits_exceeded": outcome.limits_exceeded,
        "stale": outcome.stale,
        "has_result": False,
        "has_eval": False,
    }
    if reading is None:
        return row | {"path": f"{base}/{mode}/{pair.name}" if mode else None}
    row["path"] = f"{base}/{printable(reading.relative)}"
    row["patch_sha256"] = reading.patch_sha256
    row["agent_tries"] = _tries(reading, "agent")
    row["eval_tries"] = _tries(reading, "eval")
    if reading.result is not None:
        row |= _result_columns(reading, reading.result)
    if reading.evaluation is not None:
        row |= _evaluation_columns(reading.evaluation)
    return row


def _tries(reading: PairReading, stage: str) -> int | None:
    return sum(attempt.stage == stage for attempt in reading.attempts) or None


def _result_columns(reading: PairReading, result: ResultRecord) -> Row:
    agents = reading.agents
    statuses = [agent.record.status for agent in agents]
    usages = [_usage(agent.record) for agent in agents]
    row: Row = {
        "has_result": True,
        "agents": len(agents),
        "agents_submitted": statuses.count("Submitted"),
        "agents_failed": statuses.count("Error"),
        "patches": _patches(reading),
        "cost_usd": _finite(result.total_cost),
        "steps": result.total_steps,
        "messages_sent": None if reading.mode == "solo" else result.messages_sent,
        "started_at": reading.started_at,
        "ended_at": reading.ended_at,
        "duration_seconds": _finite(result.duration_seconds),
        "model": result.model,
        "agent_framework": result.agent_framework,
        "run_id": result.run_id,
    }
    for name in TOKENS:
        row[name] = _sum(usage[name] for usage in usages)
    row["agents_with_tokens"] = sum(all(usage[name] is not None for name in TOKENS[:2]) for usage in usages)
    return row


def _sum(values: Iterable[int | None]) -> int | None:
    """The sum of what is known; None where nothing is, or the sum fits no column."""
    known = [value for value in values if value is not None]
    total = sum(known)
    return total if known and -(2**63) <= total < 2**63 else None


def _patches(reading: PairReading) -> int | None:
    """Agents whose patch is not empty: by the files, or by upstream's count of lines where there are none."""
    if reading.patches and None not in reading.patches:
        return sum(patch is not None and not patch.empty for patch in reading.patches)
    lines = [agent.record.patch_lines for agent in reading.agents]
    if any(count is None for count in lines):
        return None
    return sum(count is not None and count > 0 for count in lines)


def _usage(record: AgentRecord) -> dict[str, Any]:
    """Cost, steps and tokens of an agent.

    Where an agent made steps and every count of tokens is 0, its adapter reports none: they are not known.
    """
    tokens: dict[str, int | None] = {name: getattr(record, name) for name in TOKENS}
    if record.steps is not None and record.steps > 0 and not any(tokens.values()):
        tokens = dict.fromkeys(TOKENS)
    return {"cost_usd": _finite(record.cost), "steps": record.steps, **tokens}


def _evaluation_columns(evaluation: Evaluation) -> Row:
    return {
        "has_eval": True,
        "both_passed": evaluation.both_passed,
        "merge_status": evaluation.merge_status,
        "merge_strategy": evaluation.merge_strategy,
        "merge_diff_empty": evaluation.merge_diff_empty,
        "apply_a": evaluation.apply_a,
        "apply_b": evaluation.apply_b,
        "evaluated_at": evaluation.evaluated_at,
        **_feature_columns("feature_a", evaluation.feature_a),
        **_feature_columns("feature_b", evaluation.feature_b),
    }


def _feature_columns(name: str, feature: FeatureVerdict | None) -> Row:
    if feature is None:
        return {}
    return {
        f"{name}_passed": feature.passed,
        f"{name}_tests_passed": feature.tests_passed,
        f"{name}_tests_failed": feature.tests_failed,
    }


def _agent_row(agent: AgentEnd, reading: PairReading) -> Row:
    failure = agent.failure
    failed = failure is not None and failure.kind == "infra"
    error = text_of(agent.record.error or None)
    patch = None
    if len(reading.patches) == 1:
        patch = reading.patches[0]
    elif agent.feature in reading.pair.features and reading.patches:
        patch = reading.patches[reading.pair.features.index(agent.feature)]
    return {
        "agent": agent.name,
        "feature_id": agent.feature,
        "status": agent.record.status,
        "failed": failed,
        "stage": "agent" if failed else None,
        "family": None if failure is None else failure.family,
        "evidence": agent.evidence,
        "evidence_source": agent.source,
        "retryable": failure.retryable if failure is not None and failed else None,
        "suspect": agent.suspect,
        "error": None if error is None else error[:EVIDENCE_LIMIT],
        "patch_lines": agent.record.patch_lines,
        "patch_sha256": None if patch is None else patch.sha256,
        **_usage(agent.record),
    }


def _message_rows(reading: PairReading) -> list[Row]:
    return [
        {
            "position": position,
            "sender": message.sender,
            "recipient": ", ".join(message.recipient) if isinstance(message.recipient, list) else message.recipient,
            "feature_id": message.feature_id,
            "message": text_of(message.message),
            "sent_at": parse_time(message.timestamp),
            "step": step,
        }
        for position, (message, step) in enumerate(zip(reading.messages or [], reading.message_steps, strict=True))
    ]


def _attempt_rows(reading: PairReading, base: str) -> list[Row]:
    rows: list[Row] = []
    for attempt in sorted(reading.attempts, key=lambda a: (a.stage, a.n)):
        evidence = attempt.evidence
        path = place_of(reading.pair, reading.mode, attempt)
        rows.append(
            {
                "stage": attempt.stage,
                "n": attempt.n,
                "campaign": attempt.retry_generation,
                "outcome": attempt.outcome,
                "counted": attempt.counted,
                "family": attempt.family or ("interrupted" if attempt.outcome == "interrupted" else None),
                "evidence": None if evidence is None else evidence[:EVIDENCE_LIMIT],
                "retryable": attempt.retryable,
                "started_at": parse_time(attempt.started_at),
                "ended_at": parse_time(attempt.ended_at),
                "cost_usd": _finite(attempt.cost_usd),
                "cost_estimated": attempt.cost_estimated,
                "patch_sha256": attempt.patch_sha256,
                "isolation": attempt.isolation,
                "path": f"{base}/{printable(path)}",
            }
        )
    return rows


def _quarantine_rows(reading: RunReading, base: str) -> list[Row]:
    return [
        {
            "path": f"{base}/{entry.path}",
            "pair": None if entry.pair is None else entry.pair.name,
            "kind": entry.kind,
            "message": entry.message,
            "remedy": entry.remedy,
        }
        for entry in reading.quarantine
    ]


def _extra_rows(reading: RunReading, subset: Subset, base: str) -> list[Row]:
    """The pairs that were read and that nobody planned."""
    planned = set(subset.pairs)
    rows: list[Row] = []
    for pair, found in sorted(reading.pairs.items()):
        if pair in planned:
            continue
        n = len(found.attempts)
        tried = f", and {n} recorded {'try' if n == 1 else 'tries'}" if n else ""
        rows.append(
            {
                "path": f"{base}/{printable(found.relative)}",
                "pair": pair.name,
                "kind": "extra",
                "message": f"{pair.name} is not in subset {subset.name}: {judge(found).outcome}{tried}",
                "remedy": "move it out of the run folder, or name the subset that plans it",
            }
        )
    return rows


def _provenance_row(
    reading: RunReading,
    subset: Subset,
    base: str,
    settings: CellSettings,
) -> Row:
    facts = facts_of(reading)
    recorded = facts.recorded
    messages = facts.messaging if facts.messaging is not None else settings.messaging
    gold = None if reading.provenance is None else reading.provenance.record.gold
    return {
        "planned": settings.planned,
        "run_name": settings.run_name or base.rpartition("/")[2],
        "gold": settings.gold if gold is None else gold,
        "expected_pairs": len(subset.pairs),
        "path": base,
        "mode": reading.mode,
        "messaging": None if reading.mode == "solo" else messages,
        "git": facts.git if facts.git is not None else settings.git,
        "origin": facts.origin,
        "model": facts.model,
        "agent": facts.agent,
        "agent_config_sha256": recorded.agent_config_sha256,
        "agent_config": facts.agent_config,
        "harness_version": facts.harness.version,
        "harness_version_source": facts.harness.source,
        "harness_commit": recorded.harness_commit,
        "merge_policy": facts.harness.merge_policy,
        "subset": subset.name,
        "subset_sha256": subset.sha256,
        "dataset_sha256": recorded.dataset_sha256,
        "execution": recorded.execution or settings.execution,
        "isolation": facts.isolation,
        "truncated": recorded.truncated,
        "started_at": facts.started_at,
        "ended_at": facts.ended_at,
        "files_read": reading.files_read,
        "bytes_read": reading.bytes_read,
        "record": facts.record,
        "analysis": settings.analysis,
    }
