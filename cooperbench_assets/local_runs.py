"""Doing in this process what the UI would do: runs of an experiment's assets, in the same Dagster instance.

What belongs here: finding the instance, and runs of cells or of the assets beside them. What does not: which cells
to run and how that is shown (``commands``), and what is read of a run that has ended (``run_results``).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import uuid
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import dagster as dg
from dagster._core.instance.ref import InstanceRef
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin

from cooperbench_assets.analysis.registry import ANALYSES
from cooperbench_assets.assets.keys import HOST_TAG, asset_key, op_name, partition_key, partitions_of
from cooperbench_assets.automation.dagster_runs import CELL_ASSETS, PARTITION_TAG, RANGE_TAGS, READ_AGAIN, job_name
from cooperbench_assets.automation.dead_runs import report_dead_runs
from cooperbench_assets.automation.observation import observe
from cooperbench_assets.automation.policy import wait_for_round
from cooperbench_assets.execution.processes import namespace
from cooperbench_assets.experiment import experiment_definitions
from cooperbench_assets.experiment_context import CellReport, ExperimentContext
from cooperbench_assets.run_results import CellRan, Ran, is_interrupt, of_report, summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from cooperbench_assets.automation.observation import Observation
    from cooperbench_assets.execution.runner.progress import Progress
    from cooperbench_assets.project import Project
    from cooperbench_assets.spec import CellSpec, ExperimentSpec
    from cooperbench_assets.store.cells import Cell

T = TypeVar("T")

QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}
"""Events go to the instance, where the UI shows them; the terminal shows what the command prints."""

CELLS_AT_ONCE: Final = 4
"""Cells that run side by side unless told otherwise: as many as dagster.yaml lets the UI run. They share the machine's
slots, so this sets no number of agents or tests; it keeps slots busy that wait for the last pair of one cell."""

NO_OUTPUT: Final = {
    # Dagster's own manager points this process's stdout elsewhere while a step runs: two steps at once would get into
    # each other's way, and the terminal would lose what the command prints.
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
        "config": {},
    }
}


CODE: Final = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("cooperbench_assets"), "__repository__")
"""The code location of workspace.yaml, as Dagster names it. Home, its timeline, shows runs of code locations only, and
no public call says of a run that is executed in this process where its code is."""


class Cancelled(KeyboardInterrupt):
    """A cell is to end because the whole command is; Dagster records its run as cancelled."""


@contextlib.contextmanager
def open_instance(project: Project) -> Iterator[dg.DagsterInstance]:
    """The project's Dagster instance; the current folder is the project's root meanwhile.

    dagster.yaml's folders are relative to the current folder: anywhere else they would be a second instance.

    Raises:
        ProjectError: if a variable names the folder of another instance, and it has no dagster.yaml.
    """
    folder = project.instance
    project.dagster.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(project.root):
        # `DagsterInstance.get` reads dagster.yaml as it stands; only a reference takes an override, and is private.
        reference = InstanceRef.from_dir(str(folder), overrides=NO_OUTPUT)
        with dg.DagsterInstance.from_ref(reference) as instance:
            yield instance


def record(project: Project, made: Mapping[str, Mapping[str, Any]], asset: str) -> None:
    """Have Dagster know of an asset that was made without a run.

    Args:
        project: The project.
        made: What the materialisation says of itself, by experiment.
        asset: The asset's name.
    """
    with open_instance(project) as instance:
        for experiment, metadata in made.items():
            event = dg.AssetMaterialization(asset_key(experiment, asset), metadata=dict(metadata))
            instance.report_runless_asset_event(event)


class Launcher:
    """Runs of one experiment, recorded in the project's Dagster instance. A context manager."""

    def __init__(self, project: Project, name: str, spec: ExperimentSpec) -> None:
        self._listener: Callable[[Cell, Progress], None] | None = None
        self._cancelled = threading.Event()
        self._run_ids: set[str] = set()
        self._heard: Callable[[CellReport], None] | None = None
        self.experiment = ExperimentContext(name, spec, project, listener=self._tell, on_read=self._hear)
        self._stack = contextlib.ExitStack()
        self._instance: dg.DagsterInstance | None = None
        self._definitions = experiment_definitions(self.experiment)
        self._everything = self._definitions.resolve_implicit_global_asset_job_def()

    def __enter__(self) -> Self:
        os.environ.setdefault("DAGSTER_HOME", str(self.experiment.project.instance))
        self._instance = self._stack.enter_context(open_instance(self.experiment.project))
        # Dagster would configure logging anew for each run, and in doing so wait for the handlers of the others while
        # these wait for logging's lock: runs side by side would stand still for ever.
        handlers = self._instance.get_yaml_python_handlers()
        self._instance.get_yaml_python_handlers = lambda: handlers  # type: ignore[method-assign]
        create = self._instance.create_run_for_job
        self._instance.create_run_for_job = lambda job_def, **given: create(  # type: ignore[method-assign]
            job_def, **given, remote_job_origin=CODE.get_job_origin(job_def.name)
        )
        report_dead_runs(self._instance, self.experiment, datetime.now(UTC).replace(tzinfo=None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def listen(self, listener: Callable[[Cell, Progress], None]) -> None:
        """Have `listener` told of the progress of each stage that runs, by whichever thread runs it."""
        self._listener = listener

    def _tell(self, cell: Cell, progress: Progress) -> None:
        if self._cancelled.is_set():
            raise Cancelled
        if self._listener is not None:
            self._listener(cell, progress)

    def _hear(self, said: CellReport) -> None:
        if self._cancelled.is_set():
            raise Cancelled
        if self._heard is not None:
            self._heard(said)

    def run_subset(self) -> Ran:
        """Materialise subset_pairs, and task_images where the experiment runs on Docker: cells wait for both."""
        images = ["task_images"] if self.experiment.spec.execution == "docker" else []
        return self._run(["subset_pairs", *images])

    def run_gold(self, *, reset_retries: bool = False) -> Ran:
        """Materialise gold_baseline; who listens hears of its two cells, gold-solo and gold-coop.

        Args:
            reset_retries: Count the tries of its evaluations anew.

        Raises:
            KeyboardInterrupt: after SIGINT or SIGTERM, when the run has ended.
        """
        op = op_name(self.experiment.name, "gold_baseline")
        ops = {op: {"config": {"reset_retries": True}}} if reset_retries else {}
        return self._in_thread(lambda: self._run(["gold_baseline"], ops=ops))

    def run_cell(self, cell: Cell, config: Mapping[str, Any] | None = None) -> Ran:
        """Materialise run_logs, eval_outputs and pair_results of a cell.

        Args:
            cell: The cell.
            config: Run config of its launch, for those assets that take one.
        """
        ops = (
            {op_name(self.experiment.name, asset): {"config": dict(config)} for asset in CELL_ASSETS} if config else {}
        )
        return self._run(CELL_ASSETS, cell, ops)

    def run_cells(
        self,
        cells: Sequence[CellSpec],
        config: Mapping[str, Any] | None = None,
        *,
        at_once: int | None = None,
        rounds: int = 1,
    ) -> Iterator[CellRan]:
        """Materialise several cells side by side; yields each run as it ends.

        Args:
            cells: The cells.
            config: Run config of the first launch of each cell. Further ones leave alone what a person must fix first.
            at_once: How many run at the same time, instead of `CELLS_AT_ONCE`. Agents and tests have slots besides.
            rounds: How often a cell is materialised at most: again after an infrastructure error, if a retry can help.

        Raises:
            KeyboardInterrupt: after SIGINT or SIGTERM, when the runs have ended and their tries are recorded.
        """

        def work(cell: CellSpec, number: int, pause: float) -> CellRan:
            if self._cancelled.wait(pause):
                raise Cancelled
            ran = self.run_cell(cell.cell, config if number == 1 else _of_further_round(config))
            further = ran.error is None and number < rounds
            return CellRan(cell, ran, number, self._pause_before_retry(cell) if further else None)

        with _terminable(), ThreadPoolExecutor(at_once or CELLS_AT_ONCE, thread_name_prefix="cell") as threads:
            running: set[Future[CellRan]] = {threads.submit(work, cell, 1, 0.0) for cell in cells}
            try:
                while running:
                    ended, running = _wait(running)
                    for one in (future.result() for future in ended):
                        if one.pause_seconds is not None:
                            running.add(threads.submit(work, one.cell, one.round + 1, one.pause_seconds))
                        yield one
            except BaseException:
                self._end(threads)
                raise

    def observe_cells(self, cells: Sequence[CellSpec]) -> list[Observation]:
        """Cells as they stand: what a retry can help, and what keeps the rest from one.

        Raises:
            MissingInputError: if there is no subset.
        """
        assert self._instance is not None
        return list(observe(self.experiment, self._instance, datetime.now(UTC).replace(tzinfo=None), cells=cells))

    def _pause_before_retry(self, cell: CellSpec) -> float | None:
        """Seconds after which a further round can help; None where none can, or where it would burn tries."""
        if self.experiment.spec.execution == "none":
            return None
        (seen,) = self.observe_cells([cell])
        wait = wait_for_round(seen.state)
        if seen.stops:
            return None
        return None if wait is None else wait.total_seconds()

    def _end(self, threads: ThreadPoolExecutor) -> None:
        """Have the runs of these threads end as cancelled, and wait for that."""
        self._cancel()
        threads.shutdown(cancel_futures=True)
        self._cancelled.clear()

    def read_cells(self, cells: Sequence[CellSpec], tell: Callable[[CellRan], None]) -> list[Ran]:
        """Materialise the subset and read cells of an experiment that runs none.

        There are as few runs as stretches of neighbouring partitions.

        Args:
            cells: The cells.
            tell: Called with each cell as it is read.

        Returns:
            The runs. One that failed before it came to its cells has told of none.

        Raises:
            KeyboardInterrupt: after SIGINT or SIGTERM, when the run has ended as cancelled.
        """
        return self._in_thread(lambda: list(self._read_all(stretches(self.experiment, cells), tell)))

    def _read_all(self, all_keys: Sequence[Sequence[str]], tell: Callable[[CellRan], None]) -> Iterator[Ran]:
        first = ["subset_pairs"]  # In the first run alone: a run of its own for it costs as much as six cells.
        for keys in all_keys:
            yield self._read([*first, *CELL_ASSETS], keys, tell)
            first = []

    def _read(self, assets: Sequence[str], keys: Sequence[str], tell: Callable[[CellRan], None]) -> Ran:
        ends = {PARTITION_TAG: keys[0]} if len(keys) == 1 else dict(zip(RANGE_TAGS, (keys[0], keys[-1]), strict=True))
        with self._hearing(tell):
            return self._run(assets, tags=ends)

    def read_again(self, tell: Callable[[CellRan], None]) -> Ran:
        """Read every cell of an experiment that runs pairs, and run none; `tell` is called as by `read_cells`."""
        with self._hearing(tell):
            return self._in_thread(lambda: self._run((), job=job_name(self.experiment.name, READ_AGAIN)))

    def _in_thread(self, work: Callable[[], T]) -> T:
        """Work in a thread of its own: of the main thread's interrupt, Dagster would make a run that failed."""
        with _terminable(), ThreadPoolExecutor(1, thread_name_prefix="run") as threads:
            future = threads.submit(work)
            try:
                _wait({future})
                return future.result()
            except BaseException:
                self._end(threads)
                raise

    @contextlib.contextmanager
    def _hearing(self, tell: Callable[[CellRan], None]) -> Iterator[None]:
        """Have `tell` called with each cell that is read meanwhile."""

        def hear(said: CellReport) -> None:
            tell(CellRan(said.spec, of_report(said), round=1, pause_seconds=None))

        self._heard = hear
        try:
            yield
        finally:
            self._heard = None

    def _cancel(self) -> None:
        """Have every run end soon, as cancelled; one that nobody had cancelled would be recorded as failed."""
        assert self._instance is not None
        for run_id in self._run_ids.copy():
            run = self._instance.get_run_by_id(run_id)
            if run is not None and not run.is_finished:
                self._instance.report_run_canceling(run)
        self._cancelled.set()

    def run_store(self) -> Ran:
        """Materialise results_store and every analysis of it."""
        return self._run(["results_store", *(analysis.name for analysis in ANALYSES)])

    def run_report(self) -> Ran:
        """Materialise the report."""
        return self._run(["report"])

    def _run(
        self,
        assets: Sequence[str],
        cell: Cell | None = None,
        ops: Mapping[str, Any] | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        job: str | None = None,
    ) -> Ran:
        chosen = self._definitions.resolve_job_def(job) if job else self._everything
        run_id = str(uuid.uuid4())
        self._run_ids.add(run_id)
        try:
            result = chosen.execute_in_process(
                run_config={"ops": dict(ops or {}), "loggers": QUIET},
                instance=self._instance,
                partition_key=None if cell is None else partition_key(cell),
                asset_selection=[asset_key(self.experiment.name, asset) for asset in assets] or None,
                raise_on_error=False,
                run_id=run_id,
                tags={"cooperbench-assets/launched-by": "command line", HOST_TAG: namespace(), **(tags or {})},
            )
        except dg.DagsterExecutionInterruptedError as error:
            raise KeyboardInterrupt from error  # Dagster's own name for SIGINT in the main thread.
        finally:
            self._run_ids.discard(run_id)
        if any(is_interrupt(event) for event in result.all_events):
            raise KeyboardInterrupt
        return summarise(result)


def _of_further_round(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Run config of a launch that nobody asked for by itself; counters are reset once."""
    kept = {name: value for name, value in (config or {}).items() if name != "reset_retries"}
    return {**kept, "automatic": True}


def stretches(experiment: ExperimentContext, cells: Sequence[CellSpec]) -> list[list[str]]:
    """The partitions of some cells, those that lie side by side together: what one run can be about."""
    chosen = {partition_key(cell.cell) for cell in cells}
    together = groupby(partitions_of(experiment.spec).get_partition_keys(), key=chosen.__contains__)
    return [list(keys) for wanted, keys in together if wanted]


def _wait(running: set[Future[T]]) -> tuple[set[Future[T]], set[Future[T]]]:
    """Wait until one of them ends; those that have, and the others.

    Every second this thread looks up for itself: once Polars has run a query, it handles SIGINT in a way that
    interrupts no waiting for a lock, and Ctrl-C would be heard when a cell ends, hours later.
    """
    while True:
        ended, others = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
        if ended:
            return ended, others


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Take SIGTERM as SIGINT is taken, by the main thread: the threads of cells hear of no signal."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
