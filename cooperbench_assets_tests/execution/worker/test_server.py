"""The harness server: what its children see and write, and what is said of their ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.runner.harness_client import SERVER, HarnessServer
from cooperbench_assets.execution.worker import child as child_module
from cooperbench_assets.execution.worker import harness
from cooperbench_assets.execution.worker.child import describe, fit, shorten
from cooperbench_assets.execution.worker.protocol import LOG, REPORT
from cooperbench_assets_tests.execution.toy import REPO, TASK, Toy, make_toy
from cooperbench_assets_tests.execution.worker.harnesses import Runs, toy_environment

SECRET = "canary-0f1e2d3c"


@pytest.fixture(scope="module")
def server(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HarnessServer]:
    log = tmp_path_factory.mktemp("server") / "server.log"
    with HarnessServer(environment=toy_environment(toy), log=log) as server:
        yield server
    assert SECRET not in log.read_text()


@pytest.fixture
def runs(server: HarnessServer, toy: Toy, tmp_path: Path) -> Runs:
    return Runs(server, toy, tmp_path)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_server_says_what_it_imported(server: HarnessServer) -> None:
    from importlib.metadata import version

    info = server.info
    assert info.version == version("cooperbench")
    assert info.packages["litellm"] == version("litellm")
    assert Path(info.python).samefile(sys.executable)
    assert "toy" in info.agents
    assert info.backends[0] == "process"
    assert info.isolation in ("bubblewrap", "subprocess")
    assert (info.commit, info.dirty) == (None, None)
    assert info.warnings == ()


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["watched"]),
        ({"stage": "eval"}, []),
        ({"stage": "eval", "backend": "modal"}, ["modal"]),
        ({"backend": "modal"}, ["modal", "watched"]),
        ({"redis_url": "redis://here"}, ["redis", "watched"]),
        ({"git": True, "backend": "docker"}, ["docker", "watched"]),
        ({"git": True}, ["watched"]),
    ],
)
def test_what_a_child_needs_is_imported_before_it_is_forked(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], names: list[str]
) -> None:
    imported: list[str] = []
    monkeypatch.setattr(harness, "_import_once", imported.extend)
    harness.import_for_children_like(runs.request(**changes), ["watched"])
    assert [name for name in imported if name not in harness._AT_FIRST_CALL] == names


def test_a_solo_pair_is_run_by_upstream_into_the_tree_of_its_staging_folder(runs: Runs, toy: Toy) -> None:
    request = runs.request()
    end = runs.end(request)
    assert (end.exit_code, end.signal, end.error) == (0, None, None)
    result = read(runs.pair_folder(request) / "result.json")
    assert result["agent"]["status"] == "Submitted"
    assert result["log_dir"] == f"logs/run/solo/{REPO}/{TASK}/f1_f2"
    assert (runs.pair_folder(request) / "solo.patch").read_text() == toy.solo_gold(1, 2)


def test_an_evaluation_judges_what_the_agents_left(runs: Runs) -> None:
    agents = runs.request()
    runs.end(agents)
    evaluation = replace(agents, key="eval", stage="eval", sandbox={"isolation": "subprocess"})
    end = runs.end(evaluation)
    assert (end.exit_code, end.error, end.isolation) == (0, None, "subprocess")
    verdict = read(runs.pair_folder(agents) / "eval.json")
    assert verdict["both_passed"] is True
    assert not list(Path(agents.staging).glob("sandbox-*"))


def test_times_are_utc_whatever_the_parent_s_zone(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime

    request = runs.request("tell", environment={"TZ": "Asia/Kathmandu"})
    before = datetime.now(UTC).replace(tzinfo=None)
    runs.end(request)
    after = datetime.now(UTC).replace(tzinfo=None)
    result = read(runs.pair_folder(request) / "result.json")
    assert before <= datetime.fromisoformat(result["started_at"]) <= after


def test_a_child_sees_its_own_variables_and_none_of_the_parent_s_secrets(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = runs.request("tell", environment={"COOPERBENCH_ASSETS_ATTEMPT": "2"})
    second = runs.request("tell")
    for request in (first, second):
        runs.end(request)
    told = read(Path(first.staging, "told-solo.json"))
    assert told["environment"]["COOPERBENCH_ASSETS_ATTEMPT"] == "2"
    assert told["environment"]["PYTHON_DOTENV_DISABLED"] == "1"
    assert Path(told["environment"]["TMPDIR"]).parent == Path(first.staging)
    assert told["cwd"] == first.staging
    assert told["timezone"] == "UTC"
    assert told["threads"] == 1
    other = read(Path(second.staging, "told-solo.json"))["environment"]
    assert "COOPERBENCH_ASSETS_ATTEMPT" not in other
    assert "PYTEST_CURRENT_TEST" not in other


def test_agents_of_a_coop_pair_are_told_how_they_may_talk(runs: Runs, tmp_path: Path) -> None:
    config = tmp_path / "agent.yaml"
    config.write_text("step_limit: 7\n")
    talking = runs.request(
        "tell", mode="coop", messaging=True, redis_url="redis://127.0.0.1:1/0", agent_config=str(config)
    )
    silent = runs.request("tell", mode="coop")
    for request in (talking, silent):
        assert runs.end(request).error is None
    told = read(Path(talking.staging, "told-agent2.json"))
    assert told["comm_url"].startswith("redis://127.0.0.1:1/0#run:")
    assert (told["messaging_enabled"], told["git_enabled"]) == (True, False)
    assert told["config"]["step_limit"] == 7
    assert told["config"]["backend"] == "process"
    told = read(Path(silent.staging, "told-agent1.json"))
    assert (told["comm_url"], told["messaging_enabled"]) == (None, False)
    assert read(runs.pair_folder(talking) / "result.json")["messages_sent"] == 2


def test_a_team_runs_too(runs: Runs) -> None:
    # Nobody listens there: upstream goes on without the team's task list.
    request = runs.request("gold", mode="team", redis_url="redis://127.0.0.1:1/0")
    end = runs.end(request)
    assert (end.exit_code, end.error) == (0, None)
    assert read(runs.pair_folder(request) / "result.json")["setting"] == "team"


def test_an_agent_that_raises_is_in_upstream_s_result(runs: Runs) -> None:
    request = runs.request("raise:boom")
    end = runs.end(request)
    assert (end.exit_code, end.error) == (0, None)
    assert read(runs.pair_folder(request) / "result.json")["agent"]["error"] == "boom"


def test_an_agent_that_raises_systemexit_is_named_though_upstream_loses_it(runs: Runs) -> None:
    solo, coop = runs.request("exit"), runs.request("exit:agent2", mode="coop")
    assert runs.end(solo).error == "SystemExit: 3"
    end = runs.end(coop)
    assert (end.exit_code, end.error) == (
        1,
        "agent2 ended by SystemExit: 3 and left no result, so upstream could write none",
    )
    assert not runs.pair_folder(coop).joinpath("result.json").exists()


def test_the_end_is_written_where_a_later_parent_finds_it(runs: Runs) -> None:
    request = runs.request("exit")
    end = runs.end(request)
    written = read(Path(request.staging, REPORT))
    assert (written["key"], written["pid"], written["error"]) == (request.key, end.pid, "SystemExit: 3")
    assert "SystemExit" in Path(request.staging, LOG).read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_does_not_swallow_the_error(runs: Runs) -> None:
    request = runs.request("exit")
    for name in (LOG, REPORT):
        Path(request.staging, name).symlink_to("/dev/full")
    assert runs.end(request).error == "SystemExit: 3"


def test_a_secret_is_told_to_one_child_and_stands_in_no_process_s_environment(runs: Runs) -> None:
    first = runs.request("environments", secrets={"TOY_API_KEY": SECRET})
    second = runs.request("environments")
    for request in (first, second):
        runs.end(request)
    told, other = (read(Path(request.staging, "environments.json")) for request in (first, second))
    assert told["own"]["TOY_API_KEY"] == SECRET
    assert "TOY_API_KEY" not in other["own"]
    # What /proc shows of itself, and of the server: programs of the same user read that.
    assert len(told["seen"]) == 2
    assert SECRET not in str(told["seen"])
    assert SECRET not in str(other)


def test_a_config_is_read_from_a_file_that_only_its_child_sees(runs: Runs) -> None:
    request = runs.request("tell", agent_config="/somewhere/else.yaml", agent_config_text=f"api_key: {SECRET}\n")
    runs.end(request)
    assert read(Path(request.staging, "told-solo.json"))["config"]["api_key"] == SECRET
    (file,) = Path(request.staging).rglob("agent_config.yaml")
    assert file.stat().st_mode & 0o777 == 0o600
    assert not file.is_relative_to(Path(request.staging, "logs"))


def test_no_secret_is_in_a_text_or_a_log(runs: Runs) -> None:
    request = runs.request("secret", secrets={"TOY_API_KEY": SECRET})
    end = runs.end(request)
    assert end.error == "SystemExit: key [redacted:TOY_API_KEY] was refused"
    for path in Path(request.staging).rglob("*"):
        assert not path.is_file() or SECRET not in path.read_text()


@pytest.mark.parametrize("number", [9, 6, 11])
def test_a_death_by_signal_is_told(runs: Runs, number: int) -> None:
    end = runs.end(runs.request(f"die:{number}"))
    assert (end.exit_code, end.signal, end.error) == (None, number, None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"agent": "nobody"}, "agent 'nobody' is unknown to harness"),
        ({"agent": "codex"}, "works in containers, which execution: process has none of; use docker"),
        ({"mode": "trio"}, "mode 'trio' is unknown"),
        ({"mode": "coop", "messaging": True}, "agents that talk need a Redis, and none is named"),
        ({"repo": "other_task"}, "the dataset has no such task: "),
        ({"dataset": "/nowhere"}, "the dataset has no such task: /nowhere/toy_task/task1 is missing"),
        ({"agent_config": "/nowhere.yaml"}, "the agent config /nowhere.yaml is missing"),
        ({"staging": "/nowhere/staging"}, "the staging folder /nowhere/staging cannot be used"),
        ({"stage": "eval"}, "there is nothing to evaluate: "),
        ({"stage": "eval", "sandbox": {"deadline": 3}}, "sandbox option 'deadline' is unknown"),
    ],
)
def test_what_cannot_work_is_one_clear_error(runs: Runs, changes: dict[str, Any], said: str) -> None:
    end = runs.end(runs.request(**changes))
    assert end.exit_code == 1
    assert end.error is not None
    assert end.error.startswith("[infra:configuration] ")
    assert said in end.error


def test_a_sandbox_that_cannot_be_made_leaves_its_reason(runs: Runs, toy: Toy, tmp_path: Path) -> None:
    """Upstream raises past eval.json then, and would forget why."""
    request = runs.request()
    runs.end(request)
    bare = tmp_path / "dataset"
    (bare / REPO).mkdir(parents=True)
    (bare / REPO / f"task{TASK}").symlink_to(toy.task)
    broken = make_toy(tmp_path / "broken")
    (broken.task / "runner.sh").unlink()
    end = runs.end(replace(request, key="e", stage="eval", dataset=str(broken.dataset)))
    assert end.error is not None
    assert "runner.sh is missing" in end.error
    assert not (runs.pair_folder(request) / "eval.json").exists()
    assert read(Path(request.staging, REPORT))["error"] == end.error


def test_an_execution_is_served_by_our_sandbox_where_there_is_one_and_by_upstream_s_elsewhere(runs: Runs) -> None:
    request = runs.request()
    runs.end(request)
    # Neither has anything to talk to here, so each says in its own words what it missed.
    nowhere = {"DOCKER_HOST": "tcp://127.0.0.1:1", "MODAL_TOKEN_ID": "", "HOME": request.staging}
    for backend, said in (("docker", r"^\[infra:engine\] "), ("gcp", "project_id required")):
        changed = replace(request, key=backend, stage="eval", backend=backend, environment=nowhere)
        end = runs.end(changed)
        assert end.error is not None
        assert re.search(said, end.error), end.error
        assert end.isolation == backend


def test_a_harness_without_a_mode_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cooperbench.runner.team", None)
    with pytest.raises(InfrastructureError, match="has no mode team"):
        child_module._agents_function("team")


# Harnesses of other versions.


def older(repo_name: str, task_id: int, backend: str = "docker") -> None:
    """A function as an older harness has it."""


def stranger(repo_name: str, task_id: int, shard: int, backend: str = "docker") -> None:
    """A function that wants to know what we do not."""


def test_only_what_a_version_takes_is_passed() -> None:
    arguments = {"repo_name": "r", "task_id": 1, "backend": "process", "quiet": True}
    assert fit(older, arguments, frozenset({"quiet"})) == {"repo_name": "r", "task_id": 1, "backend": "process"}


def test_what_a_version_would_not_hear_of_is_an_error() -> None:
    with pytest.raises(InfrastructureError, match=r"older cannot be told messaging_enabled; use another version"):
        fit(older, {"repo_name": "r", "task_id": 1, "messaging_enabled": False}, frozenset())


def test_what_a_version_wants_beyond_our_knowledge_is_an_error() -> None:
    with pytest.raises(InfrastructureError, match=r"stranger wants shard, which we do not know"):
        fit(stranger, {"repo_name": "r", "task_id": 1}, frozenset())


@pytest.mark.usefixtures("upstream")
def test_upstream_s_functions_take_all_that_we_say() -> None:
    from cooperbench.eval.evaluate import _evaluate_single
    from cooperbench.runner.coop import execute_coop
    from cooperbench.runner.solo import execute_solo
    from cooperbench.runner.team import execute_team

    common = (
        "repo_name task_id features run_name agent_name model_name force quiet backend agent_config "
        "dataset_dir logs_dir"
    )
    talking = f"{common} messaging_enabled git_enabled redis_url"
    wanted: tuple[tuple[Callable[..., Any], str], ...] = (
        (execute_solo, common),
        (execute_coop, talking),
        (execute_team, talking),
        (_evaluate_single, "run_info force backend dataset_dir"),
    )
    for function, names in wanted:
        assert set(fit(function, dict.fromkeys(names.split()), frozenset())) == set(names.split())


# Words.


def test_errors_are_named_with_their_kind() -> None:
    assert describe(ValueError("no"), []) == "ValueError: no"
    assert describe(KeyError("x"), []) == "KeyError: 'x'"
    assert describe(InfrastructureError("oom", "Killed"), []) == "[infra:oom] Killed"
    assert describe(OSError(28, "No space left on device", "f"), []) == "[infra:disk] No space left on device: f"


def test_a_text_is_cut_to_a_fair_length() -> None:
    assert len(shorten("x" * 10**6)) < 10_000


def test_the_server_needs_nothing_of_ours_but_its_files(tmp_path: Path) -> None:
    """An interpreter without site-packages gets as far as the harness itself, and says that this is missing."""
    import socket

    from cooperbench_assets.execution.worker import wire

    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-I", "-S", str(SERVER), str(theirs.fileno())]
        done = subprocess.run(command, pass_fds=[theirs.fileno()], capture_output=True, text=True, cwd=tmp_path)
        theirs.close()
        received = wire.receive(ours)
    assert done.returncode == 1, done.stderr
    assert received is not None
    assert received[0]["type"] == "failed"
    assert "the harness is not installed in" in received[0]["error"]


@pytest.mark.slow
def test_the_server_started_by_hand_says_what_it_is_for() -> None:
    done = subprocess.run(
        [sys.executable, str(SERVER)], capture_output=True, text=True, env={"PATH": os.environ["PATH"]}
    )
    assert done.returncode == 2
    assert "started by cooperbench-assets" in done.stderr
