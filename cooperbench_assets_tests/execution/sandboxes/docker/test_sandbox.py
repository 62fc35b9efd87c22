from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError
from docker.types import Mount

from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.sandboxes.base import RUNNER
from cooperbench_assets.execution.sandboxes.docker import session
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.execution.sandboxes.docker.options import DockerOptions
from cooperbench_assets.execution.sandboxes.docker.ownership import PREFIX
from cooperbench_assets.execution.sandboxes.docker.sandbox import DockerBackend, DockerSandbox
from cooperbench_assets.execution.sandboxes.docker.session import Answer
from cooperbench_assets_tests.execution.sandboxes.docker.proxy import EngineDoor
from cooperbench_assets_tests.execution.sandboxes.docker.upstream import coop, solo
from cooperbench_assets_tests.execution.toy import Toy, patch_of

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("upstream")]

EATS_MEMORY = "held = [b'x' * 2**20 for _ in range(400)]"
SLEEPS = "import time; time.sleep(3600)"


@pytest.fixture(autouse=True)
def pair(engine: Engine, request: pytest.FixtureRequest) -> Iterator[str]:
    """A label of this test alone; nothing that carries it is left on the engine."""
    name = request.node.name
    yield name
    end = time.monotonic() + 5
    while (left := containers(engine, name)) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == []


def containers(engine: Engine, pair: str) -> list[str]:
    found = engine.api.containers(all=True, filters={"label": f"{PREFIX}.pair={pair}"})
    return [one["Id"] for one in found]


Make = Callable[..., DockerBackend]


@pytest.fixture
def backend(pair: str) -> Make:
    """Makes backends whose containers carry this test's label."""

    def make(environment: dict[str, str] | None = None, **options: Any) -> DockerBackend:
        return DockerBackend(DockerOptions(labels={"pair": pair}, **options), environment)

    return make


@pytest.fixture
def sandbox(backend: Make, toy_image: str) -> Iterator[DockerSandbox]:
    """A sandbox of the toy task."""
    made = backend().create_sandbox(toy_image)
    yield made
    made.terminate()


def running(engine: Engine, pair: str, program: str) -> str | None:
    """The container of this test in which a program runs now."""
    for container in containers(engine, pair):
        with contextlib.suppress(APIError):  # not started yet, or gone
            # Where COLUMNS is set, or a terminal is near, ps cuts its lines, unless it is told not to.
            if program in str(engine.api.top(container, "-eww -o pid,args")):
                return container
    return None


def when_it_runs(engine: Engine, pair: str, program: str) -> str:
    """Wait until a program runs in this test's container."""
    end = time.monotonic() + 30
    while (container := running(engine, pair, program)) is None:
        assert time.monotonic() < end, f"{program} was not seen"
        time.sleep(0.05)
    return container


def kill_when_it_runs(engine: Engine, pair: str, program: str) -> threading.Thread:
    """Kill the container, from outside, as soon as a program runs in it."""
    thread = threading.Thread(target=lambda: engine.api.kill(when_it_runs(engine, pair, program)))
    thread.start()
    return thread


