"""Commands in a sandbox on the host: their output is kept within its limit, wherever they print it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.execution.sandboxes.base import Finished, note_of_cut
from cooperbench_assets.execution.sandboxes.commands import DeadlineError, Kept, run

LOUD = """
import os, resource, sys
from cooperbench_assets.execution.sandboxes.commands import run
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))  # Whoever writes more to a file is killed.
command = "head -c 50000000 /dev/zero | tr '\\\\0' x; echo; echo the end"
done = run(["bash", "-c", command], cwd="/", environment=dict(os.environ), seconds=120, merge=True, limit=1000)
print(done.returncode, len(done.stdout), done.stdout.splitlines()[-1])
"""


def bash(command: str, *, seconds: float = 60, merge: bool = True, limit: int = 1000) -> Finished:
    environment = dict(os.environ)
    return run(["bash", "-c", command], cwd="/", environment=environment, seconds=seconds, merge=merge, limit=limit)


def test_output_without_end_fills_no_file() -> None:
    done = subprocess.run([sys.executable, "-c", LOUD], capture_output=True, text=True, check=True)
    code, length, last = done.stdout.strip().split(maxsplit=2)
    assert (code, last) == ("0", "the end")
    assert int(length) < 1100


def test_output_and_errors_are_kept_in_order_or_apart() -> None:
    command = "echo one; echo two >&2; echo three; exit 7"
    assert bash(command) == Finished(7, "one\ntwo\nthree\n")
    assert bash(command, merge=False) == Finished(7, "one\nthree\n", "two\n")


def test_a_command_that_prints_for_ever_ends_at_its_deadline_with_what_it_said() -> None:
    with pytest.raises(DeadlineError, match=r"timed out after 0\.5 seconds") as caught:
        bash("echo begins; yes", seconds=0.5)
    assert caught.value.output.startswith("begins\ny\n")
    assert "bytes of output left out" in caught.value.output


def test_a_process_left_in_the_background_holds_up_nothing() -> None:
    assert bash("echo said; setsid sleep 3 & exit 0", seconds=600) == Finished(0, "said\n")
    loud = bash("setsid timeout 3 yes & sleep 0.2; exit 0", seconds=600)
    assert loud.returncode == 0


@given(st.lists(st.binary(max_size=300), max_size=60), st.integers(1, 400))
def test_the_beginning_and_the_end_of_an_output_are_kept(pieces: list[bytes], limit: int) -> None:
    kept = Kept(limit)
    for piece in pieces:
        kept.add(piece)
    whole = b"".join(pieces)
    half, surplus = limit // 2, len(whole) - limit
    if surplus <= 0:
        assert kept.text() == whole.decode("utf-8", "replace")
    else:
        beginning, end = whole[:half].decode("utf-8", "replace"), whole[half + surplus :].decode("utf-8", "replace")
        assert kept.text() == beginning + note_of_cut(surplus) + end
