"""The scripted agents, through upstream's own functions that run a pair."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.demo import DEMO_AGENT, DEMO_MODEL
from cooperbench_assets.demo.assignment import DATASET_VARIABLE, SEED_VARIABLE, Assignment, AssignmentError
from cooperbench_assets.demo.chance import chance
from cooperbench_assets.demo.conversation import reads_last_word
from cooperbench_assets.demo.endings import CoopEnding, coop_ending, solo_ending
from cooperbench_assets.demo.injected_faults import ATTEMPT_VARIABLE, agent_fault
from cooperbench_assets.transcripts.listing import pair_rows
from cooperbench_assets.transcripts.page import pair_page
from cooperbench_assets.transcripts.sources import source_of_logs
from cooperbench_assets_tests.demo.bench import PAIRS, TRAITS, Bench, split

# Upstream's messaging calls it; what it is told about that is not our matter.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

CALM = {"injected_faults": {"rate": 0}, "pace_seconds": 0}

Runner = Callable[..., "Tried"]


class Tried:
    """The folder that upstream wrote for one pair."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    @property
    def agents(self) -> list[dict[str, Any]]:
        result = self.json("result.json")
        return [result["agent"]] if "agent" in result else [result["agents"][f"agent{n}"] for n in (1, 2)]

    @property
    def patches(self) -> list[str]:
        names = (
            ["solo"]
            if self.folder.parts[-4] == "solo"
            else [f"agent{n}" for n in split("/".join(self.folder.parts[-3:]))[1:]]
        )
        return [(self.folder / f"{name}.patch").read_text() for name in names]


