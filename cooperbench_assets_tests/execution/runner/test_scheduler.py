"""The loop of a launch, and the life of a try in it, over a worker without processes."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.execution.attempts.pair_state import PairState, read_states
from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.job import STAGING, CellJob, Limits
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.planning.budget import Budget
from cooperbench_assets.execution.planning.circuit_breaker import Breaker
from cooperbench_assets.execution.planning.plan import plan_agents, plan_evaluations
from cooperbench_assets.execution.planning.usage import History
from cooperbench_assets.execution.runner import scheduler as loop_module
from cooperbench_assets.execution.runner.harness_client import Child
from cooperbench_assets.execution.runner.progress import BudgetWait, Meter, Progress, SlotWait, StartWait
from cooperbench_assets.execution.runner.scheduler import Loop
from cooperbench_assets.execution.runner.slots import PoolName, SlotPool
from cooperbench_assets.execution.worker.protocol import ChildRequest, Stage
from cooperbench_assets_tests.execution import making
from cooperbench_assets_tests.execution.cells import attempts, nothing_left, outcomes
from cooperbench_assets_tests.execution.fake_worker import Worker

PAIRS = tuple(making.pair(2 * n + 1) for n in range(4))
ONE, TWO, THREE, FOUR = PAIRS
SLOTS = 3
RATE_LIMIT = "error:litellm.RateLimitError: Error code: 429 - rate limit reached"
REFUSED_KEY = "error:litellm.AuthenticationError: Error code: 401 - invalid key"
Say = Callable[[Progress], None]


@dataclass
class Run:
    """One launch of a stage, and what it leaves."""

    loop: Loop
    worker: Worker
    job: CellJob

    def go(self) -> None:
        """Run it; the worker's last child and slot must be gone afterwards, whatever came of it."""
        plan = plan_agents if self.loop.stage == "agent" else plan_evaluations
        steps = plan(self.job, self.loop.states, LaunchOptions(), History(), 1).runs
        try:
            self.loop.run(steps)
        finally:
            assert self.worker.children == []
            assert self.loop.pool.held == 0
            assert free_slots(self.loop.pool.name, self.job) == SLOTS

    @property
    def outcomes(self) -> dict[str, str]:
        """What the log tree says; the loop's own picture must be the same."""
        on_disk = outcomes(self.job)
        assert {pair.folder: state.outcome for pair, state in self.loop.states.items()} == {
            folder: said.split()[0] for folder, said in on_disk.items()
        }
        return on_disk

    def tries(self, pair: Pair) -> list[tuple[str, str, str | None]]:
        return attempts(self.job, pair)


def free_slots(name: PoolName, job: CellJob) -> int:
    """How many slots another launch would get."""
    pool = SlotPool(name, SLOTS, job.state)
    taken = []
    while (slot := pool.acquire()) is not None:
        taken.append(slot)
    for slot in taken:
        slot.close()
    return len(taken)


def launch(
    root: Path,
    tries: Mapping[Pair, Sequence[str]] | None = None,
    *,
    stage: Stage = "agent",
    cap: int = 2,
    limits: Limits | None = None,
    say: Say | None = None,
    refusals: int = 0,
    pairs: tuple[Pair, ...] = PAIRS,
    **changes: Any,
) -> Run:
    """A launch that was not begun, of a cell in `root`; its children do what `tries` says."""
    job = making.job(root, pairs, limits=limits or Limits(), **changes)
    states: dict[Pair, PairState] = read_states(job)
    worker = Worker({pair.name: words for pair, words in (tries or {}).items()}, refusals=refusals)
    worker.start()
    pool = SlotPool("agents" if stage == "agent" else "evaluations", SLOTS, job.state)
    meter = Meter(stage, len(pairs), say)
    breaker = Breaker(stage, job.limits.breaker)
    return Run(Loop(job, stage, worker, pool, cap, states, Budget(job, states), breaker, meter), worker, job)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("cooperbench_assets.execution.runner.progress.INTERVAL_SECONDS", 0.0)


