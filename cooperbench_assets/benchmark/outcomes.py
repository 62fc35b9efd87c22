"""What became of a pair in a cell: its one outcome, from everything that was read of it.

What belongs here: the rules, as plain functions on a reading. What does not: finding evidence in files
(``evidence``), the meaning of a failure's text (``failures``), and rates (``analysis``).

The order of the rules is the point of them: nothing readable → dead agents → a verdict that is absent, stale or
an error → pass → conflict → a patch that did not apply → tests that infrastructure ended → tests that failed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from cooperbench_assets.benchmark import attempts as tries
from cooperbench_assets.benchmark.evidence import EVIDENCE_LIMIT, LIMITS
from cooperbench_assets.benchmark.failures import REPEAT_FAILS, UNKNOWN, classify, infra
from cooperbench_assets.benchmark.records import parse_time

if TYPE_CHECKING:
    from cooperbench_assets.benchmark.attempts import Attempt
    from cooperbench_assets.benchmark.evidence import AgentEnd, FailureSignal
    from cooperbench_assets.benchmark.failures import Failure, Stage
    from cooperbench_assets.benchmark.logtree import Evaluation, PairReading

Verdict = Literal["pass", "fail", "infra_error", "unevaluated", "missing"]
Reason = Literal["tests", "conflict", "not_applied", "empty_patch", "agent_error", "agent_timeout", "test_timeout"]

_SLACK = timedelta(seconds=2)
"""How far the clocks of a try's record and of its files may be apart."""

_ONE_TREE = ("clean", "identical")
"""Merge statuses in which what was tested is the work of both agents."""


class Outcome(Struct, frozen=True):
    """The outcome of one pair in one cell. `stage`, `family` and `retryable` are None unless infra_error."""

    outcome: Verdict
    reason: Reason | None = None
    outcome_strict: Verdict = "missing"
    """The outcome where only solo, or a clean or identical merge of two applied patches, may pass."""

    reason_strict: Reason | None = None
    stage: Stage | None = None
    family: str | None = None
    evidence: str | None = None
    evidence_source: str | None = None
    """File that the evidence was found in, relative to the pair's folder."""

    retryable: bool | None = None
    both_passed_strict: bool | None = None
    suspect: bool = False
    hollow: bool = False
    fallback_unseen: bool = False
    limits_exceeded: bool = False
    stale: bool = False


MISSING = Outcome("missing")


def judge(reading: PairReading | None) -> Outcome:
    """The outcome of a pair.

    Args:
        reading: What was read of it; None where the tree has nothing of it.
    """
    if reading is None:
        return MISSING
    outcome = _verdict(reading)
    evaluation = reading.evaluation
    return replace(
        outcome,
        evidence=None if outcome.evidence is None else outcome.evidence[:EVIDENCE_LIMIT],
        suspect=any(agent.suspect for agent in reading.agents),
        limits_exceeded=any(agent.record.status in LIMITS for agent in reading.agents),
        hollow=evaluation is not None and _hollow(evaluation),
        fallback_unseen=evaluation is not None and _fallback_unseen(evaluation),
        stale=is_stale(reading),
    )


def _verdict(reading: PairReading) -> Outcome:
    """Outcome, reasons and evidence; the flags are `judge`'s."""
    if reading.result is None:
        return _without_result(reading)
    if (dead := _dead(reading.agents)) is not None:
        return dead
    if reading.evaluation is None or is_stale(reading):
        return _without_evaluation(reading)
    return _graded(reading, reading.evaluation)


def _failed(reason: Reason, evidence: str | None = None, source: str | None = None) -> Outcome:
    return Outcome("fail", reason, "fail", reason, None, None, evidence, source, both_passed_strict=False)


def _broken(stage: Stage, failure: Failure, evidence: str | None, source: str) -> Outcome:
    """An infrastructure failure, by both ways of counting."""
    return Outcome("infra_error", None, "infra_error", None, stage, failure.family, evidence, source, failure.retryable)


def _source(reading: PairReading, path: str) -> str:
    """A path relative to the run folder, as one relative to the pair's folder."""
    return "../" * (reading.relative.count("/") + 1) + path


