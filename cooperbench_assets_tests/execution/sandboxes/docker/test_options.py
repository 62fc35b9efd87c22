from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.sandboxes import network
from cooperbench_assets.execution.sandboxes.docker.options import DockerOptions


def test_limits_are_said_alike_to_the_api_and_to_the_command_line() -> None:
    options = DockerOptions.read({"memory_mb": 512, "cpus": 1.5, "pids": 100})
    assert options.limits() == {
        "mem_limit": 512 * 2**20,
        "memswap_limit": 512 * 2**20,
        "nano_cpus": 1_500_000_000,
        "pids_limit": 100,
    }
    assert options.arguments() == ["--memory=512m", "--memory-swap=512m", "--cpus=1.5", "--pids-limit=100"]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"memroy_mb": 5}, "'memroy_mb' is unknown"),
        ({"cpus": 0}, "cpus is 0"),
        ({"pids": "many"}, "pids is 'many'"),
        ({"memory_mb": 2}, "less than 6"),
        ({"isolation": "bubblewrap"}, "'bubblewrap'"),
    ],
)
def test_an_option_that_is_none_is_refused_by_name(content: dict[str, Any], named: str) -> None:
    with pytest.raises(InfrastructureError, match=named) as error:
        DockerOptions.read(content)
    assert error.value.family == "configuration"


def test_variables_are_in_no_representation() -> None:
    assert "hunter2" not in repr(DockerOptions(environment={"PIP_INDEX_URL": "https://user:hunter2@index.example"}))
    told = network.of_host({"PIP_INDEX_URL": "https://user:hunter2@index.example/packages"})
    assert "hunter2" not in repr(told)
    assert told.environment == {"PIP_INDEX_URL": "https://user:hunter2@index.example/packages"}


def test_a_certificate_file_that_several_variables_name_is_passed_on_once(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("certificates")
    told = network.of_host(
        {"SSL_CERT_FILE": str(file), "PIP_CERT": str(file), "CURL_CA_BUNDLE": str(tmp_path / "none")}
    )
    inside = "/etc/cooperbench-assets/certificates-1.pem"
    assert told.files == {inside: file}
    assert told.environment == {"SSL_CERT_FILE": inside, "PIP_CERT": inside}


@pytest.mark.parametrize(
    ("name", "value", "travels"),
    [
        ("PIP_EXTRA_INDEX_URL", "https://a.example/packages https://b.example/packages", True),
        ("PIP_EXTRA_INDEX_URL", "file:/srv/wheels", False),
        ("PIP_FIND_LINKS", "/srv/wheels", False),
        ("HTTPS_PROXY", "proxy:3128", True),
        ("HTTPS_PROXY", "http://localhost:3128", False),
        ("https_proxy", "http://127.0.0.1:3128", False),
        ("GOPROXY", "https://goproxy.example,direct", True),
        ("AWS_SECRET_ACCESS_KEY", "https://not.asked.for", False),
    ],
)
def test_an_address_is_passed_on_where_it_means_the_same_in_a_container(name: str, value: str, travels: bool) -> None:
    assert network.of_host({name: value}).environment == ({name: value} if travels else {})


def test_of_several_addresses_those_that_mean_the_same_are_passed_on() -> None:
    told = network.of_host(
        {"PIP_EXTRA_INDEX_URL": "https://a.example/packages file:/srv/wheels https://b.example/packages"}
    )
    assert told.environment == {"PIP_EXTRA_INDEX_URL": "https://a.example/packages https://b.example/packages"}
