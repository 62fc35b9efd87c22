"""Children on the nodes of a cluster: started, ended, heard of, and fenced by leases.

What belongs here: a driver's side of what runs on nodes. What does not: which node a child is started on (``cluster``),
and what happens there (``node``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cooperbench_assets.execution.attempts.leases import end_lease, write_lease
from cooperbench_assets.execution.fleet.archive import ArchiveError, pack, unpack
from cooperbench_assets.execution.fleet.cluster import HEAD_SECONDS
from cooperbench_assets.execution.worker.protocol import ChildEnd

if TYPE_CHECKING:
    from cooperbench_assets.execution.fleet.cluster import Member, Say
    from cooperbench_assets.execution.fleet.messages import FleetConfig, Heard

PATIENCE_SECONDS: Final = 1.0
"""How long a node waits for the end of a child before it answers a heartbeat."""

KILL_SECONDS: Final = 6.0
"""How long a node may take to end children when told to, their own time to end apart."""

SWEEP_SECONDS: Final = 60.0
"""How long the nodes may take to remove what was left on their engines."""


class Children:
    """The children of one launch, on all nodes."""

    def __init__(self, config: FleetConfig, ray: Any, say: Say, members: dict[str, Member]) -> None:
        """Prepare for children.

        Args:
            config: What the driver and the nodes must know.
            ray: The module, joined to the cluster.
            say: Sends a message to the launch.
            members: The nodes, as they are taken in.
        """
        self._config = config
        self._ray = ray
        self._say = say
        self._members = members
        self._lost: dict[Path, float] = {}
        """Folders of children whose node was lost, and when its lease ends (monotonic clock)."""

    async def launch(self, request: dict[str, Any], member: Member | None) -> None:
        """Start a child on a node; without one, it is refused."""
        if member is None:
            self._say({"type": "refused", "key": request["key"], "error": "the node of its slot is lost"})
            return
        staging = Path(request["staging"])
        write_lease(staging.parent, self._config.silence_seconds)
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

    async def kill(self, keys: list[str], grace_seconds: float) -> None:
        """End children with all their kin."""
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

    async def attend(self, member: Member) -> None:
        """Send heartbeats to a node, and take in what it says, until it is lost."""
        confirmed: list[str] = []
        while member.lost is None:
            call = _result(member.actor.heartbeat.remote(member.clock, confirmed, PATIENCE_SECONDS))
            try:
                heard: Heard = await asyncio.wait_for(call, max(0.1, member.lease_ends - time.monotonic()))
            except (self._ray.exceptions.RayError, TimeoutError) as error:
                member.lost = f"node {member.name} is lost ({type(error).__name__})"
                break
            member.clock, member.lease_ends = heard.clock, time.monotonic() + self._config.silence_seconds
            # An end that overtook the answer to its start is not confirmed, so it is told again.
            known = [(end, files) for end, files in heard.ends if not member.is_starting(end["key"])]
            confirmed = [self._take_in(member, end, files) for end, files in known]
            for key, files in heard.files.items():
                _write_progress(member.running.get(key), files, heard.written.get(key))
        await asyncio.sleep(max(0.0, member.lease_ends - time.monotonic()))
        for key in list(member.running):
            self._end_lost(member, key)

    def _take_in(self, member: Member, end: dict[str, Any], files: bytes) -> str:
        """Put the files of a child that ended into its staging folder, and tell of its end."""
        key: str = end["key"]
        staging = member.running.pop(key, None)
        member.pids.pop(key, None)
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
        self._say({"type": "end", "end": asdict(ChildEnd(key, member.pids.pop(key, 0), None, None, error))})

    def _working(self) -> set[Path]:
        """Folders below which children of nodes are at work."""
        return {staging.parent for member in self._members.values() for staging in member.running.values()}

    def _end_lease(self, folder: Path) -> None:
        """Take a cell's lease off the record, once no node can run anything of it."""
        if folder not in self._working() and self._lost.get(folder, 0.0) <= time.monotonic():
            end_lease(folder)

    async def sweep(self, cell: str) -> None:
        """Have all nodes remove what was made for a cell none of whose children runs, and say when they have."""
        calls = [_result(member.actor.sweep.remote(cell)) for member in self._members.values() if member.lost is None]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), SWEEP_SECONDS)
        self._say({"type": "swept"})

    async def keep_leases(self) -> None:
        """Keep on record, beside each cell's staging folders, until when nodes may run something of it."""
        while True:
            for folder in self._working():
                write_lease(folder, self._config.silence_seconds)
            for folder in [folder for folder, ends in self._lost.items() if ends <= time.monotonic()]:
                self._end_lease(folder)
                del self._lost[folder]
            await asyncio.sleep(PATIENCE_SECONDS)

    async def close(self) -> None:
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
