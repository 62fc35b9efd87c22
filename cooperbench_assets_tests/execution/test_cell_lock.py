from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.execution.cell_lock import LOCK_FILE, cell_lock, holder
from cooperbench_assets.execution.errors import CellBusy

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
