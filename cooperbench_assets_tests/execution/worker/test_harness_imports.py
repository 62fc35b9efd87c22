"""What a harness server needs before it serves: an interpreter, the harness, agents that it can import, variables."""

from __future__ import annotations

import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cooperbench_assets.execution.runner.harness_client import HarnessError, HarnessServer, base_environment
from cooperbench_assets.execution.sandboxes import network
from cooperbench_assets_tests.execution.toy import Toy
from cooperbench_assets_tests.execution.worker.harnesses import (
    Runs,
    eventually,
    own_agents_environment,
    server_pid,
    toy_environment,
)


def test_a_harness_that_is_not_installed_is_one_clear_error(tmp_path: Path) -> None:
    bare = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    server = HarnessServer(python=bare / "bin" / "python", environment={}, log=tmp_path / "server.log")
    with pytest.raises(HarnessError, match=r"the harness is not installed in .*venv/bin/python: install the package"):
        server.ready(60)
    server.close()


def test_an_interpreter_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    server = HarnessServer(python=tmp_path / "python", environment={}, log=tmp_path / "server.log")
    with pytest.raises(HarnessError, match=r"cannot be started: No such file or directory; correct harness"):
        server.start()
    server.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("toy_agents_of_nobody", "ModuleNotFoundError: No module named 'toy_agents_of_nobody'"),
        ("broken_agents", "ZeroDivisionError: division by zero; correct the name"),
        ("early_agents", "KeyError: 'MY_API_KEY'; read keys when an agent runs"),
    ],
)
def test_an_external_agent_that_cannot_be_imported_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, said: str
) -> None:
    (tmp_path / "broken_agents.py").write_text("1 / 0\n")
    (tmp_path / "early_agents.py").write_text("import os\nKEY = os.environ['MY_API_KEY']\n")
    monkeypatch.setenv("MY_API_KEY", "sk-here-but-not-there")
    environment = own_agents_environment(module, tmp_path)
    with HarnessServer(environment=environment, log=tmp_path / "server.log") as server:
        with pytest.raises(HarnessError) as caught:
            server.ready(60)
        assert said in str(caught.value)
        with pytest.raises(HarnessError):
            server.ready()


OWN_AGENTS = """
from pathlib import Path
from cooperbench.agents.registry import register


@register("own")
class Own:
    def run(self, task, image, **given):
        import litellm
        Path("price").write_text(str(litellm.model_cost["gpt-4o"]["input_cost_per_token"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("wanted", ["own", "", "claude_code"])
def test_of_upstream_s_agents_only_the_one_to_run_is_imported(tmp_path: Path, wanted: str, toy: Toy) -> None:
    (tmp_path / "own_agents.py").write_text(OWN_AGENTS)
    environment = own_agents_environment("own_agents", tmp_path, wanted)
    with HarnessServer(environment=environment, log=tmp_path / "server.log") as server:
        assert_imported(Runs(server, toy, tmp_path), wanted, litellm=False)


def assert_imported(runs: Runs, wanted: str, *, litellm: bool) -> None:
    """Assert what a server of own agents has imported, and what it imports for its first children."""
    assert set(runs.server.info.agents) == {"own", wanted} - {""}
    maps = Path(f"/proc/{server_pid(runs.server)}/maps")
    libraries = maps.read_text()
    assert ("tiktoken" in libraries) == litellm  # One that litellm alone needs.
    # What calls alone need waits for a child that may call: then it is there for all that follow.
    assert "jiter" not in libraries
    assert "_cbor2" not in libraries  # One that modal alone needs.
    for stage, backend, needed in (("eval", "process", False), ("agent", "modal", litellm)):
        runs.end(runs.request(stage=stage, backend=backend))
        libraries = maps.read_text()
        assert ("jiter" in libraries) == needed
        assert ("_cbor2" in libraries) == (backend == "modal")
        # One that what is watched in agents' processes needs, whoever's they are.
        assert ("_pydantic_core" in libraries) == (litellm or stage == "agent")


@pytest.mark.slow
def test_threads_that_an_agent_s_import_starts_are_a_warning(tmp_path: Path) -> None:
    (tmp_path / "busy_agents.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), name='busy', daemon=True).start()\n"
    )
    environment = own_agents_environment("busy_agents", tmp_path)
    with HarnessServer(environment=environment, log=tmp_path / "server.log") as server:
        assert "started threads (busy)" in server.info.warnings[0]


@pytest.mark.slow
def test_an_import_that_takes_too_long_is_an_error(tmp_path: Path, toy: Toy) -> None:
    with HarnessServer(environment=toy_environment(toy), log=tmp_path / "server.log") as server:
        with pytest.raises(HarnessError, match=r"took more than 0\.05 s"):
            server.ready(0.05)
        assert server.alive


def test_no_key_of_the_parent_is_passed_on() -> None:
    given_here = {"PATH": "/bin", "HOME": "/h", "OPENAI_API_KEY": "x", "AWS_SECRET_ACCESS_KEY": "y", "HTTPS_PROXY": "p"}
    base = base_environment(given_here)
    assert {name: base[name] for name in ("PATH", "HOME", "HTTPS_PROXY", "TZ")} == {
        "PATH": "/bin",
        "HOME": "/h",
        "HTTPS_PROXY": "p",
        "TZ": "UTC",
    }
    assert not {"OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY"} & set(base)


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy's address, and the first line of each request that came to it; it answers none."""
    heard: list[bytes] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            heard.append(self.rfile.readline())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}", heard
        listening.shutdown()
        thread.join()


@pytest.mark.slow
def test_an_agent_of_upstream_s_is_imported_with_litellm_which_asks_no_network_for_prices_and_knows_them(
    toy: Toy, tmp_path: Path, proxy: tuple[str, list[bytes]]
) -> None:
    address, heard = proxy
    (tmp_path / "own_agents.py").write_text(OWN_AGENTS)
    wanted = "mini_swe_agent_v2"
    environment = own_agents_environment("own_agents", tmp_path, wanted)
    environment |= {"HTTPS_PROXY": address, "HTTP_PROXY": address}
    with HarnessServer(environment=environment, log=tmp_path / "server.log") as server:
        runs = Runs(server, toy, tmp_path)
        assert_imported(runs, wanted, litellm=True)
        request = runs.request(agent="own")
        runs.end(request)
    assert heard == []
    assert "cost map" not in (tmp_path / "server.log").read_text()
    assert float(Path(request.staging, "price").read_text()) > 0
    # Without what is set for every harness, the list would be asked for.
    command = [sys.executable, "-c", "import litellm"]
    with subprocess.Popen(command, env={"HTTPS_PROXY": address}, stderr=subprocess.DEVNULL) as importing:
        assert eventually(lambda: any(b"raw.githubusercontent.com" in line for line in heard), 60)
        importing.kill()  # The rest of the import takes seconds of a core.


def test_what_containers_are_told_of_the_network_reaches_the_child_that_makes_them() -> None:
    """An index or a proxy that the server did not get could not be passed on by a sandbox."""
    given_here = {name: f"value of {name}" for name in network.VARIABLES}
    assert given_here.items() <= base_environment(given_here).items()
    assert {"UV_INDEX_URL", "NPM_CONFIG_REGISTRY", "GOPROXY", "PIP_TRUSTED_HOST"} <= set(given_here)
