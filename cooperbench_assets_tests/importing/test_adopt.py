from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import filelock
import pytest

from cooperbench_assets.execution.cell_lock import cell_lock
from cooperbench_assets.execution.errors import CellBusy
from cooperbench_assets.faultpoints import VARIABLE
from cooperbench_assets.importing.adopt import Adoption, AdoptionError, adopt
from cooperbench_assets_tests.disks import files_at_most

PAIR = "click_task/7/f1_f2"


def run_of(folder: Path, level: str = "coop/", text: str = "a result") -> Path:
    """A run folder with one pair, as a harness would leave it."""
    pair = folder / f"{level}{PAIR}"
    pair.mkdir(parents=True)
    (pair / "result.json").write_text(text)
    (pair / "agent1.patch").write_text("a patch")
    (folder / "config.json").write_text("{}")
    return folder


def adoption_of(source: Path, target: Path, **facts: Any) -> Adoption:
    return Adoption(source, target, "coop", facts)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_files_are_hard_linked_and_replacing_one_leaves_the_original(tmp_path: Path) -> None:
    source = run_of(tmp_path / "theirs" / "my-run")
    target = tmp_path / "ours" / "x-coop"
    done = adopt(adoption_of(source, target, model="m", agent=None))
    assert (done.linked, done.copied, done.left, done.before) == (3, 0, (), False)
    result = target / "coop" / PAIR / "result.json"
    assert result.samefile(source / "coop" / PAIR / "result.json")
    (target / "new").write_text("a newer result")
    (target / "new").replace(result)
    assert (source / "coop" / PAIR / "result.json").read_text() == "a result"


def test_the_record_says_what_was_adopted_and_keeps_what_the_run_said_of_itself(tmp_path: Path) -> None:
    source = run_of(tmp_path / "theirs" / "my-run")
    (source / "provenance.json").write_text('{"origin": "executed", "harness_version": "0.0.29", "model": "theirs"}')
    target = tmp_path / "ours" / "x-coop"
    adopt(adoption_of(source, target, model="m", agent="a", subset=None))
    record = json.loads((target / "provenance.json").read_text())
    adopted = record.pop("adopted")
    assert record == {"origin": "adopted", "harness_version": "0.0.29", "model": "theirs", "agent": "a"}
    assert (adopted["run"], adopted["files"], adopted["how"]) == ("my-run", 3, "hard-linked")
    assert adopted["at"].endswith("+00:00")
    assert str(tmp_path) not in (target / "provenance.json").read_text()
    assert not (target / "provenance.json").samefile(source / "provenance.json")


def test_copies_share_nothing_with_the_originals(tmp_path: Path) -> None:
    source = run_of(tmp_path / "theirs" / "my-run")
    target = tmp_path / "ours" / "x-coop"
    done = adopt(adoption_of(source, target), copy=True)
    assert (done.linked, done.copied) == (0, 3)
    assert not (target / "config.json").samefile(source / "config.json")
    assert json.loads((target / "provenance.json").read_text())["adopted"]["how"] == "copied"


def test_a_file_system_that_cannot_link_gets_copies(tmp_path: Path, other_file_system: Path) -> None:
    source = run_of(other_file_system / "my-run")
    target = tmp_path / "ours" / "x-coop"
    done = adopt(adoption_of(source, target))
    assert (done.linked, done.copied) == (0, 3)
    assert (target / "coop" / PAIR / "result.json").read_text() == "a result"


def test_an_older_tree_gets_the_mode_level(tmp_path: Path) -> None:
    source = run_of(tmp_path / "theirs" / "my-run", level="")
    (source / "notes" / "deep").mkdir(parents=True)
    (source / "notes" / "deep" / "x.txt").write_text("not a repository")
    target = tmp_path / "ours" / "x-coop"
    adopt(adoption_of(source, target))
    assert files_below(target) == [
        "config.json",
        f"coop/{PAIR}/agent1.patch",
        f"coop/{PAIR}/result.json",
        "notes/deep/x.txt",
        "provenance.json",
    ]


def test_pairs_beside_a_mode_folder_are_left_because_nothing_says_their_mode(tmp_path: Path) -> None:
    source = run_of(run_of(tmp_path / "theirs" / "my-run"), level="", text="whose result?")
    target = tmp_path / "ours" / "x-coop"
    done = adopt(adoption_of(source, target))
    assert done.left == ("click_task/: its pairs lie beside coop/, so that nothing says their mode",)
    assert (target / "coop" / PAIR / "result.json").read_text() == "a result"
    assert not (target / "click_task").exists()


def test_other_modes_links_and_pipes_are_left_and_named(tmp_path: Path) -> None:
    source = run_of(tmp_path / "theirs" / "my-run")
    run_of(source, level="solo/")
    (source / "coop" / "link").symlink_to(source / "config.json")
    (source / "coop" / "folder").symlink_to(tmp_path)
    os.mkfifo(source / "coop" / "pipe")
    (source / ".cooperbench-assets.lock").write_text("ours")
    (source / ".staging").mkdir()
    (source / ".staging" / "half").write_text("half")
    target = tmp_path / "ours" / "x-coop"
    done = adopt(adoption_of(source, target))
    assert done.left == (
        "coop/folder: no regular file",
        "coop/link: no regular file",
        "coop/pipe: no regular file",
        "solo/: another mode",
    )
    assert files_below(target) == [
        "config.json",
        f"coop/{PAIR}/agent1.patch",
        f"coop/{PAIR}/result.json",
        "provenance.json",
    ]


