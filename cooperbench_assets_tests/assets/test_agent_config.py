"""The agent config that a launch gives its agents: the one that its provenance names, whoever else comes by."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import pytest

from cooperbench_assets.assets.execution import REDIS_VARIABLE, job_of
from cooperbench_assets.execution.api import run_agents
from cooperbench_assets.execution.errors import CellBusy
from cooperbench_assets.execution.job import CellJob
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.provenance import read_provenance
from cooperbench_assets.execution.runner.harness_servers import close_servers
from cooperbench_assets.execution.runner.progress import StageReport
from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.project import Project
from cooperbench_assets.spec import parse_experiment
from cooperbench_assets_tests.execution.cells import AGENTS, PAIRS, ROOT
from cooperbench_assets_tests.execution.toy import REPO, TASK, Toy, make_toy

FIRST = PAIRS[0]
ALL = LaunchOptions()


def experiment(toy: Toy, folder: Path, tries: dict[str, list[str]]) -> CellJob:
    """The job of the only cell of an experiment whose agents do what `tries` says."""
    subset = folder / "six.json"
    task = {"repo": REPO, "task_id": TASK, "pairs": [list(pair.features) for pair in PAIRS]}
    subset.write_text(json.dumps({"name": "six", "tasks": [task]}))
    attributes = {
        "subset": str(subset),
        "dataset": str(toy.dataset),
        "execution": "process",
        "model_name": "scripted/core",
        "agent": "core",
        "agent_config": {"tries": tries},
        "settings": {"solo": {"mode": "solo", "seeds": [0]}},
        "limits": {"concurrency": 1},
        "external_agents": [AGENTS],
        "environment": {"TOY_TASK": str(toy.task), "PYTHONPATH": str(ROOT)},
    }
    spec = parse_experiment("held", attributes, folder / "defs.yaml")
    experiment = ExperimentContext("held", spec, Project(folder))
    return job_of(experiment, experiment.cells[0], experiment.subset())


@pytest.mark.slow
def test_a_refused_launch_with_another_config_changes_nothing_for_the_running_one(tmp_path: Path) -> None:
    toy = make_toy(tmp_path)
    gate = tmp_path / "gate"
    gate.touch()
    first = experiment(toy, tmp_path, {FIRST.name: [f"hold:{gate}"]})
    running = threading.Event()
    reports: list[StageReport] = []

    def run() -> None:
        reports.append(run_agents(first, ALL, lambda said: running.set() if said.running else None))
        close_servers()

    launch = threading.Thread(target=run)
    launch.start()
    try:
        assert running.wait(60)
        second = experiment(toy, tmp_path, {pair.name: ["nothing"] for pair in PAIRS})
        with pytest.raises(CellBusy):
            run_agents(second, ALL)
    finally:
        gate.unlink()
        launch.join(120)
    assert [report.done for report in reports] == [6]
    patches = {pair.folder: (first.pair_dir(pair) / "solo.patch").read_text() for pair in PAIRS}
    assert all(patches.values()), "every child of the first launch read the first config"
    assert first.agent_config is not None
    recorded = read_provenance(first.run_dir)["agent_config_sha256"]
    assert hashlib.sha256(first.agent_config.read_bytes()).hexdigest() == recorded
    assert second.agent_config is not None
    assert not second.agent_config.exists()


def test_an_experiment_that_names_no_redis_is_given_that_of_its_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = make_toy(tmp_path)
    assert experiment(toy, tmp_path, {}).redis_url is None
    monkeypatch.setenv(REDIS_VARIABLE, "redis://:made-up@redis:6379")
    assert experiment(toy, tmp_path, {}).redis_url == "redis://:made-up@redis:6379"
