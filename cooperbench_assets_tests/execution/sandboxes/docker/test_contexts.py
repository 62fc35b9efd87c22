"""The engine that is meant: the same for the docker command line, the SDK, and what children are told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import certifi
import pytest

from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.runner.harness_client import base_environment
from cooperbench_assets.execution.sandboxes.docker.contexts import resolved
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets_tests.services import missing

FAR = "tcp://192.0.2.7:2376"


@pytest.fixture
def config(tmp_path: Path) -> dict[str, str]:
    """Variables of a person who has two contexts, made by the docker command line."""
    if (docker := shutil.which("docker")) is None:
        missing("docker command", "it is not installed")
    variables = {"DOCKER_CONFIG": str(tmp_path / "docker"), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    for name, endpoint in (("far", f"host={FAR}"), ("secure", f"host={FAR},ca={certifi.where()}")):
        command = [docker, "context", "create", name, "--docker", endpoint]
        subprocess.run(command, env=variables, check=True, capture_output=True)
    return variables


def test_a_context_means_what_the_command_line_takes_it_for(config: dict[str, str]) -> None:
    format_ = "{{.Endpoints.docker.Host}}"
    command = ["docker", "context", "inspect", "far", "--format", format_]
    said = subprocess.run(command, env=config, check=True, capture_output=True, text=True).stdout.strip()
    assert resolved({**config, "DOCKER_CONTEXT": "far"}) == {**config, "DOCKER_HOST": said}
    assert said == FAR


def test_the_context_in_use_counts_where_no_variable_says_otherwise(config: dict[str, str]) -> None:
    assert "DOCKER_HOST" not in resolved(config)
    subprocess.run(["docker", "context", "use", "far"], env=config, check=True, capture_output=True)
    assert resolved(config)["DOCKER_HOST"] == FAR
    assert "DOCKER_HOST" not in resolved({**config, "DOCKER_CONTEXT": "default"})
    assert resolved({**config, "DOCKER_HOST": "unix:///x", "DOCKER_CONTEXT": "far"})["DOCKER_HOST"] == "unix:///x"


def test_a_context_with_certificates_is_verified_with_them(config: dict[str, str]) -> None:
    found = resolved({**config, "DOCKER_CONTEXT": "secure"})
    assert found["DOCKER_TLS_VERIFY"] == "1"
    assert (Path(found["DOCKER_CERT_PATH"]) / "ca.pem").read_bytes() == Path(certifi.where()).read_bytes()


def test_children_and_our_own_looks_mean_the_same_engine(config: dict[str, str]) -> None:
    told = base_environment({**config, "DOCKER_CONTEXT": "far"})
    assert told["DOCKER_HOST"] == FAR
    assert "DOCKER_CONTEXT" not in told
    nowhere = Path(config["HOME"], "no.sock")
    meta = next(Path(config["DOCKER_CONFIG"]).glob("contexts/meta/*/meta.json"))
    content = json.loads(meta.read_text())
    content["Endpoints"]["docker"]["Host"] = f"unix://{nowhere}"
    meta.write_text(json.dumps(content))
    with pytest.raises(InfrastructureError, match="no Docker engine answers"):
        Engine.connect({**config, "DOCKER_CONTEXT": content["Name"]})


def test_a_context_that_is_not_there_is_one_clear_error(config: dict[str, str]) -> None:
    with pytest.raises(InfrastructureError, match=r"the docker context 'gone' is not in .*docker context ls"):
        Engine.connect({**config, "DOCKER_CONTEXT": "gone"})
    assert base_environment({**config, "DOCKER_CONTEXT": "gone"})["DOCKER_CONTEXT"] == "gone"
