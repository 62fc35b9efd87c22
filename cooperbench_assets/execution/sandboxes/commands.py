"""Running one command to its end or its deadline, with nothing of it left behind.

What belongs here: start, wait, kill, collect. What does not: where the command sees itself (``process.bubblewrap``,
``process.path_rewriting``), and what its output means.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

from cooperbench_assets.execution.sandboxes.base import Finished, note_of_cut

_PIECE = 2**16
_PIPES = 64
"""Pieces that are read of an ended command: more than a pipe holds; a process in another session may go on writing."""

_LOOK_SECONDS = 0.05
"""Between two looks at a process where the system cannot tell of its end."""


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
    merge: bool,
    limit: int,
    keep_fds: Sequence[int] = (),
) -> Finished:
    """Run a command in a process group of its own, which is killed when the command has ended.

    Output is read as it comes, and its middle thrown away where there is too much: no disk is filled with it. What a
    process that it leaves in the background prints is not waited for.

    Args:
        argv: Program and arguments.
        cwd: Its working folder.
        environment: All of its variables.
        seconds: Deadline.
        merge: Put errors into the output, in the order of printing.
        limit: Bytes of each output to keep: as much of the beginning as of the end.
        keep_fds: Descriptors that it inherits.

    Raises:
        DeadlineError: when the deadline was reached.
        OSError: if it cannot be started.
    """
    process = subprocess.Popen(
        argv,
        cwd=cwd,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merge else subprocess.PIPE,
        process_group=0,
        pass_fds=keep_fds,
    )
    with process:
        kept = {pipe.fileno(): Kept(limit) for pipe in (process.stdout, process.stderr) if pipe is not None}
        try:
            ended = _read_to_the_end(process, seconds, kept)
        finally:
            _end_group(process)
        for descriptor, output in kept.items():
            _drain(descriptor, output)
        texts = [output.text() for output in kept.values()]
    if not ended:
        raise DeadlineError(seconds, "".join(texts))
    code = process.returncode
    return Finished(128 - code if code < 0 else code, texts[0], texts[1] if len(texts) > 1 else "")


class Kept:
    """The beginning and the end of an output, as much of the one as of the other."""

    def __init__(self, limit: int) -> None:
        """Nothing yet.

        Args:
            limit: Bytes to keep.
        """
        self._half = limit // 2
        self._rest = limit - self._half
        self._beginning = bytearray()
        self._end = bytearray()
        self._left_out = 0

    def add(self, piece: bytes) -> None:
        """Take in what comes next."""
        room = self._half - len(self._beginning)
        self._beginning += piece[:room]
        self._end += piece[room:] if room > 0 else piece
        # Twice as much as is needed is let be, so that not each piece moves all of it.
        if len(self._end) > 2 * self._rest + _PIECE:
            self._cut()

    def text(self) -> str:
        """What is kept, with a note of what is not."""
        self._cut()
        if not self._left_out:
            return (self._beginning + self._end).decode("utf-8", "replace")
        beginning, end = (part.decode("utf-8", "replace") for part in (self._beginning, self._end))
        return beginning + note_of_cut(self._left_out) + end

    def _cut(self) -> None:
        if (surplus := len(self._end) - self._rest) > 0:
            del self._end[:surplus]
            self._left_out += surplus


def _read_to_the_end(process: subprocess.Popen[bytes], seconds: float, kept: Mapping[int, Kept]) -> bool:
    """Read until the process has ended, without reaping it where the system can; False at the deadline.

    Unreaped, the number of its group stays taken until the group is killed.
    """
    end = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        watched = None
        with contextlib.suppress(AttributeError, OSError):
            watched = os.pidfd_open(process.pid)
            stack.callback(os.close, watched)
        open_ones = {*kept} | ({watched} if watched is not None else set())
        while True:
            left = end - time.monotonic()
            patience = left if watched is not None else min(left, _LOOK_SECONDS)
            ready = select.select(list(open_ones), [], [], max(patience, 0))[0]
            for descriptor in ready:
                if descriptor in kept and not _take(descriptor, kept[descriptor]):
                    open_ones.discard(descriptor)
            if watched in ready or (watched is None and process.poll() is not None):
                return True
            if left <= 0:
                return False


def _take(descriptor: int, output: Kept) -> bool:
    """Read what is there; False once nobody can write any more."""
    piece = os.read(descriptor, _PIECE)
    output.add(piece)
    return bool(piece)


def _drain(descriptor: int, output: Kept) -> None:
    """Read what lies in the pipe, and wait for nothing more."""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        for _ in range(_PIPES):
            if not _take(descriptor, output):
                return


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
