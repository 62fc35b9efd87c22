"""One launch of a stage of a cell, under its lock: plan, harness, loop, record, report.

What belongs here: the order of these steps, and what a launch writes about itself. What does not: taking the lock, and
errors of the whole launch (``api``).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from cooperbench_assets.execution import provenance
from cooperbench_assets.execution.attempts.lifecycle import begin, settle
from cooperbench_assets.execution.attempts.pair_state import read_states
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.planning.budget import Budget
from cooperbench_assets.execution.planning.circuit_breaker import Breaker
from cooperbench_assets.execution.planning.launch_order import launch_order
from cooperbench_assets.execution.planning.plan import plan_agents, plan_evaluations
from cooperbench_assets.execution.planning.usage import History, LateHistory
from cooperbench_assets.execution.processes import close_to_others
from cooperbench_assets.execution.runner import run_summary
from cooperbench_assets.execution.runner.further_verdicts import begin_verdict, plan_round, settle_verdict
from cooperbench_assets.execution.runner.message_server import ON_BRIDGE, message_server
from cooperbench_assets.execution.runner.preflight import Preflight
from cooperbench_assets.execution.runner.progress import Meter, StageReport
from cooperbench_assets.execution.runner.scheduler import Loop
from cooperbench_assets.execution.runner.slots import SlotPool, SlotUser, read_sizes, state_folder
from cooperbench_assets.execution.sandboxes.docker.ownership import cell_of
from cooperbench_assets.execution.secret_values import public_config
from cooperbench_assets.files import write_atomically

if TYPE_CHECKING:
    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.attempts.pair_state import PairState
    from cooperbench_assets.execution.attempts.recovery import Recovered
    from cooperbench_assets.execution.fleet.client import ClusterSlots
    from cooperbench_assets.execution.job import CellJob
    from cooperbench_assets.execution.planning.steps import Plan, Step
    from cooperbench_assets.execution.runner.harness_client import HarnessServer
    from cooperbench_assets.execution.runner.harness_servers import HarnessServers
    from cooperbench_assets.execution.runner.progress import Progress
    from cooperbench_assets.execution.worker.protocol import HarnessInfo, Stage

_POOL: Final[dict[str, Any]] = {"agent": "agents", "eval": "evaluations"}


@dataclass
class Launch:
    """One launch under its lock."""

    stage: Stage
    job: CellJob
    options: LaunchOptions
    progress: Callable[[Progress], None] | None
    name: str
    swept: Recovered
    began: float
    servers: HarnessServers
    fresh: bool = False
    """A further verdict on the whole cell, beside the first one."""

    notes: tuple[str, ...] = ()
    import_seconds: float = 0.0
    cpu_before: float = field(default_factory=time.thread_time)

    def run(self) -> StageReport:
        """Run what is still to run; see `api.run_agents`."""
        job = self.job
        states = read_states(job, self.swept.attempts)
        plan = self._planned(states)
        budget = Budget(job, states)
        if not plan.runs:
            return self._nothing_to_run(plan, states, budget)
        if self.stage == "agent":
            budget.check_prices()
            _write_agent_config(job)
        preflight = Preflight(
            self.stage, job, tuple(step.pair for step in plan.runs), self.servers, self.options.automatic
        )
        server, info = preflight.pass_or_raise()
        self.import_seconds, self.notes = preflight.import_seconds, tuple(preflight.notes)
        if "subprocess" in (info.isolation, job.sandbox.get("isolation")):
            # Tests that run what agents wrote are this user's own processes.
            close_to_others()
        slots = self._sizes(server)
        with _messages(job, self.stage) as redis_url, _containers(job, server) as ended:
            launch = self._begin(info, states, slots, plan.retry_generation, preflight.images)
            loop = self._loop(server, states, budget, plan, redis_url, ended)
            try:
                loop.run(self._in_order(plan))
            finally:
                self._end(launch, loop, states)
        if self.stage == "agent":
            budget.check_prices()
        return self._report(plan, loop)

    def _planned(self, states: dict[Pair, PairState]) -> Plan:
        if self.fresh:
            return plan_round(self.job, states, self.options)
        return plan_to_run(self.stage, self.job, states, self.options, LateHistory(self.job))

    def _in_order(self, plan: Plan) -> list[Step]:
        limits = self.job.limits
        budgeted = limits.max_cost_usd is not None or limits.cell_max_cost_usd is not None
        return launch_order(plan.runs, self.job.experiment, budgeted=budgeted and self.stage == "agent")

    def _loop(
        self,
        server: HarnessServer,
        states: dict[Pair, PairState],
        budget: Budget,
        plan: Plan,
        redis_url: str | None,
        ended: Callable[[], None],
    ) -> Loop:
        cap = self._cap()
        meter = Meter(self.stage, len(plan.runs), self.progress)
        meter.cost_usd = budget.cell_usd
        user = SlotUser(self.job.experiment, f"{self.job.setting} seed {self.job.seed}", self.name, os.getpid())
        return Loop(
            job=self.job,
            stage=self.stage,
            server=server,
            pool=_pool(self.stage, self.job, server, user),
            cap=cap,
            states=states,
            budget=budget,
            breaker=Breaker(self.stage, self.job.limits.breaker),
            meter=meter,
            redis_url=redis_url,
            ended=ended,
            begin=begin_verdict if self.fresh else begin,
            settle=partial(settle_verdict, states=states) if self.fresh else settle,
        )

    def _sizes(self, server: HarnessServer) -> dict[str, int]:
        """Slots of the machine, or of the cluster."""
        if self.job.fleet is None:
            return {str(name): size for name, size in read_sizes(self.job.state or state_folder()).items()}
        from cooperbench_assets.execution.fleet.client import FleetDriver

        assert isinstance(server, FleetDriver)
        return server.sizes

    def _cap(self) -> int:
        limits = self.job.limits
        own = limits.concurrency if self.stage == "agent" else limits.eval_concurrency
        return max(1, self.options.concurrency or own)

    def _begin(
        self,
        info: HarnessInfo,
        states: dict[Pair, PairState],
        slots: dict[str, int],
        retry_generation: int,
        images: dict[str, str],
    ) -> int:
        job = self.job
        harness = {
            "version": info.version,
            "commit": info.commit,
            "dirty": info.dirty,
            "python_version": info.python_version,
            "packages": info.packages,
        }
        present = provenance.describe(job, harness, slots, images)
        has_results = any(state.has_result for state in states.values())
        has_verdicts = any(state.has_eval for state in states.values())
        whole = self.options.pairs is None and self.options.at_most is None
        counted = None if self.fresh else retry_generation
        launch = provenance.begin(
            job,
            self.stage,
            self.name,
            present,
            counted,
            has_results=has_results,
            has_verdicts=has_verdicts,
            fresh=self.fresh,
            whole=whole,
        )
        run_summary.write_config(job, self._cap())
        return launch

    def _end(self, launch: int, loop: Loop, states: dict[Pair, PairState]) -> None:
        """Write what stands once per launch, also of one that was interrupted."""
        job = self.job
        if not self.fresh:
            run_summary.write_summary(job, states, loop.meter.seconds)
            run_summary.write_eval_summary(job, states.values())
        changes: dict[str, Any] = {}
        if self.stage == "agent":
            changes.update(self._truncation(states, loop.stopped if loop.over_budget and loop.pending else None))
            changes.update(_answered(job, states))
        elif loop.isolations:
            changes["isolation"] = ", ".join(sorted(loop.isolations))
        said = {
            "launched": loop.launched,
            "done": loop.meter.done,
            "failed": dict(loop.meter.failed),
            "stopped": loop.stopped,
            "over_budget": loop.over_budget,
            "fresh_verdicts": self.fresh,
        }
        provenance.end(job.run_dir, launch, changes, said)

    def _truncation(self, states: dict[Pair, PairState], reason: str | None) -> dict[str, Any]:
        """Whether a budget keeps the cell from being whole: since it first did, until nothing is left to run.

        Args:
            states: Every planned pair as it stands.
            reason: Why this launch was stopped before its end, if a budget stopped it.
        """
        record = provenance.read_provenance(self.job.run_dir)
        reason = reason or (record.get("truncated_reason") if record.get("truncated") else None)
        truncated = bool(reason or record.get("truncated"))
        if truncated:
            # Of the whole cell: a launch of a chosen few, or one that was cancelled, says nothing of the others.
            truncated = bool(plan_to_run("agent", self.job, states, LaunchOptions(), History()).runs)
        return {"truncated": truncated, "truncated_reason": reason if truncated else None}

    def _nothing_to_run(self, plan: Plan, states: dict[Pair, PairState], budget: Budget) -> StageReport:
        """The report of a launch that has nothing to launch; the tree stays as it is."""
        job = self.job
        record = provenance.read_provenance(job.run_dir)
        truncated = bool(record.get("truncated"))
        if truncated and self.stage == "agent":
            changes = self._truncation(states, None)
            truncated = changes["truncated"]
            if not truncated:
                provenance.write_provenance(job.run_dir, {**record, **changes})
        if self.swept.repaired:
            run_summary.write_summary(job, states, 0.0)
            run_summary.write_eval_summary(job, states.values())
        meter = Meter(self.stage, 0, self.progress)
        meter.cost_usd = budget.cell_usd
        meter.say(at_once=True)
        return base_report(plan, job, self.began, cost=budget.cell_usd, truncated=truncated, swept=self.swept)

    def _report(self, plan: Plan, loop: Loop) -> StageReport:
        loop.meter.say(at_once=True)
        record = provenance.read_provenance(self.job.run_dir)
        seconds = time.monotonic() - self.began
        return base_report(
            plan,
            self.job,
            self.began,
            cost=loop.budget.cell_usd,
            truncated=bool(record.get("truncated")),
            swept=self.swept,
            launched=loop.launched,
            done=loop.meter.done,
            failed=dict(loop.meter.failed),
            left=len(loop.pending),
            stopped=loop.stopped,
            breaker=loop.breaker.reason,
            busy_seconds=loop.busy_seconds,
            orchestration_seconds=max(0.0, seconds - self.import_seconds - loop.waited_seconds),
            cpu_seconds=time.thread_time() - self.cpu_before,
            import_seconds=self.import_seconds,
            isolation=", ".join(sorted(loop.isolations)) or None,
            notes=self._notes(loop),
        )

    def _notes(self, loop: Loop) -> tuple[str, ...]:
        """What a person should know about where this ran."""
        notes = [*self.notes, *([loop.pool.problem] if loop.pool.problem else [])]
        if loop.redis_url is not None and self.job.redis_url not in (None, ON_BRIDGE, loop.redis_url):
            notes.append(f"the Redis at {self.job.redis_url} does not answer; the embedded one was used")
        if loop.server.alive:
            info = loop.server.ready()
            notes += info.warnings
            if "subprocess" in loop.isolations and info.isolation_reason:
                notes.append(f"tests ran as plain subprocesses, which isolate nothing: {info.isolation_reason}")
        return tuple(notes)


def _pool(stage: Stage, job: CellJob, server: HarnessServer, user: SlotUser) -> SlotPool | ClusterSlots:
    """The slots of a stage: this machine's, or those of a cluster's nodes."""
    if job.fleet is None:
        return SlotPool(_POOL[stage], state=job.state, user=user)
    from cooperbench_assets.execution.fleet.client import ClusterSlots, FleetDriver

    assert isinstance(server, FleetDriver)
    return ClusterSlots(_POOL[stage], server)


def _write_agent_config(job: CellJob) -> None:
    """Put the effective agent config, without its secrets, beside what the agents make of it."""
    file, text = job.agent_config, public_config(job)
    if (
        file is not None
        and text is not None
        and job.agent_config_text is not None
        and not (file.is_file() and file.read_bytes() == text.encode())
    ):
        write_atomically(file, text.encode())


def plan_to_run(
    stage: Stage, job: CellJob, states: dict[Pair, PairState], options: LaunchOptions, history: History | LateHistory
) -> Plan:
    """What is still to run at a stage of a cell, in its present retry generation of tries or a new one."""
    retry_generation = int(provenance.read_provenance(job.run_dir).get("campaigns", {}).get(stage, 1))
    tried = [one.retry_generation for state in states.values() for one in state.attempts if one.stage == stage]
    if options.reset_retries:
        retry_generation = max([retry_generation, *tried]) + 1
    make = plan_agents if stage == "agent" else plan_evaluations
    return make(job, states, options, history, retry_generation)


def base_report(plan: Plan, job: CellJob, began: float, *, cost: float, swept: Recovered, **said: Any) -> StageReport:
    """A launch's report: what its plan says of it, and what is `said` beside."""
    values: dict[str, Any] = {
        "launched": 0,
        "done": 0,
        "failed": {},
        "left": 0,
        "truncated": False,
        "stopped": None,
        "breaker": None,
        "busy_seconds": 0.0,
        "orchestration_seconds": time.monotonic() - began,
        **said,
    }
    return StageReport(
        stage=plan.stage,
        plan=plan,
        planned=len(job.subset.pairs),
        skipped=len(plan.having("skip")),
        cost_usd=cost,
        seconds=time.monotonic() - began,
        reaped=swept.reaped,
        repaired=dict(swept.repaired),
        **values,
    )


