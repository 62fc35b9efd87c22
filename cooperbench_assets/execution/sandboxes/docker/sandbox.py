"""The ``docker`` sandbox of evaluations: a container of the task's image, with real deadlines and typed failures.

What belongs here: upstream's ``EvalBackend`` over a container, and telling a test run that infrastructure ended from a
failed one. What does not: how a container is made and talked to (``session``). Standard library and the Docker SDK
only: it also runs in the harness server.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from cooperbench_assets.benchmark.failures import tests_failed
from cooperbench_assets.execution.infra_errors import Around, InfrastructureError, classify_test_run, is_full
from cooperbench_assets.execution.sandboxes import network
from cooperbench_assets.execution.sandboxes.base import PATCHES, Finished
from cooperbench_assets.execution.sandboxes.commands import DeadlineError
from cooperbench_assets.execution.sandboxes.docker import ownership
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.execution.sandboxes.docker.options import DockerOptions
from cooperbench_assets.execution.sandboxes.docker.session import Answer, ContainerGoneError, ContainerSpec, Session
from cooperbench_assets.execution.sandboxes.evidence import Grading, is_test_run

if TYPE_CHECKING:
    from cooperbench_assets.execution.worker.protocol import ChildRequest

# The kernel takes no argument of 128 KiB or more; upstream sends whole patches as one.
_LONGEST_ARGUMENT = 120_000
_LOG = logging.getLogger(__name__)
_LOOK_AT_DISKS = ("stat", "-f", "-c", "%a %S %d %c", "/workspace", "/tmp")  # noqa: S108 - the container's own


class DockerBackend:
    """Makes containers for evaluations: upstream's ``EvalBackend``."""

    isolation = "docker"

    def __init__(self, options: DockerOptions | None = None, environment: Mapping[str, str] | None = None) -> None:
        """Remember what is asked for; the engine is looked for when a sandbox is made.

        Args:
            options: Deadline, limits, network and labels.
            environment: Names the engine; this process's own if not given.
        """
        self._options = options or DockerOptions()
        self._environment = environment

    @classmethod
    def for_request(cls, request: ChildRequest) -> DockerBackend:
        """The backend of one evaluation.

        Raises:
            InfrastructureError: family ``configuration``, for an option that is none.
        """
        return cls(DockerOptions.read(request.sandbox))

    def create_sandbox(self, image: str, timeout: int = 600, workdir: str = "/workspace") -> DockerSandbox:
        """Start a container of an image that is there. It is never pulled: that is for ``images``.

        Args:
            image: Name of the task's image.
            timeout: Deadline of a command in seconds; of a test run where the options set none.
            workdir: Folder in which commands start.

        Raises:
            InfrastructureError: families ``engine``, ``image_missing``, ``container_start``,
                ``configuration``, ``disk``.
        """
        options, host = self._options, network.of_host()
        wanted = ContainerSpec(
            image=image,
            workdir=workdir,
            labels=ownership.labels("evaluation", options.labels),
            limits=options.limits(),
            network=options.network,
            environment={**host.environment, **options.environment},
            files=host.files,
            output_limit=options.output_limit,
        )
        engine = Engine.connect(self._environment)
        try:
            return DockerSandbox(engine, Session(engine, wanted), options, timeout)
        except BaseException:
            engine.close()
            raise


