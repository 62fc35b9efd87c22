"""One try of one pair: recorded and launched, and settled when its child is gone.

What belongs here: the life of a single try on disk, the same for a child that ended, one that was killed, and one that
a dead launch left. What does not: which pair is next and when (``runner.scheduler``), and the renames (``promotion``).
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from cooperbench_assets.execution.attempts import deadlines, staging
from cooperbench_assets.execution.attempts.completion import (
    evaluation_timed_out,
    judged,
    priced,
    refusal,
    without_files,
)
from cooperbench_assets.execution.attempts.pair_state import PairState, has_reply, read_staged, read_state
from cooperbench_assets.execution.attempts.promotion import Promotion, promote_agents, promote_verdict
from cooperbench_assets.execution.attempts.records import (
    Attempt,
    folder_name,
    next_number,
    now,
    owner,
    shorten,
    write_attempt,
)
from cooperbench_assets.execution.secret_values import clean
from cooperbench_assets.execution.worker.protocol import LOG
from cooperbench_assets.faultpoints import hit

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.benchmark.outcomes import Outcome
    from cooperbench_assets.benchmark.pairfolder import PairReading
    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.attempts.deadlines import ActivityAtDeadline, Counted
    from cooperbench_assets.execution.attempts.staging import Staged
    from cooperbench_assets.execution.job import CellJob
    from cooperbench_assets.execution.worker.protocol import Stage

How = Literal["ended", "deadline", "interrupted"]
"""How a try's child went: by itself, killed at its deadline, or ended from outside with the whole launch."""


@dataclass(slots=True)
class Try:
    """A try that was recorded, and has not been settled."""

    job: CellJob
    pair: Pair
    stage: Stage
    attempt: Attempt
    before: tuple[Attempt, ...]
    """The pair's earlier tries, of both stages."""

    folder: Path
    """The try's folder of attempts."""

    place: Staged
    patch_sha256: str | None = None
    """Hash of the patch that an evaluation judges."""

    replaced: Attempt | None = None
    """The record that lay in the folder before; None where it is the try's own."""

    isolation: str | None = None
    said: str | None = None
    """What the child, or the server, said of its end."""

    sight: ActivityAtDeadline | None = None
    """What was known of the agents at their deadline, before they were killed."""

    @property
    def key(self) -> str:
        """Name of the try among those that run."""
        return f"{self.pair.name} {self.folder.name}"

    @property
    def staged_run(self) -> Path:
        """The run folder below the try's staging folder."""
        return self.place.root / "logs" / self.job.run_name

    @property
    def started(self) -> datetime:
        """When it was launched, UTC."""
        return datetime.fromisoformat(self.attempt.started_at)


@dataclass(frozen=True, slots=True)
class Settled:
    """What a try came to."""

    attempt: Attempt
    state: PairState
    replied: bool
    """The model answered at least once; of an evaluation: its tests ran."""

    failed: str | None = None
    """Family of the infrastructure failure that ended it; None for one that is done."""


def begin(job: CellJob, stage: Stage, state: PairState, retry_generation: int) -> Try:
    """Record a try and make its staging folder; nothing of it runs yet."""
    before = (*state.attempts, *_adopted(job, state))
    n = next_number(before, stage)
    patch = state.patch_sha256 if stage == "eval" else None
    attempt = Attempt(n=n, retry_generation=retry_generation, stage=stage, started_at=now(), patch_sha256=patch)
    folder = job.attempts_dir(state.pair) / folder_name(stage, n)
    place = staging.staged(job, state.pair, folder.name)
    made = Try(job, state.pair, stage, attempt, before, folder, place, patch)
    register(made)
    return made


def register(made: Try) -> None:
    """Write a try's record, and make its staging folder; where one of them fails, neither stays."""
    try:
        write_attempt(made.folder, made.attempt)
        hit(f"launch:{made.stage}-recorded")
        staging.prepare(made.job, made.pair, made.stage, made.place)
    except OSError:
        withdraw(made)
        raise


