"""What agents, disks, datasets and harnesses can do wrong: one clear error each, and the other pairs done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.benchmark.pairs import Subset
from cooperbench_assets.execution.api import run_agents, run_evaluations
from cooperbench_assets.execution.cell_lock import cell_lock
from cooperbench_assets.execution.errors import CellBusy, LaunchError
from cooperbench_assets.execution.job import Limits, PreflightSettings
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.runner import harness_servers, message_server
from cooperbench_assets_tests.execution.cells import PAIRS, attempt, attempts, cell, nothing_left, outcomes, run_both
from cooperbench_assets_tests.execution.toy import Toy

pytestmark = pytest.mark.slow
ALL = LaunchOptions()
FIRST = PAIRS[0]
OTHERS = {pair.folder: "unevaluated" for pair in PAIRS[1:]}


@pytest.mark.parametrize(
    ("deed", "family", "evidence"),
    [
        ("raise:the agent's own bug", "unknown", "the agent's own bug"),
        ("exit", "interrupted", "SystemExit: 3"),
        ("half", "unknown", "ends in the middle"),
        ("stranger", "unknown", "f7_f8"),
        ("disk", "disk", "No space left on device"),
    ],
)
def test_an_agent_that_goes_wrong_is_recorded_and_the_others_are_done(
    core_toy: Toy, tmp_path: Path, deed: str, family: str, evidence: str
) -> None:
    job = cell(core_toy, tmp_path, tries={FIRST: [deed]})
    report = run_agents(job, ALL)
    assert (report.done, dict(report.failed)) == (5, {family: 1})
    assert outcomes(job) == {FIRST.folder: f"infra_error agent/{family}", **OTHERS}
    assert attempts(job, FIRST) == [("agent-1", "infra_error", family)]
    assert evidence in attempt(job, FIRST, "agent-1")["evidence"]
    nothing_left(job)
    assert run_agents(job, ALL).done == 1
    assert outcomes(job)[FIRST.folder] == "unevaluated"


def test_a_dead_agent_in_coop_leaves_the_cell_whole(core_toy: Toy, tmp_path: Path) -> None:
    job = cell(core_toy, tmp_path, mode="coop", setting="coop-nocomm", run_name="toy-coop", tries={FIRST: ["exit"]})
    report = run_agents(job, ALL)
    assert (report.done, sum(report.failed.values())) == (5, 1)
    assert "SystemExit" in attempt(job, FIRST, "agent-1")["evidence"]


@pytest.mark.parametrize("deed", ["hang", "warn"])
def test_agents_that_no_model_answers_end_at_their_deadline_as_infrastructure(
    core_toy: Toy, tmp_path: Path, deed: str
) -> None:
    limits = Limits(concurrency=3, pair_timeout_minutes=0.02)
    job = cell(core_toy, tmp_path, limits=limits, tries={FIRST: [deed]})
    report = run_agents(job, ALL)
    assert dict(report.failed) == {"provider_timeout": 1}
    assert outcomes(job)[FIRST.folder] == "infra_error agent/provider_timeout"
    assert attempt(job, FIRST, "agent-1")["evidence"].startswith("[infra:provider_timeout]")
    assert attempt(job, FIRST, "agent-1")["cost_estimated"] is True
    nothing_left(job)


def test_agents_that_work_on_until_their_deadline_have_failed(core_toy: Toy, tmp_path: Path) -> None:
    limits = Limits(concurrency=3, eval_concurrency=3, pair_timeout_minutes=0.02)
    job = cell(core_toy, tmp_path, limits=limits, tries={FIRST: ["work"]})
    agents, evaluations = run_both(job)
    assert (agents.done, dict(agents.failed)) == (6, {})
    assert outcomes(job)[FIRST.folder] == "fail agent_timeout"
    result = json.loads((job.pair_dir(FIRST) / "result.json").read_text())
    assert result["agent"]["status"] == "Error"
    assert result["agent"]["error"].startswith("[agent_timeout]")
    assert "total_cost" not in result
    assert evaluations.done == 6, "evaluated for the record, so that upstream has nothing left to do"
    assert run_both(job)[0].launched == run_both(job)[1].launched == 0


def test_a_dataset_that_is_missing_is_one_error_before_anything_is_launched(core_toy: Toy, tmp_path: Path) -> None:
    job = cell(core_toy, tmp_path, dataset=tmp_path / "nowhere")
    with pytest.raises(LaunchError, match=r"dataset folder .*nowhere is missing"):
        run_agents(job, ALL)
    assert not job.run_dir.exists()


def test_a_task_that_is_missing_keeps_its_own_pairs_only(core_toy: Toy, tmp_path: Path) -> None:
    missing = replace(FIRST, repo="absent_task")
    job = cell(core_toy, tmp_path, subset=Subset("two", (FIRST, missing), tmp_path / "two.json"))
    report = run_agents(job, ALL)
    assert report.done == 1
    assert "absent_task/task1/feature1/feature.md" in report.blocked[missing.name]


@pytest.fixture
def others() -> Iterator[harness_servers.HarnessServers]:
    """Harness servers of a test's own: the one that the other tests share stays, and is not imported anew."""
    made = harness_servers.HarnessServers()
    yield made
    made.close()