def _answered(job: CellJob, states: dict[Pair, PairState]) -> dict[str, Any]:
    """What the model's endpoint called itself, from the first result that tells."""
    if provenance.read_provenance(job.run_dir).get("model_answered"):
        return {}
    for pair, state in states.items():
        if state.has_result and state.replied:
            for file in sorted(job.pair_dir(pair).glob("*_traj.json")):
                if (name := provenance.answered_model(file)) is not None:
                    return {"model_answered": name}
            return {}
    return {}


@contextlib.contextmanager
def _messages(job: CellJob, stage: Stage) -> Iterator[str | None]:
    """A Redis for the agents that need one."""
    if stage == "eval" or not job.needs_redis:
        yield None
        return
    if job.fleet is not None:
        from cooperbench_assets.execution.fleet.messages import ON_NODE

        yield job.redis_url or ON_NODE
        return
    with message_server(job.redis_url) as url:
        yield url


@contextlib.contextmanager
def _containers(job: CellJob, server: HarnessServer) -> Iterator[Callable[[], None]]:
    """See to what children leave on a Docker engine; what is yielded is called when one has ended."""
    if job.execution != "docker":
        yield lambda: None
        return
    if job.fleet is not None:
        from cooperbench_assets.execution.fleet.client import FleetDriver

        assert isinstance(server, FleetDriver)
        server.sweep(cell_of(job.run_dir))
        try:
            yield lambda: None  # Nodes see to what their children leave.
        finally:
            server.sweep(cell_of(job.run_dir))
        return
    from cooperbench_assets.execution.sandboxes.docker.cleanup import EngineCleanup

    with EngineCleanup(cell=cell_of(job.run_dir)) as keeper:
        yield keeper.look
