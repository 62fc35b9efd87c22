"""An experiment left alone: the demo in a project of its own, its sensor looked at in a loop with a clock of ours.

What belongs here: playing Dagster's daemon in one process, for real runs of real children. What does not: asserting.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from cooperbench_assets.assets.keys import partition_key, partitions_of
from cooperbench_assets.automation import nightly_schedule as nightly
from cooperbench_assets.automation import retry_sensor
from cooperbench_assets.automation import watch_sensor as watch
from cooperbench_assets.automation.observation import Observation, observe
from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.dagster_storage import LockedSqliteStorage
from cooperbench_assets.demo import DEMO_AGENT
from cooperbench_assets.experiment import experiment_definitions
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.local_runs import NO_OUTPUT, QUIET
from cooperbench_assets.project import Project
from cooperbench_assets.spec import parse_experiment
from cooperbench_assets_tests.trees import write_subset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from cooperbench_assets.store.cells import Cell

CELL_ASSETS = ("run_logs", "eval_outputs", "pair_results")
ALWAYS_FAILS = "inkline_task/3/f1_f2"
"""A pair of the subset tiny."""

TWO_PAIRS = "two.json"
"""Subset of that pair and one more: what is decided of a cell depends on no number of pairs, and each is run."""

NO_FAULTS = {"rate": 0.0}


@contextmanager
def instance_in(folder: Path) -> Iterator[dg.DagsterInstance]:
    """An instance with the storage of a project's dagster.yaml, that keeps no output of steps: they print none."""
    folder.mkdir(exist_ok=True)
    storage = {
        "module": LockedSqliteStorage.__module__,
        "class": LockedSqliteStorage.__name__,
        "config": {"base_dir": str(folder)},
    }
    with dg.instance_for_test(overrides={**NO_OUTPUT, "storage": {"custom": storage}}, temp_dir=str(folder)) as made:
        yield made


def demo_attributes(
    settings: Mapping[str, Any] | None = None, faults: Mapping[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """A defs.yaml of scripted agents on the six pairs of tiny, one solo cell, no faults."""
    return {
        "model_name": "scripted/demo",
        "agent": DEMO_AGENT,
        "external_agents": ["cooperbench_assets.demo.agents"],
        "subset": "tiny",
        "dataset": "data/demo/dataset",
        "dataset_module": "cooperbench_assets.demo",
        "execution": "process",
        "agent_config": {"injected_faults": dict(faults or NO_FAULTS)},
        "settings": dict(settings or {"solo": {"mode": "solo", "seeds": [0]}}),
        "limits": {"concurrency": 4, "eval_concurrency": 4, "pair_timeout_minutes": 1, "test_timeout_seconds": 30},
        "retry": {"backoff_minutes": 5},
        **changes,
    }


def bind_demo(root: Path, name: str = "drill", **changes: Any) -> ExperimentContext:
    """Such an experiment on two pairs, bound to a project at `root`."""
    changes.setdefault("subset", TWO_PAIRS)
    write_subset(root / TWO_PAIRS, [Pair("inkline_task", 3, (1, 2)), Pair("plainconf_task", 5, (1, 4))])
    spec = parse_experiment(name, demo_attributes(**changes), root / "defs.yaml")
    return ExperimentContext(name, spec, Project(root))


@dataclass
class Driver:
    """Dagster's daemon, as far as an experiment needs it, in this process and by a clock that is turned by hand."""

    experiment: ExperimentContext
    instance: dg.DagsterInstance
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(tzinfo=None))
    launched: list[dg.RunRequest] = field(default_factory=list)
    """What the sensor asked for, in order."""
    watch_cursor: str | None = None

    def __post_init__(self) -> None:
        self.definitions = experiment_definitions(self.experiment)
        self.repository = self.definitions.get_repository_def()
        self.job = self.definitions.resolve_implicit_global_asset_job_def()

    def context(self, cursor: str | None = None) -> dg.SensorEvaluationContext:
        return dg.build_sensor_context(instance=self.instance, repository_def=self.repository, cursor=cursor)

    def tick(self, cursor: str | None = None, is_over: Callable[[], bool] | None = None) -> dg.SensorResult:
        """One tick of the retry sensor."""
        return retry_sensor.tick(self.experiment, self.context(cursor), self.now, is_over)

    def watch(self, is_over: Callable[[], bool] | None = None) -> str:
        """One tick of the watch sensor, which goes on where the last one ended."""
        context = self.context(self.watch_cursor)
        said = watch.tick(self.experiment, context, self.now, is_over).skip_message or ""
        self.watch_cursor = context.cursor
        return said

    def night(self, is_over: Callable[[], bool] | None = None) -> nightly.Night:
        """One tick of the nightly schedule."""
        context = dg.build_schedule_context(instance=self.instance, repository_def=self.repository)
        return nightly.tick(self.experiment, partitions_of(self.experiment.spec), context, self.now, is_over)

    def nightly(self) -> str:
        """What a tick of the nightly schedule that looks at every cell says."""
        night = self.night()
        assert isinstance(night, dg.SkipReason)
        return night.skip_message or ""

    def execute(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """Do what a run request asks for."""
        self.launched.append(request)
        return self.materialize(
            [key.path[-1] for key in request.asset_selection or ()],
            request.partition_key,
            request.run_config,
            {**request.tags, "dagster/run_key": request.run_key or ""},
        )

    def materialize(
        self,
        assets: Iterable[str],
        partition: str | None = None,
        run_config: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """A run as the UI's button starts one."""
        return self.job.execute_in_process(
            instance=self.instance,
            partition_key=partition,
            asset_selection=[dg.AssetKey([self.experiment.name, name]) for name in assets],
            run_config={**(run_config or {}), "loggers": QUIET},
            raise_on_error=False,
            tags=dict(tags or {}),
        )

    def launch(self, cell: Cell, **config: Any) -> dg.ExecuteInProcessResult:
        """What a person does first: materialise a cell."""
        ops = {f"{self.experiment.name}__{name}": {"config": config} for name in CELL_ASSETS[:2]} if config else {}
        return self.materialize(CELL_ASSETS, partition_key(cell), {"ops": ops})

    def leave_alone(self, ticks: int = 40, step: timedelta = timedelta(minutes=10)) -> int:
        """Tick until nothing is asked for and nothing waits; returns how many runs were asked for."""
        runs = 0
        for _ in range(ticks):
            result = self.tick()
            for request in result.run_requests or ():
                self.execute(request)
                runs += 1
            waits = "pause before" in str(result.skip_reason or "")
            if not result.run_requests and not waits:
                return runs
            # Tries end by the real clock: the next look comes later than they, whatever the pause was.
            self.now = max(self.now, datetime.now(UTC).replace(tzinfo=None)) + step
        raise AssertionError(f"it did not come to rest in {ticks} ticks: {result.skip_reason}")

    def looks(self) -> list[Observation]:
        """The cells as automation sees them now."""
        return list(observe(self.experiment, self.instance, self.now))
