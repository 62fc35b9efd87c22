"""A cell on Docker in which everything goes wrong: none is a fail, each has its family, the run after it is whole."""

from __future__ import annotations

import contextlib
import http.server
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from docker.errors import APIError, ImageNotFound

from cooperbench_assets.benchmark.images import image_name
from cooperbench_assets.benchmark.pairs import Pair, Subset, Task
from cooperbench_assets.execution.api import plan_stage, run_agents, run_evaluations
from cooperbench_assets.execution.job import CellJob, Limits
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.runner.harness_servers import close_servers
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.execution.sandboxes.docker.leftovers import Belonging, belongings
from cooperbench_assets_tests.execution.cells import PLENTY, attempts, cell, nothing_left, outcomes
from cooperbench_assets_tests.execution.sandboxes.docker.places import in_background
from cooperbench_assets_tests.execution.sandboxes.docker.proxy import EngineDoor
from cooperbench_assets_tests.execution.toy import TASK, Toy
from cooperbench_assets_tests.services import missing

pytestmark = [pytest.mark.engine, pytest.mark.slow]

T = TypeVar("T")

HELD, SLOW = "TOY_HELD", "TOY_SLOW"
HOLD = f"import os, time\nwhile {HELD!r} in os.environ: time.sleep(0.05)\n"
"""What every patch does first: a test that is held waits to be killed."""


@dataclass(frozen=True)
class Own:
    """A task with an image that nobody else uses, so that it can be taken away."""

    engine: Engine
    image: str
    task: Task
    dataset: Path

    def put(self) -> None:
        repository, _, tag = image_name(self.task).rpartition(":")
        assert self.engine.api.tag(self.image, repository, tag, force=True)

    def take(self) -> None:
        """Take the name away; the image itself stays under its other one."""
        self.engine.api.remove_image(image_name(self.task), force=True)


@pytest.fixture
def own(engine: Engine, toy: Toy, toy_image: str, tmp_path: Path) -> Iterator[Own]:
    task = Task(f"own{secrets.token_hex(4)}_task", TASK)
    shutil.copytree(toy.task, tmp_path / "dataset" / task.folder, symlinks=True)
    made = Own(engine, toy_image, task, tmp_path / "dataset")
    made.put()
    yield made
    with contextlib.suppress(ImageNotFound):
        made.take()
    close_servers()