@pytest.mark.parametrize("mode", ["solo", "coop"])
@pytest.mark.parametrize("cap", [1, 2, 10])
def test_every_pair_is_run_once_and_never_more_at_once_than_the_cap_and_the_slots(
    tmp_path: Path, cap: int, mode: str
) -> None:
    run = launch(tmp_path, cap=cap, mode=mode)
    run.go()
    assert run.outcomes == {pair.folder: "unevaluated" for pair in PAIRS}
    assert [run.tries(pair) for pair in PAIRS] == [[("agent-1", "completed", None)]] * 4
    assert run.worker.launched == [f"{pair.name} agent-1" for pair in PAIRS]
    assert run.worker.most == min(cap, SLOTS)
    assert (run.loop.launched, run.loop.meter.done, run.loop.meter.running) == (4, 4, 0)
    assert run.loop.budget.cell_usd == 4 * (0.25 if mode == "solo" else 0.5)
    nothing_left(run.job)


def test_agents_and_then_tests_bring_every_pair_to_its_verdict(tmp_path: Path) -> None:
    launch(tmp_path).go()
    run = launch(tmp_path, {TWO: ["fails"]}, stage="eval")
    run.go()
    assert run.outcomes == {pair.folder: "fail tests" if pair == TWO else "pass" for pair in PAIRS}
    assert run.tries(TWO) == [("agent-1", "completed", None), ("eval-1", "completed", None)]
    assert run.loop.isolations == {"subprocess"}
    nothing_left(run.job)


def test_what_infrastructure_ended_is_recorded_and_the_next_launch_runs_that_pair_alone(tmp_path: Path) -> None:
    tries = {TWO: [RATE_LIMIT], THREE: ["raise:docker: Cannot connect to the Docker daemon"], FOUR: ["half"]}
    run = launch(tmp_path, tries)
    run.go()
    assert run.outcomes[TWO.folder] == "infra_error agent/rate_limit"
    assert run.tries(TWO) == [("agent-1", "infra_error", "rate_limit")]
    assert run.tries(THREE) == [("agent-1", "infra_error", "engine")]
    assert [outcome for _, outcome, _ in run.tries(FOUR)] == ["infra_error"]
    assert (run.loop.meter.done, run.loop.meter.failed.total()) == (1, 3)
    again = launch(tmp_path, tries)
    again.go()
    assert again.worker.launched == [f"{pair.name} agent-2" for pair in (TWO, THREE, FOUR)]
    assert again.outcomes == {pair.folder: "unevaluated" for pair in PAIRS}
    old = again.job.attempts_dir(TWO) / "agent-1" / "result.json"
    assert json.loads(old.read_text())["agent"]["status"] == "Error", "the earlier try's files are kept"
    nothing_left(run.job)


def test_a_result_of_another_pair_is_not_taken(tmp_path: Path) -> None:
    run = launch(tmp_path, {ONE: ["stranger"]})
    run.go()
    assert not (run.job.pair_dir(ONE) / "result.json").exists()
    assert run.tries(ONE) == [("agent-1", "infra_error", "unknown")]
    assert run.outcomes[ONE.folder] == "infra_error agent/unknown"


@pytest.mark.parametrize(
    ("deed", "why"), [("old", "the verdict is older than its evaluation"), ("other", "the verdict is of another patch")]
)
def test_a_verdict_that_is_old_or_of_another_patch_is_not_taken(tmp_path: Path, deed: str, why: str) -> None:
    launch(tmp_path).go()
    run = launch(tmp_path, {ONE: [deed]}, stage="eval")
    run.go()
    assert run.outcomes[ONE.folder] == "infra_error eval/unknown"
    record = json.loads((run.job.attempts_dir(ONE) / "eval-1" / "attempt.json").read_text())
    assert why in record["evidence"]
    assert not (run.job.pair_dir(ONE) / "eval.json").exists()


def test_a_child_that_hangs_is_killed_at_its_deadline_and_the_others_are_run(tmp_path: Path) -> None:
    run = launch(tmp_path, {ONE: ["hang"]}, cap=1, limits=Limits(pair_timeout_minutes=0))
    run.go()
    assert run.outcomes[ONE.folder] == "infra_error agent/provider_timeout"
    assert run.tries(ONE) == [("agent-1", "infra_error", "provider_timeout")]
    assert run.worker.launched[-1] == f"{FOUR.name} agent-1"
    nothing_left(run.job)


def test_a_refused_key_stops_launches_and_what_runs_goes_on_to_its_end(tmp_path: Path) -> None:
    run = launch(tmp_path, {ONE: [REFUSED_KEY]}, cap=2)
    run.go()
    assert run.loop.stopped is not None
    assert "refused the key" in run.loop.stopped
    assert [step.pair for step in run.loop.pending] == [THREE, FOUR]
    assert run.outcomes[TWO.folder] == "unevaluated"
    assert run.tries(THREE) == []


