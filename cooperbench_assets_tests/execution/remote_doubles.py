"""Modal and Google Cloud as upstream's own backends see them, played on this machine.

The harness imports this module by name, as it does modules that register agents. It puts doubles where upstream's
``ModalBackend`` calls Modal's SDK, and where its ``GCPBatchBackend`` makes a sandbox of a batch job. Each call is
recorded in the file that ``REMOTE_RECORD`` names; the first evaluation of the pair in ``REMOTE_NOBODY`` finds nobody.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import modal
from cooperbench.eval.backends import gcp  # type: ignore[import-untyped,unused-ignore]

from cooperbench_assets.benchmark.images import image_name
from cooperbench_assets.benchmark.pairs import Task
from cooperbench_assets.execution.sandboxes.base import Finished, SandboxOptions
from cooperbench_assets.execution.sandboxes.process.backend import ProcessBackend, ProcessSandbox


def record(what: str, **said: Any) -> None:
    """Write down a call: several children do, one line each."""
    pair = os.environ["COOPERBENCH_ASSETS_PAIR"]
    with Path(os.environ["REMOTE_RECORD"]).open("a") as file:
        file.write(json.dumps({"call": what, "pair": pair, **said}) + "\n")


def place(image: str, timeout: int, workdir: str) -> ProcessSandbox:
    """A sandbox of the task whose image is named, found in the dataset."""
    first = os.environ["COOPERBENCH_ASSETS_ATTEMPT"] == "1"
    if first and os.environ["COOPERBENCH_ASSETS_PAIR"] == os.environ.get("REMOTE_NOBODY"):
        raise ConnectionError("Service Unavailable: no sandbox is to be had")
    for runner in Path(os.environ["REMOTE_DATASET"]).glob("*/task*/runner.sh"):
        task = Task(runner.parent.parent.name, int(runner.parent.name.removeprefix("task")))
        if image_name(task) == image:
            return ProcessBackend(runner.parent, Path.cwd(), SandboxOptions()).create_sandbox(image, timeout, workdir)
    raise FileNotFoundError(image)


class Stream:
    """One of Modal's streams."""

    def __init__(self, content: str) -> None:
        self._content = content

    def read(self) -> str:
        """All of it."""
        return self._content


class Process:
    """Modal's process in a sandbox."""

    def __init__(self, finished: Finished) -> None:
        self.returncode = finished.returncode
        self.stdout = Stream(finished.stdout_read())
        self.stderr = Stream(finished.stderr_read())

    def wait(self) -> int:
        """It has ended."""
        return self.returncode


class RemoteSandbox:
    """A sandbox of Modal's, made by ``modal.Sandbox.create``."""

    def __init__(self, image: str, timeout: int, workdir: str, app: str) -> None:
        record("create", image=image, timeout=timeout, workdir=workdir, app=app)
        self._place = place(image, timeout, workdir)

    def exec(self, *args: str) -> Process:
        """Run a command."""
        return Process(self._place.exec(*args))

    def terminate(self) -> None:
        """End it."""
        record("terminate")
        self._place.terminate()


class Registry:
    """An image of Modal's: its name is all that matters here."""

    def __init__(self, name: str) -> None:
        self.name = name

    def entrypoint(self, command: list[str]) -> Registry:
        """The same image without its own command, as upstream asks for."""
        assert command == []
        return self


def create(*command: str, image: Registry, timeout: int, workdir: str, app: str) -> RemoteSandbox:
    """``modal.Sandbox.create`` as upstream calls it."""
    assert command == ("sleep", "infinity")
    return RemoteSandbox(image.name, timeout, workdir, app)


class BatchSandbox:
    """What stands for ``GCPBatchSandbox``, which would start a batch job for each command."""

    def __init__(self, *, project_id: str, image: str, workdir: str, timeout: int, **more: Any) -> None:
        record("create", image=image, timeout=timeout, workdir=workdir, project=project_id, more=sorted(more))
        self._place = place(image, timeout, workdir)

    def exec(self, *args: str) -> Finished:
        """Run a command."""
        return self._place.exec(*args)

    def terminate(self) -> None:
        """End it."""
        record("terminate")
        self._place.terminate()


doubled: Any = modal
batch: Any = gcp
doubled.App.lookup = lambda name, create_if_missing: f"app {name}"
doubled.Image.from_registry = Registry
doubled.Sandbox.create = create
batch.GCPBatchSandbox = BatchSandbox
