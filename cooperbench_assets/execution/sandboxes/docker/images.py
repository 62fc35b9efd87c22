"""Task images: there or pulled, looked into, and identified.

What belongs here: making images ready and saying what is wrong with one. What does not: which tasks, the images'
naming rule (``benchmark.images``), and whether an image is still the one that results were made with (``image_lock``).
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from docker.errors import APIError, ImageNotFound

from cooperbench_assets.benchmark.images import image_name
from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.sandboxes.base import REPO, RUNNER
from cooperbench_assets.execution.sandboxes.docker.engine import TROUBLE, Engine, innermost, is_passing, translated
from cooperbench_assets.execution.sandboxes.docker.options import DockerOptions
from cooperbench_assets.execution.sandboxes.docker.sandbox import DockerBackend
from cooperbench_assets.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from cooperbench_assets.benchmark.pairs import Task

FREE_BYTES = 17 * 10**9
"""Free disk below which nothing is pulled: the largest image of lite has 16.5 GB."""

AT_ONCE = 3
TRIES = 4
PAUSE_SECONDS = 5.0
"""Before the second try of a pull; doubled before each further one."""

VERIFY_SECONDS = 120

State = Literal["ready", "missing", "unsuitable"]
Step = Literal["waiting", "pulling", "retrying", "verifying", "ready", "missing", "unsuitable"]

_REPORT_SECONDS = 0.5
_HOPELESS = re.compile(
    r"manifest unknown|not found|denied|unauthorized|invalid reference|no matching manifest|no space left",
    re.IGNORECASE,
)
_CHECK = f"""\
cd {REPO} 2>/dev/null || {{ echo "there is no folder {REPO}"; exit 1; }}
prefix=$(git rev-parse --show-prefix) && [ -z "$prefix" ] || {{ echo "{REPO} is no git checkout"; exit 1; }}
head=$(git rev-parse --verify HEAD) || {{ echo "the checkout in {REPO} has no commit"; exit 1; }}
[ -f {RUNNER} ] || {{ echo "there is no {RUNNER}"; exit 1; }}
[ -x {RUNNER} ] || {{ echo "{RUNNER} is not executable"; exit 1; }}
echo "$head"
"""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One task's image as it is on the engine."""

    repo: str
    task_id: int
    image: str
    state: State
    """ready; missing: not there, and could not be pulled; unsuitable: there, and no task's image."""

    problem: str | None = None
    """What is wrong and what fixes it, where it is not ready."""

    family: str | None = None
    """Family of the failure, as in ``benchmark.failures``."""

    image_id: str | None = None
    digest: str | None = None
    """The registry's digest; None for an image that was made on this machine."""

    size_bytes: int | None = None
    head: str | None = None
    """Commit that the checkout is at."""

    pulled: bool = False
    """It was not there before."""

    @property
    def identity(self) -> str | None:
        """What says that two images are the same: the registry's digest, else the id."""
        return self.digest or self.image_id


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one image is."""

    image: str
    step: Step
    done_bytes: int = 0
    total_bytes: int = 0
    """Of the layers that are known so far and not there yet."""

    text: str = ""


@dataclass(frozen=True)
class Preparation:
    """How images are made ready."""

    pull: bool = True
    """False: an image that is not there is missing."""

    at_once: int = AT_ONCE
    tries: int = TRIES
    pause_seconds: float = PAUSE_SECONDS
    free_bytes: int = FREE_BYTES
    verify: bool = True
    """False: images are not looked into."""

    verified: Path | None = None
    """File that remembers which images were looked into, by engine and id."""

    name_of: Callable[[Task], str] = image_name
    environment: Mapping[str, str] | None = None
    """Names the engine; this process's own environment if not given."""

    progress: Callable[[Progress], None] = lambda _: None
    """Told of every step, from several threads."""


