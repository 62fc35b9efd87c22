"""A deployment in containers, with Postgres, driven as its users drive it: the UI's requests, the daemon, faults.

One deployment for all tests, in their order: what takes long is started together, and a fault's cell is what the next
test goes on with.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest
from polars.testing import assert_frame_equal

from cooperbench_assets.automation.nightly_schedule import NIGHTLY_TAG
from cooperbench_assets.demo import build_dataset
from cooperbench_assets.execution.sandboxes.docker.leftovers import belongings
from cooperbench_assets_tests.deploy.deployment import (
    BUILT_IN,
    ENDED,
    LABEL,
    OF_A_RUN,
    TERMINATE,
    Deployment,
    Run,
    deployed,
    in_one_process,
    pairs,
    rows,
)
from cooperbench_assets_tests.engines import engine
from cooperbench_assets_tests.execution.sandboxes.docker.images import build_task_images
from cooperbench_assets_tests.projects import CHECKOUT, make_project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cooperbench_assets.execution.sandboxes.docker.engine import Engine
    from cooperbench_assets.execution.sandboxes.docker.leftovers import Belonging
    from cooperbench_assets.project import Project

pytestmark = [pytest.mark.deploy, pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1200)]

__all__ = ["engine"]

SUBSET = "data/some.json"
LITE = CHECKOUT / "cooperbench_assets/demo/libraries/subsets/lite.json"
PAIRS = 8

LIMITS = {**BUILT_IN["limits"], "pair_timeout_minutes": 10}
DEMO: dict[str, Any] = {
    **BUILT_IN,
    "limits": LIMITS,
    "subset": SUBSET,
    "retry": {"backoff_minutes": 0, "every_seconds": 5},
}
SOLO = {
    **DEMO,
    "settings": {"solo": {"mode": "solo", "seeds": [0]}},
    "agent_config": {"injected_faults": {"rate": 0.0}},
}
"""A cell that nothing but a test's own fault ends."""

SEEDS = {"settings": {"solo": {"mode": "solo", "seeds": [0, 1]}}}
IN_DOCKER = f"docker{secrets.token_hex(3)}"
"""Its containers are told from those of other tests on the engine by its name."""

EXPERIMENTS = {
    "demo": DEMO,
    "night": {**SOLO, "subset": "tiny", "nightly": "* * * * *"},
    IN_DOCKER: {
        **SOLO,
        **SEEDS,
        "subset": "tiny",
        "execution": "docker",
        # One test after the other: there is time to end the run while one has its containers.
        "limits": {**LIMITS, "eval_concurrency": 1},
    },
    "drill": {
        **SOLO,
        **SEEDS,
        "agent_config": {"injected_faults": {"rate": 0.0}, "pace_seconds": 1.5},
        "limits": {**LIMITS, "concurrency": PAIRS},
    },
}


@pytest.fixture(scope="module")
def place(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(engine, tmp_path_factory.mktemp("deployed") / "project", EXPERIMENTS) as made:
        write_subset(made.project)
        yield made
    of_tasks = containers_of_tasks(engine)
    for one in of_tasks:  # A test that failed may have left some.
        engine.api.remove_container(one.id, force=True, v=True)
    assert made.left() == []
    assert of_tasks == []


def some_pairs() -> dict[str, Any]:
    """A subset with some pairs of every task."""
    tasks = json.loads(LITE.read_bytes())["tasks"]
    per_task = PAIRS // len(tasks)
    return {"name": "some", "tasks": [{**task, "pairs": task["pairs"][:per_task]} for task in tasks]}


def write_subset(project: Project) -> None:
    file = project.resolve(SUBSET)
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(some_pairs()))