def withdraw(made: Try) -> None:
    """Take back a try of which nothing was launched: it counts for nothing."""
    shutil.rmtree(made.place.root, ignore_errors=True)
    if made.replaced is None:
        shutil.rmtree(made.folder, ignore_errors=True)
        return
    with contextlib.suppress(OSError):  # A full disk: the next start finds a try that was interrupted.
        write_attempt(made.folder, made.replaced)


def record_process(made: Try, pid: int, identity: str | None) -> None:
    """Record which process runs a try, so that a later launch can end it."""
    hit(f"launch:{made.stage}-started")
    made.attempt = msgspec.structs.replace(made.attempt, pid=pid, identity=identity)
    write_attempt(made.folder, made.attempt)
    hit(f"launch:{made.stage}-running")


def _adopted(job: CellJob, state: PairState) -> list[Attempt]:
    """Records for files that lie in the pair's folder and that no recorded try put there.

    They get a try of retry generation 0, which counts for no limit, so that they have a folder to go to.
    """
    there = {entry.name for entry in job.pair_dir(state.pair).iterdir()} if job.pair_dir(state.pair).is_dir() else set()
    adopted = []
    if there - {"eval.json"} and owner(state.attempts, "agent") is None:
        broken = state.outcome == "infra_error" and state.stage == "agent"
        adopted.append(_adopt(job, state, "agent", broken, state.started_at, state.ended_at))
    if "eval.json" in there and owner(state.attempts, "eval") is None:
        broken = state.outcome == "infra_error" and state.stage == "eval"
        adopted.append(_adopt(job, state, "eval", broken, state.ended_at, state.evaluated_at))
    return adopted


def _adopt(
    job: CellJob, state: PairState, stage: Stage, broken: bool, start: datetime | None, end: datetime | None
) -> Attempt:
    attempt = Attempt(
        n=next_number(state.attempts, stage),
        retry_generation=0,
        stage=stage,
        outcome=_outcome_of_files(state, stage, broken),
        family=state.family if broken else None,
        evidence=shorten((state.evidence if broken else state.torn) or "") or None,
        retryable=state.retryable if broken else None,
        started_at=_zoned(start) or now(),
        ended_at=_zoned(end) or now(),
        cost_usd=state.cost_usd if stage == "agent" else None,
        patch_sha256=state.patch_sha256 if stage == "agent" or not state.stale else None,
        promoted=True,
    )
    write_attempt(job.attempts_dir(state.pair) / folder_name(stage, attempt.n), attempt)
    return attempt


def _outcome_of_files(
    state: PairState, stage: Stage, broken: bool
) -> Literal["infra_error", "completed", "interrupted"]:
    if broken:
        return "infra_error"
    whole = state.has_result if stage == "agent" else state.both_passed is not None
    return "completed" if whole else "interrupted"


def _zoned(moment: datetime | None) -> str | None:
    return None if moment is None else moment.replace(tzinfo=UTC).isoformat(timespec="milliseconds")


def settle(made: Try, how: How, estimate: float | None = None) -> Settled:
    """Bring what a try's child left into the tree, and complete the try's record.

    Nothing in its staging folder is needed afterwards.

    Args:
        made: The try; its child is gone.
        how: How the child went.
        estimate: What a try of unknown cost counts for, USD.
    """
    clean(made)
    return _settle_agents(made, how, estimate) if made.stage == "agent" else _settle_evaluation(made, how)


def _settle_agents(made: Try, how: How, estimate: float | None) -> Settled:
    counted = deadlines.read_counted(made.place)
    spent = counted.spent(made.job.agent)
    reading, outcome, wrong = read_staged(made.staged_run, made.pair, made.job.mode, ())
    if reading.result is None and how == "deadline" and made.sight is not None:
        _write_killed(made, made.sight, counted)
        reading, outcome, wrong = read_staged(made.staged_run, made.pair, made.job.mode, ())
    if reading.result is None:
        attempt = priced(without_files(made, how, wrong), None, None, estimate, spent)
        return _close(made, attempt, replied=counted.replies > 0)
    attempt = judged(made, outcome, stage="agent")
    attempt = priced(attempt, reading.result.total_cost, reading, estimate, spent)
    attempt = msgspec.structs.replace(attempt, patch_sha256=reading.patch_sha256, promoted=True)
    replied = counted.replies > 0 or has_reply(reading) or outcome.reason == "agent_timeout"
    return _promote(made, attempt, replied=replied)