def _broken_by(reading: PairReading, attempt: Attempt) -> Outcome:
    """What the record of a try says, where the tree has no trace of it."""
    failure = infra(attempt.family or "unknown", attempt.retryable)
    source = _source(reading, f"{tries.place_of(reading.pair, reading.mode, attempt)}/{tries.FILE}")
    return _broken(attempt.stage, failure, attempt.evidence, source)


def _without_result(reading: PairReading) -> Outcome:
    """Missing, unless the last try of the agents is recorded as an infrastructure failure."""
    attempt = tries.last(reading.attempts, "agent")
    if attempt is not None and attempt.outcome == "infra_error":
        return _broken_by(reading, attempt)
    return MISSING


def _dead(agents: tuple[AgentEnd, ...]) -> Outcome | None:
    """The outcome where an agent did not end by itself, whatever its patch was graded as; else None."""
    for kind in ("infra", "agent_error", "agent_timeout"):
        for agent in agents:
            failure = agent.failure
            if failure is None or failure.kind != kind:
                continue
            if failure.kind == "infra":
                return _broken("agent", failure, agent.evidence, agent.source or "result.json")
            return _failed(failure.kind, agent.evidence, agent.source)
    return None


def is_stale(reading: PairReading) -> bool:
    """Whether the verdict is of an earlier result.

    The patch that the last evaluation was recorded to judge decides where it is known; else the times do. A try
    that broke need not have left the verdict that lies there: then it can only say that the verdict is not good.
    """
    evaluation = reading.evaluation
    if evaluation is None or reading.result is None:
        return False
    done = [attempt for attempt in reading.attempts if attempt.outcome in ("completed", "infra_error")]
    attempt = tries.last(done, "eval")
    if attempt is not None:
        if not _of_present_patch(reading, attempt):
            return True
        if attempt.patch_sha256 and reading.patch_sha256 and _left_by(attempt, evaluation):
            return False
    if evaluation.evaluated_at is None or reading.ended_at is None:
        return False
    return evaluation.evaluated_at < reading.ended_at


def _left_by(attempt: Attempt, evaluation: Evaluation) -> bool:
    """Whether a verdict is the one that a try wrote: a completed one did, a broken one if the times say so."""
    if attempt.outcome == "completed":
        return True
    start, end = parse_time(attempt.started_at), parse_time(attempt.ended_at)
    if start is None or end is None or evaluation.evaluated_at is None:
        return False
    return start - _SLACK <= evaluation.evaluated_at <= end + _SLACK


def _without_evaluation(reading: PairReading) -> Outcome:
    """Not evaluated, or broken where something says why there is no verdict."""
    attempt = tries.last(reading.attempts, "eval")
    if attempt is not None and attempt.outcome == "infra_error" and _of_present_patch(reading, attempt):
        return _broken_by(reading, attempt)
    if reading.eval_error is not None and not _older_error(reading):
        failure = classify(reading.eval_error, "eval") or UNKNOWN
        return _broken("eval", failure, reading.eval_error, _source(reading, "eval_summary.json"))
    return Outcome("unevaluated", outcome_strict="unevaluated")


def _of_present_patch(reading: PairReading, attempt: Attempt) -> bool:
    """Whether a try may have been of the present patch: where a hash is not known, nothing says otherwise."""
    judged = attempt.patch_sha256
    return judged is None or reading.patch_sha256 is None or judged == reading.patch_sha256


def _older_error(reading: PairReading) -> bool:
    """Whether the run's evaluation summary was written before the present result."""
    if reading.eval_error_at is None or reading.ended_at is None:
        return False
    return reading.eval_error_at < reading.ended_at


def _graded(reading: PairReading, evaluation: Evaluation) -> Outcome:
    """The outcome where there is a verdict of the present result."""
    if (broken := _eval_error(reading, evaluation)) is not None:
        return broken
    spoilt = None if reading.mode == "solo" else _spoilt_merge(reading, evaluation)
    if evaluation.both_passed:
        return _passed(reading, evaluation, spoilt)
    tested = evaluation.merge_strategy == "union"
    if spoilt is not None and not tested:
        return _failed(spoilt)
    outcome = _failed("tests")
    if (infra_failed := _infra_failure(evaluation)) is not None:
        outcome = _ended(reading, infra_failed.failure, infra_failed.evidence)
    if spoilt is None:
        return outcome
    if outcome.outcome == "fail":
        return _failed(spoilt)
    return replace(outcome, outcome_strict="fail", reason_strict=spoilt, both_passed_strict=False)


