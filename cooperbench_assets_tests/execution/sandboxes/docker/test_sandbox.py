from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from docker.types import Mount

from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.sandboxes.base import RUNNER
from cooperbench_assets.execution.sandboxes.docker import session
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.execution.sandboxes.docker.options import DockerOptions
from cooperbench_assets.execution.sandboxes.docker.ownership import PREFIX
from cooperbench_assets.execution.sandboxes.docker.sandbox import DockerBackend, DockerSandbox
from cooperbench_assets_tests.execution.sandboxes.docker.containers import (
    Make,
    containers,
    loses_the_engine,
    quiet,
)
from cooperbench_assets_tests.execution.sandboxes.docker.proxy import EngineDoor

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("upstream", "pair")]


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
