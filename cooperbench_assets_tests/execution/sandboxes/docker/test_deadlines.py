"""Upstream's own agent on Docker at its deadline: what it is recorded as, and what it cost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.execution.api import plan_stage, run_agents
from cooperbench_assets.execution.attempts import deadlines
from cooperbench_assets.execution.job import CellJob
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.runner import preflight
from cooperbench_assets.execution.runner.harness_servers import close_servers
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.execution.sandboxes.docker.leftovers import belongings
from cooperbench_assets_tests.execution.cells import attempt, nothing_left, outcomes
from cooperbench_assets_tests.execution.sandboxes.docker.model_server import (
    COMPLETION_TOKENS,
    PROMPT_TOKENS,
    ModelServer,
    Trouble,
    serving,
)
from cooperbench_assets_tests.execution.sandboxes.docker.places import PRICES
from cooperbench_assets_tests.execution.sandboxes.docker.upstreams_agents import (
    PAIR,
    Clock,
    age,
    clock,
    meanwhile,
    model_cell,
    wait_for,
)
from cooperbench_assets_tests.execution.toy import Toy

__all__ = ["clock"]

pytestmark = [pytest.mark.engine, pytest.mark.slow]

Make = Callable[..., CellJob]
ALL = LaunchOptions()
UNDER, OVER = 1.5, 11.5
"""Deadlines in minutes, under and over the ten minutes within which a reply shows that a model works."""

PER_REPLY = PROMPT_TOKENS * PRICES["input_cost_per_token"] + COMPLETION_TOKENS * PRICES["output_cost_per_token"]
COOP = {"mode": "coop", "setting": "coop-nocomm", "run_name": "toy-coop"}


@pytest.fixture(scope="module")
def server(toy: Toy, toy_image: str) -> Iterator[ModelServer]:
    with serving(toy.dataset) as server:
        yield server


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Slots and the command that makes containers: the same for all tests, which so share one harness."""
    yield tmp_path_factory.mktemp("state")
    close_servers()