def _write_killed(made: Try, sight: ActivityAtDeadline, counted: Counted) -> None:
    """Write the result of agents that were killed at their deadline."""
    job, pair = made.job, made.pair
    names, seconds = tuple(staging.patches_of(job, pair)), job.limits.pair_timeout_minutes * 60
    ends = deadlines.ends(sight, names, job.agent, seconds)
    staging.write_timed_out_result(job, pair, made.place, made.started, ends, counted)
    clean(made)  # What was seen of them before they were killed.


def read_evaluation(made: Try, how: How) -> tuple[PairReading, Outcome, str]:
    """What an evaluation's child wrote, with the result and patches that it judged: see `read_staged`."""
    present = msgspec.structs.replace(made.attempt, outcome="completed")
    tries = (*made.before, present)
    found = read_staged(made.staged_run, made.pair, made.job.mode, tries)
    if found[0].evaluation is not None or how != "deadline":
        return found
    staging.write_timed_out_verdict(made.job, made.pair, made.place, evaluation_timed_out(made))
    return read_staged(made.staged_run, made.pair, made.job.mode, tries)


def _settle_evaluation(made: Try, how: How) -> Settled:
    reading, outcome, wrong = read_evaluation(made, how)
    if (refused := refusal(made, reading)) is not None:
        return _close(made, without_files(made, how, wrong or refused), replied=False)
    attempt = msgspec.structs.replace(judged(made, outcome, stage="eval"), promoted=True)
    return _promote(made, attempt, replied=attempt.outcome == "completed")


def _close(made: Try, attempt: Attempt, *, replied: bool) -> Settled:
    """Complete the record of a try that is not promoted; what it left is kept beside it."""
    staging.keep_evidence(made.place, made.folder, made.stage)
    write_attempt(made.folder, attempt)
    return _settled(made, attempt, replied=replied)


def _promote(made: Try, attempt: Attempt, *, replied: bool) -> Settled:
    job, attempts_dir = made.job, made.job.attempts_dir(made.pair)
    results, verdict = owner(made.before, "agent"), owner(made.before, "eval")
    promotion = Promotion(
        run_dir=job.run_dir,
        folder=made.folder,
        staged=made.place.pair_dir,
        pair_dir=job.pair_dir(made.pair),
        attempt=attempt,
        results_to=attempts_dir / folder_name("agent", results.n) if results else None,
        verdict_to=attempts_dir / folder_name("eval", verdict.n) if verdict else None,
    )
    if made.place.log.exists():
        made.place.log.rename(made.folder / LOG)
    (promote_agents if made.stage == "agent" else promote_verdict)(promotion)
    return _settled(made, attempt, replied=replied)


def _settled(made: Try, attempt: Attempt, *, replied: bool) -> Settled:
    state = read_state(made.job, made.pair, (*made.before, attempt))
    failed = None if attempt.outcome == "completed" else attempt.family or "unknown"
    return Settled(attempt, state, replied, failed)


def left_behind(job: CellJob, pair: Pair, attempt: Attempt, before: tuple[Attempt, ...]) -> Try:
    """A try of a dead launch, as `settle` takes it."""
    folder = job.attempts_dir(pair) / folder_name(attempt.stage, attempt.n)
    place = staging.staged(job, pair, folder.name)
    report = staging.read_report(place)
    made = Try(job, pair, attempt.stage, attempt, before, folder, place, attempt.patch_sha256)
    made.isolation = report.isolation
    made.said = report.error
    return made