@contextlib.contextmanager
def reachable(engine: Engine) -> Iterator[tuple[str, int]]:
    """A server of this machine that containers reach, if they have a network."""
    address = engine.gateway()
    if address is None:
        missing("docker bridge", "this machine has no address on it")
    with http.server.ThreadingHTTPServer((address, 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield address, server.server_address[1]
        server.shutdown()
        thread.join()


def troubled(own: Own, toy: Toy, folder: Path, server: tuple[str, int]) -> tuple[CellJob, dict[str, Pair]]:
    """A cell of four pairs, in each of which one thing goes wrong: less memory, less time, no network, and nothing."""
    does = {
        "nothing": ((1, 2), ""),
        "network": ((1, 3), f"import socket; socket.create_connection({server!r}).close()"),
        "tests_aborted": ((1, 4), "held = b'x' * (160 * 2**20)"),
        "test_timeout": ((2, 3), f"time.sleep(float(os.environ.get({SLOW!r}, 0)))"),
    }
    pairs = {name: Pair(own.task.repo, TASK, features) for name, (features, _) in does.items()}
    tries = {}
    for name, ((first, second), statement) in does.items():
        file = folder / f"{name}.patch"
        file.write_text(toy.at_import(first, HOLD + statement) + toy.gold(second))
        tries[pairs[name]] = [f"patch:{file}"]
    job = cell(
        toy,
        folder,
        tries=tries,
        experiment=f"troubles-{own.task.repo}",
        execution="docker",
        dataset=own.dataset,
        subset=Subset("four", tuple(pairs.values()), own.dataset / "four.json"),
    )
    return job, pairs


def left(job: CellJob, engine: Engine) -> list[Belonging]:
    return [one for one in belongings(engine) if one.described.get("experiment") == job.experiment]


def do_harm(job: CellJob, own: Own) -> None:
    """Once a test of the cell is held: take the image away, and kill the container."""
    container = when(lambda: container_under_test(job, own.engine))
    own.take()
    own.engine.api.kill(container)


def container_under_test(job: CellJob, engine: Engine, pair: Pair | None = None) -> str | None:
    """A container of the cell, or of one of its pairs, in which a test runs now."""
    for one in left(job, engine):
        if pair is not None and one.described["pair"] != pair.name:
            continue
        with contextlib.suppress(APIError):  # not started yet, or gone
            if "test_feature" in str(engine.api.top(one.id, "-eww -o pid,args")):
                return one.id
    return None


def when(happened: Callable[[], T | None]) -> T:
    """Wait for something, as long as a slow machine may need."""
    end = time.monotonic() + 240
    while not (found := happened()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def evaluated(job: CellJob, own: Own, limits: Limits | None = None, **sandbox: Any) -> dict[str, str]:
    """What one run of the evaluations makes of the pairs; nothing of it is left, on disk or on the engine."""
    run_evaluations(replace(job, limits=limits or job.limits, sandbox=sandbox), LaunchOptions())
    nothing_left(job)
    # The engine may still be at it: a container that was killed removes itself.
    assert when(lambda: not left(job, own.engine))
    return outcomes(job)


def test_whatever_happens_to_a_cell_is_no_fail_and_the_run_after_it_completes_the_cell(
    own: Own, toy: Toy, tmp_path: Path, engine: Engine
) -> None:
    limits = replace(PLENTY, eval_attempts=4, test_timeout_seconds=120)
    with reachable(engine) as server:
        job, pairs = troubled(own, toy, tmp_path, server)
        job = replace(job, limits=limits)
        assert run_agents(job, LaunchOptions()).done == 4

        # The container is killed in the first test, and the image is gone when the next pair wants it.
        with in_background(do_harm, job, own):
            found = evaluated(job, own, replace(limits, eval_concurrency=1), environment={HELD: "1"})
        assert sorted(found.values()) == ["infra_error eval/container_died"] + 3 * ["infra_error eval/image_missing"]
        by_itself = plan_stage("eval", job, LaunchOptions(automatic=True))
        assert len(by_itself.runs) == 1, "an image comes back by a person's doing only"

        # The image is back; there is little memory and time, and no network.
        own.put()
        short = replace(limits, test_timeout_seconds=8)
        found = evaluated(job, own, short, memory_mb=64, network=False, environment={SLOW: "60"})
        infra_failed = {pair.folder: f"infra_error eval/{name}" for name, pair in pairs.items()}
        assert found == {**infra_failed, pairs["nothing"].folder: "pass"}
        assert len(plan_stage("eval", job, LaunchOptions(automatic=True)).runs) == 3

        # Nothing goes wrong any more.
        assert set(evaluated(job, own).values()) == {"pass"}
    assert [outcome for _, outcome, _ in attempts(job, pairs["tests_aborted"])] == [
        "completed",
        *2 * ["infra_error"],
        "completed",
    ]


def test_an_engine_that_is_stopped_and_started_in_mid_cell_fails_no_pair_and_the_next_run_completes_it(
    own: Own, toy: Toy, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A short path: a socket's has no room for a test's long name.
    with reachable(engine) as server, TemporaryDirectory() as short:
        door = EngineDoor.at_path(Path(short) / "engine.sock")
        monkeypatch.setenv("DOCKER_HOST", door.host)
        job, pairs = troubled(own, toy, tmp_path, server)
        job = replace(job, limits=replace(PLENTY, eval_attempts=4, eval_concurrency=1, test_timeout_seconds=120))
        slow = pairs["test_timeout"]
        assert run_agents(job, LaunchOptions()).done == 4

        def stop_and_start() -> None:
            when(lambda: container_under_test(job, engine, slow))
            door.shut()
            when(lambda: (job.attempts_dir(slow) / "eval-1/attempt.json").read_text().count('"infra_error"'))
            door.open()

        with in_background(stop_and_start):
            run_evaluations(replace(job, sandbox={"environment": {SLOW: "100"}}), LaunchOptions())
        found = outcomes(job)
        assert found[slow.folder] in ("infra_error eval/engine", "infra_error eval/container_died")
        assert set(found.values()) <= {found[slow.folder], "infra_error eval/engine", "pass"}
        assert set(evaluated(job, own).values()) == {"pass"}
        door.shut()
