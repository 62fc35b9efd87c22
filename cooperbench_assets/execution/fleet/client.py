"""The launch's side of a cluster: a driver in place of the harness server, slots of nodes in place of files.

What belongs here: the messages that only a driver knows. What does not: those of children, which are the same for both
(``runner.harness_client``), and everything on the cluster (``server``).
"""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cooperbench_assets.execution.fleet.messages import CONFIG_VARIABLE, FleetConfig
from cooperbench_assets.execution.runner.harness_client import Child, HarnessError, HarnessServer
from cooperbench_assets.execution.runner.harness_servers import wanted_agent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cooperbench_assets.execution.job import CellJob
    from cooperbench_assets.execution.runner.slots import PoolName, SlotUser
    from cooperbench_assets.execution.worker.protocol import ChildRequest
    from cooperbench_assets.execution.worker.wire import Message

SERVER: Final = Path(__file__).with_name("server.py")

GRANT_SECONDS: Final = 0.05
"""How long to wait for a slot that may be free."""

_PASSED_ON: Final = ("PATH", "HOME", "USER", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "COOPERBENCH_ASSETS_STATE")


class FleetDriver(HarnessServer):
    """The driver of a cluster, used as a harness server is."""

    def __init__(self, config: FleetConfig, log: Path) -> None:
        """Prepare a driver; `start` starts it.

        Args:
            config: What it and the nodes must know.
            log: File that gets what it prints.
        """
        super().__init__(environment={}, log=log, script=SERVER)
        self._environment = _environment(config)
        self._numbers = itertools.count(1)
        self._swept = False
        self.sizes: dict[str, int] = {}
        """Slots of all nodes together, by pool."""

        self.images: dict[str, str] = {}
        """Task image → its identity, the same on all nodes."""

        self.granted: set[int] = set()
        """Reservations that Ray has set aside a slot for."""

    def launch(self, request: ChildRequest, slot: int | None = None) -> Child:
        """Start a child on the node of a reservation, any node without one; as `HarnessServer.launch`."""
        return self._launched({"type": "launch", "request": asdict(request), "slot": slot}, request)

    def reserve(self, pool: PoolName) -> int:
        """Ask for a slot; its number is in `granted` once there is one."""
        number = next(self._numbers)
        self._send({"type": "reserve", "id": number, "pool": pool})
        return number

    def release(self, number: int) -> None:
        """Give a slot back, or want it no more."""
        self.granted.discard(number)
        if self.alive:
            self._send({"type": "release", "id": number})

    def hear_grants(self, seconds: float) -> None:
        """Take in what the driver says within the time; ends of children are kept for `wait`."""
        self._listen(seconds)

    def sweep(self, cell: str) -> None:
        """Have all nodes remove what was made on their engines for a cell none of whose children runs; waits for it."""
        self._swept = False
        with contextlib.suppress(HarnessError):
            self._send({"type": "sweep", "cell": cell})
        while self.alive and not self._swept:
            self._listen(None)

    def _hear(self, message: Message) -> None:
        if message["type"] == "slot":
            self.granted.add(message["id"])
        elif message["type"] == "sizes":
            self.sizes = message["sizes"]
        elif message["type"] == "swept":
            self._swept = True
        elif message["type"] == "images":
            self.images = message["images"]
        else:
            super()._hear(message)


def _environment(config: FleetConfig) -> dict[str, str]:
    """The driver's variables: Ray's own, and no proxies, which its connections would obey."""
    names = [name for name in os.environ if name in _PASSED_ON or name.startswith("RAY_")]
    return {name: os.environ[name] for name in names} | {
        CONFIG_VARIABLE: config.to_json(),
        "PYTHONUNBUFFERED": "1",
        "TZ": "UTC",
    }


@dataclass(eq=False)
class NodeSlot:
    """One slot of some node, until `close`."""

    pool: ClusterSlots
    handle: int
    """The number of its reservation."""

    def close(self) -> None:
        """Give it back."""
        self.pool.forget(self)


class ClusterSlots:
    """One of the cluster's pools, as one launch uses it: Ray counts, for all launches of all experiments together."""

    problem: str | None = None

    def __init__(self, name: PoolName, driver: FleetDriver) -> None:
        self.name = name
        self._driver = driver
        self._held: set[NodeSlot] = set()
        self._wanted: int | None = None

    @property
    def size(self) -> int:
        """Slots of all nodes together."""
        return self._driver.sizes.get(self.name, 0)

    @property
    def held(self) -> int:
        """How many of them this launch has."""
        return len(self._held)

    def acquire(self, cap: int | None = None, pair: str | None = None) -> NodeSlot | None:
        """Take a slot, without waiting; None if Ray has none for this launch yet, or it holds `cap` already."""
        if cap is not None and self.held >= cap:
            return None
        if self._wanted is None:
            self._wanted = self._driver.reserve(self.name)
            self._driver.hear_grants(GRANT_SECONDS)
        if self._wanted not in self._driver.granted:
            return None
        slot = NodeSlot(self, self._wanted)
        self._wanted = None
        self._held.add(slot)
        return slot

    def wait(self) -> None:
        """Ray keeps what was asked for in its queue: nothing to do."""

    def leave(self) -> None:
        """Want no further slot for now."""
        if self._wanted is not None:
            self._driver.release(self._wanted)
            self._wanted = None

    def others(self) -> tuple[tuple[SlotUser, int], ...]:
        """Other launches that hold slots: Ray does not tell them."""
        return ()

    def forget(self, slot: NodeSlot) -> None:
        """Count a slot no more; `NodeSlot.close` calls this."""
        if slot in self._held:
            self._held.discard(slot)
            self._driver.release(slot.handle)


def fleet_config(job: CellJob, environment: Mapping[str, str]) -> FleetConfig:
    """What the driver and the nodes of a cell's fleet must know.

    Args:
        job: The cell.
        environment: Variables that the harness sees.
    """
    assert job.fleet is not None
    dataset = str(job.dataset.absolute())
    return FleetConfig(
        address=job.fleet.address,
        lost_after_seconds=job.fleet.lost_after_seconds,
        dataset=dataset,
        dataset_on_nodes=job.fleet.dataset or dataset,
        pairs=tuple((pair.repo, pair.task_id, pair.features) for pair in job.subset.pairs),
        execution=job.execution,
        sandbox={name: value for name, value in job.sandbox.items() if name != "environment"},
        environment=dict(environment),
        external_agents=job.external_agents,
        agent=wanted_agent(job),
        python=None if job.harness_python is None else str(job.harness_python),
    )
