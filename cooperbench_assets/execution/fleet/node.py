"""One node's side of a launch: an actor that owns the node's harness server and its children, under a lease.

What belongs here: starting, ending and keeping children of one node. What does not: choosing the node and counting
slots (``cluster``), and Ray: the driver makes an actor of `Node`.

The lease ends children whose driver is not heard of any more. A heartbeat renews it only up to the last reading of this
node's own clock that the driver says it has received, so that no two clocks are compared, and heartbeats that were on
their way while the node was stopped renew nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.fleet.archive import pack, unpack
from cooperbench_assets.execution.fleet.messages import ON_NODE, FleetConfig, Heard, NodeFacts, node_clock
from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.processes import close_to_others, process_identity
from cooperbench_assets.execution.provenance import hash_tasks
from cooperbench_assets.execution.runner.harness_client import ChildRefused, HarnessError, HarnessServer
from cooperbench_assets.execution.runner.harness_servers import harness_environment
from cooperbench_assets.execution.runner.message_server import ON_BRIDGE, message_server
from cooperbench_assets.execution.runner.slots import state_folder
from cooperbench_assets.execution.worker.model_calls import FILE as CALLS
from cooperbench_assets.execution.worker.protocol import LOG, PROGRESS, ChildRequest

if TYPE_CHECKING:
    from cooperbench_assets.execution.runner.harness_client import Child
    from cooperbench_assets.execution.sandboxes.docker.cleanup import EngineCleanup

TAIL_BYTES: Final = 8192
"""Of a running child's log, that much of its end is sent along."""

WATCH_SECONDS: Final = 0.5
"""Between two looks at the lease."""

KILL_GRACE_SECONDS: Final = 2.0


@dataclass(slots=True)
class _Running:
    child: Child
    folder: Path


