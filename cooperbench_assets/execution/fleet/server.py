"""The driver: a process that joins a Ray cluster, and starts and ends children on its nodes.

What belongs here: joining, and the messages of ``worker.wire`` to the launch that started it. What does not: nodes and
slots (``cluster``), children and leases (``children``), and what happens on a node (``node``).

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
from collections.abc import Coroutine
from typing import Any

from cooperbench_assets.execution.fleet.children import Children
from cooperbench_assets.execution.fleet.cluster import Cluster, FleetError
from cooperbench_assets.execution.fleet.messages import CONFIG_VARIABLE, FleetConfig
from cooperbench_assets.execution.worker import wire


class Driver:
    """One launch's driver."""

    def __init__(self, connection: socket.socket, config: FleetConfig, ray: Any) -> None:
        self._connection = connection
        self._inbox = wire.Inbox()
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._cluster = Cluster(config, ray, self._say, self._spawn)
        self._children = Children(config, ray, self._say, self._cluster.members)

    async def serve(self) -> None:
        """Serve until the launch closes its end, or the cluster's head is gone."""
        await self._cluster.join(self._children.attend)
        facts = next(iter(self._cluster.members.values())).facts
        self._say({"type": "images", "images": facts.images})
        self._say({"type": "ready", "info": facts.info})
        asyncio.get_running_loop().add_reader(self._connection, self._read)
        self._spawn(self._watch())
        self._spawn(self._children.keep_leases())
        await self._over.wait()
        await self._children.close()

    async def _watch(self) -> None:
        await self._cluster.watch()
        self._over.set()

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
            self._spawn(self._children.launch(message["request"], self._cluster.place(message["slot"])))
        elif kind == "kill":
            self._spawn(self._children.kill(message["keys"], message["grace_seconds"]))
        elif kind == "sweep":
            self._spawn(self._children.sweep(message["cell"]))
        elif kind == "reserve":
            self._cluster.reserve(message["id"], message["pool"])
        elif kind == "release":
            self._cluster.release(message["id"])


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
        "command with RAY_AUTH_MODE=token (see docs/cluster.md)"
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
