"""The faults: each is injected into what runs at this moment, and says what it hit.

What belongs here: doing harm. What does not: when, and what must hold afterwards.

A fault is a function that takes the scene and returns what it did; None if there was nothing that it could hit. One
that lasts (a full disk, a stopped process) returns when it is over.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import yaml

from cooperbench_assets.spec import COMPONENT
from perf.soak.drivers import COMMAND, CommandLine, Daemon, Driver, wait_until
from perf.soak.place import EXPERIMENT, SETTINGS, Place

REFUSED_SECONDS: Final = 120.0
"""How long a command that must be refused may take to say so."""


@dataclass
class Scene:
    """What faults are injected into."""

    place: Place
    driver: Driver
    chance: random.Random
    full_disk: bool
    """The log trees lie on a file system that may be filled up."""

    longest_stop: float = 150.0
    """The longest time for which a process is stopped, seconds."""


Inject = Callable[[Scene], str | None]


def kill_child(scene: Scene) -> str | None:
    """SIGKILL to the process that works on one pair."""
    return _send(scene, scene.driver.children(), signal.SIGKILL)


def kill_server(scene: Scene) -> str | None:
    """SIGKILL to a harness server, and so to all of its children."""
    return _send(scene, scene.driver.servers(), signal.SIGKILL)


def kill_launcher(scene: Scene) -> str | None:
    """SIGKILL to the command, or to the process of a Dagster run: nothing that it would do at its end is done."""
    return _send(scene, scene.driver.launchers(), signal.SIGKILL)


def interrupt_launcher(scene: Scene) -> str | None:
    """SIGINT or SIGTERM to the same."""
    return _send(scene, scene.driver.launchers(), scene.chance.choice((signal.SIGINT, signal.SIGTERM)))


def kill_daemon(scene: Scene) -> str | None:
    """SIGKILL to Dagster's daemon; its runs go on."""
    process = scene.driver.process
    if not isinstance(scene.driver, Daemon) or process is None or process.poll() is not None:
        return None
    process.kill()
    process.wait()
    return f"process {process.pid}"


def kill_code_server(scene: Scene) -> str | None:
    """SIGKILL to the process that serves the code location."""
    return _send(scene, scene.driver.code_servers(), signal.SIGKILL) if isinstance(scene.driver, Daemon) else None


def kill_container(scene: Scene) -> str | None:
    """SIGKILL to a container in which tests run."""
    if scene.place.execution != "docker":
        return None
    import docker

    client = docker.from_env()
    try:
        label = f"cooperbench-assets.experiment={EXPERIMENT}"
        found = client.containers.list(filters={"label": label}, ignore_removed=True)
        if not found:
            return None
        chosen = scene.chance.choice(found)
        with contextlib.suppress(docker.errors.APIError):
            chosen.kill()
            return f"container {chosen.name}"
        return None
    finally:
        client.close()


def stop_child(scene: Scene) -> str | None:
    """SIGSTOP to the process that works on one pair, SIGCONT some seconds later."""
    return _stop(scene, scene.driver.children(), scene.chance.uniform(0.5, 6))


def stop_server(scene: Scene) -> str | None:
    """SIGSTOP to a harness server, SIGCONT some seconds later."""
    return _stop(scene, scene.driver.servers(), scene.chance.uniform(0.5, 6))


def stop_launcher(scene: Scene) -> str | None:
    """SIGSTOP to the command or a run process, SIGCONT some seconds later."""
    return _stop(scene, scene.driver.launchers(), scene.chance.uniform(0.5, 6))


def stop_for_minutes(scene: Scene) -> str | None:
    """SIGSTOP for one to some minutes, to any of them."""
    everything = [*scene.driver.children(), *scene.driver.servers(), *scene.driver.launchers()]
    return _stop(scene, everything, scene.chance.uniform(min(60, scene.longest_stop), scene.longest_stop))


def second_launch(scene: Scene) -> str | None:
    """The same cell launched once more while it runs: refused, and nothing of the first launch is disturbed."""
    setting = scene.chance.choice(sorted(SETTINGS))
    second = scene.driver.start([*COMMAND, "materialize", EXPERIMENT, "--setting", setting])
    scene.driver.others.append(second)
    end = time.monotonic() + REFUSED_SECONDS
    while second.poll() is None and time.monotonic() < end and scene.driver.working():
        time.sleep(0.2)
    # If it is at work by now, the first launch had none left for it: it may go on.
    return f"{setting}, exit code {second.poll()}"


