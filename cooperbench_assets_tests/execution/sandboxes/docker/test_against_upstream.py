"""Our sandbox beside upstream's own, on the same engine and images, with as many at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from docker.api.client import APIClient

from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.execution.sandboxes.docker.sandbox import DockerBackend
from cooperbench_assets_tests.execution.sandboxes.docker.upstream import Evaluated, cases
from cooperbench_assets_tests.execution.toy import Toy

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.usefixtures("upstream")]

AT_ONCE = 5


def results(todo: Mapping[str, Evaluated], backend: Callable[[], Any], dataset: Path) -> dict[str, dict[str, Any]]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(todo, pool.map(lambda case: case.by(backend(), dataset), todo.values()), strict=True))


# How much quicker ours are is measured, not tested: ``python -m perf --only evaluating``.
def test_every_result_is_upstreams_to_the_letter(toy: Toy, toy_dataset: Path) -> None:
    from cooperbench.eval.backends.docker import DockerBackend as UpstreamBackend

    ours = results(cases(toy), DockerBackend, toy_dataset)
    assert ours == results(cases(toy), UpstreamBackend, toy_dataset)
    verdicts = {name: result["both_passed"] for name, result in ours.items()}
    assert verdicts == {
        name: name in ("solo passes", "coop passes", "coop is identical", "agent 1 rescues a conflict")
        for name in cases(toy)
    }
    assert all(result["error"] is None for result in ours.values())


def test_an_evaluation_makes_a_handful_of_calls_to_the_engine(
    toy: Toy, toy_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    send = APIClient.send

    def count(self: APIClient, request: Any, **more: Any) -> Any:
        sent.append(f"{request.method} {urlsplit(request.url).path.rpartition('/')[2]}")
        return send(self, request, **more)

    monkeypatch.setattr(APIClient, "send", count)
    cases(toy)["coop passes"].by(DockerBackend(), toy_dataset)
    assert [call.partition(" ")[0] for call in sent] == ["GET", "POST", "POST", "POST", "DELETE"]
    assert [call.partition(" ")[2] for call in sent[:-1]] == ["version", "create", "attach", "start"]


# The signal mask is read of a command, not of the shell: bash blocks signals of its own while it starts one.
STATE = (
    "grep -E '^(Sig(Blk|Ign)|Umask|Cap|NoNew|Seccomp|Groups)' /proc/self/status; cat /proc/self/limits; pwd; id; "
    "readlink /proc/$$/fd/0; ls /proc/$$/fd"
)


def test_commands_run_in_the_state_that_upstreams_commands_run_in(engine: Engine, toy_image: str) -> None:
    from cooperbench.eval.backends.docker import DockerBackend as UpstreamBackend

    seen = []
    for backend in (DockerBackend(), UpstreamBackend()):
        sandbox = backend.create_sandbox(toy_image)
        try:
            lines = sandbox.exec("env").stdout_read().splitlines()
            state = sandbox.exec("bash", "-c", STATE).stdout_read()
        finally:
            sandbox.terminate()
        ours_to_differ = ("HOSTNAME=", "_=", "PWD=", "PIP_", "SSL_", "CURL_", "REQUESTS_", "GIT_SSL", "NODE_EXTRA")
        seen.append((sorted(line for line in lines if not line.startswith(ours_to_differ)), state))
    assert seen[0] == seen[1]
