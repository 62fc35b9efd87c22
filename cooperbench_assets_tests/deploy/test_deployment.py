"""A deployment in containers, with Postgres, driven as its users drive it: the UI's requests, the daemon, faults."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
import yaml

from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.spec import load_experiments
from cooperbench_assets.store.read import query
from cooperbench_assets_tests.deploy.deployment import ENDED, LABEL, TERMINATE, Deployment, Run, deployed
from cooperbench_assets_tests.engines import engine
from cooperbench_assets_tests.projects import CHECKOUT, environment, make_project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cooperbench_assets.execution.sandboxes.docker.engine import Engine
    from cooperbench_assets.project import Project

pytestmark = [pytest.mark.deploy, pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]

__all__ = ["engine"]

SUBSET = "data/some.json"
BUILT_IN = yaml.safe_load((CHECKOUT / "cooperbench_assets/defs/demo/defs.yaml").read_text())["attributes"]
DEMO: dict[str, Any] = {**BUILT_IN, "subset": SUBSET, "retry": {"backoff_minutes": 0, "every_seconds": 5}}
LITE = CHECKOUT / "cooperbench_assets/demo/libraries/subsets/lite.json"
PAIRS = 8


def paced(seconds: float) -> dict[str, Any]:
    """The demo's solo cells, with agents that wait at each step and that nothing but a test's own fault ends."""
    settings = {"solo": {"mode": "solo", "seeds": [0, 1]}}
    faults = {"injected_faults": {"rate": 0.0}, "pace_seconds": seconds}
    return {
        **DEMO,
        "settings": settings,
        "agent_config": faults,
        "limits": {**DEMO["limits"], "pair_timeout_minutes": 10},
    }


EXPERIMENTS = {"demo": DEMO, "drill": paced(0.5), "slow": paced(2)}


@pytest.fixture(scope="module")
def place(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(engine, tmp_path_factory.mktemp("deployed") / "project", EXPERIMENTS) as made:
        write_subset(made.project)
        yield made
    assert made.left() == []


def some_pairs() -> dict[str, Any]:
    """A subset with some pairs of every task."""
    tasks = json.loads(LITE.read_bytes())["tasks"]
    per_task = PAIRS // len(tasks)
    return {"name": "some", "tasks": [{**task, "pairs": task["pairs"][:per_task]} for task in tasks]}


def write_subset(project: Project) -> None:
    file = project.resolve(SUBSET)
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(some_pairs()))


def run_of(place: Deployment, name: str, seed: int, *states: str) -> Run:
    """Launch a solo cell of an experiment, and wait until its run is in one of these states."""
    return reached(place, place.launch(f"{name}_run_cell", f"solo/{seed}"), *states)


def reached(place: Deployment, run: str, *states: str) -> Run:
    """A run, once it is in one of these states."""

    def there() -> Run | None:
        return next((one for one in place.runs() if one.id == run and one.status in states), None)

    return place.until(f"run {run} in {states}", there)  # type: ignore[no-any-return]


def ended(place: Deployment, run: Run) -> Run:
    """The run, once it is over."""
    return reached(place, run.id, *ENDED)


def experiment_of(place: Deployment, name: str) -> ExperimentContext:
    return ExperimentContext(name, load_experiments(place.project.defs)[name], place.project)


def run_dir(place: Deployment, name: str, seed: int) -> Path:
    experiment = experiment_of(place, name)
    return experiment.run_dir(experiment.spec.cell(name, "solo", seed))


def until_in_the_middle(place: Deployment, name: str, seed: int) -> None:
    """Wait until the first pair of a cell has its result; others have not."""
    folder = run_dir(place, name, seed)
    place.until("a result", lambda: any(folder.glob("solo/*/*/*/result.json")))


def outcomes(place: Deployment, name: str, seed: int) -> dict[str, int]:
    """How many pairs of a cell came out how, as its files say."""
    experiment = experiment_of(place, name)
    pairs = experiment.view(experiment.spec.cell(name, "solo", seed)).pairs
    return dict(pairs.group_by("outcome").len().iter_rows())


def tries(place: Deployment, name: str, seed: int) -> list[str]:
    """How each recorded try of a cell ended."""
    records = (json.loads(file.read_bytes()) for file in run_dir(place, name, seed).rglob("attempt.json"))
    return [record.get("outcome", "") for record in records]


def complete(place: Deployment, name: str, seed: int) -> None:
    """A cell of which nothing is lost: every pair judged, every try ended."""
    found = outcomes(place, name, seed)
    assert set(found) <= {"pass", "fail"}, found
    assert sum(found.values()) == sum(len(task["pairs"]) for task in some_pairs()["tasks"])
    assert "running" not in tries(place, name, seed)


def test_the_doctor_finds_a_deployment_in_order_and_says_what_lacks(place: Deployment) -> None:
    said = place.command("doctor", "--deploy", "--json")
    looks = {look["subject"]: look for look in json.loads(said.stdout)["looks"]}
    own = [look for look in looks.values() if look["needed_by"] == ["deployment"]]
    assert [look for look in own if look["state"] != "ok"] == []
    assert looks["Dagster instance"]["detail"].startswith("Postgres, ")
    assert {"daemon", "run launcher", "network of runs", "variables of runs", "slots", "locks"} <= looks.keys()


def test_a_run_whose_container_is_killed_fails_with_the_reason_and_the_next_one_goes_on(place: Deployment) -> None:
    run = run_of(place, "drill", 0, "STARTED")
    until_in_the_middle(place, "drill", 0)
    container = place.run_container(run.id)
    assert container is not None
    place.engine.api.kill(container)
    assert ended(place, run).status == "FAILURE"
    said = place.said(run.id)
    assert "ExitCode" in said
    assert ": 137" in said
    assert place.run_container(run.id) == container, "its evidence stays until a later run is launched"
    again = run_of(place, "drill", 0, "STARTED", "SUCCESS")
    assert place.run_container(run.id) is None
    assert ended(place, again).status == "SUCCESS"
    complete(place, "drill", 0)
    assert "interrupted" in tries(place, "drill", 0)


def test_a_second_run_of_a_cell_is_refused_and_neither_killed_services_nor_an_upgrade_cost_a_run(
    place: Deployment,
) -> None:
    run = run_of(place, "slow", 0, "STARTED")
    second = run_of(place, "slow", 0, *ENDED)
    assert second.status == "FAILURE"
    assert f"is being run by run {run.id[:8]}" in place.said(second.id)
    place.compose("kill", "daemon", "web", "code")
    image = place.upgrade()
    assert ended(place, run).status == "SUCCESS"
    assert run.tags["dagster/image"] != image
    complete(place, "slow", 0)
    assert "interrupted" not in tries(place, "slow", 0)
    later = run_of(place, "slow", 1, "STARTED")
    assert later.tags["dagster/image"] == image, "an upgrade counts for the next run"
    cancelled(place, later)


def cancelled(place: Deployment, run: Run) -> None:
    """A run that is cancelled ends its children, and records their tries."""
    place.until("a try", lambda: tries(place, "slow", 1))
    place.ask(TERMINATE, id=run.id)
    assert ended(place, run).status == "CANCELED"
    assert set(tries(place, "slow", 1)) == {"interrupted"}


def test_postgres_that_is_restarted_in_the_middle_of_a_run_loses_nothing(place: Deployment) -> None:
    run = run_of(place, "drill", 1, "STARTED")
    until_in_the_middle(place, "drill", 1)
    place.compose("restart", "postgres")
    if ended(place, run).status != "SUCCESS":
        assert run_of(place, "drill", 1, *ENDED).status == "SUCCESS"
    complete(place, "drill", 1)


def test_the_demo_by_a_backfill_with_the_retry_sensor_equals_that_of_one_process(
    place: Deployment, tmp_path: Path
) -> None:
    cells = [f"{cell.cell.setting}/{cell.cell.seed}" for cell in experiment_of(place, "demo").cells]
    place.start_sensor("demo_retry")
    known = {run.id for run in place.runs()}
    place.backfill("demo", cells)

    def settled() -> bool:
        experiment = experiment_of(place, "demo")
        runs = [run for run in place.runs() if run.id not in known]
        if {run.partition for run in runs} < set(cells) or any(run.status not in ENDED for run in runs):
            return False
        found = pl.concat([experiment.view(cell).pairs.select("outcome") for cell in experiment.cells])
        return set(found["outcome"]) <= {"pass", "fail"}

    place.until("the demo's five cells", settled, 600)
    assert {run.tags.get("cooperbench-assets/model") for run in place.runs() if "why" in run.tags} == {"scripted/demo"}
    published = place.command("materialize", "demo")
    assert published.returncode == 0, published.stdout + published.stderr
    assert f"Dagster instance: {place.project.root}/deploy" in published.stderr
    alone = make_project(tmp_path / "alone", {"demo": DEMO})
    write_subset(alone)
    done = subprocess.run(
        [sys.executable, "-m", "cooperbench_assets.cli", "demo"],
        cwd=alone.root,
        env=environment(alone, COOPERBENCH_ASSETS_STATE=str(tmp_path / "state")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    own = "started_at, ended_at, duration_seconds, evaluated_at, run_id"
    rows = f"SELECT * EXCLUDE ({own}) FROM pairs WHERE experiment = 'demo' ORDER BY setting, seed, repo, task_id, pair"
    assert query(place.project.database, rows).rows() == query(alone.database, rows).rows()


def results(place: Deployment) -> dict[str, int]:
    """Every file of the log tree, the tables and the store, with its size."""
    data = place.project.data
    files = (file for folder in ("logs", "tables") for file in (data / folder).rglob("*") if file.is_file())
    return {str(file.relative_to(data)): file.stat().st_size for file in (*files, *data.glob("*.duckdb"))}


def test_a_backup_brings_back_runs_and_results_on_an_empty_machine(place: Deployment, tmp_path: Path) -> None:
    assert place.command("cleanup").returncode == 0
    assert place.engine.api.containers(all=True, filters={"label": f"{LABEL}={place.name}"}) == []
    runs, there = {(run.id, run.status) for run in place.runs()}, results(place)
    assert runs
    assert there
    place.script("backup", str(tmp_path / "kept"))
    place.compose("down", "--volumes", "--timeout", "5")
    place.project.data.rename(tmp_path / "lost")
    place.script("restore", str(tmp_path / "kept"))
    assert {(run.id, run.status) for run in place.until("the runs", place.runs)} == runs
    assert results(place) == there
