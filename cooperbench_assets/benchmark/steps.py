"""Which of its steps an agent sent a message in, by its trajectory.

What belongs here: finding the messages of conversation.json again among the turns of ``agent<feature>_traj.json``.
What does not: what is said in them (``analysis.messages``).

conversation.json holds no steps, and with some agents no times either. A step is a call of the model; it is known
only where the trajectory holds one turn for every step that the result counts. A trajectory whose context was
compacted has fewer turns, and adapters that write a turn for every block of a reply have more: then nothing is said.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from cooperbench_assets.benchmark.jsonfiles import BadFileError, decode, read_bytes
from cooperbench_assets.benchmark.records import TRAJECTORY, text_of

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from cooperbench_assets.benchmark.evidence import AgentEnd
    from cooperbench_assets.benchmark.records import MessageRecord

SENDING = (b"send_message", b"coop-send", b"coop-broadcast", b"message_content")
"""What stands in a turn that sends: the harness's commands, and the field of its tool."""

_LARGEST = 1 << 27


class _Extra(Struct, frozen=True):
    interrupt_type: Any = None
    summary: Any = None


class _Turn(Struct, frozen=True):
    """As much of a message of a trajectory as tells whether it is a step."""

    role: str | None = None
    extra: _Extra | None = None


_TURN = msgspec.json.Decoder(_Turn)


def message_steps(
    folder: str, names: Container[str], agents: Sequence[AgentEnd], messages: Sequence[MessageRecord]
) -> list[int | None]:
    """The step of its sender, from 1, in which each message was sent; None where it cannot be known.

    Args:
        folder: The pair's folder.
        names: Names of the files in it.
        agents: The agents of the result.
        messages: conversation.json.
    """
    steps: list[int | None] = [None] * len(messages)
    for agent in agents:
        places = [place for place, message in enumerate(messages) if message.sender == agent.name]
        file = f"agent{agent.feature}_traj.json"
        if not places or agent.feature is None or file not in names:
            continue
        turns = _turns(f"{folder}/{file}", agent)
        texts = [(text_of(messages[place].message) or "").strip() for place in places]
        for place, step in zip(places, _found(turns, texts), strict=True):
            steps[place] = step
    return steps


def _turns(path: str, agent: AgentEnd) -> list[bytes]:
    """An agent's turns as they stand in its trajectory; none where they are not its steps one by one."""
    try:
        trajectory = decode(read_bytes(path, _LARGEST), TRAJECTORY)
    except (BadFileError, OSError):
        return []
    if trajectory.feature_id not in (None, agent.feature) or trajectory.agent_id not in (None, agent.name):
        return []
    turns = [bytes(raw) for raw in trajectory.messages if _is_step(bytes(raw))]
    return turns if len(turns) == agent.record.steps else []


def _is_step(raw: bytes) -> bool:
    """Whether a message of a trajectory is a reply of the model, or stands for one that could not be used."""
    try:
        turn = _TURN.decode(raw)
    except (msgspec.MsgspecError, ValueError):
        return False
    if turn.extra is not None and turn.extra.interrupt_type == "FormatError":
        return True
    return turn.role == "assistant" and (turn.extra is None or not turn.extra.summary)


def _found(turns: Sequence[bytes], texts: Sequence[str]) -> list[int | None]:
    """The step of each text, in the order of sending: None from where an order cannot be told."""
    sending = [(step, _strings(raw)) for step, raw in enumerate(turns, 1) if any(word in raw for word in SENDING)]
    steps = [_steps_with(sending, text) for text in texts]
    chosen: list[int | None] = []
    used: dict[str, int] = {}
    for text, possible in zip(texts, steps, strict=True):
        # The same text again was sent in a later step, or not as often as the conversation says.
        place = used.get(text, 0)
        used[text] = place + 1
        chosen.append(possible[place] if len(possible) == texts.count(text) else None)
    known = [step for step in chosen if step is not None]
    in_order = all(first <= second for first, second in pairwise(known))
    return chosen if in_order else [None] * len(chosen)


def _steps_with(sending: Sequence[tuple[int, list[str]]], text: str) -> list[int]:
    """The steps that send a text."""
    return [step for step, strings in sending if text and any(text in string for string in strings)]


def _strings(raw: bytes) -> list[str]:
    """Every text in a turn; arguments of tools, which are JSON in a text, taken apart too."""
    found: list[str] = []
    left = _decoded(raw)
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += [one for key, one in value.items() if key != "response"]
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str):
            found.append(value)
            if value.startswith("{"):
                left += _decoded(value)
    return found


def _decoded(raw: bytes | str) -> list[Any]:
    """The object that this is the JSON of, if it is of one."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, ValueError):
        return []
    return [value] if isinstance(value, dict) else []
