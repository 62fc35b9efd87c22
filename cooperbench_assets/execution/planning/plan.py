"""What a launch will do with each planned pair, and why: pure functions over what is known.

What belongs here: decisions. What does not: reading (``attempts.pair_state``), the order of launches
(``launch_order``), doing, and the words for it (``steps``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.execution.attempts.records import of_stage, tries_used
from cooperbench_assets.execution.errors import RefusedLaunch
from cooperbench_assets.execution.planning.launch_order import spread
from cooperbench_assets.execution.planning.steps import Plan, Step

if TYPE_CHECKING:
    from pathlib import Path

    from cooperbench_assets.execution.attempts.pair_state import PairState
    from cooperbench_assets.execution.attempts.records import Attempt
    from cooperbench_assets.execution.job import CellJob
    from cooperbench_assets.execution.options import LaunchOptions
    from cooperbench_assets.execution.planning.steps import Cause
    from cooperbench_assets.execution.planning.usage import History, LateHistory
    from cooperbench_assets.execution.worker.protocol import Stage


def plan_agents(
    job: CellJob,
    states: Mapping[Pair, PairState],
    options: LaunchOptions,
    history: History | LateHistory,
    retry_generation: int = 1,
) -> Plan:
    """Which pairs' agents to run.

    Args:
        job: The cell.
        states: Every planned pair as it stands.
        options: What this launch asks differently.
        history: How long pairs took and what they cost.
        retry_generation: The cell's present retry generation of agent tries.

    Raises:
        RefusedLaunch: if a pair is asked for by name that nobody plans, or that has its verdict.
    """
    asked = _asked(job, options)
    settled = [name for name in options.pairs or () if states[Pair.parse(name)].settled]
    if settled:
        raise RefusedLaunch(
            f"{job.label}: {', '.join(settled[:5])} has its verdict, and the first clean verdict is final; "
            "fresh agents are a new repetition: add a seed to the setting and run that cell"
        )
    plan = _plan("agent", job, states, options, history, retry_generation, asked, _agent_step)
    refused = next((state for state in states.values() if options.automatic and _account_refused(state)), None)
    return plan if refused is None else _all_wait(plan, refused)


_ACCOUNT = frozenset({"auth", "quota"})


def _account_refused(state: PairState) -> bool:
    """Whether a pair failed of what fails every pair until a person has acted."""
    family, retryable = _failure(state, "agent")
    return not state.settled and family in _ACCOUNT and retryable is False


def _all_wait(plan: Plan, refused: PairState) -> Plan:
    """The plan where nothing is run, because what failed one pair would fail the next one."""
    family, _ = _failure(refused, "agent")
    steps = (
        Step(step.pair, "needs_person", "other_pair_refused", family, refused.pair.name)
        if step.action == "run"
        else step
        for step in plan.steps
    )
    return replace(plan, steps=tuple(steps))


def plan_evaluations(
    job: CellJob,
    states: Mapping[Pair, PairState],
    options: LaunchOptions,
    history: History | LateHistory,
    retry_generation: int = 1,
) -> Plan:
    """Which pairs to evaluate; arguments and errors as for `plan_agents`."""
    asked = _asked(job, options)
    settled = [
        name for name in options.pairs or () if states[Pair.parse(name)].settled and states[Pair.parse(name)].has_eval
    ]
    if settled:
        raise RefusedLaunch(
            f"{job.label}: {', '.join(settled[:5])} has its verdict; fresh verdicts come for whole cells only, "
            "as a second verdict beside the first"
        )
    return _plan("eval", job, states, options, history, retry_generation, asked, _eval_step)


def _asked(job: CellJob, options: LaunchOptions) -> frozenset[Pair]:
    """The pairs that the launch is about.

    Raises:
        RefusedLaunch: if it names a pair that the subset does not plan.
    """
    planned = frozenset(job.subset.pairs)
    if options.pairs is None:
        return planned
    try:
        asked = frozenset(Pair.parse(name) for name in options.pairs)
    except ValueError as error:
        raise RefusedLaunch(f"{job.label}: {error}") from error
    if unknown := sorted(pair.name for pair in asked - planned):
        raise RefusedLaunch(
            f"{job.label}: {', '.join(unknown[:5])} is not planned by subset {job.subset.name} "
            f"({job.subset.path}); name a pair of the subset, or change `subset:`"
        )
    return asked


_Decide = Callable[["CellJob", "PairState", int, bool], Step]


def _plan(
    stage: Stage,
    job: CellJob,
    states: Mapping[Pair, PairState],
    options: LaunchOptions,
    history: History | LateHistory,
    retry_generation: int,
    asked: frozenset[Pair],
    decide: _Decide,
) -> Plan:
    steps = []
    for pair in job.subset.pairs:
        state = states[pair]
        if pair not in asked:
            steps.append(Step(pair, "not_asked"))
            continue
        counted_in = max([retry_generation, *(one.retry_generation for one in of_stage(state.attempts, stage))])
        if options.reset_retries:
            counted_in = retry_generation
        step = decide(job, state, counted_in, options.automatic)
        if step.action == "run":
            step = replace(
                step,
                retry_generation=counted_in,
                expected_seconds=history.expected_seconds(stage, pair),
                expected_cost_usd=history.expected_cost(pair) if stage == "agent" else 0.0,
            )
        steps.append(step)
    return Plan(stage, tuple(_at_most(steps, options.at_most)), retry_generation)


def _at_most(steps: list[Step], limit: int | None) -> list[Step]:
    """Leave `limit` runs, over as many repositories as possible."""
    runs = [step.pair for step in steps if step.action == "run"]
    if limit is None or len(runs) <= limit:
        return steps
    chosen = set(spread(runs, limit))
    return [
        step if step.action != "run" or step.pair in chosen else Step(step.pair, "left_out", detail=limit)
        for step in steps
    ]


def _agent_step(job: CellJob, state: PairState, retry_generation: int, automatic: bool) -> Step:
    if state.settled:
        return Step(state.pair, "done", detail=state.outcome)
    if state.pair.name in job.accepted:
        return Step(state.pair, "accepted")
    if state.has_result and not _failed_at(state, "agent"):
        return Step(state.pair, "agents_done")
    if (missing := _missing_task_file(job, state.pair)) is not None:
        return Step(state.pair, "task_missing", detail=missing)
    used = tries_used(state.attempts, "agent", retry_generation)
    return _retry(_left(state, "agent"), state, "agent", used, job.limits.agent_attempts, automatic)


def _eval_step(job: CellJob, state: PairState, retry_generation: int, automatic: bool) -> Step:
    if state.settled and state.has_eval:
        return Step(state.pair, "done", detail=state.outcome)
    if state.pair.name in job.accepted:
        return Step(state.pair, "accepted")
    if not state.has_result or _failed_at(state, "agent"):
        return replace(_left(state, "agent"), code="not_evaluated")
    used = tries_used(state.attempts, "eval", retry_generation, state.patch_sha256)
    return _retry(_left(state, "eval"), state, "eval", used, job.limits.eval_attempts, automatic)


def _retry(step: Step, state: PairState, stage: Stage, used: int, limit: int, automatic: bool) -> Step:
    """Run once more, unless the tries are used up or, where nobody asked, a person must fix something."""
    step = replace(step, used=used, limit=limit)
    if used >= limit:
        return replace(step, code="exhausted")
    _, retryable = _failure(state, stage)
    return replace(step, code="needs_person") if automatic and retryable is False else step


def _failed_at(state: PairState, stage: Stage) -> bool:
    return state.outcome == "infra_error" and state.stage == stage


def _failure(state: PairState, stage: Stage) -> tuple[str | None, bool | None]:
    """Family of the failure that a further try would follow, and whether a try alone can help."""
    if _failed_at(state, stage):
        return state.family, state.retryable
    last = _last(state, stage)
    return (last.family, last.retryable) if last is not None and last.failed else (None, None)


def _last(state: PairState, stage: Stage) -> Attempt | None:
    """The last try that speaks of the present patch."""
    tries = [
        one for one in of_stage(state.attempts, stage) if stage == "agent" or one.patch_sha256 == state.patch_sha256
    ]
    return tries[-1] if tries else None


def _left(state: PairState, stage: Stage) -> Step:
    """A further try of a stage, with what it is for."""
    cause, detail = _agents_cause(state) if stage == "agent" else _eval_cause(state)
    family, _ = _failure(state, stage)
    return Step(state.pair, "run", cause, family, detail)


def _agents_cause(state: PairState) -> tuple[Cause, str]:
    last = _last(state, "agent")
    if _failed_at(state, "agent"):
        return "agents_failed", ""
    if state.torn and not state.has_result:
        return "result_unreadable", state.torn
    if last is not None and last.failed:
        return "agents_interrupted" if last.outcome == "interrupted" else "last_agents_failed", ""
    return "no_result", ""


def _eval_cause(state: PairState) -> tuple[Cause, str]:
    last = _last(state, "eval")
    if _failed_at(state, "eval"):
        return "eval_failed", ""
    if state.stale:
        return "verdict_outdated", ""
    if state.torn:
        return "verdict_unreadable", state.torn
    if last is not None and last.failed:
        return "eval_interrupted" if last.outcome == "interrupted" else "last_eval_failed", ""
    if state.settled:
        return "for_the_record", f"{state.outcome} ({state.reason})"
    return "no_verdict", ""


def _missing_task_file(job: CellJob, pair: Pair) -> Path | None:
    """The first file that the dataset lacks for a pair; None if it has all."""
    folder = job.dataset / pair.task.folder
    files = (folder / f"feature{feature}/feature.md" for feature in pair.features)
    return next((file for file in files if not file.is_file()), None)
