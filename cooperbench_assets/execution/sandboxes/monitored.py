"""Any backend, watched: what an evaluation is doing stands in a file, for the parent that ends it at its deadline.

What belongs here: that file, and the deadline of tests on upstream's remote backends, which know none. What does not:
what an evaluation that was ended counts as (``attempts.lifecycle``). Standard library only.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cooperbench_assets.benchmark.failures import UNKNOWN, classify
from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.sandboxes.base import Finished, evaluation_seconds
from cooperbench_assets.execution.sandboxes.evidence import Grading, is_test_run

MAKING = "its sandbox was made"
BOOT_SECONDS = 900
"""How long a batch job, which Google Cloud needs for each command, may take to start."""

_TIMED_OUT = 124
_BOUNDED = (
    "bash",
    "-c",
    'if command -v timeout >/dev/null; then exec timeout -k 10 "$0" "$@"; else exec "$@"; fi',
)
_STEPS = (
    ("base64 -d > /patches/", "patches were written"),
    ("apply_patch()", "patches were applied"),
    ("git merge", "patches were merged"),
)


class Progress:
    """The file that says what an evaluation is doing: ``doing``, ``test`` (whether that is a test run), ``since``."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def say(self, doing: str, *, test: bool = False) -> None:
        """Put it in place of what stood there."""
        new = self._file.with_name(f".{self._file.name}.new")
        new.write_text(json.dumps({"doing": doing, "test": test, "since": time.time()}))
        os.replace(new, self._file)  # noqa: PTH105 - half the time of Path.replace


class Watched:
    """A backend whose sandboxes are watched: upstream's ``EvalBackend``."""

    def __init__(self, backend: Any, progress: Progress, remote: str | None = None, test_seconds: float = 600) -> None:
        """Wrap a backend.

        Args:
            backend: Ours or upstream's.
            progress: Told of each command.
            remote: Name of the execution where the backend is upstream's: modal or gcp.
            test_seconds: Deadline of one test run, for such a backend; ours have it already.
        """
        self._backend = backend
        self._progress = progress
        self._remote = remote
        self._test_seconds = test_seconds

    def create_sandbox(self, image: str, timeout: int = 600, workdir: str = "/workspace") -> WatchedSandbox:
        """Make a sandbox; see the backend's own."""
        self._progress.say(MAKING)
        if self._remote is not None:
            timeout = self._life_seconds(self._remote)
        sandbox = self._backend.create_sandbox(image, timeout, workdir)
        self._progress.say("it went from one step to the next")
        return WatchedSandbox(sandbox, self._progress, self._test_seconds if self._remote else None)

    def _life_seconds(self, remote: str) -> int:
        """What upstream's backend takes as timeout: of each command's job at Google Cloud, of the sandbox at Modal."""
        if remote == "gcp":
            return round(self._test_seconds) + BOOT_SECONDS
        return round(evaluation_seconds(remote, self._test_seconds))


class WatchedSandbox:
    """A sandbox of a watched backend: upstream's ``Sandbox``."""

    def __init__(self, sandbox: Any, progress: Progress, test_seconds: float | None) -> None:
        self._sandbox = sandbox
        self._progress = progress
        self._test_seconds = test_seconds
        self._grading = Grading()
        self._ended = False

    def exec(self, *args: str) -> Any:
        """Run a command; see the sandbox's own.

        Raises:
            InfrastructureError: as the sandbox's own does. Of a remote one: family ``test_timeout`` for a test run
                that did not end in time, ``eval_timeout`` or another for a command that was not run.
        """
        self._progress.say(_step(args), test=is_test_run(args))
        try:
            done = self._sandbox.exec(*args) if self._test_seconds is None else self._remotely(args, self._test_seconds)
        except Exception:
            self._progress.say("it went from one step to the next")
            raise
        except BaseException:
            # Ended from outside: what it was doing stays there to be read.
            self._ended = True
            raise
        self._progress.say("it went from one step to the next")
        return done

    def terminate(self) -> None:
        """End the sandbox."""
        if not self._ended:
            self._progress.say("its sandbox was removed")
        self._sandbox.terminate()

    def _remotely(self, args: Sequence[str], seconds: float) -> Finished:
        is_test = is_test_run(args)
        given = self._sandbox.exec(*((*_BOUNDED, f"{seconds:g}", *args) if is_test else args))
        done = Finished(given.returncode, given.stdout_read(), given.stderr_read())
        if done.returncode < 0:
            return self._grading.resolve_failure(args, _not_run(done.stdout + done.stderr), done.returncode)
        if is_test and done.returncode == _TIMED_OUT:
            late = InfrastructureError("test_timeout", f"Command timed out after {seconds:g} seconds")
            return self._grading.resolve_failure(args, late, -1, done.stdout + done.stderr)
        return self._grading.saw(args, done)


def _not_run(said: str) -> InfrastructureError:
    """Why upstream's backend has no exit code: its job was not made, or not started in time."""
    if said.startswith("Timeout after"):
        return InfrastructureError("eval_timeout", f"the command's job did not end in time: {said}")
    return InfrastructureError((classify(said, "eval") or UNKNOWN).family, said or "the command was not run")


def _step(args: Sequence[str]) -> str:
    text = args[-1] if args else ""
    if is_test_run(args):
        return f"the tests of the {'second' if 'tests2.patch' in text else 'first'} feature ran"
    return next((words for mark, words in _STEPS if mark in text), "a command ran")