def test_tries_in_a_row_without_one_reply_stop_launches(tmp_path: Path) -> None:
    dead = "error:litellm.ServiceUnavailableError: Error code: 503"
    run = launch(tmp_path, {pair: [dead] for pair in PAIRS}, cap=1, limits=Limits(breaker=2))
    run.go()
    assert run.loop.stopped == run.loop.breaker.reason is not None
    assert run.loop.launched == 2
    assert not run.loop.over_budget


def test_launches_stop_at_the_budget_and_the_rest_stays_pending(tmp_path: Path) -> None:
    run = launch(tmp_path, cap=1, limits=Limits(cell_max_cost_usd=0.5))
    run.go()
    assert (run.loop.launched, run.loop.over_budget) == (2, True)
    assert run.loop.stopped == "the cell's budget is reached: 0.50 of 0.50 USD"
    assert [step.pair for step in run.loop.pending] == [THREE, FOUR]


def test_under_a_budget_one_pair_runs_until_its_cost_is_known(tmp_path: Path) -> None:
    run = launch(tmp_path, cap=4, limits=Limits(cell_max_cost_usd=100))
    at_once: list[tuple[int, int]] = []
    start = run.worker.launch

    def counting(request: ChildRequest, slot_fd: int | None = None) -> Child:
        child = start(request, slot_fd)
        at_once.append((run.loop.meter.done, len(run.worker.children)))
        return child

    run.worker.launch = counting  # type: ignore[method-assign]
    run.go()
    assert at_once == [(0, 1), (1, 1), (1, 2), (1, 3)]


def test_a_launch_that_waits_for_the_cost_of_the_first_pair_says_so(tmp_path: Path) -> None:
    waits: list[object] = []

    def say(progress: Progress) -> None:
        waits.append(progress.waiting)
        if len(waits) == 2:
            run.worker.tries = {}

    hangs = {pair: ["hang"] for pair in PAIRS}
    run = launch(tmp_path, hangs, cap=4, limits=Limits(cell_max_cost_usd=100), say=say)
    run.go()
    assert waits[:2] == [BudgetWait(own=1, elsewhere=0, cost_known=False)] * 2
    assert run.outcomes == {pair.folder: "unevaluated" for pair in PAIRS}


def test_a_launch_waits_for_slots_that_others_hold_and_says_so(tmp_path: Path) -> None:
    seen: list[object] = []
    others = SlotPool("agents", SLOTS, tmp_path / "state")
    held = [slot for slot in (others.acquire() for _ in range(SLOTS)) if slot is not None]

    def say(progress: Progress) -> None:
        if isinstance(progress.waiting, SlotWait) and held:
            seen.append((progress.waiting.own, progress.waiting.size, progress.running))
            held.pop().close()

    run = launch(tmp_path, say=say, cap=4)
    run.go()
    assert seen[0] == (0, SLOTS, 0), "nothing ran while all slots were held"
    assert run.outcomes == {pair.folder: "unevaluated" for pair in PAIRS}


def test_a_start_that_the_system_refuses_is_no_try_and_is_made_again(tmp_path: Path) -> None:
    run = launch(tmp_path, refusals=3)
    run.go()
    assert [run.tries(pair) for pair in PAIRS] == [[("agent-1", "completed", None)]] * 4
    assert (run.loop.launched, run.worker.starts) == (4, 1)
    nothing_left(run.job)


def test_a_launch_that_pauses_for_refusals_says_what_the_system_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "FIRST_PAUSE_SECONDS", 0.05)
    waits: list[object] = []
    run = launch(tmp_path, refusals=1, say=lambda progress: waits.append(progress.waiting))
    run.go()
    assert StartWait("the system starts no further process: Resource temporarily unavailable") in waits
    assert run.loop.launched == 4


def test_a_launch_gives_up_when_nothing_can_be_started_for_long(tmp_path: Path) -> None:
    run = launch(tmp_path, refusals=loop_module.REFUSALS)
    with pytest.raises(LaunchError, match="free processes, open files or memory on this machine"):
        run.go()
    assert [run.tries(pair) for pair in PAIRS] == [[]] * 4
    nothing_left(run.job)


