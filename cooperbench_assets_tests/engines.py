"""A Docker engine for tests: the one that runs, else one that is started for as long as any test session needs it.

Import the fixture `engine` into a conftest to use it; mark the tests `engine`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.processes import is_alive, process_identity
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets_tests.services import missing

START_SECONDS = 60
STOP_SECONDS = 30


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A connection to an engine."""
    with running_engine(), Engine.connect() as connection:
        yield connection


@contextlib.contextmanager
def running_engine(folder: Path | None = None) -> Iterator[None]:
    """See that an engine runs; the last one to leave stops it, if a test session has started it."""
    folder = folder or _default_folder()
    ours = folder / "users" / f"{os.getpid()}"
    with _alone(folder):
        if why_not := _see_to_it(folder):
            missing("docker engine", why_not)
        if (folder / "engine").exists():
            ours.parent.mkdir(exist_ok=True)
            ours.write_text(process_identity(os.getpid()) or "")
    try:
        yield
    finally:
        with _alone(folder):
            ours.unlink(missing_ok=True)
            _stop_if_unused(folder)


def restart_engine() -> bool:
    """Stop the engine that test sessions have started, and start it anew; False where it is somebody else's.

    Raises:
        RuntimeError: if it does not start again.
    """
    folder = _default_folder()
    with _alone(folder):
        if not (folder / "engine").exists():
            return False
        _stop(folder / "engine")
        if why_not := _start(folder):
            raise RuntimeError(why_not)
    return True


def _default_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"cooperbench-assets-engine-{os.getuid()}"


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _see_to_it(folder: Path) -> str:
    """Start an engine if none runs; why there is none then."""
    try:
        Engine.connect().close()
    except InfrastructureError as error:
        why_not = error.text
    else:
        return ""
    if os.environ.get("DOCKER_HOST"):
        return why_not
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("dockerd") is None:
        return f"{why_not}; only root on Linux can start one, with dockerd (Debian: docker.io)"
    return _start(folder)


def _start(folder: Path) -> str:
    log = folder / "engine.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["dockerd"], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            Engine.connect().close()
        except InfrastructureError:
            time.sleep(0.1)
        else:
            (folder / "engine").write_text(f"{process.pid} {process_identity(process.pid)}")
            # Whichever session is the last one stops it: here it is only waited for, so that no zombie stays.
            threading.Thread(target=process.wait, daemon=True).start()
            return ""
    process.kill()
    process.wait()
    return f"dockerd does not start: {' '.join(log.read_text(errors='replace').splitlines()[-1:])}"


def _stop_if_unused(folder: Path) -> None:
    record = folder / "engine"
    users = folder / "users"
    if not record.exists():
        return
    for user in users.iterdir():
        if not is_alive(int(user.name), user.read_text()):
            user.unlink()
    if not any(users.iterdir()):
        _stop(record)


def _stop(record: Path) -> None:
    pid, _, identity = record.read_text().partition(" ")
    record.unlink()
    if is_alive(int(pid), identity):
        os.kill(int(pid), signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS
        while is_alive(int(pid), identity) and time.monotonic() < end:
            time.sleep(0.05)
