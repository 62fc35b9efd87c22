"""The driver: a process that joins a Ray cluster, and starts and ends children on its nodes.

What belongs here: reserving slots, actors of nodes, heartbeats, and the messages of ``worker.wire`` to the launch that
started it. What does not: what happens on a node (``node``).

It is a process of its own, as the harness server is: Ray ends the process of a driver whose cluster is gone, and a
launch must survive that to record what ran. It ends when the other end of its socket is closed; Ray then ends its
actors, and with them their children.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import sys
import time
from collections.abc import Coroutine
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from cooperbench_assets.errors import UserError
from cooperbench_assets.execution.attempts.leases import end_lease, write_lease
from cooperbench_assets.execution.fleet.archive import ArchiveError, pack, unpack
from cooperbench_assets.execution.fleet.messages import CONFIG_VARIABLE, SLACK_SECONDS, FleetConfig, Heard, NodeFacts
from cooperbench_assets.execution.fleet.node import Node, own_versions
from cooperbench_assets.execution.provenance import hash_tasks
from cooperbench_assets.execution.runner.slots import POOLS
from cooperbench_assets.execution.worker import wire
from cooperbench_assets.execution.worker.protocol import ChildEnd

PATIENCE_SECONDS: Final = 1.0
"""How long a node waits for the end of a child before it answers a heartbeat."""

LOOK_SECONDS: Final = 5.0
"""Between two looks at the cluster's nodes."""

HEAD_SECONDS: Final = 20.0
"""A head that does not answer for so long is gone. Ray itself ends this process after 60."""

KILL_SECONDS: Final = 6.0
"""How long a node may take to end children when told to, their own time to end apart."""

CLOCKS_SECONDS: Final = 1.0
"""How far the clocks of two machines may be apart."""

_FIRST_POLL: Final = 0.01
_LONGEST_POLL: Final = 0.5


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
    lost: str | None = None
    """Why it counts as lost."""


@dataclass(eq=False)
class Reservation:
    """A slot that was asked for, or is had."""

    group: Any = None
    node: str | None = None


