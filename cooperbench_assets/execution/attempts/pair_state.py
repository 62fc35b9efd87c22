"""What is known of each planned pair before and during a launch: its outcome, its files and its tries.

What belongs here: the one picture that plan, budget, summaries and promotion share, and reading it. What does not:
deciding what to do with it (``planning.plan``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cooperbench_assets.benchmark.attempts import ended
from cooperbench_assets.benchmark.logtree import LogTreeError, read_run
from cooperbench_assets.benchmark.outcomes import Outcome, judge
from cooperbench_assets.benchmark.pairfolder import Exclusions, PairReading, read_pair
from cooperbench_assets.execution.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from cooperbench_assets.benchmark.jsonfiles import Quarantined
    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.attempts.records import Attempt
    from cooperbench_assets.execution.job import CellJob


@dataclass(frozen=True, slots=True)
class PairState:
    """One planned pair as it stands."""

    pair: Pair
    outcome: str
    """pass, fail, infra_error, unevaluated or missing."""

    reason: str | None = None
    """Why the pair failed, where it did."""

    stage: str | None = None
    """agent or eval, of an infrastructure error."""

    family: str | None = None
    evidence: str | None = None
    retryable: bool | None = None
    has_result: bool = False
    """A readable result.json lies in the pair's folder."""

    has_eval: bool = False
    """A readable eval.json of the present result lies there."""

    torn: str | None = None
    """What is wrong with a file that cannot be read."""

    both_passed: bool | None = None
    """Upstream's verdict; None without a readable eval.json."""

    eval_error: str | None = None
    """The error that eval.json holds."""

    stale: bool = False
    """The verdict that lies there is of another patch."""

    patch_sha256: str | None = None
    cost_usd: float | None = None
    """Money that the present result cost; None where not known."""

    steps: int | None = None
    replied: bool = False
    """The model answered at least once."""

    seconds: float | None = None
    """Wall time of the present result."""

    started_at: datetime | None = None
    ended_at: datetime | None = None
    evaluated_at: datetime | None = None
    agents_failed: bool = False
    """An agent ended with status Error."""

    attempts: tuple[Attempt, ...] = ()
    """Its recorded tries; one without an end is told as interrupted."""

    @property
    def settled(self) -> bool:
        """Whether the pair has its verdict."""
        return self.outcome in ("pass", "fail")


def read_states(job: CellJob, tries: Mapping[Pair, Sequence[Attempt]] | None = None) -> dict[Pair, PairState]:
    """Every planned pair of a cell as it stands on disk.

    A try without an end counts as interrupted: this is called under the cell's lock, when its process is gone.

    Args:
        job: The cell.
        tries: Every recorded try, if they have been read already.

    Raises:
        LaunchError: if the run folder cannot be read as one run, or is of the older layout without mode folders.
    """
    try:
        run = read_run(job.run_dir, job.mode, alive=lambda _record: False)
    except LogTreeError as error:
        raise LaunchError(f"{job.label}: {error}") from error
    if run.layout == "legacy":
        raise LaunchError(
            f"{job.label}: {job.run_dir} is of the older layout, without a folder {job.mode}; "
            f"move its repositories' folders into {job.run_dir / job.mode}, or give the cell another run_name"
        )
    if tries is None:
        tries = {pair: reading.attempts for pair, reading in run.pairs.items()}
    torn = _torn(run.quarantine)
    return {
        pair: make_state(pair, run.pairs.get(pair), tries.get(pair, ()), torn.get(pair, {}))
        for pair in job.subset.pairs
    }


def read_state(job: CellJob, pair: Pair, tries: Sequence[Attempt]) -> PairState:
    """One pair as it stands on disk, with tries that are known."""
    exclusions = Exclusions(job.run_dir)
    relative = f"{job.mode}/{pair.name}"
    reading = read_pair(exclusions, pair, relative, job.mode) if (job.run_dir / relative).is_dir() else None
    if reading is None:
        reading = PairReading(pair, job.run_dir, relative, job.mode)
    reading.attempts = [ended(one, alive=False) for one in tries]
    return make_state(pair, reading, tries, _torn(exclusions.quarantine).get(pair, {}))


def read_staged(staged_run: Path, pair: Pair, mode: str, tries: Sequence[Attempt]) -> tuple[PairReading, Outcome, str]:
    """What a child wrote below its staging folder: the reading, its outcome, and what is wrong with its files."""
    exclusions = Exclusions(staged_run)
    relative = f"{mode}/{pair.name}"
    if not (staged_run / relative).is_dir():
        reading = PairReading(pair, staged_run, relative, mode)
        return reading, judge(reading), ""
    reading = read_pair(exclusions, pair, relative, mode)
    reading.attempts = [ended(one, alive=False) for one in tries]
    return reading, judge(reading), "; ".join(entry.message for entry in exclusions.quarantine)


def make_state(pair: Pair, reading: PairReading | None, tries: Sequence[Attempt], torn: Mapping[str, str]) -> PairState:
    """A pair's state from what was read of it."""
    outcome = judge(reading)
    state = PairState(
        pair=pair,
        outcome=outcome.outcome,
        reason=outcome.reason,
        stage=outcome.stage,
        family=outcome.family,
        evidence=outcome.evidence,
        retryable=outcome.retryable,
        stale=outcome.stale,
        torn=torn.get("result.json") or torn.get("eval.json"),
        attempts=tuple(ended(one, alive=False) for one in tries),
    )
    return state if reading is None else _with_files(state, reading)


def _with_files(state: PairState, reading: PairReading) -> PairState:
    result, evaluation = reading.result, reading.evaluation
    state = replace(
        state,
        has_result=result is not None,
        has_eval=evaluation is not None and not state.stale,
        patch_sha256=reading.patch_sha256,
        started_at=reading.started_at,
        ended_at=reading.ended_at,
        agents_failed=any(agent.failure is not None for agent in reading.agents),
        replied=has_reply(reading),
    )
    if evaluation is not None:
        state = replace(
            state,
            both_passed=evaluation.both_passed,
            eval_error=evaluation.error,
            evaluated_at=evaluation.evaluated_at,
        )
    if result is not None:
        state = replace(state, cost_usd=result.total_cost, steps=result.total_steps, seconds=result.duration_seconds)
    return state


def has_reply(reading: PairReading) -> bool:
    """Whether any agent of a result got an answer of its model."""
    return any(bool(agent.record.steps) or bool(agent.record.output_tokens) for agent in reading.agents)


def _torn(quarantine: Iterable[Quarantined]) -> dict[Pair, dict[str, str]]:
    """What is wrong with the pairs' files, by pair and file name."""
    found: dict[Pair, dict[str, str]] = {}
    for entry in quarantine:
        if entry.pair is not None:
            found.setdefault(entry.pair, {})[entry.path.rpartition("/")[2]] = entry.message
    return found
