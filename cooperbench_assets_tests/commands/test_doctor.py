from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cooperbench_assets import doctor
from cooperbench_assets.doctor import Need, Probe, examine
from cooperbench_assets.spec import load_experiments
from cooperbench_assets.store.schema import SCHEMA_VERSION
from cooperbench_assets_tests.commands.place import CHECKOUT
from cooperbench_assets_tests.commands.store import read_into_store
from cooperbench_assets_tests.services import missing, need_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cooperbench_assets.project import Project
    from cooperbench_assets_tests.commands.place import Place

NEED = Need("the thing", "everything", ("mine",))


def looks_at(project: Project, environment: dict[str, str] | None = None, **experiments: Any) -> dict[str, Probe]:
    """Every look at a project with these experiments, by subject."""
    for name, attributes in experiments.items():
        file = project.defs / name / "defs.yaml"
        file.parent.mkdir()
        file.write_text(yaml.safe_dump({"type": "cooperbench_assets.experiment.Experiment", "attributes": attributes}))
    found = examine(project, load_experiments(project.defs), environment or {})
    return {look.subject: look for look in found}


def executing(**more: Any) -> dict[str, Any]:
    """An experiment that runs pairs."""
    settings = {"solo": {"mode": "solo", "seeds": [0]}, "coop-comm": {"mode": "coop", "seeds": [0]}}
    base = {"execution": "docker", "agent": "mini_swe_agent_v2", "model_name": "m", "subset": "../theirs/three.json"}
    return {**base, "settings": settings, **more}


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker is asked at an address where nobody answers."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")


@pytest.mark.usefixtures("no_engine")
def test_a_fresh_checkout_has_no_problem_though_it_has_no_dataset_engine_or_key(place: Place) -> None:
    shutil.copytree(CHECKOUT / "cooperbench_assets" / "defs", place.project.defs, dirs_exist_ok=True)
    done = place.run("doctor")
    assert done.exit_code == 0, done.output
    assert "No problem for the experiments that are configured." in done.stdout


@pytest.mark.usefixtures("no_engine")
def test_what_no_experiment_needs_is_absent_and_what_one_needs_is_a_problem(place: Place) -> None:
    without = looks_at(place.project)["Docker engine"]
    assert (without.state, without.needed_by, without.prevents) == ("absent", (), "execution: docker")
    needing = looks_at(place.project, mine=executing())["Docker engine"]
    assert (needing.state, needing.needed_by) == ("problem", ("mine",))
    assert needing.detail.startswith("not reachable: ")


def test_the_installation_that_runs_the_tests_is_found(place: Place) -> None:
    found = looks_at(place.project)
    assert found["Python"].state == "ok"
    assert sys.executable in found["Python"].detail
    assert found["harness"].detail.startswith("cooperbench 0.0.")
    assert found["git"].state == "ok"
    assert found["Redis, embedded"].detail.startswith("fakeredis ")
    assert found["project"].state == "ok"
    assert str(place.project.root) in found["project"].detail
    assert found["results store"].state == "absent"


def test_a_python_outside_the_supported_range_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", (99, 0))
    assert doctor.look_at_python().state == "problem"


def test_a_key_is_set_or_not_set_and_its_value_is_never_told(place: Place) -> None:
    experiment = executing(secrets=["A_KEY", "B_KEY", "C_KEY"])
    found = looks_at(place.project, {"A_KEY": "s3cret-value", "C_KEY": ""}, mine=experiment)
    assert (found["mine: A_KEY"].state, found["mine: A_KEY"].detail) == ("ok", "set")
    assert found["mine: B_KEY"].state == "problem"
    assert found["mine: C_KEY"].state == "problem"
    assert "s3cret" not in repr(found)


def test_a_subset_that_is_not_there_is_named_with_the_remedy(place: Place) -> None:
    look = looks_at(place.project, mine=executing(subset="lite"))["mine: subset and dataset"]
    assert look.state == "problem"
    assert "subset 'lite' is neither a file nor a name" in look.detail


def test_tasks_that_an_experiment_runs_must_be_in_the_dataset(place: Place) -> None:
    lacking = looks_at(place.project, mine=executing())["mine: subset and dataset"]
    assert lacking.state == "problem"
    assert "1 of them not in data/dataset (click_task/task7" in lacking.detail
    (place.project.data / "dataset" / "click_task" / "task7").mkdir(parents=True)
    there = looks_at(place.project, yours=executing())["yours: subset and dataset"]
    assert (there.state, there.detail) == ("ok", "three: 3 pairs in 1 task")


