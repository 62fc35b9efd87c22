"""A run launcher that can tell whether a run's worker lives, as those for containers can: its workers are processes.

What belongs here: the health of workers. What does not: launching any; tests say which process a run's worker is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from cooperbench_assets.execution.processes import is_alive

if TYPE_CHECKING:
    from collections.abc import Mapping

WORKER_TAG = "test/worker"
"""Process number of the worker of a run that this launcher launched."""


class ProcessLauncher(RunLauncher, ConfigurableClass):
    """Workers are processes of this machine, found by a tag of the run."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        super().__init__()  # type: ignore[no-untyped-call]  # Dagster types none of it

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        raise NotImplementedError

    def terminate(self, run_id: str) -> bool:
        raise NotImplementedError

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        pid = run.tags.get(WORKER_TAG)
        if pid is None:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "No worker is known.")
        lives = is_alive(int(pid))
        return CheckRunHealthResult(WorkerStatus.RUNNING if lives else WorkerStatus.NOT_FOUND)