class Driver:
    """One launch's driver."""

    def __init__(self, connection: socket.socket, config: FleetConfig, ray: Any) -> None:
        self._connection = connection
        self._config = config
        self._ray = ray
        self._inbox = wire.Inbox()
        self._dataset_sha256 = hash_tasks(Path(config.dataset), config.planned())["dataset_sha256"]
        self._members: dict[str, Member] = {}
        self._joining: set[str] = set()
        self._refused: dict[str, str] = {}
        self._reservations: dict[int, Reservation] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._lost: dict[Path, float] = {}
        """Folders of children whose node was lost, and when its lease ends (monotonic clock)."""

    async def serve(self) -> None:
        """Serve until the launch closes its end, or the cluster's head is gone."""
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
        if not self._members:
            raise FleetError("all nodes of the Ray cluster that had slots are gone; see `ray status`")
        self._tell_sizes(nodes)
        facts = next(iter(self._members.values())).facts
        self._say({"type": "images", "images": facts.images})
        self._say({"type": "ready", "info": facts.info})
        asyncio.get_running_loop().add_reader(self._connection, self._read)
        self._spawn(self._watch_cluster())
        self._spawn(self._keep_leases())
        await self._over.wait()
        await self._close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            self._over.set()

    def _say(self, message: wire.Message) -> None:
        try:
            wire.send(self._connection, message)
        except OSError:
            self._over.set()

    def _read(self) -> None:
        try:
            piece = self._connection.recv(2**16)
        except OSError:
            piece = b""
        if not piece:
            self._over.set()
            asyncio.get_running_loop().remove_reader(self._connection)
        for message in self._inbox.feed(piece):
            self._obey(message)

    def _obey(self, message: wire.Message) -> None:
        kind = message["type"]
        if kind == "launch":
            self._spawn(self._launch(message["request"], message["slot"]))
        elif kind == "kill":
            self._spawn(self._kill(message["keys"], message["grace_seconds"]))
        elif kind == "reserve":
            self._reservations[message["id"]] = reservation = Reservation()
            self._spawn(self._reserve(message["id"], reservation, message["pool"]))
        elif kind == "release" and (gone := self._reservations.pop(message["id"], None)) is not None:
            self._spawn(self._release(gone))

    # The cluster

    async def _call(self, function: Any, *arguments: Any) -> Any:
        """Ask the head something, in a thread: it may not answer."""
        return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)

    async def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in await self._call(self._ray.nodes) if node["Alive"]]

    def _tell_sizes(self, nodes: list[dict[str, Any]]) -> None:
        sizes = {pool: int(sum(node["Resources"].get(pool, 0) for node in nodes)) for pool in POOLS}
        self._say({"type": "sizes", "sizes": sizes})

    async def _watch_cluster(self) -> None:
        """Take in new nodes, and end when the head is gone."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                nodes = await asyncio.wait_for(self._nodes(), HEAD_SECONDS)
            except Exception as error:  # whatever Ray raises then
                print(f"the head of the Ray cluster does not answer: {error!r}", file=sys.stderr, flush=True)
                self._over.set()
                return
            self._tell_sizes(nodes)
            for node in nodes:
                if any(node["Resources"].get(pool) for pool in POOLS) and self._is_new(node):
                    self._spawn(self._join(node))

    def _is_new(self, node: dict[str, Any]) -> bool:
        return node["NodeID"] not in self._members and node["NodeID"] not in self._joining

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
        self._members[identifier] = member = Member(identifier, name, actor, facts, 0.0, now + self._silence())
        self._joining.discard(identifier)
        self._spawn(self._attend(member))

    def _differences(self, facts: NodeFacts) -> list[str]:
        """How a node differs from this machine, and from the nodes that were taken in."""
        if facts.problem is not None:
            return [facts.problem]
        problems = []
        here = own_versions() | {"dataset": self._dataset_sha256}
        first = next(iter(self._members.values()), None)
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

    # Slots

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
                member = self._members.get(table["bundles_to_node_id"][0])
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

    # Children

    async def _launch(self, request: dict[str, Any], slot: int | None) -> None:
        member = self._place(slot)
        if member is None:
            self._say({"type": "refused", "key": request["key"], "error": "the node of its slot is lost"})
            return
        staging = Path(request["staging"])
        write_lease(staging.parent, self._silence())
        # On record before it runs: if the answer is lost, it may run all the same.
        member.running[request["key"]] = staging
        try:
            answer = await asyncio.wait_for(_result(member.actor.launch.remote(request, pack(staging))), HEAD_SECONDS)
        except (self._ray.exceptions.RayError, TimeoutError) as error:
            # It may have been started all the same: it counts as running until its node's lease is over.
            member.lost = member.lost or f"node {member.name} does not answer ({type(error).__name__})"
            answer = {"pid": os.getpid(), "identity": ""}
        if "refused" in answer:
            member.running.pop(request["key"], None)
            self._end_lease(staging.parent)
            self._say({"type": "refused", "key": request["key"], "error": answer["refused"]})
            return
        member.pids[request["key"]] = answer["pid"]
        self._say({"type": "launched", "key": request["key"], **answer})

    def _place(self, slot: int | None) -> Member | None:
        """The node of a slot; any, for what needs none."""
        if slot is None:
            return next((member for member in self._members.values() if member.lost is None), None)
        reservation = self._reservations.get(slot)
        member = None if reservation is None else self._members.get(reservation.node or "")
        return None if member is None or member.lost is not None else member

    async def _kill(self, keys: list[str], grace_seconds: float) -> None:
        members = [member for member in self._members.values() if member.running.keys() & set(keys)]
        await asyncio.gather(*(self._kill_on(member, keys, grace_seconds) for member in members))

    async def _kill_on(self, member: Member, keys: list[str], grace_seconds: float) -> None:
        mine = [key for key in keys if key in member.running]
        if member.lost is None:
            call = _result(member.actor.kill.remote(mine, grace_seconds))
            with contextlib.suppress(self._ray.exceptions.RayError, TimeoutError):
                await asyncio.wait_for(call, grace_seconds + KILL_SECONDS)
                return
        # It is ended when the lease is over; the lease is on record, so that nobody starts it anew before.
        for key in mine:
            self._end_lost(member, key)

    async def _attend(self, member: Member) -> None:
        """Send heartbeats to a node, and take in what it says, until it is lost."""
        confirmed: list[str] = []
        while member.lost is None:
            call = _result(member.actor.heartbeat.remote(member.clock, confirmed, PATIENCE_SECONDS))
            try:
                heard: Heard = await asyncio.wait_for(call, max(0.1, member.lease_ends - time.monotonic()))
            except (self._ray.exceptions.RayError, TimeoutError) as error:
                member.lost = f"node {member.name} is lost ({type(error).__name__})"
                break
            member.clock, member.lease_ends = heard.clock, time.monotonic() + self._silence()
            confirmed = [self._take_in(member, end, files) for end, files in heard.ends]
            for key, files in heard.files.items():
                _write_progress(member.running.get(key), files, heard.written.get(key))
        await asyncio.sleep(max(0.0, member.lease_ends - time.monotonic()))
        for key in list(member.running):
            self._end_lost(member, key)

    def _take_in(self, member: Member, end: dict[str, Any], files: bytes) -> str:
        """Put the files of a child that ended into its staging folder, and tell of its end."""
        key: str = end["key"]
        staging = member.running.pop(key, None)
        if staging is not None:
            try:
                unpack(files, staging)
            except (ArchiveError, OSError) as error:
                end["error"] = f"its files could not be fetched from node {member.name}: {error}"
            self._end_lease(staging.parent)
            self._say({"type": "end", "end": end})
        return key

    def _end_lost(self, member: Member, key: str) -> None:
        if (staging := member.running.pop(key, None)) is None:
            return
        self._lost[staging.parent] = max(self._lost.get(staging.parent, 0.0), member.lease_ends)
        self._end_lease(staging.parent)
        why = member.lost or f"node {member.name} does not answer"
        error = f"[infra:node_lost] {why}; what ran there ends when its lease does"
        self._say({"type": "end", "end": asdict(ChildEnd(key, member.pids.get(key, 0), None, None, error))})

    def _silence(self) -> float:
        """Seconds after which a node that hears nothing runs nothing."""
        return self._config.lost_after_seconds + SLACK_SECONDS

    def _working(self) -> set[Path]:
        """Folders below which children of nodes are at work."""
        return {staging.parent for member in self._members.values() for staging in member.running.values()}

    def _end_lease(self, folder: Path) -> None:
        """Take a cell's lease off the record, once no node can run anything of it."""
        if folder not in self._working() and self._lost.get(folder, 0.0) <= time.monotonic():
            end_lease(folder)

    async def _keep_leases(self) -> None:
        """Keep on record, beside each cell's staging folders, until when nodes may run something of it."""
        while True:
            for folder in self._working():
                write_lease(folder, self._silence())
            for folder in [folder for folder, ends in self._lost.items() if ends <= time.monotonic()]:
                self._end_lease(folder)
                del self._lost[folder]
            await asyncio.sleep(PATIENCE_SECONDS)

    async def _close(self) -> None:
        """End what runs on the nodes that answer; Ray ends the rest with this process."""
        alive = [member for member in self._members.values() if member.lost is None]
        calls = [_result(member.actor.close.remote()) for member in alive]
        with contextlib.suppress(Exception):
            await asyncio.wait_for(asyncio.gather(*calls), KILL_SECONDS)
            folders = self._working()
            for member in alive:
                member.running.clear()
            for folder in folders:
                self._end_lease(folder)