def test_recorded_attempts_come_along(tmp_path: Path) -> None:
    source = run_of(tmp_path / "theirs" / "my-run")
    attempt = source / "attempts" / "coop" / PAIR / "agent-1"
    attempt.mkdir(parents=True)
    (attempt / "attempt.json").write_text("{}")
    target = tmp_path / "ours" / "x-coop"
    adopt(adoption_of(source, target))
    assert (target / "attempts" / "coop" / PAIR / "agent-1" / "attempt.json").is_file()


def test_an_existing_run_is_never_touched(tmp_path: Path) -> None:
    source = run_of(tmp_path / "theirs" / "my-run")
    target = run_of(tmp_path / "ours" / "x-coop", text="another result")
    with pytest.raises(AdoptionError, match="exists, and is not my-run as it is now; it was left alone"):
        adopt(adoption_of(source, target))
    assert (target / "coop" / PAIR / "result.json").read_text() == "another result"
    with pytest.raises(AdoptionError, match="is the cell's run folder already"):
        adopt(adoption_of(target, target))
    assert names_in(tmp_path / "ours") == [".adopting.lock", "x-coop"]


def test_a_folder_with_nothing_but_a_lock_file_is_no_run(tmp_path: Path) -> None:
    target = tmp_path / "ours" / "x-coop"
    target.mkdir(parents=True)
    (target / ".cooperbench-assets.lock").write_text("")
    adopt(adoption_of(run_of(tmp_path / "theirs" / "my-run"), target))
    assert (target / "coop" / PAIR / "result.json").is_file()


def test_a_cell_that_is_being_run_is_not_adopted_into_and_keeps_its_lock(tmp_path: Path) -> None:
    source, target = run_of(tmp_path / "theirs" / "my-run"), tmp_path / "ours" / "x-coop"
    with cell_lock(target, "dagster run 4711"):
        with pytest.raises(AdoptionError, match="x-coop is being run by dagster run 4711"):
            adopt(adoption_of(source, target))
        with pytest.raises(CellBusy), cell_lock(target, "a second launch"):
            pass
    assert names_in(target.parent) == [".adopting.lock", "x-coop"]
    assert adopt(adoption_of(source, target)).linked == 3


def test_adopting_the_same_run_again_does_nothing_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    source = run_of(tmp_path / "theirs" / "my-run")
    target = tmp_path / "ours" / "x-coop"
    adopt(adoption_of(source, target))
    before = (target / "provenance.json").read_bytes()
    assert adopt(adoption_of(source, target)).before
    assert (target / "provenance.json").read_bytes() == before
    (source / "coop" / PAIR / "eval.json").write_text("a verdict that came later")
    with pytest.raises(AdoptionError, match="is not my-run as it is now"):
        adopt(adoption_of(source, target))


def test_a_killed_adoption_leaves_no_run_and_the_next_one_finishes(tmp_path: Path) -> None:
    source = run_of(tmp_path / "theirs" / "my-run")
    target = tmp_path / "ours" / "x-coop"
    script = (
        "import sys; from pathlib import Path; from cooperbench_assets.importing.adopt import Adoption, adopt;"
        "adopt(Adoption(Path(sys.argv[1]), Path(sys.argv[2]), 'coop', {}))"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, source, target], env={**os.environ, VARIABLE: "adopt:linked"}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    assert adopt(adoption_of(source, target)).linked == 3
    assert names_in(target.parent) == [".adopting.lock", "x-coop"]


@pytest.mark.parametrize("copy", [True, False])
def test_a_disk_that_fills_while_files_are_copied_or_the_record_is_written_leaves_nothing_behind(
    tmp_path: Path, copy: bool
) -> None:
    source = run_of(tmp_path / "theirs" / "my-run", text="a result" * 100)
    target = tmp_path / "ours" / "x-coop"
    with files_at_most(100), pytest.raises(AdoptionError, match="File too large"):
        adopt(adoption_of(source, target), copy=copy)
    assert names_in(target.parent) == [".adopting.lock"]
    done = adopt(adoption_of(source, target), copy=copy)
    assert done.linked + done.copied == 3


def test_two_adoptions_into_one_log_tree_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "ours" / "x-coop"
    target.parent.mkdir()
    with (
        filelock.FileLock(target.parent / ".adopting.lock"),
        pytest.raises(AdoptionError, match="another process is adopting"),
    ):
        adopt(adoption_of(run_of(tmp_path / "theirs" / "my-run"), target))


@pytest.fixture
def other_file_system(tmp_path: Path) -> Any:
    """A folder on another file system than tmp_path."""
    import tempfile

    places = [Path("/dev/shm"), Path(tempfile.gettempdir())]  # tmp_path lies in one of them.
    others = [place for place in places if place.is_dir() and place.stat().st_dev != tmp_path.stat().st_dev]
    if not others:
        pytest.skip(f"no second file system at {' or '.join(map(str, places))}")
    with tempfile.TemporaryDirectory(dir=others[0]) as folder:
        yield Path(folder)