@pytest.fixture
def run(harness: object, dataset: Path, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Run one pair as upstream's own `run` does."""
    from cooperbench.runner.coop import execute_coop
    from cooperbench.runner.solo import execute_solo

    monkeypatch.setenv(DATASET_VARIABLE, str(dataset))
    logs = tmp_path / "logs"

    def one(pair: str, name: str, config: dict[str, Any] | None = None, url: str = redis_url) -> Tried:
        task, *features = split(pair)
        repo, _, task_id = task.partition("/")
        (tmp_path / "agent.yaml").write_text(json.dumps(CALM if config is None else config))
        shared: dict[str, Any] = {
            "agent_name": DEMO_AGENT, "model_name": DEMO_MODEL, "quiet": True, "force": True, "backend": "process",
            "agent_config": str(tmp_path / "agent.yaml"), "dataset_dir": dataset, "logs_dir": logs,
        }  # fmt: skip
        mode = "coop" if "coop" in name else "solo"
        if mode == "solo":
            execute_solo(repo, int(task_id), features, name, **shared)
        else:
            talk = "nocomm" not in name
            execute_coop(repo, int(task_id), features, name, redis_url=url, messaging_enabled=talk, **shared)
        return Tried(logs / name / mode / pair)

    return one


def with_manner(manner: str, *, conflict: bool = True, right: bool = True) -> str:
    """A pair whose agents agree on a manner in coop-comm, seed 0."""

    def fits(pair: str, ending: CoopEnding) -> bool:
        traits = TRAITS[pair]
        works = ending.works == ("right", "right") or not right
        return ending.manner == manner and traits.conflict == conflict and not traits.stubborn and works

    return next(pair for pair in PAIRS if fits(pair, coop_ending(pair, "coop-comm", 0, TRAITS[pair])))


@pytest.mark.parametrize("pair", PAIRS[::20])
def test_one_agent_ends_as_planned(run: Runner, bench: Bench, pair: str) -> None:
    tried, ending = run(pair, "demo-solo-seed1"), solo_ending(pair, 1, TRAITS[pair])
    (agent,) = tried.agents
    assert (agent["status"], agent["error"]) == (ending.status, None)
    assert 0 < agent["cost"] < 0.05
    assert agent["steps"] > 0 < agent["input_tokens"]
    task, a, b = split(pair)
    patches = bench.submissions(task)
    if "missing" not in ending.works:
        assert tried.patches == [patches["pairs"][f"{a}_{b}"]["-".join(ending.works)]]
    elif ending.works[0] != "missing":
        assert tried.patches == [patches["features"][str(a)][ending.works[0]]]


def test_everything_says_that_the_agents_are_scripted(run: Runner) -> None:
    tried = run(PAIRS[0], "demo-solo")
    result = tried.json("result.json")
    assert (result["agent_framework"], result["model"]) == ("scripted", "scripted/demo")
    assert "scripted agent" in tried.json("solo_traj.json")["messages"][0]["content"]


@pytest.mark.parametrize("name", ["demo-solo", "demo-coop-comm", "demo-coop-nocomm"])
def test_the_same_pair_setting_and_seed_give_the_same_patches(run: Runner, name: str) -> None:
    pair = with_manner("aside")
    first = run(pair, name)
    earlier, usage = first.patches, [{**agent} for agent in first.agents]
    second = run(pair, name)
    assert "" not in earlier
    assert second.patches == earlier
    assert second.agents == usage


def test_another_seed_is_another_try(run: Runner) -> None:
    costs = {run(PAIRS[0], f"demo-solo-seed{seed}").agents[0]["cost"] for seed in range(1, 6)}
    assert len(costs) > 1


def test_agents_that_talk_send_real_messages(run: Runner) -> None:
    tried = run(with_manner("aside"), "demo-coop-comm")
    messages = tried.json("conversation.json")
    assert [message["from"] for message in messages[:3]] == ["agent1", "agent2", "agent1"]
    assert all(message["to"] != message["from"] and message["message"] for message in messages)
    times = [message["timestamp"] for message in messages]
    assert times == sorted(times)
    assert tried.json("result.json")["messages_sent"] == len(messages)
    a = split("/".join(tried.folder.parts[-3:]))[1]
    heard = "\n".join(str(one["content"]) for one in tried.json(f"agent{a}_traj.json")["messages"])
    told = [one["message"] for one in messages if one["from"] == "agent2"]
    assert all(f"[Message from agent2]: {one}" in heard or f"[Reply from agent2]: {one}" in heard for one in told)


def test_a_trajectory_has_a_reply_for_every_step_and_the_steps_of_messages_are_read_from_it(run: Runner) -> None:
    tried = run(with_manner("aside"), "demo-coop-comm")
    for agent in tried.json("result.json")["agents"].values():
        turns = tried.json(f"agent{agent['feature_id']}_traj.json")["messages"]
        assert sum(turn["role"] == "assistant" for turn in turns) == agent["steps"]
    reading = read_run(tried.folder.parents[3], "coop")
    (pair,) = reading.pairs.values()
    assert [step is not None and step >= 1 for step in pair.message_steps] == [True] * len(pair.messages or [])
    assert pair.message_steps[0] == 1


def test_agents_that_may_not_talk_do_not(run: Runner) -> None:
    tried = run(PAIRS[0], "demo-coop-nocomm")
    assert tried.json("conversation.json") == []
    assert [agent["status"] for agent in tried.agents] == ["Submitted", "Submitted"]


def test_talking_lets_the_second_agent_keep_out_of_the_way(run: Runner, bench: Bench) -> None:
    pair = with_manner("aside")
    task, a, b = split(pair)
    patches = bench.submissions(task)["features"]
    assert run(pair, "demo-coop-comm").patches == [patches[str(a)]["right"], patches[str(b)]["aside"]]


def test_agents_that_cannot_reach_each_other_work_apart(
    run: Runner, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cooperbench.agents.mini_swe_agent_v2.connectors.messaging import MessagingConnector

    monkeypatch.setattr(MessagingConnector, "send", lambda self, recipient, content: False)
    pair = with_manner("aside")
    task, _, b = split(pair)
    tried = run(pair, "demo-coop-comm")
    assert tried.patches[1] == bench.submissions(task)["features"][str(b)]["right"]
    assert tried.json("conversation.json") == []


def test_without_a_redis_the_agents_say_so(run: Runner) -> None:
    for agent in run(PAIRS[0], "demo-coop-comm", url="redis://127.0.0.1:1").agents:
        assert agent["status"] == "Error"
        assert "connecting to 127.0.0.1:1" in agent["error"]


def test_a_wait_for_an_agent_that_never_comes_is_bounded(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    from cooperbench_assets.demo import conversation

    monkeypatch.setattr(conversation, "_present", lambda box, peer, deadline: True)
    monkeypatch.setattr(
        "cooperbench_assets.demo.agents.script", lambda *args, **options: [(1, "hi"), (2, "ho"), (1, "he")] * 2
    )
    from cooperbench.agents.mini_swe_agent_v2.connectors.messaging import MessagingConnector

    monkeypatch.setattr(MessagingConnector, "receive", lambda self: [])
    monkeypatch.setattr(MessagingConnector, "has_exited", lambda self, peer: False)
    tried = run(PAIRS[0], "demo-coop-comm", {**CALM, "patience_seconds": 0.05})
    assert all(agent["status"] in ("Submitted", "LimitsExceeded") for agent in tried.agents)


FAULTS: dict[str, tuple[str, str]] = {
    telling: (pair, name)
    for name, setting in (("demo-solo", "solo"), ("demo-coop-comm", "coop-comm"), ("demo-coop-nocomm", "coop-nocomm"))
    for pair in PAIRS
    for fault in [agent_fault(pair, setting, 0, 1)]  # type: ignore[arg-type]
    if fault is not None
    for telling in [fault.telling]
}
"""A pair and run for each way of telling that infrastructure failed, by the default policy."""


@pytest.mark.parametrize("telling", ["returned", "raised", "silent"])
def test_infrastructure_fails_in_the_first_try_and_not_the_second(
    run: Runner, monkeypatch: pytest.MonkeyPatch, telling: str
) -> None:
    pair, name = FAULTS[telling]
    (died,) = (agent for agent in run(pair, name, {"pace_seconds": 0}).agents if agent["status"] == "Error")
    assert (died["error"] is None) == (telling == "silent")
    assert died["patch_lines"] == 0
    monkeypatch.setenv(ATTEMPT_VARIABLE, "2")
    assert all(agent["status"] != "Error" for agent in run(pair, name, {"pace_seconds": 0}).agents)


def test_a_silent_fault_is_told_by_the_stream_alone(run: Runner) -> None:
    tried = run(*FAULTS["silent"], {"pace_seconds": 0})
    (stream,) = tried.folder.glob("*_stream.jsonl")
    last = json.loads(stream.read_text().splitlines()[-1])
    assert (last["is_error"], last["api_error_status"]) == (True, 529)
    assert "Overloaded" in last["result"]


def test_nobody_waits_long_for_an_agent_that_failed(run: Runner) -> None:
    failing = (pair for pair in PAIRS if agent_fault(pair, "coop-comm", 0, 1))
    # Whoever waits for it waits longer than a test may take.
    tried = run(next(failing), "demo-coop-comm", {"pace_seconds": 0, "patience_seconds": 3600})
    assert sum(agent["status"] == "Error" for agent in tried.agents) == 1


def test_a_dataset_that_is_not_there_is_one_clear_error(run: Runner, tmp_path: Path) -> None:
    (agent,) = run(PAIRS[0], "demo-solo", {**CALM, "dataset": str(tmp_path / "nowhere")}).agents
    assert agent["status"] == "Error"
    assert agent["error"].startswith("[infra:configuration] ")
    assert "nowhere" in agent["error"]
    assert DATASET_VARIABLE in agent["error"]


@pytest.mark.parametrize(
    ("run_name", "seed"),
    [("demo-solo", 0), ("demo-solo-seed2", 2), ("demo-coop-comm-seed11", 11), ("x-nocomm", 0), ("a_seed_3", 3)],
)
def test_the_seed_is_read_from_the_runs_name(run_name: str, seed: int) -> None:
    assert Assignment.read(f"logs/{run_name}/solo/{PAIRS[0]}", talking=False, config={}).seed == seed


def test_runs_with_other_names_are_seeds_of_their_own() -> None:
    seeds = {Assignment.read(f"{name}/solo/{PAIRS[0]}", talking=False, config={}).seed for name in ("first", "second")}
    assert len(seeds) == 2


def test_config_goes_before_environment_and_environment_before_the_runs_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SEED_VARIABLE, "7")
    monkeypatch.setenv(DATASET_VARIABLE, "/elsewhere")

    def read(config: dict[str, Any]) -> Assignment:
        return Assignment.read(f"/logs/demo-solo-seed1/coop/{PAIRS[0]}/", talking=True, config=config)

    assert (read({}).seed, str(read({}).dataset)) == (7, "/elsewhere")
    assert (read({"seed": 9}).seed, str(read({"dataset": "/here"}).dataset)) == (9, "/here")
    assert (read({}).setting, read({}).pair, read({}).attempt) == ("coop-comm", PAIRS[0], 1)


@pytest.mark.parametrize(
    "config",
    [{"seed": "two"}, {"pace_seconds": -1}, {"patience_seconds": "long"}, {"injected_faults": {"often": True}}],
)
def test_a_config_that_cannot_be_is_one_clear_error(config: dict[str, Any]) -> None:
    with pytest.raises(AssignmentError, match=r"^\[infra:configuration\] agent config: "):
        Assignment.read(f"logs/demo-solo/solo/{PAIRS[0]}", talking=False, config=config)


def test_a_number_that_is_none_in_the_environment_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ATTEMPT_VARIABLE, "first")
    with pytest.raises(AssignmentError, match=ATTEMPT_VARIABLE):
        Assignment.read(f"logs/demo-solo/solo/{PAIRS[0]}", talking=False, config={})


def test_a_folder_that_names_no_pair_is_an_error() -> None:
    with pytest.raises(AssignmentError, match="log folder"):
        Assignment.read(None, talking=False, config={})


@pytest.mark.parametrize("name", ["demo-solo-seed1", "demo-coop-comm"])
def test_every_command_of_a_transcript_prints_what_the_transcript_says(
    run: Runner, dataset: Path, tmp_path: Path, name: str
) -> None:
    tried = run(with_manner("aside"), name)
    task = "/task".join(tried.folder.parts[-3:-1])
    for file in tried.folder.glob("*_traj.json"):
        checkout = tmp_path / file.stem
        shutil.copytree(dataset / task / "repo", checkout)
        messages = json.loads(file.read_text())["messages"]
        commands = 0
        for asked, answered in pairwise(messages):
            if asked["role"] != "assistant":
                continue
            command = json.loads(asked["tool_calls"][0]["function"]["arguments"])["command"]
            if "send_message" in command:
                continue
            ran = subprocess.run(["bash", "-c", command], cwd=checkout, capture_output=True, text=True)
            said = json.loads(answered["content"])
            assert (ran.stdout, ran.stderr, ran.returncode) == (said["output"], "", said["returncode"]), command
            commands += 1
        assert commands > 3


def test_a_transcript_has_times_in_order_and_the_costs_of_its_result(run: Runner) -> None:
    tried = run(with_manner("aside"), "demo-coop-comm")
    for agent in tried.json("result.json")["agents"].values():
        messages = tried.json(f"agent{agent['feature_id']}_traj.json")["messages"]
        times = [one["extra"]["timestamp"] for one in messages if "extra" in one]
        assert times == sorted(times)
        replies = [one["extra"] for one in messages if one["role"] == "assistant"]
        assert sum(one["cost"] for one in replies) == pytest.approx(agent["cost"])
        assert sum(one["response"]["usage"]["prompt_tokens"] for one in replies) == agent["input_tokens"]


@pytest.mark.parametrize("late", [True, False])
def test_the_last_word_is_read_late_or_never(run: Runner, late: bool) -> None:
    pair = next(
        pair
        for pair in PAIRS
        for ending in [coop_ending(pair, "coop-comm", 0, TRAITS[pair])]
        if ending.statuses == ("Submitted", "Submitted")
        and "missing" not in ending.works
        and not agent_fault(pair, "coop-comm", 0, 1)
        and chance("update", pair, 0) < 0.35
        and reads_last_word(pair, 0) == late
    )
    tried = run(pair, "demo-coop-comm")
    source = source_of_logs(tried.folder.parents[3], tried.folder.parents[4] / "cache")
    page = pair_page(source, next(pair_rows(source)).path)
    assert page.messages is not None
    *_, last = page.messages
    assert last.text.startswith("Done: ")
    assert last.read == ("read" if late else "never")
    assert {message.read for message in page.messages[:-1]} == {"read"}
    assert None not in {message.sent_index for message in page.messages}
    assert all((one.sent_at or 0) <= (one.read_at or 0) for one in page.messages if one.read == "read")
