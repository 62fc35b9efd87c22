"""Verdicts of tests whose container, engine or disk fails: what infrastructure does is never a fail."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.sandboxes.base import RUNNER
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.execution.sandboxes.docker.sandbox import DockerSandbox
from cooperbench_assets.execution.sandboxes.docker.session import Answer
from cooperbench_assets_tests.execution.sandboxes.docker.containers import (
    Make,
    containers,
    kill_when_it_runs,
    loses_the_engine,
    quiet,
    when_it_runs,
)
from cooperbench_assets_tests.execution.sandboxes.docker.proxy import EngineDoor
from cooperbench_assets_tests.execution.sandboxes.docker.upstream import coop, solo
from cooperbench_assets_tests.execution.toy import Toy, patch_of

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("upstream", "pair")]

EATS_MEMORY = "held = [b'x' * 2**20 for _ in range(400)]"
SLEEPS = "import time; time.sleep(3600)"


@pytest.mark.parametrize("infra_failed", [1, 2])
def test_a_container_killed_in_a_test_is_infrastructure(
    infra_failed: int, engine: Engine, pair: str, backend: Make, toy: Toy, toy_dataset: Path
) -> None:
    # The other feature's tests pass; the failing one's wait to be killed.
    case = solo(toy.at_import(infra_failed, SLEEPS), toy.gold(3 - infra_failed))
    killer = kill_when_it_runs(engine, pair, f"test_feature{infra_failed}.py")
    result = case.by(backend(), toy_dataset)
    killer.join()
    assert result["error"].startswith("[infra:container_died] container ")
    assert "is not running" in result["error"]


def test_a_container_killed_while_agent_1_alone_is_tested_is_infrastructure(
    engine: Engine, pair: str, backend: Make, toy: Toy, toy_dataset: Path
) -> None:
    slow = toy.at_import(3, SLEEPS)
    killer = kill_when_it_runs(engine, pair, "test_feature3.py")
    result = coop(slow, toy.gold(4), (3, 4)).by(backend(), toy_dataset)
    killer.join()
    assert result["error"].startswith("[infra:container_died]")


def test_a_pair_whose_first_feature_failed_fails_whatever_ends_the_second(
    engine: Engine, pair: str, backend: Make, toy: Toy, toy_dataset: Path
) -> None:
    killer = kill_when_it_runs(engine, pair, "test_feature2.py")
    result = solo(toy.patch(1, "return 5"), toy.at_import(2, SLEEPS)).by(backend(), toy_dataset)
    killer.join()
    assert (result["both_passed"], result["error"]) == (False, None)
    assert "1 failed" in result["feature1"]["test_output"]
    assert "[infra:container_died]" in result["feature2"]["test_output"]


def test_a_test_that_is_killed_at_its_containers_limit_is_aborted(backend: Make, toy: Toy, toy_dataset: Path) -> None:
    case = coop(toy.gold(1), toy.at_import(2, EATS_MEMORY))
    result = case.by(backend(memory_mb=64), toy_dataset)
    assert result["error"].startswith(
        "[infra:tests_aborted] the kernel killed 1 of the container's processes at its memory limit of 64 MB"
    )


def test_a_conflict_stands_though_the_tests_of_agent_1_alone_are_killed_at_the_containers_limit(
    backend: Make, toy: Toy, toy_dataset: Path
) -> None:
    result = coop(toy.at_import(3, EATS_MEMORY), toy.gold(4), (3, 4)).by(backend(memory_mb=64), toy_dataset)
    assert (result["error"], result["both_passed"], result["merge"]["status"]) == (None, False, "conflicts")


def test_a_test_whose_child_is_killed_at_the_limit_and_which_then_fails_has_failed(
    backend: Make, toy: Toy, toy_dataset: Path
) -> None:
    eats = f"import subprocess, sys\nreturn subprocess.call([sys.executable, '-c', {EATS_MEMORY!r}])"
    result = solo(toy.patch(1, eats), toy.gold(2)).by(backend(memory_mb=64), toy_dataset)
    assert (result["error"], result["both_passed"]) == (None, False)
    assert "1 failed" in result["feature1"]["test_output"]


@pytest.mark.parametrize(("at_limit", "family"), [(True, "tests_aborted"), (False, "oom")])
def test_a_kill_for_want_of_memory_is_the_patchs_only_where_the_container_was_at_its_own_limit(
    at_limit: bool, family: str, sandbox: DockerSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The machine cannot be brought out of memory for a test: the kernel's counts are played.
    answer = Answer(137, 1, at_limit, "collected 3 items", "")
    monkeypatch.setattr(sandbox, "_run", lambda *_, **__: answer)
    with pytest.raises(InfrastructureError) as error:
        sandbox.exec("bash", "-c", f"bash {RUNNER}")
    assert error.value.family == family


def test_a_test_that_survives_a_killed_child_is_judged(backend: Make, toy: Toy, toy_dataset: Path) -> None:
    eats = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {EATS_MEMORY!r}])"
    result = solo(toy.at_import(1, eats), toy.gold(2)).by(backend(memory_mb=64), toy_dataset)
    assert (result["both_passed"], result["error"]) == (True, None)


def test_a_process_that_was_killed_with_memory_to_spare_is_not_called_out_of_memory(sandbox: DockerSandbox) -> None:
    with pytest.raises(InfrastructureError) as error:
        sandbox.exec("bash", "-c", f"# {RUNNER}\nkill -9 $$")
    assert error.value.family == "tests_aborted"


def test_a_deadline_of_tests_stands_above_upstreams_own_which_other_commands_have(
    backend: Make, toy_image: str
) -> None:
    made = backend(test_timeout_seconds=60).create_sandbox(toy_image, timeout=1)
    try:
        assert made.exec("bash", "-c", f"# {RUNNER}\nsleep 2; echo ended").stdout_read() == "ended\n"
        with pytest.raises(InfrastructureError, match="timed out after 1 seconds") as error:
            made.exec("bash", "-c", "sleep 60")
        assert error.value.family == "eval_timeout"
    finally:
        made.terminate()


def test_a_hung_test_ends_at_its_deadline_with_its_container(
    engine: Engine, pair: str, backend: Make, toy: Toy, toy_dataset: Path
) -> None:
    result = solo(toy.gold(1), toy.at_import(2, SLEEPS)).by(backend(test_timeout_seconds=2), toy_dataset)
    assert result["error"].startswith("[infra:test_timeout] Command timed out after 2 seconds")
    assert "Reset to base" in result["error"]
    assert containers(engine, pair) == []


def test_endless_output_ends_at_the_deadline_and_is_not_kept(
    sandbox: DockerSandbox, backend: Make, toy_image: str
) -> None:
    made = backend(test_timeout_seconds=1.5, output_limit_mb=1).create_sandbox(toy_image)
    try:
        with pytest.raises(InfrastructureError, match="timed out") as error:
            made.exec("bash", "-c", f"# {RUNNER}\nwhile :; do echo endless endless endless; done")
        assert len(str(error.value)) < 1000
    finally:
        made.terminate()


def test_a_test_that_cannot_reach_the_package_index_is_infrastructure(
    backend: Make, toy: Toy, toy_dataset: Path
) -> None:
    pip = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-m', 'pip', *{}]))".format(
        ["install", "--retries", "1", "--timeout", "1", "attrs"]
    )
    result = solo(toy.at_import(1, pip), toy.gold(2)).by(backend(network=False), toy_dataset)
    assert result["error"].startswith("[infra:network]")


def test_tests_that_break_off_over_a_full_disk_though_there_is_room_are_aborted(
    backend: Make, toy: Toy, toy_dataset: Path
) -> None:
    full = "open('/dev/full', 'w').write('x' * 9999)"
    result = solo(toy.at_import(1, full), toy.gold(2)).by(backend(), toy_dataset)
    assert result["error"].startswith("[infra:tests_aborted] test run ended with exit code 1 and names a full disk")


@pytest.mark.parametrize("tests", ["echo '1 failed in 0.01s'; exit 1", "exit 1"])
def test_a_full_disk_is_infrastructure_whatever_the_tests_made_of_it(sandbox: DockerSandbox, tests: str) -> None:
    # No disk of the engine may be filled for a test: what `stat` says of a full one is played.
    sandbox.exec("bash", "-c", "printf '#!/bin/sh\\necho 10 4096 99999 999999\\n' > /bin/stat && chmod +x /bin/stat")
    with pytest.raises(InfrastructureError) as error:
        sandbox.exec("bash", "-c", f"# {RUNNER}\necho 'OSError: [Errno 28] No space left on device'; {tests}")
    assert error.value.family == "disk"


@quiet
@loses_the_engine
def test_an_engine_that_goes_away_in_a_test_is_infrastructure(
    engine: Engine, pair: str, backend: Make, toy: Toy, toy_dataset: Path, tmp_path: Path
) -> None:
    door = EngineDoor.at_path(tmp_path / "engine.sock")
    case = solo(toy.at_import(1, SLEEPS), toy.gold(2))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(case.by, backend({"DOCKER_HOST": door.host}), toy_dataset)
        when_it_runs(engine, pair, "test_feature1")
        door.shut()
        result = running.result(timeout=60)
    assert result["error"].startswith("[infra:engine] the Docker engine went away")


def test_a_patch_of_half_a_megabyte_is_judged(backend: Make, toy: Toy, toy_dataset: Path) -> None:
    filler = patch_of(toy.repo, "filler.txt", "many words of text\n" * 30_000)
    result = solo(toy.solo_gold(1, 2), filler).by(backend(), toy_dataset)
    assert (result["both_passed"], result["error"]) == (True, None)
