"""What is looked at before the first pair of a stage: all that is missing is said at once, before money is spent.

What belongs here: the looks, and putting them into one error. What does not: fixing anything, and looking at a whole
project without launching (``doctor``).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cooperbench_assets.benchmark.failures import classify
from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.gold import unsound
from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.job import ASKS_FROM_HERE, NEEDS_ENGINE, STAGING
from cooperbench_assets.execution.runner.harness_client import HarnessError
from cooperbench_assets.execution.runner.harness_servers import imported
from cooperbench_assets.execution.runner.message_server import ON_BRIDGE, answers, bridge_address
from cooperbench_assets.execution.secret_values import config_text, missing, variables_for
from cooperbench_assets.execution.worker.harness import UPSTREAM_BACKENDS
from cooperbench_assets.execution.worker.model_probe import SECONDS
from cooperbench_assets.execution.worker.protocol import ChildRequest
from cooperbench_assets.wording import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cooperbench_assets.benchmark.pairs import Pair, Task
    from cooperbench_assets.execution.job import CellJob
    from cooperbench_assets.execution.runner.harness_client import HarnessServer
    from cooperbench_assets.execution.runner.harness_servers import HarnessServers
    from cooperbench_assets.execution.sandboxes.docker.images import ImageRecord
    from cooperbench_assets.execution.worker.protocol import HarnessInfo, Stage

ASK_AGAIN_SECONDS: Final = 600.0
"""A model that has answered is not asked again for so long."""

PASSING: Final = frozenset({"rate_limit", "provider", "provider_timeout", "network"})
"""What may be over a moment later: launches that nobody asked for go on, and the breaker looks after them."""

_GRACE_SECONDS: Final = 15.0
_SAMPLE: Final = 3


@dataclass
class Preflight:
    """Looks at one launch."""

    stage: Stage
    job: CellJob
    pairs: tuple[Pair, ...]
    """What would be run."""

    servers: HarnessServers
    automatic: bool = False
    """Nobody asked for the launch."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    import_seconds: float = 0.0
    images: dict[str, str] = field(default_factory=dict)
    """Image → its identity, of the task images that were found."""

    def pass_or_raise(self) -> tuple[HarnessServer, HarnessInfo]:
        """Look at everything; the harness, ready for children.

        Raises:
            LaunchError: naming all that is missing.
        """
        self.problems += self._combination()
        self.problems += self._secrets()
        self.problems += self._disk()
        on_nodes = self.job.fleet is not None  # Its driver looks at what every node has.
        if self.job.execution == "docker" and not on_nodes:
            self.problems += self._engine()
        if self.stage == "agent" and not on_nodes:
            self.problems += self._redis()
        if self.stage == "agent":
            self.problems += self._gold()
        ready = self._harness()
        if ready is not None and on_nodes:
            self.problems += self._nodes(ready[0])
        if ready is None or self.problems:
            raise LaunchError(self._report())
        return ready

    def _report(self) -> str:
        first, *others = self.problems
        if not others:
            return first if first.startswith(self.job.label) else f"{self.job.label}: {first}"
        listed = "; ".join(
            f"({n}) {text.removeprefix(f'{self.job.label}: ')}" for n, text in enumerate(self.problems, 1)
        )
        return f"{self.job.label}: {len(self.problems)} things are missing: {listed}"

    def _combination(self) -> Iterator[str]:
        job = self.job
        if self.stage == "agent" and job.agent == "openhands_sdk" and job.execution != "modal":
            yield f"agent openhands_sdk runs on Modal only, and execution is {job.execution}; use execution: modal"
        if self.stage == "agent" and job.agent == "mini_swe_agent_v2" and job.execution == "gcp":
            yield "agent mini_swe_agent_v2 takes every backend but docker for Modal; use execution: docker or modal"
        in_containers = self.stage == "agent" and job.execution == "docker" and job.agent in NEEDS_ENGINE
        if in_containers and shutil.which("docker") is None:
            yield f"agent {job.agent} needs the command docker, and it is not on the PATH; install it (docker-cli)"

    def _secrets(self) -> Iterator[str]:
        if names := missing(self.job, self.stage):
            yield (
                f"{', '.join(names)} is not set, and secrets: names it; "
                "set it in the environment that starts this, or take it out of secrets:"
            )

    def _disk(self) -> Iterator[str]:
        place = self.job.logs
        while not place.exists():
            place = place.parent
        if problem := _room(shutil.disk_usage(place).free, self.job.preflight.free_gb, f"where logs go ({place})"):
            yield problem

    def _engine(self) -> Iterator[str]:
        from cooperbench_assets.execution.sandboxes.docker.engine import Engine

        try:
            with Engine.connect() as engine:
                free, root, identity = engine.free_disk(), engine.data_root(), engine.identity()
        except InfrastructureError as error:
            yield error.text
            return
        if free is not None and (
            problem := _room(free, self.job.preflight.free_gb, f"where Docker keeps data ({root})")
        ):
            yield problem
        try:
            yield from self._images(identity)
        except (InfrastructureError, LaunchError) as error:
            yield str(error)

    def _images(self, engine: str) -> Iterator[str]:
        """The images of what would be run: there, looked into on this engine, and those that the lock names."""
        from cooperbench_assets.execution.sandboxes.docker.images import Preparation, prepare_images

        records = prepare_images(_tasks(self.pairs), Preparation(pull=False, verify=False, at_once=1))
        self.images = {record.image: record.identity for record in records if record.identity}
        if absent := [record for record in records if record.state != "ready"]:
            yield f"{len(absent)} of {len(records)} task images are not ready: {_first(absent)}; {self._again}"
        yield from self._compare_with_lock([record.image for record in records if record.state == "ready"], engine)

    @property
    def _again(self) -> str:
        return f"run `cooperbench-assets materialize {self.job.experiment}`, which makes images ready first"

    def _compare_with_lock(self, ready: list[str], engine: str | None = None) -> Iterator[str]:
        """Whether the images that are there, here or on the nodes of a cluster, are those that the lock names.

        All must have been looked into: on this engine, where it is given.
        """
        from cooperbench_assets.execution.sandboxes.docker.image_lock import changes, looked_into_on, read_lock

        if self.job.image_lock is None:
            return
        lock = read_lock(self.job.image_lock)
        known = lock.keys() if engine is None else looked_into_on(self.job.image_lock, engine)
        if unknown := [image for image in ready if image not in known]:
            here = "" if engine is None else " on this engine"
            yield (
                f"{len(unknown)} of {len(ready)} task images were never looked into{here}: {unknown[0]}; {self._again}"
            )
        if changed := changes(lock, self.images):
            self.notes.append(
                f"{len(changed)} task images are not those that earlier results were made with: {changed[0].image} "
                "and the others that task_images lists"
            )

    def _redis(self) -> Iterator[str]:
        job = self.job
        if not job.needs_redis:
            return
        try:
            if job.redis_url == ON_BRIDGE:
                bridge_address()
            elif job.redis_url is not None and answers(job.redis_url):
                return
            import fakeredis  # type: ignore[import-untyped, unused-ignore]  # noqa: F401
        except LaunchError as error:
            yield str(error)
        except ImportError:
            named = job.redis_url not in (None, ON_BRIDGE)
            tried = f"the Redis at {job.redis_url} does not answer" if named else "redis_url names none"
            yield (
                f"agents that talk need a Redis: {tried}, and the embedded one is not installed; "
                "start one and set redis_url, or install cooperbench-assets[harness]"
            )

    def _gold(self) -> Iterator[str]:
        """Pairs whose own solution does not pass, which nobody has acknowledged."""
        known = unsound(self.job)
        if known is None:
            self.notes.append("gold_baseline was never made: it would say what of the benchmark fails by itself")
            return
        names = [pair.name for pair in self.pairs if pair.name in known and pair.name not in self.job.gold_accepted]
        if names:
            more = f" and {len(names) - _SAMPLE} more" if len(names) > _SAMPLE else ""
            yield (
                f"the own solution of {count(len(names), 'pair')} fails or flakes in gold_baseline "
                f"({', '.join(names[:_SAMPLE])}{more}); look at them, and name them in gold_accepted: to buy agents "
                "for them all the same"
            )

    def _harness(self) -> tuple[HarnessServer, HarnessInfo] | None:
        """The harness, and the model's answer; None where there is a problem with either."""
        before = time.monotonic()
        try:
            server = self.servers.server(self.job)
            info = imported(self.job, server, agents=self.stage == "agent")
        except LaunchError as error:
            self.problems.append(str(error))
            return None
        self.import_seconds = time.monotonic() - before
        self.problems += self._backend(info)
        if self.stage == "agent" and self._asks() and (problem := self._ask(server)):
            self.problems.append(problem)
        return server, info

    def _nodes(self, server: HarnessServer) -> Iterator[str]:
        """Slots for this stage on any node, and on all of them the images that the lock names."""
        from cooperbench_assets.execution.fleet.client import FleetDriver

        assert isinstance(server, FleetDriver)
        self.images = server.images
        pool = "agents" if self.stage == "agent" else "evaluations"
        if not server.sizes.get(pool):
            yield f"no node of the Ray cluster has slots for {pool}; start nodes with --resources='{{\"{pool}\": 4}}'"
        yield from self._compare_with_lock(sorted(self.images))

    def _backend(self, info: HarnessInfo) -> Iterator[str]:
        """The packages of a backend of upstream's, which imports them in the middle of a pair."""
        execution = self.job.execution
        if execution not in info.backends:
            packages = " and ".join(UPSTREAM_BACKENDS[execution].values())
            yield (
                f"execution: {execution} is upstream's own, and needs {packages} beside the harness; "
                f"install what is missing where {info.python} finds it"
            )

    def _asks(self) -> bool:
        return self.job.preflight.ask_model and self.job.agent in ASKS_FROM_HERE

    def _ask(self, server: HarnessServer) -> str | None:
        key = self._key()
        if time.monotonic() - self.servers.answered.get(key, float("-inf")) < ASK_AGAIN_SECONDS:
            return None
        said = self._answer(server)
        if said is None:
            self.servers.answered[key] = time.monotonic()
            return None
        found = classify(said)
        family = found.family if found is not None and found.family else "unknown"
        problem = f"the model {self.job.model_name} does not answer ({family}): {' '.join(said.split())[:500]}"
        if self.automatic and family in PASSING:
            self.notes.append(problem)
            return None
        return f"{problem}; fix it, or turn this question off (preflight: {{ask_model: false}})"

    def _key(self) -> tuple[str, ...]:
        """What an answer depends on. Values of secrets are compared by their hashes only."""
        job = self.job
        config = config_text(job) or ""
        secrets = tuple(str(hash(os.environ.get(name))) for name in job.secrets)
        return (job.model_name, config, str(sorted(job.environment.items())), *secrets)

    def _answer(self, server: HarnessServer) -> str | None:
        """What the model's refusal says; None if it answered."""
        place = self.job.run_dir / STAGING / "preflight"
        place.mkdir(parents=True, exist_ok=True)
        try:
            child = server.launch(self._question(place))
            end = time.monotonic() + 2 * SECONDS + _GRACE_SECONDS
            while (ended := child.poll()) is None:
                if time.monotonic() > end:
                    child.kill()
                    return f"Timeout: nothing within {2 * SECONDS:g} s"
                server.wait(0.5)
        except HarnessError as error:
            return str(error)
        finally:
            shutil.rmtree(place, ignore_errors=True)
            with contextlib.suppress(OSError):
                place.parent.rmdir()
        if ended.exit_code == 0:
            return None
        return ended.error or "the process that asked it was ended"

    def _question(self, place: Path) -> ChildRequest:
        job = self.job
        return ChildRequest(
            key="preflight",
            stage="ask",
            mode=job.mode,
            repo="",
            task_id=0,
            features=(0, 0),
            run_name=job.run_name,
            staging=str(place.absolute()),
            dataset=str(job.dataset.absolute()),
            backend=job.execution,
            agent=job.agent,
            model_name=job.model_name,
            agent_config=None if job.agent_config is None else str(job.agent_config.absolute()),
            agent_config_text=job.agent_config_text,
            secrets=variables_for(job, "ask"),
        )


def _tasks(pairs: Iterable[Pair]) -> list[Task]:
    return list(dict.fromkeys(pair.task for pair in pairs))


def _first(records: list[ImageRecord]) -> str:
    first = records[0]
    more = f" (and {len(records) - 1} more)" if len(records) > 1 else ""
    return f"{first.problem or first.image}{more}"


def _room(free: int, wanted_gb: float, where: str) -> str | None:
    if free >= wanted_gb * 1e9:
        return None
    return (
        f"{free / 1e9:.1f} GB are free {where}, and {wanted_gb:g} GB are wanted; free some, "
        "or correct preflight: {free_gb: …}"
    )
