"""An engine and the toy task's image for the tests of this folder."""

from __future__ import annotations

import gc
import secrets
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.demo import build_dataset
from cooperbench_assets.execution.sandboxes.docker import ownership
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.execution.sandboxes.docker.options import DockerOptions
from cooperbench_assets.execution.sandboxes.docker.sandbox import DockerBackend, DockerSandbox
from cooperbench_assets_tests.engines import engine
from cooperbench_assets_tests.execution.sandboxes.docker.containers import Make, containers
from cooperbench_assets_tests.execution.sandboxes.docker.images import build_task_images
from cooperbench_assets_tests.execution.sandboxes.docker.upstream import backends_as_they_are
from cooperbench_assets_tests.execution.toy import Toy, make_toy

__all__ = ["engine"]


@pytest.fixture
def own_host(monkeypatch: pytest.MonkeyPatch) -> str:
    """A host of this test's own in labels: sweeps of tests that run beside it let its things be."""
    name = f"test/{secrets.token_hex(8)}"
    monkeypatch.setattr(ownership, "host", lambda: name)
    return name


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A dataset of one small task."""
    return make_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def toy_image(engine: Engine, toy: Toy) -> str:
    """The name of the toy task's image."""
    (image,) = build_task_images(engine, toy.dataset)
    return image


@pytest.fixture(scope="session")
def toy_dataset(toy: Toy, toy_image: str) -> Iterator[Path]:
    """The toy's dataset, whose image is there, ready for upstream's evaluation."""
    with backends_as_they_are():
        yield toy.dataset


@pytest.fixture(scope="session")
def demo_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's dataset."""
    return build_dataset(tmp_path_factory.mktemp("demo") / "dataset")


@pytest.fixture(scope="session")
def demo_images(engine: Engine, demo_dataset: Path) -> list[str]:
    """The images of its tasks, made where they are not there."""
    return build_task_images(engine, demo_dataset)


@pytest.fixture
def pair(engine: Engine, request: pytest.FixtureRequest) -> Iterator[str]:
    """A label of this test alone; nothing that carries it is left on the engine."""
    name = request.node.name
    yield name
    end = time.monotonic() + 5
    while (left := containers(engine, name)) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == []


@pytest.fixture
def backend(pair: str) -> Make:
    """Makes backends whose containers carry this test's label."""

    def make(environment: dict[str, str] | None = None, **options: Any) -> DockerBackend:
        return DockerBackend(DockerOptions(labels={"pair": pair}, **options), environment)

    return make


@pytest.fixture
def sandbox(backend: Make, toy_image: str) -> Iterator[DockerSandbox]:
    """A sandbox of the toy task."""
    made = backend().create_sandbox(toy_image)
    yield made
    made.terminate()


@pytest.fixture
def no_engine_left() -> Iterator[None]:
    """Where a connection fails, the SDK leaves its socket to the collector, which warns of it."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
