"""Further verdicts on a whole cell, beside the first: how often do the same patches get the same verdict?

What belongs here: rounds of fresh evaluations, which replace nothing, and reading them. What does not: the first
verdict (``attempts.lifecycle``), which stays the outcome of record.

A round's files lie beside the tries, at ``attempts/<mode>/<repo>/<task>/<pair>/verdict-<round>/``: eval.json, and
attempt.json with the verdict. Round 2 is the second verdict. A round is finished before the next one begins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from cooperbench_assets.benchmark.attempt_tree import attempt_folders, plain_listing
from cooperbench_assets.benchmark.attempts import FILE
from cooperbench_assets.benchmark.jsonfiles import BadFileError, decode, read_bytes
from cooperbench_assets.execution.attempts import staging
from cooperbench_assets.execution.attempts.completion import judged, refusal, without_files
from cooperbench_assets.execution.attempts.lifecycle import Settled, Try, read_evaluation, register
from cooperbench_assets.execution.attempts.promotion import VERDICT
from cooperbench_assets.execution.attempts.records import Attempt, now, write_attempt
from cooperbench_assets.execution.errors import RefusedLaunch
from cooperbench_assets.execution.planning.steps import Plan, Step
from cooperbench_assets.execution.secret_values import clean
from cooperbench_assets.execution.worker.protocol import LOG
from cooperbench_assets.wording import counted

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.attempts.lifecycle import How
    from cooperbench_assets.execution.attempts.pair_state import PairState
    from cooperbench_assets.execution.job import CellJob
    from cooperbench_assets.execution.options import LaunchOptions
    from cooperbench_assets.execution.worker.protocol import Stage

FIRST_ROUND: Final = 2
"""The first verdict is the outcome of record; the first fresh one is the second."""

_FOLDER = re.compile(r"verdict-(\d{1,9})")
_NOT_TESTED = ("agent_error", "agent_timeout")


class Verdict(Attempt, kw_only=True, frozen=True):
    """One evaluation of one pair in a round; `n` counts its tries in the round, `retry_generation` is the round."""

    verdict: str | None = None
    """pass or fail; None for an infrastructure error."""

    reason: str | None = None

    @property
    def done(self) -> bool:
        """Whether it is a clean verdict."""
        return self.verdict is not None


_VERDICT: Final = msgspec.json.Decoder(Verdict)


def read_verdicts(run_dir: Path, mode: str) -> dict[Pair, dict[int, Verdict]]:
    """Every recorded further verdict of a run, by pair and round. What cannot be read counts as not there."""
    found: dict[Pair, dict[int, Verdict]] = {}
    for pair, relative in attempt_folders(plain_listing(run_dir), mode):
        if (match := _FOLDER.fullmatch(relative.rpartition("/")[2])) is None:
            continue
        try:
            verdict = decode(read_bytes(f"{run_dir}/{relative}/{FILE}"), _VERDICT)
        except BadFileError:
            continue
        found.setdefault(pair, {})[int(match[1])] = verdict
    return found


def plan_round(job: CellJob, states: Mapping[Pair, PairState], options: LaunchOptions) -> Plan:
    """Which pairs to evaluate afresh: whatever the present round lacks; else all, in a new round.

    The plan's `retry_generation` is the round.

    Raises:
        RefusedLaunch: if single pairs are asked for, or a pair of the cell has no verdict yet.
    """
    if options.pairs is not None or options.at_most is not None:
        raise RefusedLaunch(f"{job.label}: fresh verdicts come for whole cells only; leave out the choice of pairs")
    tested = [pair for pair, state in states.items() if _is_tested(state)]
    open_ = [pair.name for pair, state in states.items() if not state.settled and pair.name not in job.accepted]
    if open_ or not tested:
        raise RefusedLaunch(
            f"{job.label}: {counted(len(open_) or len(states), 'pair', 'has', 'have')} no verdict yet "
            f"({', '.join(open_[:3])}); run the cell to its end first"
        )
    rounds = read_verdicts(job.run_dir, job.mode)
    number = _round(job, tested, rounds)
    steps = [_step(job, states[pair], rounds.get(pair, {}).get(number), number) for pair in states]
    return Plan("eval", tuple(steps), number)


def _is_tested(state: PairState) -> bool:
    return state.settled and state.has_eval and state.reason not in _NOT_TESTED


def _round(job: CellJob, tested: list[Pair], rounds: Mapping[Pair, Mapping[int, Verdict]]) -> int:
    """The latest round if it lacks anything that can still be had, else the next one."""
    latest = max((number for given in rounds.values() for number in given), default=FIRST_ROUND - 1)
    if latest < FIRST_ROUND:
        return FIRST_ROUND
    given = [rounds.get(pair, {}).get(latest) for pair in tested]
    finished = all(one is not None and (one.done or one.n >= job.limits.eval_attempts) for one in given)
    return latest + 1 if finished else latest


def _step(job: CellJob, state: PairState, there: Verdict | None, number: int) -> Step:
    if not _is_tested(state):
        return Step(state.pair, "not_tested")
    if there is not None and there.done:
        return Step(state.pair, "done", detail=f"verdict {number}: {there.verdict}")
    limit = job.limits.eval_attempts
    if there is not None and there.n >= limit:
        family, used = there.family, there.n
        return Step(state.pair, "exhausted", "further_verdict_failed", family, number, used=used, limit=limit)
    return Step(state.pair, "run", "further_verdict", detail=number, retry_generation=number)


def begin_verdict(job: CellJob, stage: Stage, state: PairState, retry_generation: int) -> Try:
    """Record a fresh evaluation and make its staging folder; `retry_generation` is the round."""
    folder = job.attempts_dir(state.pair) / f"verdict-{retry_generation}"
    earlier = read_verdicts(job.run_dir, job.mode).get(state.pair, {}).get(retry_generation)
    n = 1 if earlier is None else earlier.n + 1
    patch = state.patch_sha256
    record = Verdict(n=n, retry_generation=retry_generation, stage="eval", started_at=now(), patch_sha256=patch)
    place = staging.staged(job, state.pair, folder.name)
    made = Try(job, state.pair, stage, record, state.attempts, folder, place, patch, replaced=earlier)
    register(made)
    return made


def settle_verdict(made: Try, how: How, estimate: float | None, states: Mapping[Pair, PairState]) -> Settled:
    """Put a fresh verdict beside the first one, and complete its record; nothing else changes."""
    clean(made)
    reading, outcome, wrong = read_evaluation(made, how)
    if (refused := refusal(made, reading)) is not None:
        record = without_files(made, how, wrong or refused)
    else:
        record = judged(made, outcome, stage="eval")
        (made.place.pair_dir / VERDICT).replace(made.folder / VERDICT)
    if isinstance(record, Verdict) and record.outcome == "completed":
        record = msgspec.structs.replace(record, verdict=outcome.outcome, reason=outcome.reason)
    if made.place.log.exists():
        made.place.log.replace(made.folder / LOG)
    write_attempt(made.folder, record)
    done = record.outcome == "completed"
    return Settled(record, states[made.pair], replied=done, failed=None if done else record.family or "unknown")
