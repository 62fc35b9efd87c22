"""Secrets of a cell: who is told them, and that nothing of a try is kept with one in it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.execution import secret_values
from cooperbench_assets.execution.api import run_agents, run_evaluations
from cooperbench_assets.execution.attempts.lifecycle import Try, begin
from cooperbench_assets.execution.attempts.pair_state import read_states
from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.job import CellJob
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.runner.harness_servers import close_servers
from cooperbench_assets_tests.execution.cells import PAIRS, attempt, cell, outcomes
from cooperbench_assets_tests.execution.leaks import ANCESTORS
from cooperbench_assets_tests.execution.toy import Toy

FIRST = PAIRS[0]
CANARY = "canary-7f3a91c2"
ONE = LaunchOptions(pairs=(FIRST.name,))


@pytest.fixture
def told(core_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CellJob:
    monkeypatch.setenv("MINE", CANARY)
    return cell(core_toy, tmp_path, secrets=("MINE",))


def left(job: CellJob) -> Try:
    """A try whose child has left nothing yet."""
    made = begin(job, "agent", read_states(job)[FIRST], 1)
    (made.place.pair_dir / "deeper").mkdir(parents=True)
    return made


def test_files_that_hold_a_secret_lose_it_and_all_others_stay_as_they_are(told: CellJob, tmp_path: Path) -> None:
    made = left(told)
    inside, clean = made.place.pair_dir, tmp_path / "clean.json"
    clean.write_text(CANARY)
    for file in (made.place.log, inside / "result.json", inside / "deeper" / "stream.jsonl", inside / "closed.txt"):
        file.write_bytes(b"\xff before " + CANARY.encode() + b" after\n")
        os.utime(file, (1_000_000_000, 1_000_000_000))
    (inside / "closed.txt").chmod(0o400)
    (inside / "other.json").write_bytes(b'\xff "password": "hunter2hunter2"')
    (inside / "empty").touch()
    (inside / "link").symlink_to(clean)
    os.mkfifo(inside / "pipe")
    untouched = {file: file.stat() for file in (inside / "other.json", inside / "empty")}

    secret_values.clean(made)

    for file in (made.place.log, inside / "result.json", inside / "deeper" / "stream.jsonl", inside / "closed.txt"):
        assert file.read_bytes() == b"\xff before [redacted:MINE] after\n", file
        assert file.stat().st_mtime == 1_000_000_000, "when an agent last wrote is evidence too"
    assert {file: file.stat() for file in untouched} == untouched
    assert clean.read_text() == CANARY, "what a link leads to is not the child's"
    assert stat.S_ISFIFO((inside / "pipe").stat().st_mode)
    assert sorted(entry.name for entry in inside.iterdir()) == [
        *("closed.txt", "deeper", "empty", "link", "other.json", "pipe", "result.json"),
    ]


def test_what_looks_like_a_key_is_in_no_record_of_a_try(core_toy: Toy, tmp_path: Path) -> None:
    unknown = "sk-aaaabbbbccccdddd1234"
    job = cell(core_toy, tmp_path, tries={FIRST: [f"error:401 Incorrect API key provided: {unknown}"]})
    run_agents(job, ONE)
    assert attempt(job, FIRST, "agent-1")["evidence"] == "401 Incorrect API key provided: [redacted:api_key]"
    assert unknown in (job.pair_dir(FIRST) / "result.json").read_text(), "the log tree is upstream's"


@pytest.mark.parametrize(
    ("execution", "stage", "is_told"),
    [
        *[("process", "agent", True), ("process", "ask", True), ("process", "eval", False)],
        *[("docker", "agent", True), ("docker", "eval", False), ("modal", "eval", True), ("gcp", "eval", True)],
    ],
)
def test_only_children_that_need_a_key_are_told(
    execution: Any, stage: Any, is_told: bool, core_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", CANARY)
    environment = {"ENDPOINT": "https://me:hunter2@host/", "PLAIN": "x", "OTHER_KEY": "k-1"}
    job = cell(core_toy, tmp_path, secrets=("MINE",), environment=environment, execution=execution)
    secret = {"MINE": CANARY, "ENDPOINT": "https://me:hunter2@host/", "OTHER_KEY": "k-1"}
    assert secret_values.variables_for(job, stage) == (secret if is_told else {})
    assert secret_values.open_environment(job) == {"PLAIN": "x"}


def test_pairs_are_evaluated_without_a_key_and_agents_are_not_run(
    core_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", CANARY)
    job = cell(core_toy, tmp_path, secrets=("MINE",))
    run_agents(job, ONE)
    monkeypatch.delenv("MINE")
    assert run_evaluations(job, ONE).done == 1
    assert outcomes(job)[FIRST.folder] == "pass"
    with pytest.raises(LaunchError, match="MINE is not set, and secrets: names it"):
        run_agents(job, LaunchOptions(pairs=(PAIRS[1].name,)))


@pytest.mark.slow
def test_a_test_program_finds_no_key_in_the_processes_that_it_comes_from(
    core_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close_servers()
    monkeypatch.setenv("MINE", CANARY)
    patch = tmp_path / "hostile.patch"
    patch.write_text(core_toy.at_import(1, f"exec({ANCESTORS!r})") + core_toy.gold(2))
    changes: dict[str, Any] = {"secrets": ("MINE",), "sandbox": {"isolation": "subprocess"}}
    job = cell(core_toy, tmp_path, tries={FIRST: [f"patch:{patch}"]}, **changes)
    run_agents(job, ONE)
    run_evaluations(job, ONE)
    printed = json.loads((job.pair_dir(FIRST) / "eval.json").read_text())["feature1"]["test_output"]
    # Of the shell, the evaluation's child and the harness server at least; the rest is not ours here.
    assert printed.count("COOPERBENCH_EXTERNAL_AGENTS=") == 2
    assert "MINE" not in printed
    close_servers()
