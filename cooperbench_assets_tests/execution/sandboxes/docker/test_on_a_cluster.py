"""The demo's cells on three nodes of a real Ray cluster, in processes and in containers: the rows of one machine."""

from __future__ import annotations

import contextlib
import signal
import threading
from pathlib import Path

import psutil
import pytest

from cooperbench_assets.execution.runner.harness_servers import close_servers
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.execution.sandboxes.docker.leftovers import Belonging
from cooperbench_assets_tests.execution.fleet.demo_cells import CELLS, SETTINGS, different, run, two_places
from cooperbench_assets_tests.execution.fleet.ray_nodes import Nodes
from cooperbench_assets_tests.execution.sandboxes.docker.places import Place

pytestmark = [pytest.mark.deploy, pytest.mark.engine, pytest.mark.slow]


def test_the_demos_five_cells_on_three_nodes_are_those_of_one_machine(
    nodes: Nodes, demo_dataset: Path, tmp_path: Path
) -> None:
    here, there = two_places(tmp_path, nodes, demo_dataset, execution="process", settings=SETTINGS)
    run(there, CELLS)
    run(here, CELLS)
    assert different(there, here, CELLS) == []


class NodeKiller(threading.Thread):
    """Kills the node of the first evaluation whose container is there, with all that runs on it."""

    def __init__(self, place: Place, nodes: Nodes, engine: Engine) -> None:
        super().__init__(daemon=True)
        self.place, self.nodes, self.engine = place, nodes, engine
        self.orphan: Belonging | None = None
        self.over = threading.Event()

    def run(self) -> None:
        while self.orphan is None and not self.over.wait(0.05):
            for one in self.place.left(self.engine):
                if one.kind == "container" and self.orphan is None:
                    self.orphan = self._orphaned(one)

    def _orphaned(self, one: Belonging) -> Belonging | None:
        """The container without its node; None if it has gone before its child was stopped."""
        owner = int(one.described["owner"].partition("/")[0])
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            node = self.nodes.holder(owner)
            psutil.Process(owner).send_signal(signal.SIGSTOP)
            if one.id in {other.id for other in self.place.left(self.engine)}:
                self.nodes.kill(node)
                return one
            psutil.Process(owner).send_signal(signal.SIGCONT)
        return None


def test_a_cell_on_docker_is_that_of_one_machine_though_a_node_dies_in_mid_evaluation(
    nodes: Nodes, demo_dataset: Path, demo_images: list[str], tmp_path: Path, engine: Engine
) -> None:
    """And no container of it is left: the node's own is removed by a later launch, which has the cell's lock."""
    here, there = two_places(tmp_path, nodes, demo_dataset, settings={"solo": {"mode": "solo", "seeds": [0]}})
    killer = NodeKiller(there, nodes, engine)
    killer.start()
    run(there, CELLS[:1])
    killer.over.set()
    killer.join()
    assert killer.orphan is not None
    assert "infra_error eval node_lost" in there.outcomes().values()
    nodes.add()
    run(there, CELLS[:1])
    assert there.left(engine) == []
    run(here, CELLS[:1])
    assert different(there, here, CELLS[:1], "eval_tries") == []
    close_servers()
