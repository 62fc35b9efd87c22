"""The demo's cells on a cluster and on one machine, and what is to be equal of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cooperbench_assets.store.cells import Cell
from cooperbench_assets_tests.execution.fleet.ray_nodes import Nodes
from cooperbench_assets_tests.execution.sandboxes.docker.places import Place, demo_experiment

SETTINGS = {
    "solo": {"mode": "solo", "seeds": [0, 1, 2]},
    "coop-comm": {"mode": "coop", "seeds": [0]},
    "coop-nocomm": {"mode": "coop", "messaging": False, "seeds": [0]},
}
"""The demo's own."""

CELLS = [("solo", 0), ("solo", 1), ("solo", 2), ("coop-comm", 0), ("coop-nocomm", 0)]

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


def rows(tried: Place, cell: tuple[str, int], table: str, but: set[str]) -> list[tuple[Any, ...]]:
    setting, seed = cell
    found = tried.table(setting, table, seed)
    left_out = (VOLATILE | but) & set(found.columns)
    return sorted(found.drop(left_out).rows(), key=repr)  # Two agents' messages have no order.


def run(tried: Place, cells: Sequence[tuple[str, int]]) -> None:
    """All of a place's cells one after another, by one harness server or one driver."""
    with tried.launcher() as launcher:
        assert launcher.run_subset().error is None
        for setting, seed in cells:
            assert launcher.run_cell(Cell(tried.name, setting, seed)).error is None


def different(there: Place, here: Place, cells: Sequence[tuple[str, int]], *but: str) -> list[tuple[str, int, str]]:
    """The tables whose rows are not the same in both places: setting, seed, table."""
    tables = [(cell, table) for cell in cells for table in ("pairs", "agents", "messages")]
    return [
        (*cell, table)
        for cell, table in tables
        if rows(there, cell, table, set(but)) != rows(here, cell, table, set(but))
    ]


def two_places(
    tmp_path: Path, nodes: Nodes, dataset: Path, lost_after_seconds: int = 10, **said: Any
) -> tuple[Place, Place]:
    """An experiment on this machine, and the same on the nodes."""
    said = {"agent_config": {"injected_faults": {}}, **said}
    here = Place(tmp_path / "here", demo_experiment(dataset, **said))
    fleet = {"address": nodes.address, "lost_after_seconds": lost_after_seconds}
    return here, Place(tmp_path / "there", demo_experiment(dataset, **said, fleet=fleet))
