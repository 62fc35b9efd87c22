"""Evaluations that do not end in time: only tests that ran so long are the patch's, the rest is infrastructure."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.benchmark.failures import classify
from cooperbench_assets.benchmark.pairs import Subset
from cooperbench_assets.execution.api import run_agents, run_evaluations
from cooperbench_assets.execution.attempts.completion import evaluation_timed_out
from cooperbench_assets.execution.attempts.lifecycle import begin
from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.job import Limits
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.sandboxes import base
from cooperbench_assets.execution.sandboxes.base import RUNNER, Finished, evaluation_seconds
from cooperbench_assets.execution.sandboxes.docker import engine, session
from cooperbench_assets.execution.sandboxes.monitored import MAKING, Progress, Watched
from cooperbench_assets.execution.worker.protocol import PROGRESS
from cooperbench_assets_tests.execution import making
from cooperbench_assets_tests.execution.cells import AGENTS, PAIRS, ROOT, attempt, cell, outcomes
from cooperbench_assets_tests.execution.toy import Toy

ALL = LaunchOptions()
FIRST = PAIRS[0]
TEST = ("bash", "-c", f"bash {RUNNER} tests2.patch merged.patch")


@pytest.mark.slow
def test_an_evaluation_that_hangs_before_its_tests_is_infrastructure_however_often(
    core_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = tmp_path / "dataset"
    shutil.copytree(core_toy.dataset, dataset, symlinks=True)
    hook = dataset / core_toy.repo.relative_to(core_toy.dataset) / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexec sleep 600\n")
    hook.chmod(0o755)
    job = cell(
        core_toy,
        tmp_path,
        mode="coop",
        dataset=dataset,
        subset=Subset("one", (FIRST,), tmp_path / "one.json"),
        limits=Limits(test_timeout_seconds=0.5),
    )
    assert run_agents(job, ALL).done == 1
    monkeypatch.setitem(base.OVERHEAD_SECONDS, "process", 4.0)
    for n in (1, 2):
        assert dict(run_evaluations(job, ALL).failed) == {"eval_timeout": 1}
        assert outcomes(job) == {FIRST.folder: "infra_error eval/eval_timeout"}
        assert attempt(job, FIRST, f"eval-{n}")["evidence"] == (
            "[infra:eval_timeout] the evaluation was killed at its deadline while patches were applied"
        )


@pytest.mark.parametrize(
    ("progress", "execution", "family"),
    [
        ({"doing": "the tests of the first feature ran", "test": True, "ago": 700}, "docker", "test_timeout"),
        ({"doing": "the tests of the first feature ran", "test": True, "ago": 5}, "docker", "eval_timeout"),
        ({"doing": MAKING, "ago": 1500}, "docker", "container_start"),
        ({"doing": MAKING, "ago": 1500}, "gcp", "container_start"),
        ({"doing": MAKING, "ago": 1500}, "process", "eval_timeout"),
        ({"doing": "its sandbox was removed", "ago": 700}, "docker", "eval_timeout"),
        (None, "docker", "eval_timeout"),
    ],
)
def test_what_an_evaluation_was_doing_when_its_deadline_came_decides(
    progress: dict[str, Any] | None, execution: str, family: str, tmp_path: Path
) -> None:
    (pair,) = (making.pair(1),)
    job = making.job(tmp_path, (pair,), execution=execution)
    made = begin(job, "agent", making.state(pair), 1)
    if progress is not None:
        content = {"since": time.time() - progress.pop("ago"), **progress}
        (made.place.root / PROGRESS).write_text(json.dumps(content))
    failure = classify(evaluation_timed_out(made), "eval")
    assert failure is not None
    assert (failure.family, failure.retryable) == (family, True)


class Played:
    """A sandbox, and the backend that makes it, that answer as they are told."""

    def __init__(self, *answers: Finished | BaseException) -> None:
        self.answers = list(answers)
        self.heard: list[tuple[str, ...]] = []
        self.timeout = 0

    def create_sandbox(self, image: str, timeout: int, workdir: str) -> Played:
        self.timeout = timeout
        return self

    def exec(self, *args: str) -> Finished:
        self.heard.append(args)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def terminate(self) -> None:
        self.heard.append(("terminate",))


def test_a_command_that_is_cut_short_from_outside_stays_what_the_evaluation_was_doing(tmp_path: Path) -> None:
    file = tmp_path / "evaluation.json"
    sandbox = Watched(Played(Finished(0, ""), KeyboardInterrupt()), Progress(file)).create_sandbox("image")
    sandbox.exec("bash", "-c", "git merge agent1")
    assert json.loads(file.read_text())["doing"] == "it went from one step to the next"
    with pytest.raises(KeyboardInterrupt):
        sandbox.exec(*TEST)
    sandbox.terminate()
    said = json.loads(file.read_text())
    assert (said["doing"], said["test"]) == ("the tests of the second feature ran", True)
    assert 0 <= time.time() - said["since"] < 60


@pytest.mark.parametrize("execution", ["modal", "gcp"])
def test_a_remote_backend_is_told_of_the_deadline_and_gives_tests_no_more(execution: str, tmp_path: Path) -> None:
    played = Played(Finished(0, ""), Finished(124, "collected 3 items"))
    sandbox = Watched(played, Progress(tmp_path / "p"), execution, 300).create_sandbox("image")
    assert played.timeout >= 300 + 900
    sandbox.exec("git", "status")
    with pytest.raises(InfrastructureError, match=r"\[infra:test_timeout\] Command timed out after 300 seconds"):
        sandbox.exec(*TEST)
    assert played.heard[0] == ("git", "status")
    assert played.heard[1][3:] == ("300", *TEST)


@pytest.mark.parametrize(
    ("said", "family"),
    [("Timeout after 1200s", "eval_timeout"), ("503 Service Unavailable", "engine"), ("", "unknown")],
)
def test_a_remote_command_that_was_never_run_is_no_test_timeout(said: str, family: str, tmp_path: Path) -> None:
    sandbox = Watched(Played(Finished(-1, "", said)), Progress(tmp_path / "p"), "gcp", 300).create_sandbox("image")
    with pytest.raises(InfrastructureError) as error:
        sandbox.exec(*TEST)
    assert error.value.family == family


@pytest.mark.slow
def test_tests_that_hang_in_a_remote_sandbox_end_at_the_experiments_deadline(core_toy: Toy, tmp_path: Path) -> None:
    job = cell(
        core_toy,
        tmp_path,
        execution="modal",
        subset=Subset("one", (FIRST,), tmp_path / "one.json"),
        limits=Limits(test_timeout_seconds=2),
        external_agents=(AGENTS, "cooperbench_assets_tests.execution.remote_doubles"),
        environment={
            "TOY_TASK": str(core_toy.task),
            "PYTHONPATH": str(ROOT),
            "REMOTE_DATASET": str(core_toy.dataset),
            "REMOTE_RECORD": str(tmp_path / "record"),
        },
    )
    assert run_agents(job, ALL).done == 1
    patch = job.pair_dir(FIRST) / "solo.patch"
    patch.write_text(core_toy.at_import(1, "import time; time.sleep(600)") + core_toy.gold(2))
    assert dict(run_evaluations(job, ALL).failed) == {"test_timeout": 1}
    assert outcomes(job) == {FIRST.folder: "infra_error eval/test_timeout"}
    assert run_evaluations(job, ALL).done == 1
    assert outcomes(job) == {FIRST.folder: "fail test_timeout"}


def test_the_deadline_of_an_evaluation_leaves_an_overloaded_engine_all_its_tries() -> None:
    making_it = 4 * engine.TRIES * engine.CALL_SECONDS + session.START_SECONDS
    assert evaluation_seconds("docker", 600) - 2 * 600 >= making_it