class DockerSandbox:
    """One container for one evaluation: upstream's ``Sandbox``."""

    def __init__(self, engine: Engine, session: Session, options: DockerOptions, timeout: float) -> None:
        self._engine = engine
        self._session = session
        self._memory_mb = options.memory_mb
        self._timeout = timeout
        self._test_timeout = options.test_timeout_seconds or timeout
        self._scripts = 0
        self._grading = Grading()
        self._infra_failure: InfrastructureError | None = None

    @property
    def container(self) -> str:
        """The engine's id of the container."""
        return self._session.id

    def exec(self, *args: str) -> Finished:
        """Run a command. The one that names the runner is a test run: it has the deadline of tests.

        Raises:
            InfrastructureError: for a deadline, a lack of memory, a dead container, a lost engine, a full disk or a
                missing network, which upstream then writes into eval.json as its error. Not where the pair fails
                whatever ended this command (`Grading`): then it is graded as upstream would.
        """
        is_test = is_test_run(args)
        if self._infra_failure is not None:
            return self._grading.resolve_failure(args, self._infra_failure, 137)
        try:
            answer = self._run(args, is_test=is_test)
        except InfrastructureError as error:
            self._infra_failure = error
            return self._grading.resolve_failure(args, error, -1 if error.family == "test_timeout" else 137)
        if seen := self._seen(answer) if is_test else self._seen_of_command(answer):
            return self._grading.resolve_failure(args, seen, answer.code, answer.stdout)
        return self._grading.saw(args, Finished(answer.code, answer.stdout, answer.stderr))

    def terminate(self) -> None:
        """Kill and remove the container. Raises nothing: upstream would lose the verdict over it."""
        try:
            self._session.remove()
        except InfrastructureError as error:
            _LOG.warning("container %s was left to the sweep: %s", self._session.id[:12], str(error))
        finally:
            self._engine.close()

    def _run(self, args: tuple[str, ...], *, is_test: bool) -> Answer:
        seconds = self._test_timeout if is_test else self._timeout
        try:
            return self._session.run(self._shortened(args), seconds, together=is_test)
        except DeadlineError as error:
            # Only its container's end ends everything that a hung command has started.
            self._session.remove()
            family = "test_timeout" if is_test else "eval_timeout"
            raise InfrastructureError(family, f"{error}{_last_words(error.output)}") from error
        except ContainerGoneError as error:
            why = self._session.why_gone()
            raise InfrastructureError(why.family, f"{why.text}{_last_words(error.output)}") from error

    def _seen_of_command(self, answer: Answer) -> InfrastructureError | None:
        return self._out_of_memory(answer, "oom") if answer.code != 0 and answer.out_of_memory else None

    def _seen(self, answer: Answer) -> InfrastructureError | None:
        """What ended a test run that ended."""
        if answer.code != 0 and answer.out_of_memory and not (answer.at_limit and tests_failed(answer.stdout)):
            return self._out_of_memory(answer, "tests_aborted" if answer.at_limit else "oom")
        return classify_test_run(
            answer.code, answer.stdout, lambda: Around(self._disk_is_full(), _memory_short(answer))
        )

    def _out_of_memory(self, answer: Answer, family: str) -> InfrastructureError:
        limit = f"of {self._memory_mb} MB " if self._memory_mb else ""
        where = f"at its memory limit {limit}" if answer.at_limit else "because the machine had no memory left "
        return InfrastructureError(
            family,
            f"the kernel killed {answer.out_of_memory} of the container's processes {where}"
            f"(exit code {answer.code}){_last_words(answer.stdout)}",
        )

    def _disk_is_full(self) -> bool | None:
        """Whether a disk of the container is full; None where it cannot be asked."""
        try:
            answer = self._session.run(_LOOK_AT_DISKS, self._timeout, together=False)
        except (DeadlineError, ContainerGoneError):
            return None
        disks = [[int(number) for number in line.split()] for line in answer.stdout.splitlines()]
        if answer.code != 0 or not disks:
            return None
        return any(is_full(blocks * size, free, files) for blocks, size, free, files in disks)

    def _shortened(self, args: tuple[str, ...]) -> tuple[str, ...]:
        """The command with a script in place of a command text that is too long to be an argument."""
        match args:
            case ("bash", "-c", text) if len(text.encode("utf-8", "surrogateescape")) > _LONGEST_ARGUMENT:
                return ("bash", self._write_script(text))
        return args

    def _write_script(self, text: str) -> str:
        self._scripts += 1
        path = f"{PATCHES}/.command-{self._scripts}"
        # Four bytes are the most that a character takes.
        step = _LONGEST_ARGUMENT // 4
        for n in range(math.ceil(len(text) / step)):
            piece = text[n * step : (n + 1) * step]
            written = self._session.run(
                ("bash", "-c", 'printf %s "$1" >> "$0"', path, piece), self._timeout, together=True
            )
            if written.code != 0:
                _raise_unwritten(path, written)
        return path


def _memory_short(answer: Answer) -> bool | None:
    """Whether the machine was out of memory; a kill at the container's own limit is told of elsewhere."""
    return None if answer.out_of_memory is None else answer.out_of_memory > 0


def _raise_unwritten(path: str, written: Answer) -> NoReturn:
    family = "disk" if "No space left" in written.stdout else "container_died"
    raise InfrastructureError(family, f"could not write {path} in the container: {written.stdout.strip()}")


def _last_words(output: str, limit: int = 300) -> str:
    said = output.strip()[-limit:]
    return f"; last output: {said}" if said else ""
