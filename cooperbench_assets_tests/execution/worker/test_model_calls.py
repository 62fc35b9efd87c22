"""What agents ask of their model is counted as it happens, however they ask, and stays when they are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from cooperbench_assets.benchmark.failures import classify, infra
from cooperbench_assets.execution.api import run_agents
from cooperbench_assets.execution.attempts.pair_state import read_states
from cooperbench_assets.execution.job import CellJob
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.planning.budget import Budget
from cooperbench_assets.execution.worker.model_calls import FILE, Calls, watch_runners
from cooperbench_assets_tests.disks import files_at_most
from cooperbench_assets_tests.execution.cells import AGENTS, LASTING, PAIRS, ROOT, attempt, cell
from cooperbench_assets_tests.execution.sandboxes.docker.model_server import (
    COMPLETION_TOKENS,
    PROMPT_TOKENS,
    ModelServer,
    serving,
)
from cooperbench_assets_tests.execution.sandboxes.docker.places import MODEL, PRICES
from cooperbench_assets_tests.execution.sandboxes.docker.upstreams_agents import meanwhile, wait_for
from cooperbench_assets_tests.execution.toy import Toy

FIRST = PAIRS[0]
PER_REPLY = PROMPT_TOKENS * PRICES["input_cost_per_token"] + COMPLETION_TOKENS * PRICES["output_cost_per_token"]

WAYS = """
import asyncio, json, sys, threading
from pathlib import Path
from cooperbench_assets.execution.worker import harness, model_calls as calls

counts = calls.Calls(Path(), str)
calls.listen(counts)
assert "litellm" not in sys.modules  # Agents that do without it do not wait for it.
from litellm import acompletion, completion
import litellm
harness.import_what_agents_need(())
there = set(sys.modules)

url, model, prices = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
given = {"model": model, "messages": [{"role": "user", "content": "?"}], "api_base": url, "api_key": "sk-none",
         "max_retries": 0, "timeout": 20}

def adapter(work):
    return type("Adapter", (), {"run": lambda self, **kwargs: work()})()

async def several(**more):
    await asyncio.gather(*(acompletion(**given, **more) for _ in range(3)))
    await asyncio.sleep(1)

def fail():
    try:
        completion(**{**given, "api_base": "http://127.0.0.1:1/v1"}, **prices)
    except litellm.exceptions.APIError as error:
        print(type(error).__name__)

ways = {
    "plain": lambda: [completion(**given, **prices) for _ in range(2)],
    "asynchronous": lambda: asyncio.run(several(**prices)),
    "no price": lambda: completion(**{**given, "model": "openai/of-no-list"}),
    "failing": fail,
}
module = sys.modules[__name__]
for name, work in ways.items():
    module.get_runner = lambda work=work: adapter(lambda: (work(), Result)[1])
    calls.watch_runners(module, counts)
    class Result: status, patch, cost, error = "Submitted", "", 0.0, None
    thread = threading.Thread(target=module.get_runner().run, kwargs={"agent_id": name})
    thread.start()
    thread.join()
    if name == "plain":
        print(*{module.partition(".")[0] for module in set(sys.modules) - there})
