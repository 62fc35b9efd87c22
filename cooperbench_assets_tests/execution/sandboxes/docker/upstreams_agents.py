"""Cells of upstream's own agents in real containers, whose deadline comes when a test says so.

Deadlines are those of real experiments. No test waits for one: the launch's clock is set forward once the agents have
come as far as the test wants them.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cooperbench_assets.benchmark.pairs import Pair, Subset
from cooperbench_assets.execution.attempts import deadlines
from cooperbench_assets.execution.job import CellJob, Limits
from cooperbench_assets.execution.runner import scheduler
from cooperbench_assets_tests.execution.sandboxes.docker.places import MODEL, PRICES
from cooperbench_assets_tests.execution.toy import REPO, TASK, Toy

PAIR = Pair(REPO, TASK, (1, 2))
PATIENCE_SECONDS = 240
"""What a busy machine may need to start a container."""


@dataclass
class Clock:
    """The time as a launch sees it."""

    ahead: float = 0.0
    """Seconds by which a deadline seems nearer than it is."""

    silent: float = 0.0
    """Seconds by which everything that was heard of agents seems longer ago than it is."""

    def at_deadline(self, job: CellJob, *, silent: bool = False) -> None:
        """Let the deadline of a cell's running pairs come now; `silent`: its time has passed without a reply."""
        seconds = job.limits.pair_timeout_minutes * 60
        self.silent = seconds if silent else 0.0
        self.ahead = seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which launches of this process see deadlines pass."""
    made = Clock()
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + made.ahead))
    monkeypatch.setattr(deadlines, "time", SimpleNamespace(time=lambda: time.time() + made.silent))
    return made


def upstream_cell(toy: Toy, folder: Path, minutes: float, **changes: Any) -> CellJob:
    """A cell of one pair of the toy task for an agent of upstream's on Docker.

    Args:
        toy: The dataset; its image must be there.
        folder: Where everything goes.
        minutes: The deadline.
        changes: Other fields of the job.
    """
    values: dict[str, Any] = {
        "experiment": f"deadline-{folder.name}",
        "setting": "solo",
        "seed": 0,
        "mode": "solo",
        "run_name": "toy-solo",
        "logs": folder / "logs",
        "dataset": toy.dataset,
        "subset": Subset("one", (PAIR,), toy.dataset / "one.json"),
        "execution": "docker",
        "limits": Limits(concurrency=1, agent_attempts=1, pair_timeout_minutes=minutes),
        "secrets": ("OPENAI_API_KEY",),
        "state": folder / "state",
    }
    return CellJob(**{**values, **changes})


def model_cell(toy: Toy, folder: Path, url: str, minutes: float, *, tries: int = 1, **changes: Any) -> CellJob:
    """The same for ``mini_swe_agent_v2``, which asks the model at `url` from this machine.

    Args:
        toy: The dataset.
        folder: Where everything goes.
        url: The model's endpoint.
        minutes: The deadline.
        tries: How often one question is asked before the agent gives up.
        changes: ``timeout`` of a request in seconds, and other fields of the job.
    """
    kwargs = {"api_base": url, "timeout": changes.pop("timeout", 600), "max_retries": 0, **PRICES}
    config = {"config": {"agent": {"step_limit": 0, "cost_limit": 0}, "model": {"model_kwargs": kwargs}}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.json").write_text(json.dumps(config))
    environment = {"MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT": str(tries), "DEFAULT_MAX_RETRIES": "0"}
    given = {"model_name": MODEL, "agent": "mini_swe_agent_v2", "agent_config": folder / "agent.json"}
    return upstream_cell(toy, folder, minutes, **{**given, "environment": environment, **changes})


def wait_for(happened: Callable[[], Any]) -> Any:
    """Wait until something is true, as long as a busy machine may need; returns what it was."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := happened()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Do something beside a launch; what goes wrong in it ends the launch, and is the test's failure."""
    wrong: list[BaseException] = []
    launched = threading.Event()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            wrong.append(error)
            if not launched.is_set():
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        if not wrong:
            raise
    finally:
        launched.set()
        thread.join()
    if wrong:
        raise wrong[0]


def age(job: CellJob) -> None:
    """Let all that a running try has printed and logged so far be as old as its deadline is long."""
    then = time.time() - job.limits.pair_timeout_minutes * 60
    for file in (job.run_dir / ".staging").rglob("*"):
        if file.is_file() and "calls.json" not in file.name:
            with suppress(FileNotFoundError):  # One that has taken another's place since it was listed.
                os.utime(file, (then, then))
