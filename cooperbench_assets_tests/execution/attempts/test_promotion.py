"""Promotion by itself: what lies where before and after, and after a kill at every rename."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cooperbench_assets.execution.attempts.promotion import (
    JOURNAL,
    Promotion,
    finish,
    promote_agents,
    promote_verdict,
)
from cooperbench_assets.execution.attempts.records import scan_attempts, write_attempt
from cooperbench_assets.faultpoints import VARIABLE
from cooperbench_assets_tests.execution.making import attempt

OLD = {"result.json": "old", "eval.json": "old verdict", "solo.patch": "old", "solo_traj.json": "old"}
NEW = {"result.json": "new", "solo.patch": "new", "agent_stream.jsonl": "new"}


def lay(root: Path) -> Promotion:
    """A run folder with an earlier try's files in place and a new try's files in staging."""
    run = root / "run"
    pair_dir = run / "solo/a_task/1/f1_f2"
    staged = run / ".staging/x/logs/run/solo/a_task/1/f1_f2"
    tries = run / "attempts/solo/a_task/1/f1_f2"
    for folder, files in ((pair_dir, OLD), (staged, NEW)):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(content)
    (pair_dir / "git").mkdir()
    (pair_dir / "git" / "log.txt").write_text("old")
    write_attempt(tries / "agent-1", attempt(1, promoted=True))
    write_attempt(tries / "eval-1", attempt(1, "eval", outcome="completed", promoted=True))
    (tries / "agent-1" / "child.log").write_text("said at the first try")
    write_attempt(tries / "agent-2", attempt(2, outcome="running"))
    return promotion(root)


def promotion(root: Path) -> Promotion:
    run = root / "run"
    tries = run / "attempts/solo/a_task/1/f1_f2"
    return Promotion(
        run_dir=run,
        folder=tries / "agent-2",
        staged=run / ".staging/x/logs/run/solo/a_task/1/f1_f2",
        pair_dir=run / "solo/a_task/1/f1_f2",
        attempt=attempt(2, outcome="completed", promoted=True),
        results_to=tries / "agent-1",
        verdict_to=tries / "eval-1",
    )


def contents(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): file.read_text()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != "attempt.json"
    }


def assert_promoted(root: Path) -> None:
    made = promotion(root)
    tries = made.run_dir / "attempts/solo/a_task/1/f1_f2"
    assert contents(made.pair_dir) == NEW
    assert contents(tries / "agent-1") == {
        "child.log": "said at the first try",
        "git/log.txt": "old",
        "result.json": "old",
        "solo.patch": "old",
        "solo_traj.json": "old",
    }
    assert contents(tries / "eval-1") == {"eval.json": "old verdict"}
    assert contents(tries / "agent-2") == {}
    [(record,)] = [
        [one for one in found if (one.stage, one.n) == ("agent", 2)]
        for found in scan_attempts(made.run_dir, "solo").values()
    ]
    assert (record.outcome, record.promoted) == ("completed", True)


def test_the_disk_holds_the_new_files_before_the_journal_and_their_names_before_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lay(tmp_path)
    (made.staged / "git").mkdir()
    (made.staged / "git" / "new.txt").write_text("new")
    synced: list[Path] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    promote_agents(made)
    journal = next(n for n, place in enumerate(synced) if place.name.startswith(f".{JOURNAL}"))
    record = next(n for n, place in enumerate(synced) if place.name.startswith(".attempt.json"))
    assert set(synced[:journal]) == {made.staged / name for name in (*NEW, "git/new.txt")}
    assert made.pair_dir in synced[journal:record]


def test_new_files_take_the_place_of_the_old_ones_which_go_to_their_try(tmp_path: Path) -> None:
    promote_agents(lay(tmp_path))
    assert_promoted(tmp_path)


PROMOTE = """
import sys
from pathlib import Path
from cooperbench_assets_tests.execution.attempts.test_promotion import promotion
from cooperbench_assets.execution.attempts.promotion import promote_agents
promote_agents(promotion(Path(sys.argv[1])))
"""
STOPS = [
    "promote:journal",
    "promote:eval.json-out",
    "promote:result.json-out",
    *(f"promote:file-out#{n}" for n in (1, 2, 3)),
    *(f"promote:file-in#{n}" for n in (1, 2)),
    "promote:result.json-in",
    "promote:attempt",
    "promote:done",
]


@pytest.mark.parametrize("stop", STOPS)
def test_a_promotion_killed_at_any_rename_is_finished_at_the_next_start(tmp_path: Path, stop: str) -> None:
    made = lay(tmp_path)
    ended = subprocess.run(
        [sys.executable, "-c", PROMOTE, str(tmp_path)],
        env={**os.environ, VARIABLE: stop},
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    both = {name for name in ("result.json", "eval.json") if (made.pair_dir / name).exists()}
    if both == {"result.json", "eval.json"}:
        assert contents(made.pair_dir)["result.json"] == "old", "never an old verdict beside a new result"
    finish(made.run_dir, made.folder)
    assert_promoted(tmp_path)
    assert finish(made.run_dir, made.folder) is None
    assert_promoted(tmp_path)


def test_a_verdict_takes_the_place_of_the_one_before_it_and_nothing_else_moves(tmp_path: Path) -> None:
    made = lay(tmp_path)
    (made.staged / "eval.json").write_text("new verdict")
    promote_verdict(made)
    assert contents(made.pair_dir) == {**OLD, "eval.json": "new verdict", "git/log.txt": "old"}
    assert contents(made.run_dir / "attempts/solo/a_task/1/f1_f2/eval-1") == {"eval.json": "old verdict"}


def test_a_file_of_an_agent_that_is_named_like_one_of_ours_hides_nothing(tmp_path: Path) -> None:
    made = lay(tmp_path)
    (made.pair_dir / "attempt.json").write_text("the agent's own")
    (made.pair_dir / "child.log").write_text("the agent's own")
    promote_agents(made)
    first = made.run_dir / "attempts/solo/a_task/1/f1_f2/agent-1"
    [found] = scan_attempts(made.run_dir, "solo").values()
    assert [one.n for one in found if one.stage == "agent"] == [1, 2]
    assert contents(first)["child.log"] == "said at the first try"
    assert contents(first)["attempt.json.kept"] == "the agent's own"
    assert contents(first)["child.log.kept"] == "the agent's own"


def test_a_journal_lies_there_only_while_files_are_on_their_way(tmp_path: Path) -> None:
    made = lay(tmp_path)
    promote_agents(made)
    assert not list(made.run_dir.rglob(JOURNAL))


@pytest.mark.parametrize("content", [b"", b"{", b"\0\0\0"], ids=["empty", "cut", "zeros"])
def test_a_journal_that_a_power_cut_tore_is_none_because_nothing_was_moved(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "attempts" / "agent-1"
    folder.mkdir(parents=True)
    (folder / JOURNAL).write_bytes(content)
    assert finish(tmp_path, folder) is None
    assert list(folder.iterdir()) == []