@pytest.fixture(scope="module")
def image_run(place: Deployment, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The run that looks into the task images of the experiment on Docker; they are made here where they lack."""
    build_task_images(place.engine, build_dataset(tmp_path_factory.mktemp("images") / "dataset"))
    return place.materialize(IN_DOCKER, "task_images")


@pytest.fixture(scope="module")
def at_work(place: Deployment, image_run: str) -> None:
    """What a person starts in the evening: the demo's backfill, two switches, and a cell on Docker."""
    place.start_sensor("demo_retry")
    place.start_schedule("night_nightly")
    place.backfill("demo", partitions(place))
    place.reached(image_run, "SUCCESS")
    place.launch(f"{IN_DOCKER}_run_cell", "solo/0")


def partitions(place: Deployment) -> list[str]:
    return [f"{cell.cell.setting}/{cell.cell.seed}" for cell in place.experiment("demo").cells]


@pytest.fixture(scope="module")
def alone(at_work: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, Callable[[], None]]]:
    """The demo in one process, which runs while the deployment works; and what waits for its end."""
    project = make_project(tmp_path_factory.mktemp("alone") / "project", EXPERIMENTS)
    write_subset(project)
    with in_one_process(project, "demo") as wait:
        yield project, wait


def run_of(place: Deployment, name: str, seed: int, *states: str) -> Run:
    """Launch a solo cell of an experiment, and wait until its run is in one of these states."""
    return place.reached(place.launch(f"{name}_run_cell", f"solo/{seed}"), *states)


def ended(place: Deployment, run: Run) -> Run:
    """The run, once it is over."""
    return place.reached(run.id, *ENDED)


def run_dir(place: Deployment, name: str, seed: int) -> Path:
    experiment = place.experiment(name)
    return experiment.run_dir(experiment.spec.cell(name, "solo", seed))


def until_in_the_middle(place: Deployment, name: str, seed: int) -> None:
    """Wait until the first pair of a cell has its result; others have not."""
    folder = run_dir(place, name, seed)
    place.until("a result", lambda: any(folder.glob("solo/*/*/*/result.json")))


def tries(place: Deployment, name: str, seed: int) -> list[str]:
    """How each recorded try of a cell ended."""
    records = (json.loads(file.read_bytes()) for file in run_dir(place, name, seed).rglob("attempt.json"))
    return [record.get("outcome", "") for record in records]


def complete(place: Deployment, name: str, seed: int) -> None:
    """A cell of which nothing is lost: every pair judged, every try ended."""
    found = pairs(place.project, name, seed)["outcome"].to_list()
    assert set(found) <= {"pass", "fail"}, found
    assert len(found) == len(place.experiment(name).subset().pairs)
    assert "running" not in tries(place, name, seed)


def containers_of_tasks(engine: Engine) -> list[Belonging]:
    """What the experiment on Docker has on the engine."""
    return [one for one in belongings(engine) if one.described.get("experiment") == IN_DOCKER]


@pytest.mark.usefixtures("at_work")
def test_the_doctor_finds_a_deployment_in_order_and_says_what_lacks(place: Deployment) -> None:
    said = place.command("doctor", "--deploy", "--json")
    looks = {look["subject"]: look for look in json.loads(said.stdout)["looks"]}
    own = [look for look in looks.values() if look["needed_by"] == ["deployment"]]
    assert [look for look in own if look["state"] != "ok"] == []
    assert looks["Dagster instance"]["detail"].startswith("Postgres, ")
    assert {"daemon", "run launcher", "network of runs", "variables of runs", "slots", "locks"} <= looks.keys()


def test_the_demo_by_a_backfill_with_the_retry_sensor_equals_that_of_one_process(
    place: Deployment, alone: tuple[Project, Callable[[], None]]
) -> None:
    def settled() -> bool:
        runs = place.runs("demo")
        launched = {run.partition for run in runs} >= set(partitions(place))
        return launched and all(run.status in ENDED for run in runs) and place.is_judged("demo")

    place.until("the demo's five cells", settled, 900)
    assert {run.tags.get("cooperbench-assets/model") for run in place.runs() if "why" in run.tags} == {"scripted/demo"}
    published = place.command("materialize", "demo")
    assert published.returncode == 0, published.stdout + published.stderr
    assert f"Dagster instance: {place.project.root}/deploy" in published.stderr
    project, wait = alone
    wait()
    assert rows(place.project, "demo") == rows(project, "demo")