def prepare_images(tasks: Iterable[Task], preparation: Preparation | None = None) -> list[ImageRecord]:
    """Make the images of these tasks ready; one record for each task, in the tasks' order.

    What is wrong with one image is in its record, and the others go on.

    Raises:
        InfrastructureError: family ``engine``, if no engine answers.
    """
    chosen = preparation or Preparation()
    wanted = list(dict.fromkeys(tasks))
    with Engine.connect(chosen.environment) as engine:
        memory = _Memory(chosen.verified, engine.identity())
    with ThreadPoolExecutor(max(1, chosen.at_once), thread_name_prefix="image") as pool:
        return list(pool.map(lambda task: _Job(task, chosen, memory).run(), wanted))


class _Memory:
    """Which images were found suitable, by engine and id; kept in a file."""

    def __init__(self, path: Path | None, engine: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._engines: dict[str, dict[str, str]] = {}
        if path is not None:
            # A memory that cannot be read is made anew.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                self._engines = {str(key): dict(heads) for key, heads in json.loads(path.read_text()).items()}
        self._heads = self._engines.setdefault(engine, {})

    def head(self, image_id: str) -> str | None:
        return self._heads.get(image_id)

    def remember(self, image_id: str, head: str) -> None:
        with self._lock:
            self._heads[image_id] = head
            if self._path is not None:
                content = f"{json.dumps(self._engines, indent=2, sort_keys=True)}\n".encode()
                # What is not remembered is looked into again.
                with contextlib.suppress(OSError):
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(self._path, content, durable=False)


class _Job:
    """One image on its way."""

    def __init__(self, task: Task, preparation: Preparation, memory: _Memory) -> None:
        self._task = task
        self._chosen = preparation
        self._memory = memory
        self._image = preparation.name_of(task)

    def run(self) -> ImageRecord:
        self._tell("waiting")
        try:
            with Engine.connect(self._chosen.environment) as engine:
                record = self._made_ready(engine)
        except InfrastructureError as error:
            record = self._record("missing", problem=error.text, family=error.family)
        self._tell(record.state, text=record.problem or "")
        return record

    def _made_ready(self, engine: Engine) -> ImageRecord:
        found = _inspect(engine, self._image)
        pulled = found is None
        if found is None:
            if not self._chosen.pull:
                raise InfrastructureError("image_missing", f"{self._image} is not there, and was not to be pulled")
            self._pull(engine)
            found = _inspect(engine, self._image)
        if found is None:
            raise InfrastructureError("image_missing", f"{self._image} was pulled, and is not there")
        image_id = str(found["Id"])
        facts = {
            "image_id": image_id,
            "digest": _digest(self._image, found),
            "size_bytes": int(found["Size"]),
            "pulled": pulled,
        }
        try:
            head = self._looked_into(image_id) if self._chosen.verify else None
        except InfrastructureError as error:
            return self._record("unsuitable", problem=error.text, family=error.family, **facts)
        return self._record("ready", head=head, **facts)

    def _pull(self, engine: Engine) -> None:
        for n in range(1, self._chosen.tries + 1):
            self._check_room(engine)
            try:
                self._pull_once(engine)
            except _PullError as error:
                if error.hopeless or n == self._chosen.tries:
                    tried = f" (tried {n} times)" if n > 1 else ""
                    raise InfrastructureError(
                        error.family, f"{self._image} could not be pulled{tried}: {error}{self._room(engine)}"
                    ) from error
                self._tell("retrying", text=str(error))
                time.sleep(self._chosen.pause_seconds * 2 ** (n - 1))
            else:
                return

    def _pull_once(self, engine: Engine) -> None:
        repository, _, tag = self._image.rpartition(":")
        layers: dict[str, tuple[int, int]] = {}
        told = 0.0
        try:
            for event in engine.api.pull(repository, tag=tag, stream=True, decode=True):
                if said := event.get("error"):
                    raise _PullError(str(said))
                _note(layers, event)
                if time.monotonic() - told > _REPORT_SECONDS:
                    told = time.monotonic()
                    done, total = (sum(sizes) for sizes in zip(*layers.values(), strict=True)) if layers else (0, 0)
                    self._tell("pulling", done, total)
        except TROUBLE as error:
            # An engine answers 500 for whatever a registry has said; its words tell more.
            raise _PullError(innermost(error), passing=isinstance(error, APIError) or is_passing(error)) from error

    def _check_room(self, engine: Engine) -> None:
        free = engine.free_disk()
        if free is not None and free < self._chosen.free_bytes:
            raise InfrastructureError(
                "disk",
                f"{self._image} was not pulled: {_gigabytes(free)} are free at {engine.data_root()}, and "
                f"{_gigabytes(self._chosen.free_bytes)} are wanted; free some (docker image prune, say)",
            )

    def _room(self, engine: Engine) -> str:
        try:
            free = engine.free_disk()
        except InfrastructureError:
            return ""
        return "" if free is None else f"; {_gigabytes(free)} are free at {engine.data_root()}"

    def _looked_into(self, image_id: str) -> str:
        """The commit of the checkout, found by a container without a network."""
        if (known := self._memory.head(image_id)) is not None:
            return known
        self._tell("verifying")
        backend = DockerBackend(DockerOptions(network=False), self._chosen.environment)
        try:
            sandbox = backend.create_sandbox(image_id, VERIFY_SECONDS)
        except InfrastructureError as error:
            if error.family != "container_start":
                raise
            raise InfrastructureError("configuration", f"no shell starts in {self._image}: {error.text}") from error
        try:
            looked = sandbox.exec("bash", "-c", _CHECK)
        finally:
            sandbox.terminate()
        said = looked.stdout.strip()
        if looked.returncode != 0:
            raise InfrastructureError(
                "configuration", f"{self._image} is no task's image: {said}{_aside(looked.stderr)}"
            )
        self._memory.remember(image_id, said)
        return said

    def _record(self, state: State, **facts: Any) -> ImageRecord:
        return ImageRecord(self._task.repo, self._task.task_id, self._image, state, **facts)

    def _tell(self, step: Step, done: int = 0, total: int = 0, text: str = "") -> None:
        self._chosen.progress(Progress(self._image, step, done, total, text))


class _PullError(RuntimeError):
    """A pull that failed, and whether another try can help."""

    def __init__(self, text: str, *, passing: bool = True) -> None:
        super().__init__(text)
        self.hopeless = bool(_HOPELESS.search(text)) or not passing
        self.family = translated(OSError(text), "pull", "network").family
        if self.family == "engine":
            self.family = "image_missing" if self.hopeless else "network"


def _inspect(engine: Engine, image: str) -> dict[str, Any] | None:
    def inspect() -> dict[str, Any] | None:
        try:
            return dict(engine.api.inspect_image(image))  # type: ignore[no-untyped-call]
        except ImageNotFound:
            return None

    return engine.call(f"look at {image}", inspect)


def _digest(image: str, found: Mapping[str, Any]) -> str | None:
    """The digest under which the image's own repository has it."""
    repository = image.rpartition(":")[0]
    digests: Sequence[str] = found.get("RepoDigests") or ()
    for named in digests:
        name, _, digest = named.partition("@")
        if name.removeprefix("docker.io/").removeprefix("library/") == repository.removeprefix("docker.io/"):
            return digest
    return None


def _note(layers: dict[str, tuple[int, int]], event: Mapping[str, Any]) -> None:
    detail = event.get("progressDetail") or {}
    if event.get("status") == "Downloading" and detail.get("total"):
        layers[event["id"]] = (int(detail.get("current", 0)), int(detail["total"]))
    elif event.get("status") in ("Download complete", "Pull complete") and event.get("id") in layers:
        layers[event["id"]] = (layers[event["id"]][1],) * 2


def _aside(text: str) -> str:
    return f" ({' '.join(text.split())})" if text.strip() else ""


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
