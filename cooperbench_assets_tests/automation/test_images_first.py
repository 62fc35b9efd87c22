"""The retry sensor of an experiment on Docker: no cell is asked for before its images are, on each engine."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
import pytest

from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets_tests.automation.driving import ALWAYS_FAILS, CELL_ASSETS, Driver, bind_demo
from cooperbench_assets_tests.engines import engine
from cooperbench_assets_tests.execution.sandboxes.docker.images import build_task_images
from cooperbench_assets_tests.execution.sandboxes.docker.proxy import EngineDoor

__all__ = ["engine"]

pytestmark = [pytest.mark.slow, pytest.mark.engine]


def asked(result: dg.SensorResult) -> list[list[str]]:
    return [[key.path[-1] for key in one.asset_selection or ()] for one in result.run_requests or ()]


def test_images_are_made_ready_first_and_then_the_cell_is_retried(
    tmp_path: Path, instance: dg.DagsterInstance, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COOPERBENCH_ASSETS_STATE", str(tmp_path / "state"))
    always = {"rate": 0.0, "always": [ALWAYS_FAILS]}
    driver = Driver(bind_demo(tmp_path, faults=always, execution="docker"), instance)
    driver.experiment.subset()
    build_task_images(engine, driver.experiment.dataset)
    assert driver.materialize(["subset_pairs", "task_images"]).success
    assert driver.launch(driver.experiment.cells[0].cell, pairs=[ALWAYS_FAILS]).success
    driver.now += timedelta(hours=1)
    assert asked(driver.tick()) == [list(CELL_ASSETS)]

    driver.experiment.image_lock.unlink()
    result = driver.tick()
    assert asked(result) == [["task_images"]]
    (request,) = result.run_requests or ()
    assert request.partition_key is None
    assert driver.execute(request).success
    assert asked(driver.tick()) == [list(CELL_ASSETS)]

    own = engine.identity()
    with TemporaryDirectory(prefix="cb-") as short:  # A socket's path is short.
        door = EngineDoor.of_another(Path(short) / "engine.sock", own, own[::-1])
        monkeypatch.setenv("DOCKER_HOST", door.host)
        assert asked(driver.tick()) == [["task_images"]]
        door.shut()
