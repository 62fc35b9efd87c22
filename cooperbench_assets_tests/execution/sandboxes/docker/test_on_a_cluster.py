"""The demo's cells on nodes of a real Ray cluster, in processes and in containers: the rows of one machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.execution.runner.harness_servers import close_servers
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets_tests.execution.fleet.ray_nodes import Nodes, ray_nodes
from cooperbench_assets_tests.execution.sandboxes.docker.places import COOP, SOLO, Place, demo_experiment
from cooperbench_assets_tests.services import missing

pytestmark = [pytest.mark.deploy, pytest.mark.engine, pytest.mark.slow]

VOLATILE = {
    "experiment",
    "path",
    "started_at",
    "ended_at",
    "evaluated_at",
    "duration_seconds",
    "run_id",
    "read_at",
    "sent_at",
    "position",
    "step",
}


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    if importlib.util.find_spec("ray") is None:  # Importing it would read its variables before they are set.
        missing("Ray", "it is not installed: make test-deploy installs it")
    with ray_nodes(2) as found:
        yield found
        close_servers()


def rows(tried: Place, setting: str, table: str) -> list[tuple[Any, ...]]:
    found = tried.table(setting, table)
    return sorted(found.drop(VOLATILE & set(found.columns)).rows(), key=repr)  # Two agents' messages have no order.


@pytest.mark.parametrize("execution", ["process", "docker"])
def test_cells_of_the_demo_on_a_cluster_are_those_of_one_machine(
    execution: str, nodes: Nodes, demo_dataset: Path, demo_images: list[str], tmp_path: Path, engine: Engine
) -> None:
    settings = SOLO | COOP if execution == "process" else SOLO
    said = {"execution": execution, "settings": settings, "agent_config": {"injected_faults": {}}}
    here = Place(tmp_path / "here", demo_experiment(demo_dataset, **said))
    there = Place(tmp_path / "there", demo_experiment(demo_dataset, **said, fleet={"address": nodes.address}))
    for setting in settings:
        for tried in (here, there):
            assert tried.run(setting).error is None
        for table in ("pairs", "agents", "messages"):
            assert rows(there, setting, table) == rows(here, setting, table), table
    assert there.left(engine) == []
