"""The containers of one test, told apart by its label, and what is done to them from outside."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import pytest
from docker.errors import APIError

from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.execution.sandboxes.docker.ownership import PREFIX
from cooperbench_assets.execution.sandboxes.docker.sandbox import DockerBackend

Make = Callable[..., DockerBackend]
"""Makes a backend whose containers carry the test's label: of an environment, and of options."""

quiet = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
loses_the_engine = pytest.mark.usefixtures("no_engine_left")


def containers(engine: Engine, pair: str) -> list[str]:
    found = engine.api.containers(all=True, filters={"label": f"{PREFIX}.pair={pair}"})
    return [one["Id"] for one in found]


def running(engine: Engine, pair: str, program: str) -> str | None:
    """The container of this test in which a program runs now."""
    for container in containers(engine, pair):
        with contextlib.suppress(APIError):  # not started yet, or gone
            # Where COLUMNS is set, or a terminal is near, ps cuts its lines, unless it is told not to.
            if program in str(engine.api.top(container, "-eww -o pid,args")):
                return container
    return None


def when_it_runs(engine: Engine, pair: str, program: str) -> str:
    """Wait until a program runs in this test's container."""
    end = time.monotonic() + 30
    while (container := running(engine, pair, program)) is None:
        assert time.monotonic() < end, f"{program} was not seen"
        time.sleep(0.05)
    return container


def kill_when_it_runs(engine: Engine, pair: str, program: str) -> threading.Thread:
    """Kill the container, from outside, as soon as a program runs in it."""
    thread = threading.Thread(target=lambda: engine.api.kill(when_it_runs(engine, pair, program)))
    thread.start()
    return thread
