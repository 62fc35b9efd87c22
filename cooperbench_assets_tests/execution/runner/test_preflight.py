"""What is looked at before the first pair of a stage: all findings at once, and nothing launched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.execution.api import run_agents, run_evaluations
from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.gold import gold_job, read_gold, seed, to_judge, unsound
from cooperbench_assets.execution.job import CellJob, PreflightSettings
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.runner import preflight
from cooperbench_assets.execution.runner.harness_servers import OF_THIS_PROCESS, HarnessServers, close_servers
from cooperbench_assets_tests.execution.cells import AGENTS, PAIRS, cell, run_both
from cooperbench_assets_tests.execution.toy import Toy

CANARY = "sk-canary-77e1b0"
NOWHERE = "unix:///nowhere/docker.sock"
QUICK = """
from cooperbench.agents.registry import register


@register("openhands_sdk")
class Quick: ...
"""


@pytest.fixture(autouse=True)
def unasked() -> None:
    OF_THIS_PROCESS.answered.clear()


@pytest.fixture
def own_server() -> Iterator[None]:
    """A harness server that nobody else is given: what it is started in is not as usual."""
    close_servers()
    yield
    close_servers()


def refusal(job: CellJob, **options: Any) -> str:
    with pytest.raises(LaunchError) as caught:
        run_agents(job, LaunchOptions(**options))
    assert not (job.run_dir / job.mode).exists()
    assert not list(job.run_dir.rglob("attempt.json"))
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.usefixtures("own_server")
def test_everything_that_is_missing_is_said_at_once(
    core_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("A_KEY", raising=False)
    # An agent of that name, whose import takes no seconds: where it can run is known without it.
    (tmp_path / "quick.py").write_text(QUICK)
    job = cell(
        core_toy,
        tmp_path,
        external_agents=("quick",),
        environment={"PYTHONPATH": str(tmp_path)},
        execution="docker",
        agent="openhands_sdk",
        secrets=("A_KEY",),
        mode="coop",
        messaging=True,
        redis_url="redis:no url",
        preflight=PreflightSettings(free_gb=10**9),
    )
    said = refusal(job)
    for part in (
        "toy solo seed 0: 6 things are missing: (1) agent openhands_sdk runs on Modal only",
        "needs the command docker",
        "GB are free where logs go",
        "no Docker engine answers",
        "'redis:no url' is no Redis URL",
        "A_KEY is not set, and secrets: names it",
    ):
        assert part in said, part
    assert "\n" not in said


@pytest.mark.slow
def test_one_finding_is_one_plain_sentence(core_toy: Toy, tmp_path: Path) -> None:
    said = refusal(cell(core_toy, tmp_path, preflight=PreflightSettings(free_gb=10**9)))
    assert said.startswith("toy solo seed 0: ")
    assert "missing:" not in said


@pytest.mark.slow
def test_a_machine_that_is_fit_is_not_mentioned(core_toy: Toy, tmp_path: Path) -> None:
    agents, evaluations = run_both(cell(core_toy, tmp_path), pairs=(PAIRS[0].name,))
    assert agents.done == evaluations.done == 1
    assert agents.notes[0].startswith("gold_baseline was never made")
    assert not any("gold" in note for note in evaluations.notes)


@pytest.mark.slow
@pytest.mark.parametrize("automatic", [False, True])
def test_a_model_that_is_not_there_is_told_before_agents_run(
    automatic: bool, core_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "ASKS_FROM_HERE", frozenset({"core"}))
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    config = tmp_path / "agent.yaml"
    config.write_text(json.dumps({"tries": {}, "model": {"model_kwargs": {"api_base": "http://127.0.0.1:1/v1"}}}))
    # Both times litellm is there already: otherwise each child that asks would take seconds to import it.
    agents = (AGENTS, "litellm")
    job = cell(core_toy, tmp_path, model_name="openai/none", secrets=("OPENAI_API_KEY",), external_agents=agents)
    one = (PAIRS[0].name,)
    if automatic:
        # What may be over a moment later stops no launch that nobody asked for: the breaker looks after that.
        report = run_agents(job, LaunchOptions(pairs=one, automatic=True))
        assert report.done == 1
        (said,) = [note for note in report.notes if "does not answer" in note]
    else:
        said = refusal(job, pairs=one)
        assert "turn this question off (preflight: {ask_model: false})" in said
    assert "the model openai/none does not answer (" in said
    assert CANARY not in said
    assert not (job.run_dir / ".staging").exists()


def test_a_launch_uses_the_servers_that_it_is_given_and_leaves_them_open(
    core_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, servers = cell(core_toy, tmp_path), HarnessServers()
    monkeypatch.setattr(OF_THIS_PROCESS, "server", lambda _job: pytest.fail("a server of the process's own was used"))
    try:
        given = servers.server(job)
        assert run_agents(job, LaunchOptions(pairs=(PAIRS[0].name,)), servers=servers).done == 1
        assert servers.server(job) is given
    finally:
        servers.close()


@pytest.mark.slow
def test_the_question_can_be_turned_off(core_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "ASKS_FROM_HERE", frozenset({"core"}))
    job = cell(core_toy, tmp_path, model_name="openai/none", preflight=PreflightSettings(ask_model=False))
    assert run_agents(job, LaunchOptions(pairs=(PAIRS[0].name,))).done == 1


@pytest.mark.slow
def test_agents_are_not_bought_for_pairs_whose_own_solution_fails_until_that_is_acknowledged(
    core_toy: Toy, tmp_path: Path
) -> None:
    job = cell(core_toy, tmp_path)
    assert unsound(job) is None
    # The dataset's combined patch does what feature 1 asks for, and nothing else.
    dataset = spoilt(core_toy, tmp_path)
    job = replace(job, dataset=dataset)
    gold = gold_job(job, "solo")
    assert seed(gold) == {}
    report = run_evaluations(gold, LaunchOptions())
    assert (report.done, dict(report.failed)) == (6, {})
    rows = read_gold(gold)
    assert {row.first for row in rows} == {"fail"}
    assert all(row.sound is False and row.second is None for row in rows)
    assert to_judge(gold)[1]

    said = refusal(job)
    assert "the own solution of 6 pairs fails or flakes in gold_baseline" in said
    assert "name them in gold_accepted:" in said
    one = (PAIRS[0].name,)
    accepted = replace(job, gold_accepted=frozenset(one))
    assert run_agents(accepted, LaunchOptions(pairs=one)).done == 1


def spoilt(toy: Toy, folder: Path) -> Path:
    """The toy's dataset with a combined patch that lacks all features but the first."""
    dataset = folder / "spoilt"
    task = dataset / toy.task.relative_to(toy.dataset)
    shutil.copytree(toy.dataset, dataset, symlinks=True)
    (task / "combined.patch").write_text(toy.gold(1))
    return dataset


def test_a_solution_that_is_not_in_the_dataset_is_told_and_the_others_go_on(core_toy: Toy, tmp_path: Path) -> None:
    gold = gold_job(cell(core_toy, tmp_path), "coop")
    missing = replace(gold, dataset=tmp_path / "empty")
    problems = seed(missing)
    assert set(problems) == set(PAIRS)
    assert "feature1/feature.patch: No such file" in problems[PAIRS[0]]
