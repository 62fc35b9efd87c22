"""The nodes of a cluster that a launch may use, and their slots, which Ray counts.

What belongs here: taking nodes in, comparing them, and setting slots aside. What does not: what runs on a node
(``children``, ``node``), and talking to the launch (``server``).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cooperbench_assets.errors import UserError
from cooperbench_assets.execution.fleet.messages import FleetConfig, NodeFacts
from cooperbench_assets.execution.fleet.node import Node, own_versions
from cooperbench_assets.execution.provenance import hash_tasks
from cooperbench_assets.execution.runner.slots import POOLS
from cooperbench_assets.execution.worker import wire

LOOK_SECONDS: Final = 5.0
"""Between two looks at the cluster's nodes."""

HEAD_SECONDS: Final = 20.0
"""A head that does not answer for so long is gone. Ray itself ends this process after 60."""

CLOCKS_SECONDS: Final = 1.0
"""How far the clocks of two machines may be apart."""

_FIRST_POLL: Final = 0.01
_LONGEST_POLL: Final = 0.5

Say = Callable[[wire.Message], None]
Spawn = Callable[[Coroutine[Any, Any, None]], None]


class FleetError(UserError):
    """The cluster cannot be used; the text says what a person can do."""


@dataclass(eq=False)
class Member:
    """A node of the cluster, as the driver knows it."""

    id: str
    name: str
    actor: Any
    facts: NodeFacts
    clock: float
    lease_ends: float
    """Seconds of this machine's monotonic clock: from then on the node runs nothing of ours."""

    running: dict[str, Path] = field(default_factory=dict)
    """Staging folder by child."""

    pids: dict[str, int] = field(default_factory=dict)
    """By child, once its start was answered."""

    lost: str | None = None
    """Why it counts as lost."""

    def is_starting(self, key: str) -> bool:
        """Whether the launch has not heard yet that a child was started."""
        return key in self.running and key not in self.pids


@dataclass(eq=False)
class Reservation:
    """A slot that was asked for, or is had."""

    group: Any = None
    node: str | None = None