class Node:
    """The children of one node. All methods run in one event loop, which Ray gives an actor."""

    def __init__(self, config: str, on_expiry: Callable[[], None] | None = None) -> None:
        """Prepare a node; the harness is imported with the first call.

        Args:
            config: A `FleetConfig` as JSON.
            on_expiry: Called after an expired lease has ended the children; ends this process if not given.
        """
        self._config = FleetConfig.from_json(config)
        self._on_expiry = (lambda: os._exit(1)) if on_expiry is None else on_expiry
        self._root = _own_folder(state_folder() / "fleet")
        given = self._config
        environment = harness_environment(
            given.environment, given.external_agents, given.agent, given.execution, given.sandbox
        )
        python = None if given.python is None else Path(given.python)
        self._server = HarnessServer(python=python, environment=environment, log=self._root / "harness.log")
        self._running: dict[str, _Running] = {}
        self._ends: dict[str, tuple[dict[str, Any], bytes]] = {}
        self._ended = asyncio.Event()
        self._stack = ExitStack()
        self._cleanup: EngineCleanup | None = None
        self._redis_url: str | None = None
        self._lease = node_clock() + self._config.lost_after_seconds
        self._watch: asyncio.Task[None] | None = None
        self._listening: int | None = None

    async def facts(self) -> NodeFacts:
        """What must be the same on every node; imports the harness. The lease begins when it has been said."""
        try:
            info = await asyncio.to_thread(self._server.ready)
            images = await asyncio.to_thread(self._images)
        except (HarnessError, LaunchError, InfrastructureError) as error:
            return NodeFacts({}, {}, time.time(), {}, str(error))
        if "subprocess" in (info.isolation, self._config.sandbox.get("isolation")):
            close_to_others()
        self._listen_to_server()
        dataset = Path(self._config.dataset_on_nodes)
        versions = {
            **own_versions(),
            "harness": f"{info.version} {info.commit or ''}".strip(),
            "dataset": hash_tasks(dataset, self._config.planned())["dataset_sha256"],
        }
        self._renew(node_clock())
        if self._watch is None:
            self._watch = asyncio.create_task(self._end_with_lease())
        return NodeFacts(versions, images, time.time(), asdict(info))

    async def launch(self, request: dict[str, Any], files: bytes) -> dict[str, Any]:
        """Start a child.

        Args:
            request: A `ChildRequest` as plain data, with the driver's paths.
            files: What its staging folder holds, as an archive.

        Returns:
            ``pid`` and ``identity``; or ``refused``, why the system starts no child now.
        """
        asked = ChildRequest(**{**request, "features": tuple(request["features"])})
        folder = self._root / f"{len(self._running)}-{abs(hash(asked.key)):x}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        unpack(files, folder)
        try:
            self._ready_for(asked)
            child = self._server.launch(self._here(asked, folder))
        except (ChildRefused, HarnessError, LaunchError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            return {"refused": str(error)}
        self._listen_to_server()
        self._running[asked.key] = _Running(child, folder)
        return {"pid": child.pid, "identity": child.identity}

    async def heartbeat(self, heard: float, confirmed: list[str], patience: float) -> Heard:
        """Renew the lease, and tell what is new.

        Args:
            heard: The last `Heard.clock` that the driver has received.
            confirmed: Keys of children whose end it has received: their files go.
            patience: Seconds to wait for the end of a child before answering.
        """
        self._renew(heard)
        for key in confirmed:
            self._ends.pop(key, None)
        self._take_ends()
        if not self._ends:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), patience)
        self._ended.clear()
        files = {key: _small_files(one.folder) for key, one in self._running.items()}
        written = {key: _written_ago(one.folder) for key, one in self._running.items()}
        known = {key: ago for key, ago in written.items() if ago is not None}
        return Heard(node_clock(), list(self._ends.values()), files, known)

    async def kill(self, keys: list[str], grace_seconds: float) -> None:
        """End children with all their kin; their ends are told by the heartbeat."""
        self._server.kill([one.child for key, one in self._running.items() if key in keys], grace_seconds)
        self._take_ends()

    async def sweep(self, cell: str) -> None:
        """Remove from this node's engine what dead owners left, and all of a cell none of whose children runs."""
        from cooperbench_assets.execution.sandboxes.docker.cleanup import EngineCleanup

        await asyncio.to_thread(EngineCleanup().sweep, cell)

    async def close(self) -> None:
        """End all children and what they left on the engine."""
        self._close()

    def _close(self) -> None:
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening = None
        self._server.close()
        self._stack.close()
        shutil.rmtree(self._root, ignore_errors=True)

    def _renew(self, heard: float) -> None:
        self._lease = max(self._lease, heard + self._config.lost_after_seconds)

    async def _end_with_lease(self) -> None:
        while node_clock() < self._lease:
            await asyncio.sleep(WATCH_SECONDS)
        self._close()
        self._on_expiry()

    def _listen_to_server(self) -> None:
        """Have the loop call us when the harness server says something."""
        if self._server.alive and (number := self._server.fileno()) != self._listening:
            loop = asyncio.get_running_loop()
            if self._listening is not None:
                loop.remove_reader(self._listening)
            loop.add_reader(number, self._take_ends)
            self._listening = number

    def _take_ends(self) -> None:
        """Keep what the server says of children that ended, with their files, until the driver has it."""
        for child in self._server.listen():
            running = self._running.pop(child.key, None)
            if running is not None and child.ended is not None:
                self._ends[child.key] = (asdict(child.ended), pack(running.folder))
                shutil.rmtree(running.folder, ignore_errors=True)
        if not self._server.alive and self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening = None
        if self._ends:
            self._ended.set()
            if self._cleanup is not None:
                self._cleanup.look()

    def _ready_for(self, request: ChildRequest) -> None:
        """Have what this child needs of its node: a harness server, a Redis, somebody who removes its containers."""
        self._server.start()
        if self._config.execution == "docker" and self._cleanup is None:
            from cooperbench_assets.execution.sandboxes.docker.cleanup import EngineCleanup

            self._cleanup = self._stack.enter_context(EngineCleanup())
        if request.redis_url in (ON_NODE, ON_BRIDGE) and self._redis_url is None:
            named = None if request.redis_url == ON_NODE else ON_BRIDGE
            self._redis_url = self._stack.enter_context(message_server(named))

    def _here(self, request: ChildRequest, folder: Path) -> ChildRequest:
        """The request with this node's paths and Redis."""
        content = asdict(request)
        dataset = self._config.dataset_on_nodes
        content["environment"] = {
            name: dataset if value == self._config.dataset else value for name, value in request.environment.items()
        }
        content |= {"features": request.features, "staging": str(folder), "dataset": dataset}
        if request.redis_url in (ON_NODE, ON_BRIDGE):
            content["redis_url"] = self._redis_url
        return ChildRequest(**content)

    def _images(self) -> dict[str, str]:
        """The task images on this node's engine.

        Raises:
            InfrastructureError: if the engine does not answer.
            LaunchError: if images are not there.
        """
        if self._config.execution != "docker":
            return {}
        from cooperbench_assets.execution.sandboxes.docker.images import Preparation, prepare_images

        tasks = list(dict.fromkeys(pair.task for pair in self._config.planned()))
        records = prepare_images(tasks, Preparation(pull=False, verify=False, at_once=1))
        if absent := [record for record in records if record.state != "ready"]:
            raise LaunchError(f"{len(absent)} of {len(records)} task images are not ready: {absent[0].image}")
        return {record.image: record.identity for record in records if record.identity}


def own_versions() -> dict[str, str]:
    """Versions of what must be the same on the driver's machine and every node."""
    return {
        "Ray": _version("ray"),
        "Python": platform.python_version(),
        "cooperbench-assets": _version("cooperbench-assets"),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _own_folder(parent: Path) -> Path:
    """A folder of this process; those of processes that are gone are removed."""
    parent.mkdir(parents=True, exist_ok=True)
    for other in parent.iterdir():
        pid, _, began = other.name.partition("-")
        if not pid.isdecimal() or _began(int(pid)) != began.partition("-")[0]:
            shutil.rmtree(other, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-{_began(os.getpid())}-", dir=parent))


def _began(pid: int) -> str:
    return (process_identity(pid) or "").rpartition(":")[2]


def _small_files(folder: Path) -> dict[str, bytes]:
    """What a child has written of its calls and its progress so far, and the end of its log."""
    found = {}
    for name in (CALLS, PROGRESS, LOG):
        with contextlib.suppress(OSError), (folder / name).open("rb") as file:
            if name == LOG:
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            found[name] = file.read()
    return found


def _written_ago(folder: Path) -> float | None:
    """How many seconds ago a file below the log folder was last written; None if none was."""
    times = []
    for file in (folder / "logs").rglob("*"):
        with contextlib.suppress(OSError):
            if file.is_file() and (status := file.stat()).st_size > 0:
                times.append(status.st_mtime)
    return max(0.0, time.time() - max(times)) if times else None
