from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.execution import shared_folders
from cooperbench_assets.execution.cell_lock import LOCK_FILE, cell_lock, holder
from cooperbench_assets.execution.errors import CellBusy, LaunchError
from cooperbench_assets.execution.processes import boot

HOLD = """
import sys, time
from pathlib import Path
from cooperbench_assets.execution.cell_lock import cell_lock
with cell_lock(Path(sys.argv[1]), "dagster run 4711"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.stdout.close()
    return process


def test_a_second_run_of_a_cell_fails_at_once_and_names_the_first(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    try:
        named = rf"dagster run 4711 \(process {other.pid} on "
        with pytest.raises(CellBusy, match=named), cell_lock(tmp_path / "run", "cli"):
            pass
        found = holder(tmp_path / "run")
        assert found is not None
        assert (found.pid, found.what) == (other.pid, "dagster run 4711")
    finally:
        other.kill()
        other.wait()


def test_the_cell_is_free_as_soon_as_its_holder_is_killed(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert holder(tmp_path / "run") is None
    with cell_lock(tmp_path / "run", "cli"):
        found = holder(tmp_path / "run")
        assert found is not None
        assert found.what == "cli"
    assert holder(tmp_path / "run") is None


def test_a_lock_whose_file_was_replaced_while_it_was_waited_for_is_not_taken_for_the_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, opened = tmp_path / "run", os.open

    def replaced_after(path: Any, *args: Any) -> int:
        descriptor = opened(path, *args)
        monkeypatch.setattr(os, "open", opened)
        Path(path).unlink()
        return descriptor

    run.mkdir()
    monkeypatch.setattr(os, "open", replaced_after)
    with cell_lock(run, "first"):
        found = holder(run)
        assert found is not None
        assert found.what == "first"
        with pytest.raises(CellBusy, match="first"), cell_lock(run, "second"):
            pass


def test_nobody_holds_a_run_that_is_not_there(tmp_path: Path) -> None:
    assert holder(tmp_path / "run") is None
    assert not (tmp_path / "run").exists()


def test_probing_a_cell_all_the_time_keeps_nobody_from_taking_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with cell_lock(run, "first"):
        pass
    stop = threading.Event()

    def probe() -> None:
        while not stop.is_set():
            holder(run)

    taken = 0
    threads = [threading.Thread(target=probe) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            with cell_lock(run, "again"):
                taken += 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert taken == 20
    assert holder(run) is None


def test_the_lock_is_a_hidden_file_and_its_file_stays(tmp_path: Path) -> None:
    with cell_lock(tmp_path / "run", "cli"):
        pass
    assert LOCK_FILE.startswith(".")
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == [LOCK_FILE]


def left_by(run: Path, host: str, boot_id: str) -> None:
    """The lock's file as a holder leaves it that was killed, or whose lock this machine is not told of."""
    run.mkdir()
    said = {"pid": 1, "host": host, "started_at": "2026-11-22T08:00:00+00:00", "what": "run 4711", "boot": boot_id}
    (run / LOCK_FILE).write_text(json.dumps(said))


def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Have the kernel say that this folder is a mount of that kind."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
        f"36 21 0:40 / {tmp_path} rw shared:7 - {kind} server:/share rw\n"
    )
    monkeypatch.setattr(shared_folders, "MOUNTS", mounts)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "virtiofs"])
def test_a_holder_on_another_machine_is_refused_and_the_remedy_named(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    left_by(run, "another-machine", "another boot")
    mounted(tmp_path, monkeypatch, kind)
    said = rf"begun by run 4711 \(process 1 on another-machine, .* lies on {kind}, .* remove {run / LOCK_FILE}"
    for _ in range(2):
        with pytest.raises(CellBusy, match=said), cell_lock(run, "mine"):
            pass
    (run / LOCK_FILE).unlink()
    with cell_lock(run, "mine"):
        pass


@pytest.mark.parametrize(
    ("host", "boot_id", "kind"),
    [
        ("a-container-that-was-killed", boot(), "nfs4"),
        ("a-container-before-the-machine-was-started-anew", "another boot", "ext4"),
        ("a-container-before-the-machine-was-started-anew", "another boot", "fuse.fuse-overlayfs"),
        (os.uname().nodename, "another boot", "nfs4"),
    ],
)
def test_a_killed_holder_of_this_machine_keeps_nobody_out_whatever_its_container_was_called(
    host: str, boot_id: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_by(tmp_path / "run", host, boot_id)
    mounted(tmp_path, monkeypatch, kind)
    with cell_lock(tmp_path / "run", "mine"):
        found = holder(tmp_path / "run")
        assert found is not None
        assert (found.what, found.boot) == ("mine", boot())


def test_the_innermost_mount_says_what_a_folder_lies_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "with blank" / "local"
    inner.mkdir(parents=True)
    mounted(tmp_path, monkeypatch, "nfs4")
    with shared_folders.MOUNTS.open("a") as file:
        file.write(f"40 36 0:41 / {str(inner).replace(' ', chr(92) + '040')} rw - tmpfs none rw\na cut line\n")
    assert shared_folders.file_system_of_several_machines(inner.parent) == "nfs4"
    assert shared_folders.file_system_of_several_machines(inner) is None
    monkeypatch.setattr(shared_folders, "MOUNTS", tmp_path / "not there")
    assert shared_folders.file_system_of_several_machines(inner.parent) is None


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_one_sentence(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(LaunchError, match="run lies on a file system without locks"), cell_lock(tmp_path / "run", "me"):
        pass
    assert holder(tmp_path / "run") is None