@pytest.fixture
def made(server: ModelServer, toy: Toy, tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a cell whose agents ask a server that works, until it is told otherwise."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    # The preflight's question is one call more, and nothing that these tests are about.
    monkeypatch.setattr(preflight.Preflight, "_asks", lambda _self: False)
    server.reset()

    def make(minutes: float, url: str = server.url, **changes: Any) -> CellJob:
        return model_cell(toy, tmp_path, url, minutes, state=state, **changes)

    return make


def result(job: CellJob) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((job.pair_dir(PAIR) / "result.json").read_text())
    return content


@contextmanager
def deadline_after(happened: Callable[[], Any], job: CellJob, clock: Clock, *, silent: bool = False) -> Iterator[None]:
    """Let the deadline come when something has happened."""

    def let_time_pass() -> None:
        wait_for(happened)
        # All that the agent ever prints is that its container started, and that it asks again.
        age(job)
        clock.at_deadline(job, silent=silent)

    with meanwhile(let_time_pass):
        yield


@pytest.mark.parametrize("minutes", [UNDER, OVER])
def test_an_agent_whose_model_answers_until_the_deadline_has_failed_and_is_tried_once_with_what_it_cost(
    minutes: float, server: ModelServer, made: Make, clock: Clock
) -> None:
    job = made(minutes)
    server.endless = True
    with deadline_after(lambda: server.answered >= 12, job, clock):
        report = run_agents(job, ALL)
    assert (report.done, dict(report.failed)) == (1, {})
    assert outcomes(job) == {PAIR.folder: "fail agent_timeout"}
    assert not plan_stage("agent", replace(job, limits=replace(job.limits, agent_attempts=3)), ALL).runs
    tried = attempt(job, PAIR, "agent-1")
    assert (tried["outcome"], tried["cost_estimated"]) == ("completed", False)
    written = result(job)
    replies = round(tried["cost_usd"] / PER_REPLY)
    # The last of them may have been on its way when the agent was killed.
    assert server.answered - 2 <= replies <= server.answered
    assert tried["cost_usd"] == pytest.approx(replies * PER_REPLY)
    assert written["total_cost"] == pytest.approx(replies * PER_REPLY)
    counted = {name: written["agent"][name] for name in ("input_tokens", "output_tokens")}
    assert counted == {"input_tokens": replies * PROMPT_TOKENS, "output_tokens": replies * COMPLETION_TOKENS}
    assert "cache_read_tokens" not in written["agent"], "what is not known is left out"
    nothing_left(job)


def test_a_pair_whose_one_agent_s_model_hangs_is_infrastructure_though_the_other_one_works(
    server: ModelServer, made: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One hangs in real time, beside one that is answered at once: seconds must do for what is minutes otherwise.
    monkeypatch.setattr(deadlines, "LONGEST_PATIENCE_SECONDS", 5.0)
    job = made(OVER, **COOP)
    server.endless, server.trouble, server.trouble_for, server.trouble_after = True, "hang", "agent2", 4
    server.pause = 0.2  # The one that works is not to start a hundred commands meanwhile.

    def let_time_pass() -> None:
        wait_for(lambda: len(server.asked) > server.answered)
        hangs = time.monotonic()
        wait_for(lambda: time.monotonic() > hangs + 8)
        clock.at_deadline(job)

    with meanwhile(let_time_pass):
        report = run_agents(job, ALL)
    assert dict(report.failed) == {"provider_timeout": 1}
    errors = {name: agent["error"] for name, agent in result(job)["agents"].items()}
    assert errors["agent1"].startswith("[agent_timeout]")
    assert errors["agent2"].startswith("[infra:provider_timeout]")
    replies = round(attempt(job, PAIR, "agent-1")["cost_usd"] / PER_REPLY)
    assert server.answered - 2 <= replies <= server.answered


HALF_WAY: dict[Trouble, str] = {"401": "auth", "429": "rate_limit", "dead": "provider"}


@pytest.mark.parametrize("trouble", HALF_WAY)
def test_an_agent_whose_model_fails_half_way_ends_before_its_deadline_and_costs_what_was_answered(
    trouble: Trouble, toy: Toy, made: Make
) -> None:
    with serving(toy.dataset) as server:
        job = made(OVER, server.url)
        server.endless, server.trouble, server.trouble_after = True, trouble, 4
        report = run_agents(job, ALL)
    assert dict(report.failed) == {HALF_WAY[trouble]: 1}
    tried = attempt(job, PAIR, "agent-1")
    assert (tried["outcome"], tried["cost_estimated"]) == ("infra_error", False)
    assert tried["cost_usd"] == pytest.approx(4 * PER_REPLY)


def containers(job: CellJob, engine: Engine) -> list[str]:
    """Ids of the cell's containers on the engine."""
    return [one.id for one in belongings(engine) if one.described.get("experiment") == job.experiment]


@pytest.mark.parametrize("changes", [{}, COOP], ids=["solo", "coop"])
def test_agents_of_a_container_that_is_killed_end_at_once_and_ask_nothing_any_more(
    changes: dict[str, Any], server: ModelServer, made: Make, engine: Engine
) -> None:
    job = made(OVER, **changes)
    server.endless = True
    asked: list[int] = []

    def kill() -> None:
        agents = 2 if changes else 1
        wait_for(lambda: len(containers(job, engine)) == agents and server.answered >= 6)
        engine.api.kill(containers(job, engine)[0])
        asked.append(len(server.asked))

    with meanwhile(kill):
        report = run_agents(job, ALL)
    assert dict(report.failed) == {"container_died": 1}
    # What was on its way when it died, of each agent, and the other one's next step.
    assert len(server.asked) - asked[0] <= (4 if changes else 1)
    tried = attempt(job, PAIR, "agent-1")
    assert tried["retryable"] is True
    assert "of an agent is gone" in tried["evidence"]
    assert tried["cost_usd"] == pytest.approx(server.answered * PER_REPLY)
    nothing_left(job)


# The last here, because an agent that asks again has another harness server, and each imports litellm anew.
HANGS = {"never": (0, 1, 600), "half-way": (6, 1, 600), "asked again and again": (6, 1000, 1)}
"""Answers before it hangs; how often the agent asks again, and seconds that it waits for each answer."""


@pytest.mark.parametrize(("minutes", "hang"), [(UNDER, "never"), (UNDER, "half-way"), (OVER, "asked again and again")])
def test_an_agent_whose_model_hangs_is_infrastructure_and_costs_what_was_answered(
    minutes: float, hang: str, server: ModelServer, made: Make, clock: Clock
) -> None:
    answers, tries, timeout = HANGS[hang]
    job = made(minutes, tries=tries, timeout=timeout)
    server.endless, server.trouble, server.trouble_after = True, "hang", answers
    asked = answers + (3 if tries > 1 else 1)
    with deadline_after(lambda: len(server.asked) >= asked, job, clock, silent=True):
        report = run_agents(job, ALL)
    assert (report.done, dict(report.failed)) == (0, {"provider_timeout": 1})
    assert outcomes(job) == {PAIR.folder: "infra_error agent/provider_timeout"}
    tried = attempt(job, PAIR, "agent-1")
    assert (tried["outcome"], tried["retryable"], tried["cost_estimated"]) == ("infra_error", True, False)
    assert tried["cost_usd"] == pytest.approx(answers * PER_REPLY)
    more = replace(job, limits=replace(job.limits, agent_attempts=3))
    assert len(plan_stage("agent", more, ALL).runs) == 1
    nothing_left(job)


def test_a_model_that_refuses_until_the_deadline_is_recorded_as_what_it_says(
    server: ModelServer, made: Make, clock: Clock
) -> None:
    job = made(OVER, tries=1000)
    server.endless, server.trouble, server.trouble_after = True, "429", 4
    with deadline_after(lambda: len(server.asked) >= 6, job, clock, silent=True):
        report = run_agents(job, ALL)
    assert dict(report.failed) == {"rate_limit": 1}
    assert attempt(job, PAIR, "agent-1")["cost_usd"] == pytest.approx(4 * PER_REPLY)
