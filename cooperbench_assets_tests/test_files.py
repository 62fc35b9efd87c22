"""Writing files whole: by many at once, and with nothing left where it fails."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cooperbench_assets.execution.attempts.records import write_attempt
from cooperbench_assets.execution.provenance import write_provenance
from cooperbench_assets.execution.runner.run_summary import write_eval_summary, write_summary
from cooperbench_assets.execution.runner.slots import read_sizes
from cooperbench_assets.execution.sandboxes.docker.agent_cli import write_wrapper
from cooperbench_assets.execution.sandboxes.docker.image_lock import update_lock
from cooperbench_assets.execution.sandboxes.docker.images import ImageRecord
from cooperbench_assets.files import UNFINISHED, replacing, write_atomically
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.planned import recall, remember
from cooperbench_assets_tests.disks import files_at_most
from cooperbench_assets_tests.execution import making


def test_writers_at_once_never_mix_and_leave_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    contents = [bytes([65 + n]) * 200_000 for n in range(8)]
    threads = [threading.Thread(target=write_atomically, args=(target, content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [target]


def test_the_disk_is_asked_to_hold_the_file_before_its_name_and_then_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(tmp_path / "a", b"x")
    assert synced[0].startswith(".a.")
    assert synced[1:] == [tmp_path.name]
    write_atomically(tmp_path / "b", b"x", durable=False)
    assert len(synced) == 2


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_that_somebody_else_made_meanwhile_can_be_kept(tmp_path: Path) -> None:
    with replacing(tmp_path / "a", keep=True) as file:
        file.write(b"mine")
        (tmp_path / "a").write_bytes(b"theirs")
    assert (tmp_path / "a").read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def _summaries(folder: Path, n: int) -> None:
    pairs = tuple(making.pair(one) for one in range(1, n + 1))
    job = making.job(folder.parent / "job", pairs, logs=folder.parent, run_name=folder.name)
    states = {pair: making.state(pair) for pair in pairs}
    write_summary(job, states, 1.0)
    write_eval_summary(job, states.values())


def _lock(folder: Path, n: int) -> None:
    image = ImageRecord("alpha", n, f"alpha:task{n}", "ready", image_id=f"sha256:{n}")
    update_lock(folder / "images.lock.json", [image], "an-engine")


KINDS: dict[str, Callable[[Path, int], object]] = {
    "a try": lambda folder, n: write_attempt(folder, making.attempt(n)),
    "a run's provenance": lambda folder, n: write_provenance(folder, {"harness_version": f"0.0.{n}"}),
    "a run's summaries": _summaries,
    "the lock of images": _lock,
    "the plan of a store": lambda folder, n: remember(folder.parent, {folder.name: [Cell(folder.name, "solo", n)]}),
    "the sizes of slots": lambda folder, _: read_sizes(folder),
    "the wrapper of docker": lambda folder, _: write_wrapper(folder),
}
"""Writers of the n-th content of their files in a folder."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def content(folder: Path) -> dict[str, bytes]:
    """Its files but for what is not finished, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != UNFINISHED}


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_fills_in_the_middle_of_a_write_leaves_each_kind_of_file_as_it_was(kind: str, folder: Path) -> None:
    for n in (1, 2):
        before = content(folder)
        with files_at_most(20), contextlib.suppress(OSError):
            KINDS[kind](folder, n)
        assert content(folder) == before
        KINDS[kind](folder, n)
        assert len(list(folder.iterdir())) == len(content(folder)) > 0
        assert all(len(text) > 20 for text in content(folder).values())


def killed_in_the_middle_of(write: Callable[[], object]) -> bool:
    """Whether a process that does this died when a file of its own had grown to 20 bytes."""
    if (pid := os.fork()) == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        with files_at_most(20):
            write()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGXFSZ


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_in_the_middle_of_a_write_leaves_each_kind_of_file_as_it_was(kind: str, folder: Path) -> None:
    assert killed_in_the_middle_of(partial(KINDS[kind], folder, 1))
    assert content(folder) == {}
    KINDS[kind](folder, 1)
    before = content(folder)
    killed_in_the_middle_of(partial(KINDS[kind], folder, 2))
    assert content(folder) == before
    KINDS[kind](folder, 2)
    assert all(len(text) > 20 for text in content(folder).values())


def test_what_killed_publishes_left_beside_a_plan_goes_with_the_next_one(folder: Path) -> None:
    plan = {"folder": [Cell("folder", "solo", 0)]}
    for _ in range(2):
        assert killed_in_the_middle_of(partial(remember, folder.parent, plan))
    remember(folder.parent, plan)
    assert list(folder.iterdir()) == [folder / "planned.json"]
    assert recall(folder.parent) == {"folder": frozenset(plan["folder"])}
