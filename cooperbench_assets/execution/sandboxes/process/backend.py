"""The ``process`` sandbox: a task's repository and runner on the host itself, without any container engine.

What belongs here: the sandbox's files, its deadlines, and telling a test run that infrastructure ended from a failed
one. What does not: how commands are kept apart from the host (``bubblewrap``, ``path_rewriting``).

A task folder of the dataset holds ``repo/``, a git checkout, and ``runner.sh``, which upstream's images have at
``/workspace/repo`` and ``/usr/local/bin/runner.sh``. The image's name is not looked at.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cooperbench_assets.execution.infra_errors import (
    Around,
    InfrastructureError,
    classify_test_run,
    disk_is_full,
    from_exception,
    memory_kills,
)
from cooperbench_assets.execution.sandboxes.base import Finished, SandboxOptions
from cooperbench_assets.execution.sandboxes.commands import DeadlineError, run
from cooperbench_assets.execution.sandboxes.evidence import Grading, is_test_run
from cooperbench_assets.execution.sandboxes.process import bubblewrap
from cooperbench_assets.execution.sandboxes.process.bubblewrap import Bubblewrap
from cooperbench_assets.execution.sandboxes.process.path_rewriting import Rewriting
from cooperbench_assets.execution.sandboxes.process.variables import HOME_IN_TMP

if TYPE_CHECKING:
    from cooperbench_assets.execution.worker.protocol import ChildRequest

ISOLATIONS = ("bubblewrap", "subprocess")

# Upstream writes patches so. Done here, it costs no processes, and no patch is too long to be an argument.
_WRITE = re.compile(r"echo '([A-Za-z0-9+/=]*)' \| base64 -d > /patches/(\w[\w.-]*)")


def choose_isolation(wanted: str = "auto", *, network: bool = False) -> tuple[str, str]:
    """The isolation to use, with or without network, and why bubblewrap is not used (empty where it is).

    Raises:
        InfrastructureError: family ``configuration``, if the one that must be used cannot be, or is none.
    """
    if wanted == "subprocess":
        return "subprocess", "asked for"
    if wanted not in ("auto", "bubblewrap"):
        names = ", ".join(("auto", *ISOLATIONS))
        raise InfrastructureError("configuration", f"isolation {wanted!r} is unknown; there are {names}")
    why_not = bubblewrap.probe(network)
    if why_not and wanted == "bubblewrap":
        raise InfrastructureError("configuration", f"isolation: bubblewrap is asked for, but {why_not}")
    return ("subprocess", why_not) if why_not else ("bubblewrap", "")


class ProcessBackend:
    """Makes sandboxes of one task: upstream's ``EvalBackend``."""

    def __init__(self, task: Path, scratch: Path, options: SandboxOptions, slot_fd: int | None = None) -> None:
        """Choose the isolation.

        Args:
            task: The task's folder in the dataset.
            scratch: Where sandboxes make their folders, which `terminate` removes.
            options: Deadline, isolation, network and variables.
            slot_fd: A slot that test programs hold on to, where they could outlive this process.

        Raises:
            InfrastructureError: family ``configuration``, if the isolation asked for is not to be had.
        """
        self.isolation, self.isolation_reason = choose_isolation(options.isolation, network=options.network)
        self._task = task
        self._scratch = scratch
        self._options = options
        self._slot_fd = slot_fd

    @classmethod
    def for_request(cls, request: ChildRequest, options: SandboxOptions, slot_fd: int | None) -> ProcessBackend:
        """The backend of one evaluation, with its sandbox below the staging folder."""
        task = Path(request.dataset) / request.repo / f"task{request.task_id}"
        return cls(task, Path(request.staging), options, slot_fd)

    def create_sandbox(self, image: str, timeout: int = 600, workdir: str = "/workspace") -> ProcessSandbox:
        """Make a sandbox: a copy of the task's repository, and empty patches and temporary files.

        Raises:
            InfrastructureError: family ``configuration`` where the task lacks its repository or runner, ``disk``
                where there is no room.
        """
        del image
        for name, exists in (("repo/.git", Path.exists), ("runner.sh", Path.is_file)):
            if not exists(self._task / name):
                raise InfrastructureError(
                    "configuration",
                    f"execution: process needs repo/ (a git checkout) and runner.sh beside the task; "
                    f"{self._task / name} is missing",
                )
        root = Path(tempfile.mkdtemp(prefix="sandbox-", dir=self._scratch))
        try:
            _fill(root, self._task)
            return ProcessSandbox(root, self._isolate(root), self._options, timeout, workdir, self._keep_fds())
        except BaseException as error:
            _remove(root)
            if typed := from_exception(error):
                raise typed from error
            raise

    def _isolate(self, root: Path) -> Bubblewrap | Rewriting:
        if self.isolation == "bubblewrap":
            return Bubblewrap(root, network=self._options.network)
        return Rewriting(root)

    def _keep_fds(self) -> tuple[int, ...]:
        # Under bubblewrap everything ends with us; and a test must not be able to unlock the slot.
        return (self._slot_fd,) if self._slot_fd is not None and self.isolation == "subprocess" else ()