async def _result(reference: Any) -> Any:
    return await reference


def _changed(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    return sorted(image for image, identity in found.items() if expected.get(image, identity) != identity)


def _write_progress(staging: Path | None, files: dict[str, bytes], written: float | None) -> None:
    """Keep what a running child has said of itself: all that is known of it if its node is lost."""
    if staging is None or not staging.is_dir():
        return
    for name, content in files.items():
        (staging / name).write_bytes(content)
    if written is not None:
        mark = staging / "logs" / "written-on-node"
        mark.parent.mkdir(exist_ok=True)
        mark.write_text("The time of this file is when the agents last wrote a file on their node.\n")
        os.utime(mark, (time.time() - written,) * 2)


def check_security(address: str) -> None:
    """Refuse a cluster that anybody on the network may use.

    Raises:
        FleetError: if the address is not of loopback and Ray's token authentication is off.
    """
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
        return
    host = address.rpartition(":")[0] or address
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    raise FleetError(
        f"the Ray cluster at {address} would take commands from anybody who reaches it; start its nodes and this "
        "command with RAY_AUTH_MODE=token (see docs/deploy.md)"
    )


def join(config: FleetConfig) -> Any:
    """Join the cluster as a driver; returns the module ``ray``.

    Raises:
        FleetError: if the cluster does not answer, or is open to anybody.
    """
    try:
        import ray
    except ImportError as error:
        raise FleetError("fleet: ray needs Ray; install cooperbench-assets[ray]") from error
    if config.address != "auto":
        check_security(config.address)
        _check_reachable(config.address)
    try:
        ray.init(
            address=config.address, log_to_driver=False, configure_logging=False, namespace=f"driver-{os.getpid()}"
        )
    except Exception as error:  # Ray raises RuntimeError, ValueError, ConnectionError and its own
        where = "of this machine" if config.address == "auto" else f"at {config.address}"
        raise FleetError(
            f"the Ray cluster {where} cannot be joined: {' '.join(str(error).split())[:500]}; see `ray status`"
        ) from error
    check_security(ray.get_runtime_context().gcs_address)
    return ray


def _check_reachable(address: str) -> None:
    """Say at once what Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise FleetError(f"the Ray cluster at {address} does not answer: {error}; see `ray status`") from error


def main(arguments: list[str]) -> int:
    """Serve on the inherited socket whose descriptor is the only argument."""
    connection = socket.socket(fileno=int(arguments[0]))
    connection.set_inheritable(False)
    try:
        config = FleetConfig.from_json(os.environ[CONFIG_VARIABLE])
        asyncio.run(_serve(connection, config, join(config)))
    except FleetError as error:
        with contextlib.suppress(OSError):
            wire.send(connection, {"type": "failed", "error": str(error)})
        return 1
    return 0


async def _serve(connection: socket.socket, config: FleetConfig, ray: Any) -> None:
    await Driver(connection, config, ray).serve()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # Questions to a head that is gone are still out, and Ray would wait for them.


if __name__ == "__main__":
    _code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_code)