def test_an_experiment_on_docker_from_containers_equals_that_of_one_process(
    place: Deployment, alone: tuple[Project, Callable[[], None]]
) -> None:
    (run,) = [one for one in place.runs(IN_DOCKER) if one.partition == "solo/0"]
    assert ended(place, run).status == "SUCCESS"
    complete(place, IN_DOCKER, 0)
    assert containers_of_tasks(place.engine) == []
    project, wait = alone
    wait()
    with in_one_process(project, "materialize", IN_DOCKER, "--seed", "0") as done:
        done()
    here, there = (pairs(one, IN_DOCKER, 0).drop(OF_A_RUN) for one in (place.project, project))
    assert_frame_equal(here, there, check_row_order=False)


@pytest.mark.usefixtures("at_work")
def test_the_nightly_schedule_launches_a_backfill_whose_runs_in_containers_end_well(place: Deployment) -> None:
    (run,) = place.until("the night's run", lambda: place.runs("night"))
    assert run.tags[NIGHTLY_TAG] == "night"
    assert run.tags["dagster/backfill"]
    assert ended(place, run).status == "SUCCESS"
    assert "docker/container_id" in run.tags
    complete(place, "night", 0)


def test_a_run_whose_container_is_killed_fails_with_the_reason_and_one_that_is_cancelled_ends_what_it_started(
    place: Deployment, image_run: str
) -> None:
    killed = place.launch("drill_run_cell", "solo/0")
    until_in_the_middle(place, "drill", 0)
    container = place.run_container(killed)
    assert container is not None
    place.engine.api.kill(container)
    assert place.reached(killed, *ENDED).status == "FAILURE"
    said = place.said(killed)
    assert "ExitCode" in said
    assert ": 137" in said
    assert place.run_container(killed) == container, "its evidence stays until a later run is launched"
    place.reached(image_run, "SUCCESS")
    cancelled = place.launch(f"{IN_DOCKER}_run_cell", "solo/1")
    place.until("a container of a test", lambda: containers_of_tasks(place.engine))
    assert place.run_container(killed) is None
    place.ask(TERMINATE, id=cancelled)
    assert place.reached(cancelled, *ENDED).status == "CANCELED"
    place.until("the end of its containers", lambda: not containers_of_tasks(place.engine))
    assert "interrupted" in tries(place, IN_DOCKER, 1)
    assert "running" not in tries(place, IN_DOCKER, 1)


def test_a_second_run_of_a_cell_is_refused_and_neither_killed_services_nor_an_upgrade_cost_a_run(
    place: Deployment,
) -> None:
    run = run_of(place, "drill", 0, "STARTED")
    second = run_of(place, "drill", 0, *ENDED)
    assert second.status == "FAILURE"
    assert f"is being run by run {run.id[:8]}" in place.said(second.id)
    interrupted = tries(place, "drill", 0).count("interrupted")
    place.compose("kill", "daemon", "web", "code")
    image = place.upgrade()
    assert ended(place, run).status == "SUCCESS"
    assert run.tags["dagster/image"] != image
    complete(place, "drill", 0)
    assert tries(place, "drill", 0).count("interrupted") == interrupted


@pytest.mark.usefixtures("image_run")
def test_after_an_upgrade_runs_have_its_image_and_a_restart_of_postgres_in_their_middle_loses_nothing(
    place: Deployment,
) -> None:
    cells = [("drill", 1), (IN_DOCKER, 1)]
    launched = [place.launch(f"{name}_run_cell", f"solo/{seed}") for name, seed in cells]
    runs = [place.reached(one, "STARTED", *ENDED) for one in launched]
    until_in_the_middle(place, "drill", 1)
    place.compose("restart", "postgres")
    for run, (name, seed) in zip(runs, cells, strict=True):
        assert run.tags["dagster/image"] == f"{place.name}:two"
        if ended(place, run).status != "SUCCESS":
            assert run_of(place, name, seed, *ENDED).status == "SUCCESS"
        complete(place, name, seed)
    assert containers_of_tasks(place.engine) == []


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