from litellm.utils import executor
executor.shutdown()
"""


@pytest.fixture(scope="module")
def server(core_toy: Toy) -> Iterator[ModelServer]:
    with serving(core_toy.dataset) as server:
        yield server


@pytest.mark.slow
def test_every_way_to_ask_through_litellm_is_counted_by_agent(server: ModelServer, tmp_path: Path) -> None:
    server.reset()
    command = [sys.executable, "-c", WAYS, server.url, MODEL, json.dumps(PRICES)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert {"openai", "mcp"}.isdisjoint(done.stdout.split("\n")[0].split()), "each child would import them anew"
    agents = json.loads((tmp_path / FILE).read_text())["agents"]
    counted = {name: (one["asked"], one["replies"], one["unpriced"]) for name, one in agents.items()}
    assert counted == {"plain": (2, 2, 0), "asynchronous": (3, 3, 0), "no price": (1, 1, 1), "failing": (1, 0, 0)}
    for name in ("plain", "asynchronous"):
        replies = agents[name]["replies"]
        assert agents[name]["cost_usd"] == pytest.approx(replies * PER_REPLY)
        assert agents[name]["tokens"] == {
            "input_tokens": replies * PROMPT_TOKENS,
            "output_tokens": replies * COMPLETION_TOKENS,
        }
    assert agents["failing"]["problem"] in ("InternalServerError", "APIConnectionError")


def test_an_agent_waits_from_its_first_question_until_a_reply_whatever_errors_come_between(tmp_path: Path) -> None:
    counts = Calls(tmp_path, str)

    def now() -> dict[str, Any]:
        content: dict[str, Any] = json.loads((tmp_path / FILE).read_text())["agents"]["solo"]
        return content

    counts.begin("solo")
    assert (now()["asked"], now()["waiting"]) == (0, None)
    counts.asked("solo", "a")
    began = now()["waiting"]
    counts.failed("solo", "Timeout", "a")
    counts.asked("solo", "b")
    assert (now()["waiting"], now()["problem"], now()["asked"]) == (began, "Timeout", 2)
    counts.replied("solo", "b", 0.5, {"input_tokens": 3})
    counts.replied("solo", None, None, {"input_tokens": 4}, goes_on=True)
    said = now()
    assert (said["problem"], said["replies"], said["unpriced"], said["tokens"]) == (None, 2, 1, {"input_tokens": 7})
    assert said["waiting"] == said["last_reply"]


def test_a_second_question_that_is_open_is_waited_for_from_the_first_one_s_reply(tmp_path: Path) -> None:
    counts = Calls(tmp_path, str)
    counts.asked("solo", "a")
    counts.asked("solo", "b")
    counts.replied("solo", "a", 0.1)
    said = json.loads((tmp_path / FILE).read_text())["agents"]["solo"]
    assert said["waiting"] == said["last_reply"]
    counts.replied("solo", "b", 0.1)
    assert json.loads((tmp_path / FILE).read_text())["agents"]["solo"]["waiting"] is None


def test_how_an_agent_ended_and_what_it_handed_in_is_kept_without_secrets(tmp_path: Path) -> None:
    counts = Calls(tmp_path, lambda text: text.replace("sk-secret", "<KEY>"))

    def run(**given: Any) -> Any:
        if given["agent_id"] == "agent2":
            raise RuntimeError("sk-secret was refused")
        return SimpleNamespace(status="Submitted", patch="diff", cost=0.5, error=None, input_tokens=5, output_tokens=0)

    module = ModuleType("runner")
    vars(module)["get_runner"] = lambda name: SimpleNamespace(run=run)
    watch_runners(module, counts)
    module.get_runner("any").run(agent_id="agent1")
    with pytest.raises(RuntimeError):
        module.get_runner("any").run(agent_id="agent2")
    agents = json.loads((tmp_path / FILE).read_text())["agents"]
    assert (tmp_path / "agent1.patch").read_text() == "diff"
    first, second = agents["agent1"], agents["agent2"]
    assert (first["status"], first["result_cost"], first["tokens"]) == ("Submitted", 0.5, {"input_tokens": 5})
    assert (second["status"], second["error"]) == ("Error", "<KEY> was refused")


def test_a_full_disk_ends_no_agent(tmp_path: Path) -> None:
    counts = Calls(tmp_path, str)
    with files_at_most(20):
        counts.asked("solo")
    assert json.loads((tmp_path / FILE).read_text()) == {"agents": {}}
    assert list(tmp_path.iterdir()) == [tmp_path / FILE]


def test_a_patch_that_the_disk_cannot_take_whole_is_no_patch_and_was_not_submitted(tmp_path: Path) -> None:
    counts = Calls(tmp_path, str)
    with files_at_most(2000):
        counts.ended("agent1", SimpleNamespace(status="Submitted", patch="+" * 5000, cost=0.5, error=None))
    assert list(tmp_path.iterdir()) == [tmp_path / FILE]
    said = json.loads((tmp_path / FILE).read_text())["agents"]["agent1"]
    assert (said["status"], said["result_cost"]) == ("Error", 0.5)
    assert classify(said["error"]) == infra("disk")


class Stopped(BaseException):
    """The launch is cancelled."""


@pytest.fixture
def asking(core_toy: Toy, tmp_path: Path, server: ModelServer) -> CellJob:
    """A cell of which the first pair's agent is answered three times, and then waits; the others ask nothing.

    Its harness imports litellm, once for all tests: otherwise each agent that asks would take seconds to.
    """
    server.reset()
    deed = f"ask:{server.url}"
    return cell(core_toy, tmp_path, tries={FIRST: [deed]}, limits=LASTING, external_agents=(AGENTS, "litellm"))


def spent(job: CellJob) -> tuple[str, Any, bool]:
    """Outcome and cost of the first pair's try; its cost is in the cell's, too."""
    tried = attempt(job, FIRST, "agent-1")
    others = 0.5 * len([one for one in read_states(job).values() if one.has_result])
    assert Budget(job, read_states(job)).cell_usd == pytest.approx(3 * PER_REPLY + others)
    return tried["outcome"], tried["cost_usd"], tried["cost_estimated"]


def running(job: CellJob) -> dict[str, Any]:
    """The record of the first pair's try, once the model has answered three times."""
    folder = job.attempts_dir(FIRST) / "agent-1"
    calls = f".staging/{FIRST.repo}-{FIRST.task_id}-{FIRST.folder}-agent-1/{FILE}"

    def ready() -> bool:
        agents = json.loads((job.run_dir / calls).read_text())["agents"] if (job.run_dir / calls).exists() else {}
        return bool(agents and agents["solo"]["replies"] == 3)

    wait_for(ready)
    content: dict[str, Any] = json.loads((folder / "attempt.json").read_text())
    return content


