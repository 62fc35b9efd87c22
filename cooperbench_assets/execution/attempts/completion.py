"""What the record of a try says in the end: done, ended by infrastructure errors, or interrupted, and what it cost.

What belongs here: from what was read of a try's files, or from what was said of its child, to the record. What does
not: reading and moving the files (``lifecycle``, ``promotion``).
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from cooperbench_assets.benchmark.failures import classify, infra
from cooperbench_assets.execution.attempts import staging
from cooperbench_assets.execution.attempts.pair_state import has_reply
from cooperbench_assets.execution.attempts.records import now, shorten
from cooperbench_assets.execution.sandboxes.monitored import MAKING

if TYPE_CHECKING:
    from cooperbench_assets.benchmark.outcomes import Outcome
    from cooperbench_assets.benchmark.pairfolder import PairReading
    from cooperbench_assets.execution.attempts.lifecycle import How, Try
    from cooperbench_assets.execution.attempts.records import Attempt
    from cooperbench_assets.execution.worker.protocol import Stage

FREE_FAMILIES: Final = frozenset(
    {
        "auth",
        "quota",
        "configuration",
        "container_start",
        "agent_install",
        "engine",
        "image_missing",
        "redis",
    }
)
"""Failures that come before a model has answered: a recorded cost of 0 is right for them."""

_CLOCK_SLACK: Final = timedelta(seconds=2)
_MORE: Final = 1.001
"""Sums of the same prices in another order differ by less."""


def refusal(made: Try, reading: PairReading) -> str | None:
    """Why a verdict is not accepted; None where it is of this patch, and of this try."""
    if reading.evaluation is None:
        return "no eval.json was written"
    if reading.patch_sha256 != made.patch_sha256:
        return "the verdict is of another patch"
    at = reading.evaluation.evaluated_at
    if at is None or at < made.started.replace(tzinfo=None) - _CLOCK_SLACK:
        return f"the verdict is older than its evaluation ({at})"
    return None


def evaluation_timed_out(made: Try) -> str:
    """What to say of an evaluation killed at its deadline: whose fault it was depends on what it was doing."""
    progress = staging.read_progress(made.place)
    # Tests that had only begun when the time was up are not what used it up.
    tests = progress.test and time.time() - progress.since >= made.job.limits.test_timeout_seconds
    making = progress.doing == MAKING and made.job.execution != "process"
    family = "test_timeout" if tests else "container_start" if making else "eval_timeout"
    return f"[infra:{family}] the evaluation was killed at its deadline while {progress.doing}"


def judged(made: Try, outcome: Outcome, stage: Stage) -> Attempt:
    """The record of a try whose files are whole."""
    broken = outcome.outcome == "infra_error" and outcome.stage == stage
    return msgspec.structs.replace(
        made.attempt,
        outcome="infra_error" if broken else "completed",
        family=outcome.family if broken else None,
        evidence=shorten(outcome.evidence) if broken and outcome.evidence else None,
        retryable=outcome.retryable if broken else None,
        ended_at=now(),
        isolation=made.isolation,
    )


def without_files(made: Try, how: How, wrong: str) -> Attempt:
    """The record of a try that left nothing that can be used."""
    if how == "interrupted":
        text = wrong or "ended from outside before it was done"
        return _broken(made, "interrupted", "interrupted", text, retryable=True)
    what = "agents" if made.stage == "agent" else "evaluation"
    text = made.said or f"the {what} ended and left nothing that can be used"
    if wrong:
        text = f"{text}: {wrong}"
    failure = classify(text, made.stage)
    if failure is None or failure.kind != "infra":
        failure = infra("unknown")
    if failure.family in ("unknown", "interrupted") and (words := staging.last_words(made.place)):
        text = f"{text}\n{words}"
    return _broken(made, "infra_error", failure.family, text, retryable=failure.retryable)


def _broken(
    made: Try, outcome: Literal["infra_error", "interrupted"], family: str, text: str, *, retryable: bool
) -> Attempt:
    return msgspec.structs.replace(
        made.attempt,
        outcome=outcome,
        family=family,
        evidence=shorten(text),
        retryable=retryable,
        ended_at=now(),
        isolation=made.isolation,
    )


def priced(
    attempt: Attempt, cost: float | None, reading: PairReading | None, estimate: float | None, counted: float | None
) -> Attempt:
    """The record with its cost: the known one, or an estimate where nothing tells it.

    Args:
        attempt: The record.
        cost: What the result says, USD. It says 0 of agents that died, and leaves out what summaries of a long
            conversation cost.
        reading: What was read of the result, if there is one.
        estimate: What a try of unknown cost counts for, USD.
        counted: What the child counted of the model's replies, USD; None where it could not.
    """
    if counted is not None and (not cost or counted > cost * _MORE):
        return msgspec.structs.replace(attempt, cost_usd=counted)
    unrecorded = cost is None or (
        cost == 0
        and attempt.outcome == "infra_error"
        and attempt.family not in FREE_FAMILIES
        and not (reading is not None and has_reply(reading))
    )
    if not unrecorded:
        return msgspec.structs.replace(attempt, cost_usd=cost)
    return msgspec.structs.replace(attempt, cost_usd=estimate, cost_estimated=estimate is not None)