def test_a_server_that_dies_is_started_anew_and_what_it_ran_counts_as_interrupted(tmp_path: Path) -> None:
    run = launch(tmp_path, {TWO: ["die"]}, cap=2)
    run.go()
    assert run.worker.starts == 2
    assert run.tries(ONE) == [("agent-1", "completed", None)]
    assert run.tries(TWO) == [("agent-1", "interrupted", "interrupted")]
    assert run.tries(FOUR) == [("agent-1", "completed", None)]
    nothing_left(run.job)


def test_a_server_that_dies_again_and_again_ends_the_launch_with_what_is_done_on_record(tmp_path: Path) -> None:
    run = launch(tmp_path, {pair: ["die"] for pair in PAIRS[1:]}, cap=1)
    with pytest.raises(LaunchError, match="the harness server died 3 times"):
        run.go()
    assert run.outcomes[ONE.folder] == "unevaluated"
    assert [run.tries(pair)[0][1] for pair in PAIRS[1:]] == ["interrupted"] * 3
    nothing_left(run.job)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_whoever_interrupts_a_launch_finds_its_children_ended_and_recorded(
    tmp_path: Path, kind: type[BaseException]
) -> None:
    def say(progress: Progress) -> None:
        if progress.done:
            raise kind

    run = launch(tmp_path, {TWO: ["hang"], THREE: ["hang"]}, say=say, cap=2)
    with pytest.raises(kind):
        run.go()
    assert run.tries(ONE) == [("agent-1", "completed", None)]
    assert run.tries(TWO) == [("agent-1", "interrupted", "interrupted")]
    assert not run.worker.alive
    nothing_left(run.job)
    again = launch(tmp_path, {TWO: ["hang"]})
    again.go()
    assert again.outcomes == {pair.folder: "unevaluated" for pair in PAIRS}


def test_where_a_try_cannot_be_recorded_what_runs_goes_on_to_its_end_and_nothing_further_is_launched(
    tmp_path: Path,
) -> None:
    run = launch(tmp_path, cap=1)
    in_the_way = run.job.attempts_dir(TWO)
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("")
    with pytest.raises(NotADirectoryError):
        run.go()
    assert run.outcomes[ONE.folder] == "unevaluated"
    assert run.worker.launched == [f"{ONE.name} agent-1"]
    in_the_way.unlink()
    launch(tmp_path).go()
    nothing_left(run.job)


def test_who_asked_is_told_of_each_childs_end(tmp_path: Path) -> None:
    run = launch(tmp_path, {TWO: [RATE_LIMIT]})
    ended: list[int] = []
    run.loop.ended = lambda: ended.append(len(run.worker.children))
    run.go()
    assert len(ended) == 4


DEEDS = ["good", RATE_LIMIT, "raise:docker: Cannot connect to the Docker daemon", "half", "stranger", "hang", "die"]


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tries=st.fixed_dictionaries({pair: st.lists(st.sampled_from(DEEDS), max_size=3) for pair in PAIRS}),
    refusals=st.integers(0, 3),
    cap=st.integers(1, 5),
)
def test_whatever_happens_no_try_is_lost_and_launches_go_on_until_every_pair_is_done_or_used_up(
    tries: dict[Pair, list[str]], refusals: int, cap: int
) -> None:
    limits = Limits(agent_attempts=3, breaker=99, pair_timeout_minutes=0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        launched = 0
        for _ in range(20):
            run = launch(root, tries, limits=limits, refusals=refusals, cap=cap)
            with contextlib.suppress(LaunchError):  # The harness server may die too often for one launch.
                run.go()
            refusals = 0
            launched += len(run.worker.launched)
            assert not (run.job.run_dir / STAGING).exists()
            recorded = {pair: run.tries(pair) for pair in PAIRS}
            assert sum(map(len, recorded.values())) == launched, "one record for each child that was started"
            assert not [one for listed in recorded.values() for one in listed if one[1] == "running"]
            if not plan_agents(run.job, read_states(run.job), LaunchOptions(), History(), 1).runs:
                break
        for pair, listed in recorded.items():
            done = [outcome for _, outcome, _ in listed].count("completed")
            assert done + (len(listed) == limits.agent_attempts) >= 1, (pair, listed)
            assert done <= 1, "a pair that is done is not run again"
            assert run.outcomes[pair.folder].startswith("unevaluated") == bool(done)
