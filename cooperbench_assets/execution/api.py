"""One stage of one cell: what the assets and the CLI call.

What belongs here: the lock, what is looked at before anything, and errors of a whole launch. What does not: the launch
(``runner.stage_run``). Nothing here knows Dagster: progress goes to a callback, a cancellation comes as whatever
exception is raised in the main thread.
"""

from __future__ import annotations

import contextlib
import errno
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cooperbench_assets.execution.attempts.pair_state import read_states
from cooperbench_assets.execution.attempts.recovery import Recovered, recover
from cooperbench_assets.execution.cell_lock import cell_lock
from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.job import NEEDS_ENGINE
from cooperbench_assets.execution.planning.budget import Budget
from cooperbench_assets.execution.planning.usage import LateHistory
from cooperbench_assets.execution.runner.further_verdicts import plan_round
from cooperbench_assets.execution.runner.harness_servers import OF_THIS_PROCESS, HarnessServers
from cooperbench_assets.execution.runner.slots import SlotsError
from cooperbench_assets.execution.runner.stage_run import Launch, base_report, plan_to_run

if TYPE_CHECKING:
    from cooperbench_assets.execution.job import CellJob
    from cooperbench_assets.execution.options import LaunchOptions
    from cooperbench_assets.execution.planning.steps import Plan
    from cooperbench_assets.execution.runner.progress import Progress, StageReport
    from cooperbench_assets.execution.worker.protocol import Stage


class Terminated(BaseException):
    """SIGTERM came while a stage ran; its children are ended, and its tries recorded."""


def run_agents(
    job: CellJob,
    options: LaunchOptions,
    progress: Callable[[Progress], None] | None = None,
    *,
    what: str | None = None,
    servers: HarnessServers = OF_THIS_PROCESS,
) -> StageReport:
    """Run the agents of whatever pairs of a cell are still to run.

    Args:
        job: The cell.
        options: What this launch asks differently.
        progress: Called a few times a second at most while pairs run, and at the end.
        what: What this launch calls itself, for who finds the cell busy: a Dagster run, say.
        servers: Where its harness server is kept for the next launch.

    Raises:
        LaunchError: if a person must fix something first: the cell is busy (`CellBusy`), the launch is refused
            (`RefusedLaunch`), a budget is set and prices are not known (`PricesUnknown`), or the harness, the dataset,
            a key or Redis is missing. Pairs that infrastructure failed raise nothing: they are in the report.
        BaseException: whatever interrupted it; children are ended, and recorded as interrupted, first.
    """
    return _run("agent", job, options, progress, what, servers)


def run_evaluations(
    job: CellJob,
    options: LaunchOptions,
    progress: Callable[[Progress], None] | None = None,
    *,
    what: str | None = None,
    servers: HarnessServers = OF_THIS_PROCESS,
) -> StageReport:
    """Evaluate whatever results of a cell have no verdict; arguments and errors as for `run_agents`."""
    return _run("eval", job, options, progress, what, servers)


def run_second_verdict(
    job: CellJob,
    options: LaunchOptions,
    progress: Callable[[Progress], None] | None = None,
    *,
    what: str | None = None,
    servers: HarnessServers = OF_THIS_PROCESS,
) -> StageReport:
    """Evaluate a whole, finished cell afresh, beside its first verdicts, which stay the outcomes of record.

    A round that was interrupted is gone on with; when it is finished, the next call begins a further one. Arguments
    and errors as for `run_agents`; `runner.further_verdicts.read_verdicts` reads what came of it.

    Raises:
        RefusedLaunch: if pairs are chosen, or the cell is not finished.
    """
    return _run("eval", job, options, progress, what, servers, fresh=True)


def plan_stage(stage: Stage, job: CellJob, options: LaunchOptions) -> Plan:
    """What a launch of a stage would do now; takes no lock, and changes nothing.

    Raises:
        LaunchError: as `run_agents` does for what can be seen without running anything.
    """
    check(job)
    return plan_to_run(stage, job, read_states(job), options, LateHistory(job))


def check(job: CellJob) -> None:
    """Look for what would keep every pair of a cell from running.

    Raises:
        LaunchError: if the dataset is missing, or the agent cannot work where it is to be executed.
    """
    if not job.dataset.is_dir():
        raise LaunchError(
            f"{job.label}: the dataset folder {job.dataset} is missing; "
            "run `cooperbench prepare` where the network allows it, or correct `dataset:` in defs.yaml"
        )
    if job.execution == "process" and job.agent in NEEDS_ENGINE:
        raise LaunchError(
            f"{job.label}: agent {job.agent} works in containers, and execution: process has none; "
            "use execution: docker (or modal, gcp)"
        )


def _run(
    stage: Stage,
    job: CellJob,
    options: LaunchOptions,
    progress: Callable[[Progress], None] | None,
    what: str | None,
    servers: HarnessServers,
    *,
    fresh: bool = False,
) -> StageReport:
    began = time.monotonic()
    if options.dry_run:
        plan = plan_round(job, read_states(job), options) if fresh else plan_stage(stage, job, options)
        return _report_of_plan(job, plan, began)
    check(job)
    name = what or Path(sys.argv[0]).name
    with _clear_errors(job), _terminable(), cell_lock(job.run_dir, name):
        swept = recover(job)
        return Launch(stage, job, options, progress, name, swept, began, servers, fresh).run()


def _report_of_plan(job: CellJob, plan: Plan, began: float) -> StageReport:
    cost = Budget(job, read_states(job)).cell_usd
    return base_report(plan, job, began, cost=cost, swept=Recovered())


_NO_PLACE = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "no space is left",
    errno.EACCES: "nothing may be written",
    errno.EROFS: "nothing may be written",
}


@contextlib.contextmanager
def _clear_errors(job: CellJob) -> Iterator[None]:
    """What our own files or slots cannot be used for, such as a full disk, as one clear error."""
    try:
        yield
    except SlotsError as error:
        raise LaunchError(f"{job.label}: {error}") from error
    except OSError as error:
        again = "fix that, and run the cell again: it goes on where it stopped"
        if (why := _NO_PLACE.get(error.errno or 0)) is None:
            raise LaunchError(f"{job.label}: {error}; {again}") from error
        where = f" ({error.filename})" if error.filename else ""
        raise LaunchError(f"{job.label}: {why} where {job.run_dir} lies{where}; {again}") from error


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into an exception where nobody has done so yet (Dagster has), so that children are ended."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def terminate(_number: int, _frame: object) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
