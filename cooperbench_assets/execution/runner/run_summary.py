"""The run's own files in upstream's shapes: config.json, summary.json and eval_summary.json.

What belongs here: writing them once per launch, about the whole cell, so that their totals are right after any number
of launches. What does not: reading them (``benchmark.logtree``).
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from cooperbench_assets.execution.attempts.records import of_stage
from cooperbench_assets.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.attempts.pair_state import PairState
    from cooperbench_assets.execution.job import CellJob


def write_config(job: CellJob, concurrency: int) -> None:
    """Write config.json, unless it is there: it tells of the first launch."""
    path = job.run_dir / "config.json"
    if path.exists():
        return
    content = {
        "run_name": job.run_name,
        "agent_framework": job.agent,
        "model": job.model_name,
        "setting": job.mode,
        "concurrency": concurrency,
        "total_tasks": len(job.subset.pairs),
        "started_at": _local_now(),
    }
    _write(path, content)


def write_summary(job: CellJob, states: Mapping[Pair, PairState], seconds: float) -> None:
    """Write summary.json: every planned pair's agents as they stand.

    Args:
        job: The cell.
        states: Every planned pair as it stands.
        seconds: Wall time of this launch.
    """
    results = [_agents(state) for state in states.values()]
    counts = Counter(entry["status"] for entry in results)
    costs = [state.cost_usd for state in states.values() if state.has_result and state.cost_usd is not None]
    content = {
        "run_name": job.run_name,
        "completed_at": _local_now(),
        "pass_rate": None,
        "total_tasks": len(results),
        "completed": counts["done"],
        "skipped": 0,
        "failed": len(results) - counts["done"],
        "total_cost": sum(costs),
        "total_time_seconds": seconds,
        "results": results,
    }
    _write(job.run_dir / "summary.json", content)


def _agents(state: PairState) -> dict[str, Any]:
    entry: dict[str, Any] = {"task": _name(state.pair)}
    if state.has_result:
        return {**entry, "status": "error" if state.agents_failed else "done", "cost": state.cost_usd}
    return {**entry, "status": "failed", "cost": None, "error": _last_evidence(state, "agent")}


def write_eval_summary(job: CellJob, states: Iterable[PairState]) -> None:
    """Write eval_summary.json: the verdict on every pair that has a result, errors with their text."""
    results = [_verdict(state) for state in states if state.has_result]
    counts = Counter(entry["status"] for entry in results)
    content = {
        "run_name": job.run_name,
        "evaluated_at": _local_now(),
        "total_runs": len(results),
        "passed": counts["pass"],
        "failed": counts["fail"],
        "errors": counts["error"],
        "skipped": counts["skip"],
        "pass_rate": counts["pass"] / max(counts["pass"] + counts["fail"], 1),
        "results": results,
    }
    _write(job.run_dir / "eval_summary.json", content)


def _verdict(state: PairState) -> dict[str, Any]:
    entry: dict[str, Any] = {"run": _name(state.pair)}
    if state.has_eval and state.eval_error is None:
        return {**entry, "status": "pass" if state.both_passed else "fail"}
    error = state.eval_error or _last_evidence(state, "eval")
    return {**entry, "status": "error", "error": error} if error else {**entry, "status": "skip"}


def _last_evidence(state: PairState, stage: str) -> str | None:
    """The text of the last recorded try, if infrastructure ended it."""
    tries = of_stage(state.attempts, "agent" if stage == "agent" else "eval")
    return tries[-1].evidence if tries and tries[-1].failed else None


def _name(pair: Pair) -> str:
    return f"{pair.repo}/{pair.task_id}/{pair.features[0]},{pair.features[1]}"


def _local_now() -> str:
    """The time as upstream writes it, without a zone; here it is UTC."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat()


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, msgspec.json.format(msgspec.json.encode(content), indent=2))
