"""An engine and the toy task's image for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from cooperbench_assets.execution.docker.engine import Engine
from cooperbench_assets_tests.engines import engine
from cooperbench_assets_tests.execution.docker.images import build_task_images
from cooperbench_assets_tests.execution.toy import Toy, make_toy

__all__ = ["engine"]


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
def toy_dataset(toy: Toy, toy_image: str) -> Path:
    """The toy's dataset, whose image is there."""
    return toy.dataset