def edit_defs(scene: Scene) -> str | None:
    """defs.yaml changed while cells run: another limit, a cell dropped, or no YAML at all; put back afterwards."""
    attributes = scene.place.attributes
    kind = scene.chance.choice(("limit", "dropped cell", "broken", "unknown key"))
    if kind == "limit":
        attributes["limits"] = {**attributes["limits"], "concurrency": scene.chance.randint(1, 6)}
    elif kind == "dropped cell":
        left_out = scene.chance.choice(sorted(SETTINGS))
        attributes["settings"] = {name: one for name, one in SETTINGS.items() if name != left_out}
    elif kind == "unknown key":
        attributes["limitz"] = {}
    text = yaml.safe_dump({"type": COMPONENT, "attributes": attributes}, sort_keys=False)
    before = scene.place.defs_file.read_text()
    scene.place.defs_file.write_text("type: [not, closed\n" if kind == "broken" else text)
    try:
        time.sleep(scene.chance.uniform(0.5, 5))
    finally:
        scene.place.defs_file.write_text(before)
    return kind


def fill_disk(scene: Scene) -> str | None:
    """The file system of the log trees filled up to the last byte, for some seconds."""
    if not scene.full_disk:
        return None
    ballast = scene.place.logs / ".ballast"
    end = time.monotonic() + scene.chance.uniform(1, 6)
    try:
        with ballast.open("wb") as file:
            while time.monotonic() < end:
                _fill_up(file.fileno(), scene.place.logs)
                time.sleep(0.1)
    finally:
        ballast.unlink(missing_ok=True)
    return "0 bytes left"


def lock_storage(scene: Scene) -> str | None:
    """Dagster's SQLite files locked against writers, for longer than it waits for them."""
    files = [*scene.place.project.dagster.rglob("*.db")]
    held = []
    for file in files:
        with contextlib.suppress(sqlite3.Error):
            connection = sqlite3.connect(file, timeout=5, isolation_level=None)
            connection.execute("BEGIN EXCLUSIVE")
            held.append(connection)
    try:
        time.sleep(scene.chance.uniform(3, 25))
    finally:
        for connection in held:
            connection.close()
    return f"{len(held)} files" if held else None


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault."""

    name: str
    inject: Inject
    weight: float
    """How often it is chosen, against the others."""


KINDS: Final = (
    Kind("SIGKILL of a pair's process", kill_child, 30),
    Kind("SIGKILL of a harness server", kill_server, 12),
    Kind("SIGKILL of the command or a run's process", kill_launcher, 10),
    Kind("SIGINT or SIGTERM to the command or a run's process", interrupt_launcher, 5),
    Kind("SIGKILL of the daemon", kill_daemon, 6),
    Kind("SIGKILL of the code server", kill_code_server, 4),
    Kind("SIGKILL of a container", kill_container, 30),
    Kind("SIGSTOP of a pair's process, seconds", stop_child, 5),
    Kind("SIGSTOP of a harness server, seconds", stop_server, 3),
    Kind("SIGSTOP of the command or a run's process, seconds", stop_launcher, 3),
    Kind("SIGSTOP for minutes", stop_for_minutes, 0.4),
    Kind("a second launch of a cell", second_launch, 4),
    Kind("defs.yaml edited in mid-run", edit_defs, 6),
    Kind("disk full", fill_disk, 6),
    Kind("Dagster's storage locked", lock_storage, 2),
)


def kinds_for(driver: Driver, place: Place) -> tuple[Kind, ...]:
    """The kinds that can happen to this driver and these sandboxes."""
    left_out: set[Inject] = set()
    if isinstance(driver, CommandLine):
        left_out |= {kill_daemon, kill_code_server}
    if place.execution != "docker":
        left_out.add(kill_container)
    return tuple(kind for kind in KINDS if kind.inject not in left_out)


def _send(scene: Scene, targets: list[psutil.Process], number: signal.Signals) -> str | None:
    if not targets:
        return None
    target = scene.chance.choice(targets)
    try:
        target.send_signal(number)
    except psutil.Error:
        return None
    return f"{number.name} to {target.pid}"


def _stop(scene: Scene, targets: list[psutil.Process], seconds: float) -> str | None:
    if not targets:
        return None
    target = scene.chance.choice(targets)
    try:
        target.suspend()
        wait_until(lambda: not target.is_running(), seconds, nap=0.1)
        target.resume()
    except psutil.Error:
        return None
    return f"{target.pid} for {seconds:.1f} s"


def _fill_up(descriptor: int, folder: Path) -> None:
    """Write until nothing more fits."""
    with contextlib.suppress(OSError):
        while True:
            status = os.statvfs(folder)
            free = status.f_bavail * status.f_bsize
            os.write(descriptor, bytes(max(1, min(free, 2**24))))
