"""What a launch will do with each planned pair, and why: pure functions over what is known.

What belongs here: decisions. What does not: reading (``attempts.pair_state``), the order of launches
(``launch_order``), doing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.execution.attempts.records import of_stage, tries_used
from cooperbench_assets.execution.errors import RefusedLaunch
from cooperbench_assets.execution.planning.launch_order import spread

if TYPE_CHECKING:
    from cooperbench_assets.execution.attempts.pair_state import PairState
    from cooperbench_assets.execution.attempts.records import Attempt
    from cooperbench_assets.execution.job import CellJob
    from cooperbench_assets.execution.options import LaunchOptions
    from cooperbench_assets.execution.planning.usage import History, LateHistory
    from cooperbench_assets.execution.worker.protocol import Stage

Action = Literal["run", "skip", "blocked"]


@dataclass(frozen=True, slots=True)
class Step:
    """One planned pair in one launch."""

    pair: Pair
    action: Action
    """run; skip: nothing is left to run; blocked: something is owed that this launch cannot give."""

    reason: str
    retry_generation: int = 1
    """Retry generation that the try counts in, where the pair is run."""

    expected_seconds: float | None = None
    """From earlier tries; None where nothing is known."""

    expected_cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a launch of one stage will do, pair by pair, in the order of the subset."""

    stage: Stage
    steps: tuple[Step, ...]
    retry_generation: int = 1

    def having(self, action: Action) -> tuple[Step, ...]:
        """The steps of one kind."""
        return tuple(step for step in self.steps if step.action == action)

    @property
    def runs(self) -> tuple[Step, ...]:
        """The pairs to run."""
        return self.having("run")

    @property
    def expected_cost_usd(self) -> float | None:
        """Expected cost of all runs, USD; None where the cost of one is not known."""
        return _total(step.expected_cost_usd for step in self.runs)

    @property
    def expected_seconds(self) -> float | None:
        """Expected time of all runs one after another; None where one is not known."""
        return _total(step.expected_seconds for step in self.runs)


def _total(parts: Iterable[float | None]) -> float | None:
    total = 0.0
    for part in parts:
        if part is None:
            return None
        total += part
    return total


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
    """Whether a pair was struck by what strikes every pair until a person has acted."""
    family, retryable = _failure(state, "agent")
    return not state.settled and family in _ACCOUNT and retryable is False


def _all_wait(plan: Plan, refused: PairState) -> Plan:
    """The plan where nothing is run, because what struck one pair would strike the next one."""
    why = f"waits for a person ({refused.family}): {refused.pair.name} was struck, and the others would be"
    steps = (replace(step, action="blocked", reason=why) if step.action == "run" else step for step in plan.steps)
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


_Decide = Callable[["CellJob", "PairState", int, bool], tuple[Action, str]]


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
            steps.append(Step(pair, "skip", "not asked for in this launch"))
            continue
        counted_in = max([retry_generation, *(one.retry_generation for one in of_stage(state.attempts, stage))])
        if options.reset_retries:
            counted_in = retry_generation
        action, reason = decide(job, state, counted_in, options.automatic)
        step = Step(pair, action, reason)
        if action == "run":
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
    left_out = f"left out: this launch runs at most {limit} pairs"
    return [
        step if step.action != "run" or step.pair in chosen else Step(step.pair, "skip", left_out) for step in steps
    ]


def _agent_step(job: CellJob, state: PairState, retry_generation: int, automatic: bool) -> tuple[Action, str]:
    if state.settled:
        return "skip", f"done: {state.outcome}"
    if state.pair.name in job.accepted:
        return "skip", "its infrastructure failure is accepted"
    if state.has_result and not _failed_at(state, "agent"):
        return "skip", "its agents are done"
    if (missing := missing_task_file(job, state.pair)) is not None:
        return "blocked", missing
    used = tries_used(state.attempts, "agent", retry_generation)
    return _retry(_why_agents(state), state, "agent", used, job.limits.agent_attempts, automatic)


def _eval_step(job: CellJob, state: PairState, retry_generation: int, automatic: bool) -> tuple[Action, str]:
    if state.settled and state.has_eval:
        return "skip", f"done: {state.outcome}"
    if state.pair.name in job.accepted:
        return "skip", "its infrastructure failure is accepted"
    if not state.has_result:
        return "blocked", f"not evaluated: {_why_agents(state)}"
    if not state.settled and _failed_at(state, "agent"):
        return "blocked", f"not evaluated: its agents failed ({state.family or 'unknown'})"
    used = tries_used(state.attempts, "eval", retry_generation, state.patch_sha256)
    return _retry(_why_eval(state), state, "eval", used, job.limits.eval_attempts, automatic)


def _retry(why: str, state: PairState, stage: Stage, used: int, limit: int, automatic: bool) -> tuple[Action, str]:
    """Run once more, unless the tries are used up or, where nobody asked, a person must fix something."""
    if used >= limit:
        return "blocked", f"tries exhausted ({used} of {limit}): {why}"
    family, retryable = _failure(state, stage)
    if automatic and retryable is False:
        return "blocked", f"waits for a person ({family}): {why}"
    return "run", f"{why}; try {used + 1} of {limit}" if used else why


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


def _why_agents(state: PairState) -> str:
    last = _last(state, "agent")
    if _failed_at(state, "agent"):
        return f"its agents failed ({state.family or 'unknown'})"
    if state.torn and not state.has_result:
        return f"its result cannot be read ({state.torn})"
    if last is not None and last.failed:
        ended = "was interrupted" if last.outcome == "interrupted" else f"failed ({last.family or 'unknown'})"
        return f"no result: its last try {ended}"
    return "no result yet"


def _why_eval(state: PairState) -> str:
    last = _last(state, "eval")
    if _failed_at(state, "eval"):
        return f"its evaluation failed ({state.family or 'unknown'})"
    if state.stale:
        return "its verdict is of an older patch"
    if state.torn:
        return f"its verdict cannot be read ({state.torn})"
    if last is not None and last.failed:
        ended = "was interrupted" if last.outcome == "interrupted" else f"failed ({last.family or 'unknown'})"
        return f"no verdict: its last evaluation {ended}"
    if state.settled:
        return f"evaluated for the record: {state.outcome} ({state.reason}) stands already"
    return "not evaluated yet"


def missing_task_file(job: CellJob, pair: Pair) -> str | None:
    """What the dataset lacks for a pair, as a reason; None if nothing."""
    folder = job.dataset / pair.task.folder
    for feature in pair.features:
        file = folder / f"feature{feature}" / "feature.md"
        if not file.is_file():
            return f"the dataset lacks {file}; complete the dataset, or take the pair out of the subset"
    return None