class ProcessSandbox:
    """One task's files for one evaluation: upstream's ``Sandbox``."""

    def __init__(
        self,
        root: Path,
        isolation: Bubblewrap | Rewriting,
        options: SandboxOptions,
        timeout: float,
        workdir: str,
        keep_fds: tuple[int, ...],
    ) -> None:
        self._root = root
        self._isolation = isolation
        self._environment = {**isolation.variables, **options.environment}
        self._timeout = timeout
        self._test_timeout = options.test_timeout_seconds or timeout
        self._output_limit = options.output_limit
        self._workdir = workdir
        self._keep_fds = keep_fds
        self._grading = Grading()

    def exec(self, *args: str) -> Finished:
        """Run a command. The one that names the runner is a test run: it has the deadline of tests.

        Raises:
            InfrastructureError: for a deadline, a death by signal, a full disk or a missing network, which
                upstream then writes into eval.json as its error. Not where the pair fails whatever ended this
                command (`Grading`): then it is graded as upstream would.
        """
        is_test = is_test_run(args)
        killed = memory_kills() if is_test else None
        try:
            if self._write_patch(args):
                return Finished(0, "")
            finished = self._run(args, self._test_timeout if is_test else self._timeout, merge=is_test)
        except DeadlineError as error:
            infra_failed = InfrastructureError("test_timeout" if is_test else "eval_timeout", str(error))
            return self._grading.resolve_failure(args, infra_failed, -1, self._isolation.outward(error.output))
        except OSError as error:
            raise from_exception(error) or error from error
        if is_test and (seen := classify_test_run(finished.returncode, finished.stdout, lambda: self._around(killed))):
            return self._grading.resolve_failure(args, seen, finished.returncode, finished.stdout)
        return self._grading.saw(args, finished)

    def terminate(self) -> None:
        """Remove the sandbox's folder."""
        self._isolation.close()
        _remove(self._root)

    def _around(self, killed: int | None) -> Around:
        """The surroundings after a test run; `killed` is `memory_kills` from before it."""
        now = memory_kills()
        return Around(disk_is_full(self._root), None if killed is None or now is None else now > killed)

    def _run(self, args: tuple[str, ...], seconds: float, *, merge: bool) -> Finished:
        argv, cwd = self._isolation.command(args, self._workdir)
        finished = run(
            argv,
            cwd=cwd,
            environment=self._environment,
            seconds=seconds,
            merge=merge,
            limit=self._output_limit,
            keep_fds=self._keep_fds,
        )
        outward = self._isolation.outward
        return Finished(finished.returncode, outward(finished.stdout), outward(finished.stderr))

    def _write_patch(self, args: tuple[str, ...]) -> bool:
        """Write a patch if that is what the command does; whether it was."""
        if args[:2] != ("bash", "-c") or len(args) != 3 or not (found := _WRITE.fullmatch(args[2])):
            return False
        path = self._root / "patches" / found[2]
        # Tests may have put a link there; what is outside the sandbox must not be written to.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64decode(found[1]))
        return True


def _fill(root: Path, task: Path) -> None:
    for name in ("workspace", "patches", "tmp", f"tmp/{HOME_IN_TMP}"):
        (root / name).mkdir()
    # No hard links: a test that changed a linked file would change the dataset.
    _copy_tree(task / "repo", root / "workspace" / "repo")
    shutil.copyfile(task / "runner.sh", root / "runner.sh")


def _copy_tree(source: Path, target: Path) -> None:
    if sys.platform == "linux":
        copied = subprocess.run(
            ["cp", "-a", "--reflink=auto", str(source), str(target)], capture_output=True, check=False
        )
        if copied.returncode == 0:
            return
        said = copied.stderr.decode("utf-8", "replace").strip()
        if "No space left" in said or "quota exceeded" in said:
            raise InfrastructureError("disk", said.splitlines()[-1])
        shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)


def _remove(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    if root.exists():
        # Tests make folders without rights, which their owner may take back.
        root.chmod(stat.S_IRWXU)
        for folder, names, _ in os.walk(root):
            for name in names:
                inner = Path(folder, name)
                if not inner.is_symlink():
                    inner.chmod(stat.S_IRWXU)
        shutil.rmtree(root)
