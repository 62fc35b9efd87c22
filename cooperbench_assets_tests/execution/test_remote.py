"""Cells whose tests run at Modal or Google Cloud: everything up to the call that upstream's own backends make."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.assets.execution import LaunchConfig, plan_of
from cooperbench_assets.benchmark.images import image_name
from cooperbench_assets.benchmark.pairs import Pair, Subset
from cooperbench_assets.demo import build_dataset
from cooperbench_assets.execution.api import run_agents
from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.job import PreflightSettings
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.provenance import read_provenance
from cooperbench_assets.execution.runner.harness_servers import close_servers
from cooperbench_assets.execution.sandboxes.base import evaluation_seconds
from cooperbench_assets.execution.sandboxes.monitored import BOOT_SECONDS
from cooperbench_assets_tests.execution.cells import PAIRS, ROOT, cell, outcomes
from cooperbench_assets_tests.execution.sandboxes.docker.places import COOP, LIMITS, SOLO, Place, demo_experiment
from cooperbench_assets_tests.execution.toy import Toy
from cooperbench_assets_tests.projects import CHECKOUT
from cooperbench_assets_tests.trees import write_subset

PROJECT = "made-up-project"

GOOGLE_STORAGE = """\
class Client:
    def __init__(self, project): assert project == "made-up-project"
    def bucket(self, name): return self
    def exists(self): return True
"""


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("COOPERBENCH_ASSETS_STATE", str(tmp_path / "state"))
    yield
    close_servers()


def google(folder: Path, **packages: str) -> Path:
    """A folder for PYTHONPATH in which the packages of Google Cloud are these and no others."""
    cloud = folder / "google" / "cloud"
    cloud.mkdir(parents=True)
    (cloud / "__init__.py").touch()
    for name, content in packages.items():
        (cloud / name).mkdir()
        (cloud / name / "__init__.py").write_text(content)
    return folder


def remote_experiment(tmp_path: Path, execution: str, settings: Any, pairs: Subset) -> dict[str, Any]:
    """The demo's agents; what upstream's backends call is played on this machine, where the first pair finds nobody."""
    dataset = build_dataset(tmp_path / "dataset")
    packages = google(tmp_path / "packages", batch_v1="", storage=GOOGLE_STORAGE)
    return demo_experiment(
        dataset,
        execution=execution,
        settings=settings,
        subset=str(pairs.path),
        limits={**LIMITS, "eval_attempts": 3},
        external_agents=["cooperbench_assets.demo.agents", "cooperbench_assets_tests.execution.remote_doubles"],
        environment={
            "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{packages}",
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "REMOTE_DATASET": str(dataset),
            "REMOTE_RECORD": str(tmp_path / "record"),
            "REMOTE_NOBODY": pairs.pairs[0].name,
        },
    )


@pytest.mark.slow
@pytest.mark.parametrize(("execution", "settings"), [("modal", COOP), ("gcp", SOLO)])
def test_a_cell_goes_through_upstreams_own_backend_with_our_plan_attempts_and_checks(
    execution: str, settings: Any, tmp_path: Path
) -> None:
    ((setting, _),) = settings.items()
    planned = write_subset(tmp_path / "two.json", [Pair("inkline_task", 3, (1, 4)), Pair("plainconf_task", 5, (1, 4))])
    infra_failed = planned.pairs[0]
    tried = Place(tmp_path / "project", remote_experiment(tmp_path, execution, settings, planned))
    run = tried.experiment.logs / f"{tried.name}-{setting}"

    first = tried.run(setting)
    assert first.error is None
    assert tried.outcomes(setting)[infra_failed.name] == "infra_error eval engine"
    record = json.loads(next(run.glob(f"attempts/*/{infra_failed.name}/eval-1/attempt.json")).read_text())
    assert (record["outcome"], record["family"], record["retryable"]) == ("infra_error", "engine", True)
    assert "Service Unavailable: no sandbox is to be had" in record["evidence"]

    for _ in range(3):
        again = tried.run(setting)
        if set(tried.table(setting)["outcome"]) <= {"pass", "fail"}:
            break
    assert (again.error, again.failed_checks) == (None, ())
    assert set(tried.table(setting)["outcome"]) <= {"pass", "fail"}
    assert "pass" in set(tried.table(setting)["outcome"])
    assert read_provenance(run)["isolation"] == execution

    calls = [json.loads(line) for line in (tmp_path / "record").read_text().splitlines()]
    made = [call for call in calls if call["call"] == "create"]
    images = {pair.name: image_name(pair.task) for pair in planned.pairs}
    assert {call["pair"]: call["image"] for call in made} == images
    seconds = LIMITS["test_timeout_seconds"]
    life = seconds + BOOT_SECONDS if execution == "gcp" else evaluation_seconds(execution, seconds)
    assert {(call["timeout"], call["workdir"]) for call in made} == {(life, "/workspace")}
    assert {call.get("project") for call in made} == {PROJECT if execution == "gcp" else None}
    assert {call.get("app") for call in made} == {"app cooperbench-eval" if execution == "modal" else None}
    # Every sandbox was ended, but for the one that was not to be had.
    ended = Counter(call["pair"] for call in calls if call["call"] == "terminate")
    assert Counter(call["pair"] for call in made) - ended == Counter([infra_failed.name])
    assert not list(run.glob("**/sandbox-*"))
    (planned_cell,) = tried.experiment.cells
    assert plan_of(tried.experiment, planned_cell, "eval_outputs", LaunchConfig()).runs == ()


@pytest.mark.slow
def test_upstreams_own_agent_asks_modal_for_its_sandbox_and_a_refusal_is_infrastructure(
    core_toy: Toy, tmp_path: Path
) -> None:
    first = PAIRS[0]
    job = cell(
        core_toy,
        tmp_path,
        execution="modal",
        agent="mini_swe_agent_v2",
        agent_config=None,
        model_name="openai/none",
        external_agents=("cooperbench_assets_tests.execution.remote_doubles",),
        environment={
            "PYTHONPATH": str(ROOT),
            "REMOTE_DATASET": str(core_toy.dataset),
            "REMOTE_RECORD": str(tmp_path / "record"),
            "REMOTE_NOBODY": first.name,
        },
        preflight=PreflightSettings(ask_model=False),
    )
    report = run_agents(job, LaunchOptions(pairs=(first.name,)))
    assert (report.done, dict(report.failed)) == (0, {"provider": 1})
    assert outcomes(job)[first.folder] == "infra_error agent/provider"
    (call,) = [json.loads(line) for line in (tmp_path / "record").read_text().splitlines()]
    assert (call["call"], call["app"]) == ("create", "app cooperbench")
    assert (call["image"], call["workdir"]) == (image_name(first.task), "/workspace/repo")


@pytest.mark.slow
def test_a_backend_that_is_not_installed_is_one_clear_finding_before_anything_is_launched(
    core_toy: Toy, tmp_path: Path
) -> None:
    path = f"{ROOT}{os.pathsep}{google(tmp_path / 'packages', storage='')}"
    environment = {"TOY_TASK": str(core_toy.task), "PYTHONPATH": path}
    job = cell(core_toy, tmp_path, execution="gcp", environment=environment)
    with pytest.raises(LaunchError) as caught:
        run_agents(job, LaunchOptions())
    said = str(caught.value)
    assert said.startswith(
        "toy solo seed 0: execution: gcp is upstream's own, and needs google-cloud-batch and google-"
    )
    assert "things are missing" not in said
    assert not list(tmp_path.rglob("attempt.json"))
