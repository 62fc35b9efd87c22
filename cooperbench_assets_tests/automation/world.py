"""A cell in memory, with all that can happen to it: tries that fail, launches that die, storage that is wiped.

What belongs here: playing the disk, Dagster's storage and the machine. The plan, the breaker and every decision are the
real ones. What does not: asserting, except what must hold at every step (``World.run``).
"""

# ruff: noqa: DTZ001 - times are UTC without a zone here

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from cooperbench_assets.automation.cell_state import PairsToRun, assess, fingerprint
from cooperbench_assets.automation.dagster_runs import Asked
from cooperbench_assets.automation.observation import with_pairs_to_run
from cooperbench_assets.automation.policy import CellState, Decision, Launch, decide
from cooperbench_assets.benchmark.failures import FAMILIES
from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.execution.attempts.pair_state import PairState
from cooperbench_assets.execution.attempts.records import Attempt, of_stage, tries_used
from cooperbench_assets.execution.job import CellJob
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.planning.circuit_breaker import Breaker
from cooperbench_assets.execution.planning.plan import plan_agents, plan_evaluations
from cooperbench_assets.execution.planning.usage import History
from cooperbench_assets.execution.worker.protocol import Stage
from cooperbench_assets.spec import ExperimentSpec
from cooperbench_assets.store.cells import Cell

CELL = Cell("toy", "solo", 0)
SPEC = ExperimentSpec.model_validate({"subset": "lite", "settings": {"solo": {"seeds": [0]}}})
End = str
"""ok, or a family of failures."""


@dataclass
class Run:
    """A run in Dagster's storage."""

    key: str
    mark: str
    status: Literal["STARTED", "SUCCESS", "FAILURE"] = "STARTED"
    ended: datetime | None = None
    dead: bool = False