def test_logs_that_are_only_read_must_be_there(place: Place) -> None:
    place.add_run("s_1")
    settings = {"solo": {"mode": "solo", "seeds": [1, 2], "run_name": "s_{seed}"}}
    attributes = {"subset": str(place.subset), "logs": str(place.logs), "settings": settings}
    look = looks_at(place.project, mine=attributes)["mine: logs"]
    assert look.state == "problem"
    assert look.detail.endswith("s_2; correct logs: or run_name:")
    place.add_run("s_2")
    assert looks_at(place.project)["mine: logs"].state == "ok"


def test_redis_is_only_asked_for_where_agents_talk(place: Place) -> None:
    quiet = executing(settings={"solo": {"mode": "solo", "seeds": [0]}})
    assert looks_at(place.project, quiet=quiet)["Redis, embedded"].needed_by == ()
    talking = looks_at(place.project, talking=executing(), own=executing(redis_url=f"redis://127.0.0.1:{free_port()}"))
    assert talking["Redis, embedded"].needed_by == ("talking",)
    assert talking["own: Redis"].state == "problem"
    bridge = looks_at(place.project, inside=executing(execution="docker", redis_url="docker-bridge"))
    assert "inside" in bridge["Redis, embedded"].needed_by
    assert "inside: Redis" not in bridge


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_redis_that_does_not_answer_is_told_without_its_password() -> None:
    port = free_port()
    look = doctor.look_at_redis(NEED, f"redis://:pass-word@127.0.0.1:{port}/0")
    assert look.state == "problem"
    assert f"127.0.0.1:{port} does not answer" in look.detail
    assert "pass-word" not in look.detail
    assert "no URL" in doctor.look_at_redis(NEED, "localhost").detail