def test_a_harness_that_is_not_installed_is_one_error_with_its_remedy(
    core_toy: Toy, tmp_path: Path, others: harness_servers.HarnessServers
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    job = cell(core_toy, tmp_path, harness_python=tmp_path / "venv/bin/python")
    with pytest.raises(LaunchError, match=r"not installed in .*/venv/bin/python: install the package cooperbench"):
        run_agents(job, ALL, servers=others)
    assert not list(job.run_dir.rglob("attempt.json"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"harness_python": Path("/no/such/python")}, "/no/such/python cannot be started"),
        ({"external_agents": ("no_such_module",)}, "no_such_module"),
        ({"agent": "nobody"}, "no agent 'nobody'; it knows (?=.*core).*mini_swe_agent_v2"),
        ({"agent": "codex"}, "works in containers, and execution: process has none; use execution: docker"),
        ({"secrets": ("NO_SUCH_KEY",)}, "NO_SUCH_KEY is not set"),
        ({"agent_config": Path("/no/such/agent.yaml")}, "agent config /no/such/agent.yaml cannot be read"),
    ],
)
def test_what_every_pair_needs_and_is_not_there_is_one_clear_error(
    core_toy: Toy, tmp_path: Path, others: harness_servers.HarnessServers, change: dict[str, Any], words: str
) -> None:
    job = cell(core_toy, tmp_path, **change)
    of_its_own = bool(change.keys() & {"harness_python", "external_agents", "agent"})
    with pytest.raises(LaunchError, match=words):
        run_agents(job, ALL, servers=others if of_its_own else harness_servers.OF_THIS_PROCESS)
    assert not list(job.run_dir.rglob("attempt.json"))


def test_agents_that_talk_are_not_bought_without_a_redis(
    core_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fakeredis", None)
    job = cell(core_toy, tmp_path, mode="coop", messaging=True, run_name="toy-coop", redis_url="redis://127.0.0.1:1")
    with pytest.raises(LaunchError, match=r"redis://127.0.0.1:1 does not answer.*cooperbench-assets\[harness\]"):
        run_agents(job, ALL)
    assert not list(job.run_dir.rglob("attempt.json"))
    assert not message_server.answers("redis://127.0.0.1:1")


def test_a_second_run_of_a_cell_fails_at_once_naming_the_first_and_harms_nothing(core_toy: Toy, tmp_path: Path) -> None:
    job = cell(core_toy, tmp_path)
    with cell_lock(job.run_dir, "dagster run 4711"), pytest.raises(CellBusy, match="dagster run 4711"):
        run_evaluations(job, ALL)
    assert run_agents(job, ALL).done == 6


def test_the_value_of_a_secret_reaches_the_agent_and_no_file(
    core_toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "sk-canary-7f3a91"
    monkeypatch.setenv("TOY_SECRET", canary)
    harness_servers.close_servers()
    tries = {FIRST: ["tell:TOY_SECRET"]}
    job = cell(core_toy, tmp_path, tries=tries, secrets=("TOY_SECRET",))
    report = run_agents(job, ALL)
    assert dict(report.failed) == {"unknown": 1}
    assert "the secret has 16 characters" in attempt(job, FIRST, "agent-1")["evidence"]
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or canary.encode() not in file.read_bytes(), file
    harness_servers.close_servers()


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB; only root can make one."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k,nr_inodes=2000", "tmpfs", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no small file system can be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_full_is_one_clear_error_and_nothing_is_lost(core_toy: Toy, tmp_path: Path, tiny: Path) -> None:
    small: dict[str, Any] = {
        "limits": Limits(concurrency=1, eval_concurrency=1),
        "preflight": PreflightSettings(free_gb=0),
    }
    job = cell(core_toy, tmp_path, logs=tiny / "logs", **small)
    run_agents(job, LaunchOptions(at_most=2))
    done = [pair for pair in PAIRS if outcomes(job)[pair.folder] == "unevaluated"]
    (tiny / "ballast").write_bytes(b"x" * _free(tiny))
    with pytest.raises(
        LaunchError, match=r"no space is left where .*tiny/logs/toy-solo lies.*goes on where it stopped"
    ):
        run_agents(job, ALL)
    (tiny / "ballast").unlink()
    assert run_agents(job, ALL).launched >= 3
    run_agents(job, ALL)
    assert set(outcomes(job).values()) == {"unevaluated"}
    assert all([name for name, _, _ in attempts(job, pair)] == ["agent-1"] for pair in done)
    nothing_left(job)


def _free(folder: Path) -> int:
    """Bytes that can still be written to a file system."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_bsize


def test_logs_that_may_not_be_written_are_one_clear_error(core_toy: Toy, tmp_path: Path, tiny: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tiny)], check=True)
    with pytest.raises(LaunchError, match="nothing may be written where"):
        run_agents(cell(core_toy, tmp_path, logs=tiny / "logs"), ALL)
