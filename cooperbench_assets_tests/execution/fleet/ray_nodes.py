"""A Ray cluster of several nodes on this machine, for tests: a head that runs nothing, and nodes with slots."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS = 200
"""How long a node may take to start, on a machine that is busy with other things."""

SLOTS = {"agents": 2, "evaluations": 2}
TOKEN = "0123456789abcdef0123456789abcdef"
VARIABLES = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": TOKEN,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": str(START_SECONDS),
    # A node's process that gets SIGTERM, as this one may, would wait so long for a head that may be gone.
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
}
HEAD_VARIABLES = {"RAY_grpc_client_keepalive_time_ms": "10000", "RAY_grpc_client_keepalive_timeout_ms": "20000"}
"""Those of docs/cluster.md, for the head alone."""


@dataclass
class Nodes:
    """The cluster. `ray.cluster_utils` starts the processes that `ray start` does."""

    cluster: Any
    nodes: list[Any] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, count: int = 1, slots: int | None = None) -> None:
        resources = dict(SLOTS) if slots is None else dict.fromkeys(SLOTS, slots)
        added = [self.cluster.add_node(wait=False, num_cpus=1, resources=dict(resources)) for _ in range(count)]
        for node in added:
            self.cluster._wait_for_node(node, START_SECONDS)
        self.nodes += added

    def holder(self, pid: int) -> Any:
        """The node that a process runs on."""
        parents = {parent.pid for parent in psutil.Process(pid).parents()}
        [node] = [node for node in self.nodes if raylet(node) in parents]
        return node

    def kill(self, node: Any) -> None:
        """End a node as a power cut does: all that runs on it at once."""
        tree(node, signal.SIGKILL)
        self.nodes.remove(node)
        with contextlib.suppress(Exception):
            self.cluster.remove_node(node, allow_graceful=False)

    def end(self) -> None:
        """End all nodes and the head, without asking any of them: one that is stopped or gone would not answer."""
        for node in [*self.nodes, self.cluster.head_node]:
            tree(node, signal.SIGKILL)
            with contextlib.suppress(Exception):
                self.cluster.remove_node(node, allow_graceful=False)
        self.nodes.clear()
        self.cluster.shutdown()


def raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def tree(node: Any, number: signal.Signals) -> None:
    """Send a signal to every process of a node; parents first, so that none starts another meanwhile."""
    with contextlib.suppress(psutil.NoSuchProcess, KeyError):
        top = psutil.Process(raylet(node))
        for process in (top, *top.children(recursive=True)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)


@contextlib.contextmanager
def ray_nodes(count: int) -> Iterator[Nodes]:
    """A head and so many nodes, each with two slots of each pool."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray-") as folder:
        for name, value in VARIABLES.items():
            patch.setenv(name, value)
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            patch.delenv(name)
        # Ray notes its newest cluster in a folder that it does not make; the usual one may have a person's own cluster.
        patch.setenv("RAY_TMPDIR", folder)
        (Path(folder) / "ray").mkdir()
        from ray.cluster_utils import Cluster

        # Not below pytest's own folder: names of sockets must be short.
        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": folder}
        with pytest.MonkeyPatch.context() as head_patch:
            for name, value in HEAD_VARIABLES.items():
                head_patch.setenv(name, value)
            found = Nodes(Cluster(initialize_head=True, head_node_args=head))
        try:
            found.add(count)
            yield found
        finally:
            found.end()