@pytest.fixture
def no_engine_left() -> Iterator[None]:
    """Where a connection fails, the SDK leaves its socket to the collector, which warns of it."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


quiet = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
loses_the_engine = pytest.mark.usefixtures("no_engine_left")


# Commands


def test_output_streams_and_exit_codes_come_back_apart(sandbox: DockerSandbox) -> None:
    done = sandbox.exec("bash", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout_read(), done.stderr_read()) == (7, "out\n", "err\n")
    assert sandbox.exec("true").returncode == 0
    assert sandbox.exec("no-such-program").returncode == 127
    assert sandbox.exec("bash", "-c", "kill -9 $$").returncode == 137


def test_a_test_runs_streams_come_in_the_order_of_printing(sandbox: DockerSandbox) -> None:
    done = sandbox.exec("bash", "-c", f"# {RUNNER}\necho 1; echo 2 >&2; echo 3; echo 4 >&2")
    assert (done.stdout_read(), done.stderr_read()) == ("1\n2\n3\n4\n", "")


def test_arguments_and_output_of_any_bytes_come_through(sandbox: DockerSandbox) -> None:
    odd = "a 'b' \"c\" $d `e` \\ *\n\tü — \x01\x7f"
    assert sandbox.exec("printf", "%s", odd).stdout_read() == odd
    assert sandbox.exec("printf", "%s|", "", odd, "").stdout_read() == f"|{odd}||"
    assert sandbox.exec("bash", "-c", r"printf '\377\0\1'").stdout_read() == "\ufffd\0\1"
    assert len(sandbox.exec("bash", "-c", "head -c 3000000 /dev/zero").stdout_read()) == 3_000_000


def test_commands_cannot_read_the_requests_that_follow(sandbox: DockerSandbox) -> None:
    assert sandbox.exec("cat").stdout_read() == ""
    assert sandbox.exec("bash", "-c", "cat <&5 || true; cat <&4 || true").returncode == 0
    assert sandbox.exec("echo", "still there").stdout_read() == "still there\n"


def test_a_command_that_signals_its_own_group_hits_nothing_else(sandbox: DockerSandbox) -> None:
    assert sandbox.exec("bash", "-c", "kill -TERM 0; sleep 5").returncode == 143
    assert sandbox.exec("echo", "still there").stdout_read() == "still there\n"


def test_a_background_process_neither_holds_a_command_up_nor_outlives_it(sandbox: DockerSandbox) -> None:
    done = sandbox.exec("bash", "-c", "(sleep 3600; echo late) & echo started")  # Longer than a test may take.
    assert done.stdout_read() == "started\n"
    assert "sleep" not in sandbox.exec("ps", "-eo", "comm").stdout_read()


def test_a_command_text_longer_than_an_argument_can_be_is_run(sandbox: DockerSandbox) -> None:
    text = "ü" * 150_000
    done = sandbox.exec("bash", "-c", f"echo '{text}' > /patches/long && wc -m < /patches/long && exit 3")
    assert (done.returncode, done.stdout_read().strip()) == (3, "300001")


def test_a_patch_of_half_a_megabyte_is_judged(backend: Make, toy: Toy, toy_dataset: Path) -> None:
    filler = patch_of(toy.repo, "filler.txt", "many words of text\n" * 30_000)
    result = solo(toy.solo_gold(1, 2), filler).by(backend(), toy_dataset)
    assert (result["both_passed"], result["error"]) == (True, None)


# What infrastructure does to tests: never a fail


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


# What keeps a sandbox from being made


@quiet
@loses_the_engine
def test_no_engine_is_said_to_be_no_engine(backend: Make, tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="no Docker engine answers") as error:
        backend({"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}).create_sandbox("any:image")
    assert error.value.family == "engine"
    assert str(error.value).endswith("start it, or set DOCKER_HOST")


@quiet
@loses_the_engine
def test_an_engine_that_does_not_answer_is_given_up(
    backend: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cooperbench_assets.execution.sandboxes.docker.engine.ANSWER_SECONDS", 0.3)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(tmp_path / "engine.sock"))
        silent.listen()
        with pytest.raises(InfrastructureError, match="timed out") as error:
            backend({"DOCKER_HOST": f"unix://{tmp_path}/engine.sock"}).create_sandbox("any:image")
    assert error.value.family == "engine"


def test_an_image_that_is_not_there_is_missing_and_is_not_pulled(backend: Make) -> None:
    with pytest.raises(InfrastructureError, match="No such image") as error:
        backend().create_sandbox("localhost:1/no-such-image:task1")
    assert error.value.family == "image_missing"


def test_an_image_without_a_shell_does_not_start(engine: Engine, backend: Make) -> None:
    name = "cooperbench-assets-test-empty"
    engine.api.import_image_from_data(b"\0" * 10240, repository=name, tag="1")
    try:
        with pytest.raises(InfrastructureError, match="bash") as error:
            backend().create_sandbox(f"{name}:1")
    finally:
        engine.api.remove_image(f"{name}:1", force=True)
    assert error.value.family == "container_start"


# Limits, labels and what is passed on


def test_a_container_has_the_labels_and_limits_that_were_asked_for(engine: Engine, pair: str, toy_image: str) -> None:
    described = {"pair": pair, "experiment": "toy", "setting": "solo", "seed": "0", "attempt": "eval-1"}
    options = DockerOptions(memory_mb=200, cpus=0.5, pids=50, network=False, labels=described)
    sandbox = DockerBackend(options).create_sandbox(toy_image)
    try:
        content = engine.api.inspect_container(sandbox.container)
    finally:
        sandbox.terminate()
    host, labels = content["HostConfig"], content["Config"]["Labels"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (200 * 2**20, 200 * 2**20, 500_000_000)
    assert (host["PidsLimit"], host["Init"], host["NetworkMode"]) == (50, True, "none")
    assert {f"{PREFIX}.{name}": value for name, value in described.items()}.items() <= labels.items()
    assert labels[f"{PREFIX}.owner"].startswith(f"{os.getpid()}/")


@pytest.mark.parametrize("far", [False, True])
def test_certificates_of_the_host_are_there_on_an_engine_near_or_far(
    far: bool, backend: Make, toy_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("these are certificates\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    door = EngineDoor.at_port() if far else None
    sandbox = backend({"DOCKER_HOST": door.host} if door else None).create_sandbox(toy_image)
    try:
        done = sandbox.exec("bash", "-c", 'cat "$SSL_CERT_FILE"')
        assert done.stdout_read() == "these are certificates\n"
    finally:
        sandbox.terminate()
        if door:
            door.shut()


def test_certificates_are_copied_where_the_engine_does_not_see_our_files(
    backend: Make, toy_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a container that was given the engine's socket: the engine looks for the file on its own machine.
    file = tmp_path / "ca.pem"
    file.write_text("these are certificates\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.setattr(session, "Mount", lambda inside, source, **more: Mount(inside, f"/elsewhere{source}", **more))
    sandbox = backend().create_sandbox(toy_image)
    try:
        assert sandbox.exec("bash", "-c", 'cat "$SSL_CERT_FILE"').stdout_read() == "these are certificates\n"
    finally:
        sandbox.terminate()


def test_a_container_ends_with_the_process_that_it_serves(engine: Engine, pair: str, toy_image: str) -> None:
    program = (
        "import sys; from cooperbench_assets.execution.sandboxes.docker.sandbox import DockerBackend, DockerOptions\n"
        f"sandbox = DockerBackend(DockerOptions(labels={{'pair': {pair!r}}})).create_sandbox({toy_image!r})\n"
        "print('there', flush=True); sandbox.exec('sleep', '100')"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "there\n"
        assert len(containers(engine, pair)) == 1
        owner.send_signal(signal.SIGKILL)
    # The fixture sees that the container goes, in the middle of a command.


@quiet
@loses_the_engine
def test_a_sandbox_that_cannot_be_attached_to_leaves_nothing(
    backend: Make, toy_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr("docker.api.client.APIClient._get_raw_response_socket", fail)
    with pytest.raises(InfrastructureError, match="attach") as error:
        backend().create_sandbox(toy_image)
    assert error.value.family == "engine"


def test_an_answer_that_was_lost_makes_no_second_container(
    engine: Engine, pair: str, backend: Make, toy_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lost = engine.client.api.__class__.create_container, [True]

    def create(*args: Any, **kwargs: Any) -> Any:
        made = real(*args, **kwargs)
        if lost:
            lost.clear()
            raise ConnectionResetError(104, "Connection reset by peer")
        return made

    monkeypatch.setattr("docker.api.client.APIClient.create_container", create)
    monkeypatch.setattr("cooperbench_assets.execution.sandboxes.docker.engine.PAUSE_SECONDS", 0.01)
    sandbox = backend().create_sandbox(toy_image)
    try:
        assert containers(engine, pair) == [sandbox.container]
        assert sandbox.exec("true").returncode == 0
    finally:
        sandbox.terminate()


@quiet
@loses_the_engine
def test_terminate_raises_nothing_without_an_engine(
    backend: Make, engine: Engine, pair: str, toy_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cooperbench_assets.execution.sandboxes.docker.engine.PAUSE_SECONDS", 0.01)
    door = EngineDoor.at_path(tmp_path / "engine.sock")
    sandbox = backend({"DOCKER_HOST": door.host}).create_sandbox(toy_image)
    door.shut()
    sandbox.terminate()


def test_a_sandbox_may_be_ended_twice(engine: Engine, pair: str, backend: Make, toy_image: str) -> None:
    sandbox = backend().create_sandbox(toy_image)
    sandbox.terminate()
    sandbox.terminate()
    assert containers(engine, pair) == []
