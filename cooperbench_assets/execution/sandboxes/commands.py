"""Running one command to its end or its deadline, with nothing of it left behind.

What belongs here: start, wait, kill, collect. What does not: where the command sees itself (``bubblewrap``,
``rewriting``), and what its output means.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from cooperbench_assets.execution.sandboxes.base import Finished, note_of_cut


class DeadlineError(RuntimeError):
    """A command was ended at its deadline."""

    def __init__(self, seconds: float, output: str) -> None:
        super().__init__(f"Command timed out after {seconds:g} seconds")
        self.output = output


def run(
    argv: Sequence[str],
    *,
    cwd: str,
    environment: Mapping[str, str],
    seconds: float,
    folder: Path,
    merge: bool,
    limit: int,
    keep_fds: Sequence[int] = (),
) -> Finished:
    """Run a command in a process group of its own, which is killed when the command has ended.

    Output goes through files, so that a process it leaves in the background cannot hold the pipe open.

    Args:
        argv: Program and arguments.
        cwd: Its working folder.
        environment: All of its variables.
        seconds: Deadline.
        folder: Where the output may lie meanwhile.
        merge: Put errors into the output, in the order of printing.
        limit: Bytes of each output to keep: as much of the beginning as of the end.
        keep_fds: Descriptors that it inherits.

    Raises:
        DeadlineError: when the deadline was reached.
        OSError: if it cannot be started.
    """
    with tempfile.TemporaryFile(dir=folder) as out, tempfile.TemporaryFile(dir=folder) as errors:
        process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT if merge else errors,
            process_group=0,
            pass_fds=keep_fds,
        )
        try:
            ended = _wait(process, seconds)
        finally:
            _end_group(process)
        if not ended:
            raise DeadlineError(seconds, _text(out, limit) + _text(errors, limit))
        code = process.returncode
        return Finished(128 - code if code < 0 else code, _text(out, limit), _text(errors, limit))


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait without reaping where the system can, so that the group's number stays taken until it is killed."""
    with contextlib.suppress(AttributeError, OSError):
        watched = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(watched, select.POLLIN)
            return bool(poll.poll(seconds * 1000))
        finally:
            os.close(watched)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _text(file: IO[bytes], limit: int) -> str:
    surplus = file.seek(0, os.SEEK_END) - limit
    file.seek(0)
    if surplus <= 0:
        return file.read().decode("utf-8", "replace")
    half = limit // 2
    beginning = file.read(half).decode("utf-8", "replace")
    file.seek(half + surplus)
    return beginning + note_of_cut(surplus) + file.read().decode("utf-8", "replace")
