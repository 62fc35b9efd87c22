"""Processes are known by number and start, and ended with all their kin, and nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cooperbench_assets.execution import processes
from cooperbench_assets.execution.processes import (
    MARK,
    is_alive,
    kill_recorded,
    mark_of,
    process_identity,
    session_members,
)
from cooperbench_assets_tests.services import missing

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-S",
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(600)",
]


@contextmanager
def started(command: list[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def identity_of(pid: int) -> str:
    identity = process_identity(pid)
    assert identity is not None
    return identity


def wait_until_gone(pid: int, seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not is_alive(pid)


def test_two_processes_differ_in_identity_and_one_keeps_its_own() -> None:
    with started(SLEEP) as first:
        time.sleep(0.05)
        with started(SLEEP) as second:
            assert identity_of(first.pid) == identity_of(first.pid) != identity_of(second.pid)


def test_a_process_that_is_gone_has_no_identity() -> None:
    with started(["true"]) as process:
        process.wait()
        assert process_identity(process.pid) is None
        assert not is_alive(process.pid)


def test_a_process_that_waits_to_be_reaped_is_not_alive() -> None:
    with started(["true"]) as process:
        assert wait_until_gone(process.pid)
        assert process_identity(process.pid) is not None


def test_a_session_is_ended_with_those_that_ignore_sigterm() -> None:
    script = f"{sys.executable} -S -c 'import time; time.sleep(600)' & exec \"$@\""
    with started(["bash", "-c", script, "bash", *STUBBORN]) as leader:
        assert leader.stdout is not None
        leader.stdout.readline()
        assert len(session_members(leader.pid)) == 2
        assert kill_recorded(leader.pid, identity_of(leader.pid), grace_seconds=0.2) == 2
        assert leader.wait() == -signal.SIGKILL
        assert not [pid for pid in session_members(leader.pid) if is_alive(pid)]


def test_a_recorded_process_is_ended_and_one_that_heeds_sigterm_is_not_killed_harder() -> None:
    with started(SLEEP) as process:
        assert kill_recorded(process.pid, identity_of(process.pid), grace_seconds=5) == 1
        assert process.wait() == -signal.SIGTERM
        assert kill_recorded(process.pid, "whoever") == 0


def test_a_process_that_got_the_number_of_a_recorded_one_is_left_alone() -> None:
    with started(SLEEP) as stranger:
        recorded_earlier = identity_of(os.getpid())
        assert kill_recorded(stranger.pid, recorded_earlier, grace_seconds=0.1) == 0
        assert is_alive(stranger.pid)


def test_kin_in_a_session_of_its_own_is_ended_after_its_recorded_child_is_gone() -> None:
    """The number and start of a child that is gone still lead to what it left: by the mark in its variables."""
    with started(["true"]) as child:
        identity = identity_of(child.pid)
    environment = {**os.environ, MARK: mark_of(child.pid, identity)}
    with started(SLEEP, env=environment) as left, started(SLEEP) as other:
        assert kill_recorded(child.pid, identity, grace_seconds=0.5) == 1
        assert left.wait() == -signal.SIGTERM
        assert is_alive(other.pid)


def test_one_never_kills_oneself() -> None:
    script = (
        "import os; from cooperbench_assets.execution.processes import *;"
        "pid = os.getpid(); print(kill_recorded(pid, process_identity(pid), 0))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


@pytest.mark.skipif(sys.platform != "linux", reason="ties between processes are made on Linux only")
def test_a_process_dies_with_its_parent() -> None:
    script = (
        "import os, time\n"
        "from cooperbench_assets.execution.processes import die_with_parent\n"
        "parent = os.getpid()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    die_with_parent(parent)\n"
        "    print(os.getpid(), flush=True)\n"
        "time.sleep(600)\n"
    )
    with started([sys.executable, "-c", script]) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.kill()
        assert wait_until_gone(child)


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")
def test_orphans_are_adopted_and_ended_and_known_children_are_not() -> None:
    middle = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:], start_new_session=True, stdout=2).pid)"
    script = (
        "import os, subprocess, sys, time\n"
        "from cooperbench_assets.execution import processes\n"
        "processes.adopt_orphans()\n"
        "kept = subprocess.Popen(sys.argv[2:])\n"
        "orphan = int(subprocess.check_output([sys.executable, '-S', '-c', *sys.argv[1:]]))\n"
        "assert orphan in processes.children_of(os.getpid())\n"
        "killed = processes.reap_strangers({kept.pid})\n"
        "print(killed, processes.process_identity(orphan), kept.poll())\n"
        "kept.kill()\n"
    )
    done = subprocess.run([sys.executable, "-c", script, middle, *SLEEP], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "None", "None"]


def test_without_proc_psutil_tells_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has no /proc: the same questions, asked of psutil."""
    monkeypatch.setattr(processes, "_HAS_PROC", False)
    with started(SLEEP, env={**os.environ, MARK: "1/here"}) as process, started(SLEEP) as other:
        identity = identity_of(process.pid)
        assert is_alive(process.pid, identity)
        assert not is_alive(process.pid, "another")
        assert session_members(process.pid) == [process.pid]
        assert kill_recorded(1_000_000_000, "x") == 0
        assert kill_recorded(process.pid, identity, grace_seconds=1) == 1
        assert process.wait() == -signal.SIGTERM
        assert is_alive(other.pid)


NOBODY = 65534


def readable_by_kin(steps: str) -> list[bool]:
    """Whether a child of an ordinary user's process can read that one's variables, after each of its steps."""
    script = f"""
import ctypes, os, sys
from cooperbench_assets.execution.processes import close_to_others
if os.getuid() == 0:
    os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # Changing the user has closed it already.
def look():
    parent = os.getpid()
    if os.fork() == 0:
        try:
            found = b"CANARY=1" in open(f"/proc/{{parent}}/environ", "rb").read()
        except PermissionError:
            found = False
        os.write(1, b"1" if found else b"0")
        os._exit(0)
    os.wait()
{steps}
"""
    environment = {**os.environ, "CANARY": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, env=environment)
    return [sign == ord("1") for sign in done.stdout]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_process_that_is_closed_to_others_shows_them_no_variable() -> None:
    assert readable_by_kin("look(); close_to_others(); look()") == [True, False]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_process_that_proc_hides_is_not_taken_for_dead() -> None:
    if os.geteuid() != 0:
        missing("hidden /proc", "only root can mount one")
    # A /proc of its own in a mount namespace of its own: nobody else's is changed.
    script = f"""
import os
from cooperbench_assets.execution.processes import is_alive, process_identity
identity = process_identity({os.getpid()})
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
print(os.path.exists("/proc/{os.getpid()}"), is_alive({os.getpid()}, identity), is_alive(2**22 - 1, identity))
"""
    shell = 'mount -t proc -o hidepid=2 proc /proc && exec "$0" -c "$1"'
    command = ["unshare", "--mount", "sh", "-c", shell, sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "mount:" in done.stderr:
        missing("hidden /proc", done.stderr.strip())
    assert done.stdout.split() == ["False", "True", "False"], done.stderr
