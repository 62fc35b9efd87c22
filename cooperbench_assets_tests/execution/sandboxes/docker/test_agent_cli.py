from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.processes import MARK, mark_of, process_identity
from cooperbench_assets.execution.sandboxes.docker.agent_cli import wrapper_environment, write_wrapper
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.execution.sandboxes.docker.leftovers import belongings, remove_leftovers
from cooperbench_assets.execution.sandboxes.docker.options import DockerOptions
from cooperbench_assets.execution.sandboxes.docker.ownership import PREFIX

STAND_IN = """\
#!/usr/bin/env python3
import json, sys
with open({log!r}, "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
"""


@pytest.fixture
def told(tmp_path: Path) -> Any:
    """Calls the wrapper with a stand-in for docker; returns what that was told."""
    log = tmp_path / "log"
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(STAND_IN.format(log=str(log)))
    docker.chmod(0o755)
    options = DockerOptions(memory_mb=300, cpus=2, labels={"experiment": "a b", "pair": "x/1/f1_f2"})
    environment = {**os.environ, "PATH": f"{docker.parent}:{os.environ['PATH']}"}
    environment |= wrapper_environment(tmp_path / "wrapper", options, environment)

    def call(*args: str, **more: str) -> list[list[str]]:
        log.unlink(missing_ok=True)
        wrapper = environment["MSWEA_DOCKER_EXECUTABLE"]
        subprocess.run([wrapper, *args], env={**environment, MARK: "", **more}, check=True)
        return [json.loads(line) for line in log.read_text().splitlines()]

    return call


def test_run_is_labelled_and_limited_and_its_arguments_stay_as_they_are(told: Any) -> None:
    odd = ["-c", "sleep 2h; echo 'a  b' * $HOME\n", ""]
    (args,) = told("run", "-d", "--name", "minisweagent-1", "image", *odd)
    assert args[0] == "run"
    assert args[-6:] == ["--name", "minisweagent-1", "image", *odd]
    ours = args[1 : args.index("-d")]
    assert f"--label={PREFIX}.experiment=a b" in ours
    assert f"--label={PREFIX}.pair=x/1/f1_f2" in ours
    assert f"--label={PREFIX}.purpose=agent" in ours
    assert {"--init", "--memory=300m", "--memory-swap=300m", "--cpus=2"} <= set(ours)
    owner = mark_of(os.getpid(), process_identity(os.getpid()) or "")
    assert ours[-2:] == ["--label", f"{PREFIX}.owner={owner}"]


def test_the_owner_is_the_child_that_the_wrapper_runs_in(told: Any) -> None:
    (args,) = told("run", "image", **{MARK: "77/boot:5"})
    assert f"{PREFIX}.owner=77/boot:5" in args


@pytest.mark.parametrize(
    "args", [["exec", "-w", "/", "c", "bash", "-lc", "run this"], ["rm", "-f", "run"], ["version"]]
)
def test_other_commands_go_through_unchanged(told: Any, args: list[str]) -> None:
    assert told(*args) == [args]


def test_networks_are_labelled_without_limits(told: Any) -> None:
    (args,) = told("network", "create", "some-net")
    assert args[:2] == ["network", "create"]
    assert args[-1] == "some-net"
    assert f"--label={PREFIX}.purpose=agent" in args
    assert "--init" not in args


def test_a_teams_volume_is_made_with_labels_before_it_is_named(told: Any) -> None:
    volume, run = told("run", "--volume", "cb-team-1:/workspace/shared", "image")
    assert (volume[:2], volume[-1]) == (["volume", "create"], "cb-team-1")
    assert f"--label={PREFIX}.experiment=a b" in volume
    assert run[-3:] == ["--volume", "cb-team-1:/workspace/shared", "image"]


def test_the_wrapper_is_written_once(tmp_path: Path) -> None:
    path = write_wrapper(tmp_path / "state")
    before = path.stat()
    assert write_wrapper(tmp_path / "state") == path
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    path.write_text("older")
    write_wrapper(tmp_path / "state")
    assert "older" not in path.read_text()
    assert os.access(path, os.X_OK)


def test_a_missing_docker_command_is_said_before_agents_start(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="docker, and it is not on the PATH"):
        wrapper_environment(tmp_path, DockerOptions(), {"PATH": str(tmp_path)})


@pytest.fixture
def pair(engine: Engine, request: pytest.FixtureRequest) -> Iterator[str]:
    """A label of this test alone; what carries it is gone afterwards."""
    name = request.node.name
    yield name
    for left in engine.api.containers(all=True, filters={"label": f"{PREFIX}.pair={name}"}):
        engine.api.remove_container(left["Id"], force=True)


@pytest.mark.engine
def test_upstreams_own_agent_container_is_ours_to_see_and_to_sweep(
    engine: Engine, toy_image: str, tmp_path: Path, pair: str, own_host: str
) -> None:
    environment = wrapper_environment(tmp_path, DockerOptions(memory_mb=200, labels={"pair": pair}))
    # As a child that is killed: it has no time to end its container.
    program = (
        "import os, signal, sys\n"
        "from cooperbench_assets.execution.worker.harness import only_what_all_need\n"
        "with only_what_all_need():\n"
        "    import cooperbench\n"
        "from cooperbench.agents.mini_swe_agent_v2.environments.docker import DockerEnvironment\n"
        f"agent = DockerEnvironment(image={toy_image!r}, cwd='/workspace/repo')\n"
        "print(agent.execute({'command': 'git log --format=%s; echo it works'})['output'], flush=True)\n"
        "sys.stdin.read()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **environment, MARK: ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        # Upstream's logger writes to the same stream.
        said = list(itertools.takewhile(lambda line: line != "it works\n", owner.stdout))
        (found,) = [one for one in belongings(engine) if one.described.get("pair") == pair]
        content = engine.api.inspect_container(found.id)
        spared = remove_leftovers(engine)
        owner.stdin.close()
    swept = remove_leftovers(engine)

    assert said[-1] == "base\n"
    assert found.name.startswith("minisweagent-")
    assert (found.owner_state, found.described["purpose"]) == ("alive", "agent")
    assert (content["HostConfig"]["Memory"], content["HostConfig"]["Init"]) == (200 * 2**20, True)
    assert found in spared.kept
    assert [one.id for one in swept.removed if one.described.get("pair") == pair] == [found.id]
    end = time.monotonic() + 5
    while engine.api.containers(all=True, filters={"id": found.id}):
        assert time.monotonic() < end
        time.sleep(0.05)