@dataclass
class World:
    """One cell, its disk, and Dagster's storage."""

    job: CellJob
    ends: Mapping[Pair, tuple[Sequence[End], Sequence[End]]]
    """How the tries of each pair end, agents and evaluations; after the last one they go well."""

    whole: bool = True
    now: datetime = datetime(2026, 1, 1)
    states: dict[Pair, PairState] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    unread: bool = False
    executed: int = 0
    working: bool = False
    """A process holds the cell's lock."""

    def __post_init__(self) -> None:
        self.states = {pair: PairState(pair, "missing") for pair in self.job.subset.pairs}

    def to_run(self) -> PairsToRun:
        return assess(self.job, self.states, {}, whole=self.whole, now=self.now)

    def state(self) -> CellState:
        """The cell as the sensor sees it."""
        to_run = self.to_run()
        mark = fingerprint(CELL, SPEC, "s", to_run, self.now.replace(second=0) if self.unread else None)
        ended = [run for run in self.runs if run.mark == mark]
        failed = [run for run in ended if run.status == "FAILURE"]
        asked = Asked(
            sum(run.status != "STARTED" for run in ended),
            len(failed),
            max((run.ended for run in failed if run.ended), default=None),
            any(run.status == "SUCCESS" for run in ended),
        )
        active = next((run.key for run in self.runs if run.status == "STARTED"), None)
        holder = "a process" if self.working else None
        state = CellState(CELL, self.now, backoff=timedelta(minutes=5), whole=self.whole)
        state = replace(state, active_run=active, holder=holder)
        return replace(with_pairs_to_run(state, to_run, asked, fingerprint=mark), unread=self.unread, launched=True)

    def tick(self) -> Decision:
        """A tick of the sensor: dead runs first, then the decision."""
        for run in self.runs:
            if run.dead and run.status == "STARTED":
                run.status, run.ended = "FAILURE", self.now
        return decide(self.state())

    def wipe(self) -> None:
        """Lose Dagster's storage; a run whose process works goes on, and holds the cell's lock."""
        self.runs = []

    def run(self, launch: Launch, mark: str, stop_after: int | None = None, before: bool = False) -> None:
        """Hand a run over, and let it work until it ends or its process dies after some tries.

        Args:
            launch: What the sensor asked for.
            mark: The state's fingerprint then.
            stop_after: The process is killed while this try runs; None: it ends by itself.
            before: The process is killed before it has recorded anything.
        """
        if any(run.key == launch.run_key for run in self.runs):
            return  # Dagster hands a run key over once.
        assert not any(run.status == "STARTED" for run in self.runs), "two runs of one cell at once"
        run = Run(launch.run_key, mark)
        self.runs.append(run)
        self.executed += 1
        if before:
            run.dead = True
            return
        left = stop_after
        self.working = True
        try:
            self._work(launch, run, left)
        finally:
            self.working = False

    def _work(self, launch: Launch, run: Run, left: int | None) -> None:
        stages: tuple[Stage, Stage] = ("agent", "eval")
        for stage in stages:
            if ("run_logs" if stage == "agent" else "eval_outputs") in launch.assets:
                left = self._stage(stage, launch.agents if stage == "agent" else launch.evaluations, left)
                if left is not None and left < 0:
                    run.dead = True
                    self.unread = True
                    return
        self.unread = False
        run.status, run.ended = "SUCCESS", self.now

    def _stage(self, stage: Stage, only: tuple[str, ...] | None, left: int | None) -> int | None:
        make = plan_agents if stage == "agent" else plan_evaluations
        plan = make(self.job, self.states, LaunchOptions(pairs=only, automatic=True), History(), 1)
        breaker = Breaker(stage, self.job.limits.breaker)
        for step in plan.runs:
            if breaker.reason is not None:
                break
            killed = left == 0
            end = self._try(stage, step.pair, "interrupted" if killed else None)
            if killed:
                return -1
            left = None if left is None else left - 1
            breaker.note(family=None if end == "ok" else end, replied=end == "ok")
        return left

    def _try(self, stage: Stage, pair: Pair, forced: End | None) -> End:
        """One try, as execution records it; what must never be tried is not."""
        assert not isinstance(decide(self.state()), Launch), "a second run was asked for beside the first"
        state = self.states[pair]
        limit = self.job.limits.agent_attempts if stage == "agent" else self.job.limits.eval_attempts
        patch = state.patch_sha256 if stage == "eval" else None
        assert tries_used(state.attempts, stage, 1, patch) < limit, "a try beyond the limit"
        assert not (state.settled and state.has_eval), "a pair that has its verdict was run again"
        last = next(reversed(of_stage(state.attempts, stage)), None)
        assert last is None or last.retryable is not False, "what only a person can fix was tried again"
        n = len(of_stage(state.attempts, stage)) + 1
        planned = self.ends[pair][0 if stage == "agent" else 1]
        end = forced or (planned[n - 1] if n <= len(planned) else "ok")
        self.now += timedelta(seconds=1)
        at = self.now.replace(tzinfo=UTC).isoformat()
        bad = end != "ok"
        attempt = Attempt(
            n=n,
            retry_generation=1,
            stage=stage,
            outcome="completed" if not bad else "interrupted" if end == "interrupted" else "infra_error",
            family=end if bad else None,
            retryable=FAMILIES[end].retryable if bad else None,
            started_at=at,
            ended_at=at,
            patch_sha256=patch,
        )
        self.states[pair] = _after(state, stage, attempt)
        return end


def _after(state: PairState, stage: Stage, attempt: Attempt) -> PairState:
    """A pair after a try."""
    state = replace(state, attempts=(*state.attempts, attempt))
    if attempt.family is not None:
        infra_failed = replace(
            state, outcome="infra_error", stage=stage, family=attempt.family, retryable=attempt.retryable
        )
        return replace(infra_failed, has_result=attempt.family != "interrupted") if stage == "agent" else infra_failed
    clean = replace(state, stage=None, family=None, retryable=None)
    if stage == "agent":
        return replace(clean, outcome="unevaluated", has_result=True, patch_sha256=f"patch {attempt.n}")
    return replace(clean, outcome="pass", has_eval=True)