def _eval_error(reading: PairReading, evaluation: Evaluation) -> Outcome | None:
    """The outcome where the evaluation says of itself that it went wrong; else None."""
    if evaluation.error is None:
        if evaluation.merge_status == "error":
            return _broken("eval", UNKNOWN, "merge status error, and no text", "eval.json")
        return None
    failure = classify(evaluation.error, "eval")
    return None if failure is None else _ended(reading, failure, evaluation.error)


def _passed(reading: PairReading, evaluation: Evaluation, spoilt: Reason | None) -> Outcome:
    if spoilt is not None:
        return Outcome("pass", None, "fail", spoilt, both_passed_strict=False)
    if reading.mode != "solo" and evaluation.merge_status is None:
        return Outcome("pass", outcome_strict="unevaluated")
    return Outcome("pass", outcome_strict="pass", both_passed_strict=True)


def _spoilt_merge(reading: PairReading, evaluation: Evaluation) -> Reason | None:
    """Why what was tested is not the work of both agents; None where it is, or nothing says how they were merged."""
    status = evaluation.merge_status
    if status == "conflicts":
        return "conflict"
    applied = (evaluation.apply_a, evaluation.apply_b)
    if status == "missing_input" or "failed" in applied:
        return "not_applied"
    if not evaluation.both_passed:
        return None
    if status is not None and status not in _ONE_TREE:
        return "not_applied"
    known = [word for word in applied if word is not None]
    if any(word != "applied" for word in known):
        return "empty_patch" if "skipped" in known else "not_applied"
    if not known and any(patch is not None and patch.empty for patch in reading.patches):
        return "empty_patch"
    return None


def _infra_failure(evaluation: Evaluation) -> FailureSignal | None:
    """The infrastructure failure of the tests if it ended every feature that failed; None where one failed itself."""
    signs = [
        feature.sign if feature is not None else None
        for feature in (evaluation.feature_a, evaluation.feature_b)
        if feature is None or not feature.passed
    ]
    if not signs or None in signs:
        return None
    return signs[0]


def _ended(reading: PairReading, failure: Failure, evidence: str) -> Outcome:
    """Broken; but a test run that did not end by itself again on the same patch is a fail."""
    reason = REPEAT_FAILS.get(failure.family)
    if reason is not None and _ended_so_before(reading):
        return _failed(reason, evidence, "eval.json")
    return _broken("eval", failure, evidence, "eval.json")


def _ended_so_before(reading: PairReading) -> bool:
    """Whether an earlier evaluation of the present patch is recorded as timed out or aborted, too."""
    if reading.patch_sha256 is None:
        return False
    evals = [attempt for attempt in reading.attempts if attempt.stage == "eval"]
    repeats = [
        attempt for attempt in evals if attempt.family in REPEAT_FAILS and attempt.patch_sha256 == reading.patch_sha256
    ]
    # The present verdict is no repeat of itself: a later try that runs, or that ended otherwise, has replaced none.
    wrote = [attempt for attempt in evals if attempt.outcome == "completed" or attempt.family in REPEAT_FAILS]
    return len(repeats) > (1 if tries.last(wrote, "eval") in repeats else 0)


def _hollow(evaluation: Evaluation) -> bool:
    """A merge that is called clean and holds nothing."""
    if evaluation.merge_status != "clean":
        return False
    if evaluation.merge_diff_empty is None:
        return (evaluation.apply_a, evaluation.apply_b) == ("skipped", "skipped")
    return evaluation.merge_diff_empty


def _fallback_unseen(evaluation: Evaluation) -> bool:
    """Upstream tested agent 1's patch alone, and kept nothing of it because it did not pass."""
    if evaluation.both_passed or evaluation.merge_strategy != "naive":
        return False
    if evaluation.merge_status == "conflicts":
        return True
    return evaluation.merge_status == "missing_input" and evaluation.apply_a == "applied"