class Cluster:
    """The cluster, as one launch's driver uses it."""

    def __init__(self, config: FleetConfig, ray: Any, say: Say, spawn: Spawn) -> None:
        """Prepare it; `join` takes its nodes in.

        Args:
            config: What the driver and the nodes must know.
            ray: The module, joined to the cluster.
            say: Sends a message to the launch.
            spawn: Runs something beside.
        """
        self._config = config
        self._ray = ray
        self._say = say
        self._spawn = spawn
        self._dataset_sha256 = hash_tasks(Path(config.dataset), config.planned())["dataset_sha256"]
        self.members: dict[str, Member] = {}
        self._joining: set[str] = set()
        self._refused: dict[str, str] = {}
        self._reservations: dict[int, Reservation] = {}

    async def join(self, attend: Callable[[Member], Coroutine[Any, Any, None]]) -> None:
        """Take in all nodes that have slots; each is attended to from then on, and so are those that come later.

        Raises:
            FleetError: if there are none, or one of them differs.
        """
        self._attend = attend
        nodes = await self._nodes()
        wanted = [node for node in nodes if any(node["Resources"].get(pool) for pool in POOLS)]
        if not wanted:
            raise FleetError(
                f'no node of the Ray cluster has slots; start nodes with --resources=\'{{"{POOLS[0]}": 4, '
                f'"{POOLS[1]}": 4}}\''
            )
        await asyncio.gather(*(self._join(node) for node in wanted))
        if self._refused:
            raise FleetError("; ".join(f"node {name}: {why}" for name, why in sorted(self._refused.items())))
        if not self.members:
            raise FleetError("all nodes of the Ray cluster that had slots are gone; see `ray status`")
        self._tell_sizes(nodes)

    async def watch(self) -> None:
        """Take in new nodes; returns when the head is gone."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                nodes = await asyncio.wait_for(self._nodes(), HEAD_SECONDS)
            except Exception as error:  # whatever Ray raises then
                print(f"the head of the Ray cluster does not answer: {error!r}", file=sys.stderr, flush=True)
                return
            self._tell_sizes(nodes)
            for node in nodes:
                if any(node["Resources"].get(pool) for pool in POOLS) and self._is_new(node):
                    self._spawn(self._join(node))

    def _is_new(self, node: dict[str, Any]) -> bool:
        return node["NodeID"] not in self.members and node["NodeID"] not in self._joining

    async def _join(self, node: dict[str, Any]) -> None:
        """Start the actor of a node, and compare what is there; a node that differs is named, and gets no pair."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        name, identifier = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})", node["NodeID"]
        self._joining.add(identifier)
        strategy = NodeAffinitySchedulingStrategy(identifier, soft=False)
        actor = self._ray.remote(Node).options(num_cpus=0, scheduling_strategy=strategy).remote(self._config.to_json())
        try:
            facts = await actor.facts.remote()
        except self._ray.exceptions.RayError as error:
            if identifier in {one["NodeID"] for one in await self._nodes()}:
                self._refused[name] = f"its actor could not be started: {str(error).strip().splitlines()[-1]}"
            else:  # It had died already, and Ray had not noticed yet.
                self._joining.discard(identifier)
            return
        if problems := self._differences(facts):
            self._refused[name] = "; ".join(problems)
            print(f"node {name}: {'; '.join(problems)}", file=sys.stderr, flush=True)
            return
        now = time.monotonic()
        self.members[identifier] = member = Member(
            identifier, name, actor, facts, 0.0, now + self._config.silence_seconds
        )
        self._joining.discard(identifier)
        self._spawn(self._attend(member))

    def _differences(self, facts: NodeFacts) -> list[str]:
        """How a node differs from this machine, and from the nodes that were taken in."""
        if facts.problem is not None:
            return [facts.problem]
        problems = []
        here = own_versions() | {"dataset": self._dataset_sha256}
        first = next(iter(self.members.values()), None)
        expected = here if first is None else first.facts.versions | here
        for what, version in facts.versions.items():
            if expected.get(what, version) != version:
                problems.append(
                    f"its {what} is {version[:40]}, and {expected[what][:40]} is wanted: make them the same"
                )
        if first is not None and (changed := _changed(first.facts.images, facts.images)):
            problems.append(f"its image {changed[0]} is not that of {first.name}: pull it anew")
        if abs(apart := facts.clock - time.time()) > CLOCKS_SECONDS:
            problems.append(f"its clock is {apart:+.1f} s off: set it (NTP)")
        return problems

    async def _call(self, function: Any, *arguments: Any) -> Any:
        """Ask the head something, in a thread: it may not answer."""
        return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)

    async def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in await self._call(self._ray.nodes) if node["Alive"]]

    def _tell_sizes(self, nodes: list[dict[str, Any]]) -> None:
        sizes = {pool: int(sum(node["Resources"].get(pool, 0) for node in nodes)) for pool in POOLS}
        self._say({"type": "sizes", "sizes": sizes})

    # Slots

    def reserve(self, number: int, pool: str) -> None:
        """Want a slot; the launch is told when there is one."""
        self._reservations[number] = reservation = Reservation()
        self._spawn(self._reserve(number, reservation, pool))

    def release(self, number: int) -> None:
        """Give a slot back, or want it no more."""
        if (gone := self._reservations.pop(number, None)) is not None:
            self._spawn(self._release(gone))

    def place(self, slot: int | None) -> Member | None:
        """The node of a slot; any, for what needs none."""
        if slot is None:
            return next((member for member in self.members.values() if member.lost is None), None)
        reservation = self._reservations.get(slot)
        member = None if reservation is None else self.members.get(reservation.node or "")
        return None if member is None or member.lost is not None else member

    async def _reserve(self, number: int, reservation: Reservation, pool: str) -> None:
        """Have Ray set a slot of some node aside, and tell of it: a placement group, which starts no process."""
        from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

        pause = _FIRST_POLL
        while self._reservations.get(number) is reservation:
            if reservation.group is None:
                reservation.group = await self._call(placement_group, [{pool: 1}])
            table = await self._call(placement_group_table, reservation.group)
            if self._reservations.get(number) is not reservation:
                break
            if table["state"] == "CREATED":
                member = self.members.get(table["bundles_to_node_id"][0])
                if member is not None and member.lost is None:
                    reservation.node = member.id
                    self._say({"type": "slot", "id": number})
                    return
                # A node that is lost, or that may run nothing: Ray does not know that.
                await self._call(remove_placement_group, reservation.group)
                reservation.group = None
                pause = _LONGEST_POLL
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL)
        await self._release(reservation)

    async def _release(self, reservation: Reservation) -> None:
        from ray.util.placement_group import remove_placement_group

        group, reservation.group = reservation.group, None
        if group is not None:
            await self._call(remove_placement_group, group)


def _changed(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    return sorted(image for image, identity in found.items() if expected.get(image, identity) != identity)