def cost_after_killing(asking: CellJob, whom: Callable[[int], int]) -> None:
    """Assert that the try has the cost of its replies when a process is killed; `whom`: of the child's pid."""
    with meanwhile(lambda: os.kill(whom(running(asking)["pid"]), signal.SIGKILL)):
        run_agents(asking, LaunchOptions())
    outcome, cost, estimated = spent(asking)
    assert outcome in ("interrupted", "infra_error")
    assert (cost, estimated) == (pytest.approx(3 * PER_REPLY), False)


@pytest.mark.slow
def test_a_try_whose_process_is_killed_has_the_cost_of_its_replies(asking: CellJob) -> None:
    cost_after_killing(asking, lambda child: child)


LAUNCH = """
import sys
from pathlib import Path
from cooperbench_assets.execution.api import run_agents
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets_tests.execution.cells import LASTING, cell
from cooperbench_assets_tests.execution.toy import Toy
run_agents(cell(Toy(Path(sys.argv[1])), Path(sys.argv[2]), limits=LASTING), LaunchOptions())
"""


@pytest.mark.slow
def test_a_try_whose_launch_was_killed_has_the_cost_of_its_replies_once_it_is_put_right(
    asking: CellJob, core_toy: Toy, tmp_path: Path
) -> None:
    """Its agent is one that imports litellm when it asks."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    launch = subprocess.Popen([sys.executable, "-c", LAUNCH, str(core_toy.dataset), str(tmp_path)], env=environment)
    try:
        running(asking)
    finally:
        launch.kill()
        launch.wait()
    run_agents(asking, LaunchOptions(pairs=(FIRST.name,)))
    tried = attempt(asking, FIRST, "agent-1")
    assert (tried["outcome"], tried["cost_estimated"]) == ("interrupted", False)
    assert tried["cost_usd"] == pytest.approx(3 * PER_REPLY)


# The last two here, because each ends the server that the others share.
@pytest.mark.slow
def test_a_try_of_a_cancelled_launch_has_the_cost_of_its_replies(asking: CellJob) -> None:
    done: list[bool] = []

    def cancel(_progress: Any) -> None:
        if done:
            raise Stopped

    with meanwhile(lambda: done.append(bool(running(asking)))), pytest.raises(Stopped):
        run_agents(asking, LaunchOptions(), cancel)
    assert spent(asking) == ("interrupted", pytest.approx(3 * PER_REPLY), False)


@pytest.mark.slow
def test_a_try_whose_server_is_killed_has_the_cost_of_its_replies(asking: CellJob) -> None:
    cost_after_killing(asking, _parent)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
