"""Steps of messages, out of trajectories as the harness's agents leave them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.benchmark.steps import message_steps
from cooperbench_assets_tests.trees import Tree, agent, message, pairs

(PAIR,) = pairs(1)
FEATURE, OTHER = PAIR.features


def _said(text: str, to: str = "agent2", command: str = "send_message {to} <<'MSG'\n{text}\nMSG") -> dict[str, Any]:
    """A turn that calls the shell, as mini-swe-agent keeps it: no content, the command in the arguments of a tool."""
    arguments = json.dumps({"command": command.format(to=to, text=text)})
    call = {"type": "function", "function": {"name": "bash", "arguments": arguments}}
    return {"role": "assistant", "content": "", "tool_calls": [call], "extra": {"timestamp": 1.5}}


WORK: dict[str, Any] = {"role": "assistant", "content": "I look at parser.py"}
TOLD: dict[str, Any] = {"role": "user", "content": "[Message from agent2]: I take parser.py with send_message"}
SPOILT: dict[str, Any] = {"role": "user", "content": "unknown tool", "extra": {"interrupt_type": "FormatError"}}
SUMMARY: dict[str, Any] = {"role": "assistant", "content": "so far …", "extra": {"summary": True}}


def _steps(tmp_path: Path, turns: list[dict[str, Any]], *messages: dict[str, Any], **record: Any) -> list[int | None]:
    """The steps of messages that the first agent sent, by a trajectory of these turns."""
    tree = Tree(tmp_path / "logs" / "run", "coop")
    steps = sum(turn["role"] == "assistant" or "extra" in turn for turn in turns)
    tree.result(PAIR, agents=[agent(steps=record.pop("steps", steps)), agent(steps=3)])
    trajectory = {"agent_id": "agent1", "feature_id": FEATURE, "messages": turns} | record
    tree.write(PAIR, f"agent{FEATURE}_traj.json", trajectory)
    tree.conversation(PAIR, *messages)
    return read_run(tree.run_dir, "coop").pairs[PAIR].message_steps


def test_a_message_is_found_in_the_arguments_of_its_tool_call(tmp_path: Path) -> None:
    text = 'I take "parser.py"\nand leave the rest'
    turns = [TOLD, WORK, TOLD, _said(text), WORK, _said("Done.")]
    assert _steps(tmp_path, turns, message(text=text), message(text="Done.")) == [2, 4]


def test_a_message_is_found_in_the_text_of_its_turn(tmp_path: Path) -> None:
    turns = [WORK, {"role": "assistant", "content": '[tool_use Bash] coop-send agent2 "I take parser.py"'}]
    assert _steps(tmp_path, turns, message()) == [2]


def test_a_reply_that_could_not_be_used_is_a_step_too(tmp_path: Path) -> None:
    assert _steps(tmp_path, [SPOILT, WORK, _said("I take parser.py")], message()) == [3]


def test_two_messages_may_be_sent_in_one_step(tmp_path: Path) -> None:
    both = _said("one", command="send_message {to} '{text}'; send_message {to} 'two'")
    assert _steps(tmp_path, [both], message(text="one"), message(text="two")) == [1, 1]


def test_the_same_text_twice_is_two_steps(tmp_path: Path) -> None:
    turns = [_said("again"), WORK, _said("again")]
    assert _steps(tmp_path, turns, message(text="again"), message(text="again")) == [1, 3]
    assert _steps(tmp_path, turns, message(text="again")) == [None]


@pytest.mark.parametrize(
    "changes",
    [{"steps": 7}, {"agent_id": "agent2"}, {"feature_id": 99}],
    ids=["of more steps than turns", "of another agent", "of another feature"],
)
def test_a_trajectory_that_is_not_the_senders_steps_one_by_one_tells_nothing(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert _steps(tmp_path, [_said("I take parser.py")], message(), **changes) == [None]


def test_a_summary_of_the_context_is_no_step(tmp_path: Path) -> None:
    assert _steps(tmp_path, [SUMMARY, _said("I take parser.py")], message(), steps=1) == [1]


def test_what_was_only_thought_of_or_heard_was_not_sent(tmp_path: Path) -> None:
    thought = {"role": "assistant", "content": "I take parser.py"}
    assert _steps(tmp_path, [thought, TOLD], message()) == [None]


def test_messages_out_of_the_order_of_their_steps_have_none(tmp_path: Path) -> None:
    turns = [_said("first"), _said("second")]
    assert _steps(tmp_path, turns, message(text="second"), message(text="first")) == [None, None]


def test_the_other_agents_messages_are_its_own_affair(tmp_path: Path) -> None:
    turns = [_said("I take parser.py")]
    found = _steps(tmp_path, turns, message("agent2", "agent1", "mine"), message(), message("stranger", text="x"))
    assert found == [None, 1, None]


def test_without_a_trajectory_or_with_a_torn_one_the_pair_is_read(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "logs" / "run", "coop")
    tree.result(PAIR)
    tree.conversation(PAIR, message())
    for content in (None, b"", b'{"messages": [{"role": "assistant"', b"[]", b'{"messages": [1, null, "x"]}'):
        if content is not None:
            tree.write(PAIR, f"agent{FEATURE}_traj.json", content)
        reading = read_run(tree.run_dir, "coop")
        assert reading.quarantine == []
        assert reading.pairs[PAIR].message_steps == [None]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["assistant", "user", "tool"]), "content": st.just("send_message agent2 'hello'") | JSON},
    optional={"extra": JSON, "tool_calls": JSON},
)


@pytest.mark.slow
@given(turns=st.lists(TURN, max_size=5), count=st.integers(0, 4))
def test_whatever_a_trajectory_holds_a_step_is_one_of_the_agents(
    tmp_path_factory: pytest.TempPathFactory, turns: list[dict[str, Any]], count: int
) -> None:
    tree = Tree(tmp_path_factory.mktemp("any") / "run", "coop")
    tree.result(PAIR, agents=[agent(steps=len(turns)), agent(steps=len(turns))])
    tree.write(PAIR, f"agent{FEATURE}_traj.json", {"messages": turns})
    tree.conversation(PAIR, *[message(text="hello")] * count)
    reading = read_run(tree.run_dir, "coop").pairs[PAIR]
    names = {f"agent{FEATURE}_traj.json"}
    assert reading.message_steps == message_steps(str(reading.folder), names, reading.agents, reading.messages or [])
    assert len(reading.message_steps) == count
    assert all(step is None or 1 <= step <= len(turns) for step in reading.message_steps)