@pytest.fixture
def redis_server() -> Iterator[int]:
    """A real Redis server; its port."""
    port = free_port()
    server = subprocess.Popen(
        [need_program("redis-server"), "--port", str(port), "--save", ""],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout is not None
    assert any("Ready to accept connections" in line for line in server.stdout)
    yield port
    server.terminate()
    server.communicate()


def test_a_redis_that_answers_is_there(redis_server: int) -> None:
    assert doctor.look_at_redis(NEED, f"redis://127.0.0.1:{redis_server}").state == "ok"


def test_a_harness_in_another_environment_is_asked_for_its_version(tmp_path: Path, place: Place) -> None:
    from pathlib import Path as RealPath

    own = doctor.look_at_other_harness(NEED, RealPath(sys.executable))
    assert own.state == "ok"
    assert own.detail.startswith("cooperbench 0.0.")
    assert doctor.look_at_other_harness(NEED, tmp_path / "no-python").detail.startswith("no interpreter at")
    bare = tmp_path / "bare-python"
    bare.write_text("#!/bin/sh\nexit 1\n")
    bare.chmod(0o755)
    assert "has no cooperbench, or does not run" in doctor.look_at_other_harness(NEED, bare).detail
    found = looks_at(place.project, mine=executing(harness={"python": str(bare)}))
    assert found["mine: harness"].state == "problem"
    assert found["harness"].needed_by == ()


def test_a_command_that_hangs_costs_no_more_than_the_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PATIENCE_SECONDS", 0.2)
    hanging = tmp_path / "hanging"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    assert doctor.look_at_other_harness(NEED, hanging).state == "problem"


def test_bubblewrap_counts_only_if_a_sandbox_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    look = doctor.look_at_bubblewrap()
    assert look.state == "absent"
    assert look.detail.startswith("installed, but")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert doctor.look_at_bubblewrap().detail == "not on the PATH"


def test_a_project_that_cannot_be_written_is_a_problem(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    look = doctor.look_at_project(place.project)
    assert look.state == "problem"
    assert "cannot be written: Permission denied" in look.detail


def test_nothing_is_changed_by_looking(place: Place) -> None:
    def everything() -> list[tuple[str, int]]:
        return sorted((str(path), path.stat().st_mtime_ns) for path in place.project.root.parent.rglob("*"))

    looks_at(place.project, mine=executing())
    before = everything()
    looks_at(place.project)
    assert everything() == before


def test_credentials_of_a_remote_sandbox_are_looked_for_and_not_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    modal, gcp = Need("mine: modal", "running it", ("mine",)), Need("mine: gcp", "running it", ("mine",))
    assert doctor.look_at_remote(modal, {}).state == "problem"
    assert doctor.look_at_remote(gcp, {}).state == "problem"
    told = doctor.look_at_remote(modal, {"MODAL_TOKEN_ID": "ak-secret"})
    assert told.state == "ok"
    assert "ak-secret" not in told.detail
    (tmp_path / ".modal.toml").write_text("")
    assert doctor.look_at_remote(modal, {}).state == "ok"
    assert doctor.look_at_remote(gcp, {"GOOGLE_APPLICATION_CREDENTIALS": "/x"}).state == "ok"


@pytest.mark.engine
def test_a_docker_engine_that_runs_is_found_with_its_disk() -> None:
    if subprocess.run([need_program("docker"), "info"], capture_output=True, check=False).returncode:
        missing("Docker engine", "docker info fails")
    engine, disk = doctor.look_at_docker(NEED)
    assert engine.state == "ok"
    assert disk.subject == "Docker disk"
    assert "free" in disk.detail


def test_a_key_in_the_projects_dotenv_is_set_as_it_is_for_the_ui(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.project.root / ".env").write_text("A_KEY=written\n# B_KEY=no\nC_KEY=written\n")
    for name in ("A_KEY", "B_KEY"):
        monkeypatch.setenv(name, "restored after the test")
        monkeypatch.delenv(name)
    monkeypatch.setenv("C_KEY", "exported")
    looks_at(place.project, mine=executing(secrets=["A_KEY", "B_KEY"]))
    states = {look["subject"]: look["state"] for look in json.loads(place.run("doctor", "--json").stdout)["looks"]}
    assert (states["mine: A_KEY"], states["mine: B_KEY"]) == ("ok", "problem")
    assert (os.environ["A_KEY"], os.environ["C_KEY"]) == ("written", "exported")


@pytest.mark.usefixtures("no_engine")
def test_the_command_exits_1_only_if_a_configured_experiment_lacks_something(place: Place) -> None:
    healthy = place.run("doctor")
    assert healthy.exit_code == 0, healthy.output
    assert "No problem for the experiments that are configured." in healthy.stdout
    assert "absent: Docker engine: prevents execution: docker" in healthy.stdout
    looks_at(place.project, mine=executing())
    ill = place.run("doctor")
    assert ill.exit_code == 1
    assert "problem: Docker engine: prevents execution: docker (needed by mine)" in ill.stdout
    assert ill.stdout.splitlines()[-1] == "2 problems"


@pytest.mark.usefixtures("no_engine")
def test_json_says_the_same_and_no_value_of_a_key(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    looks_at(place.project, mine=executing(secrets=["A_KEY", "B_KEY"]))
    monkeypatch.setenv("A_KEY", "s3cret-value")
    monkeypatch.delenv("B_KEY", raising=False)
    done = place.run("doctor", "--json")
    assert done.exit_code == 1
    said = json.loads(done.stdout)
    assert said["ok"] is False
    assert {tuple(look) for look in said["looks"]} == {("subject", "state", "detail", "prevents", "needed_by")}
    states = {look["subject"]: look["state"] for look in said["looks"]}
    assert (states["mine: A_KEY"], states["mine: B_KEY"]) == ("ok", "problem")
    assert "s3cret" not in done.output


def test_an_experiment_that_does_not_load_is_one_problem_among_the_looks(place: Place) -> None:
    (place.project.defs / "broken").mkdir()
    (place.project.defs / "broken" / "defs.yaml").write_text(
        "type: cooperbench_assets.experiment.Experiment\nattributes: {subset: lite}\n"
    )
    done = place.run("doctor", "--json")
    assert done.exit_code == 1
    looks = {look["subject"]: look for look in json.loads(done.stdout)["looks"]}
    assert "settings: Field required" in looks["broken: defs.yaml"]["detail"]
    assert looks["git"]["state"] == "ok"


def test_the_absence_of_a_dataset_that_a_module_makes_is_no_problem(place: Place) -> None:
    demo = executing(execution="process", agent="scripted", dataset_module="cooperbench_assets.demo")
    look = looks_at(place.project, demo={**demo, "subset": "lite"})["demo: subset and dataset"]
    assert (look.state, look.detail) == ("absent", "its dataset is made when it is first materialised")
    assert not (place.project.data / "dataset").exists()
    assert "prevents" not in "".join(line for line in place.run("doctor").stdout.splitlines() if "demo: subset" in line)


def test_a_results_store_is_shown_with_its_layout_and_one_that_is_none_is_a_problem(place: Place) -> None:
    place.add_run("s_1")
    place.run("import-logs", "logs", "--experiment", "mine", "--subset", "three.json", "--run", "solo=s_{seed}")
    read_into_store(place.project, "mine")
    look = doctor.look_at_store(place.project.database)
    assert look.state == "ok"
    assert look.detail.startswith(f"results.duckdb, layout {SCHEMA_VERSION}, ")
    place.project.database.unlink()
    place.project.database.write_text("no database")
    assert doctor.look_at_store(place.project.database).state == "problem"


def test_a_project_that_is_not_deployed_lacks_a_launcher_a_daemon_and_a_shared_state(place: Place) -> None:
    done = place.run("doctor", "--deploy", "--json")
    looks = {look["subject"]: look for look in json.loads(done.stdout)["looks"]}
    assert "starts runs as processes" in looks["run launcher"]["detail"]
    problems = {name for name, look in looks.items() if look["needed_by"] == ["deployment"] and look["state"] != "ok"}
    assert problems == {"run launcher", "slots", "daemon"}
    assert done.exit_code == 1
