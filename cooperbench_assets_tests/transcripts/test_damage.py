"""Damaged, hostile and very large transcripts: nothing raises, and nothing is lost."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cooperbench_assets.redaction import Redactor
from cooperbench_assets.transcripts.index import Index, chunk_of, index_of
from cooperbench_assets.transcripts.model import CHUNK_BYTES, CHUNK_STEPS, Text
from cooperbench_assets.transcripts.readers import READERS

PLAIN = Redactor()
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

words = st.text(max_size=60)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
KEYS = [
    "role",
    "content",
    "extra",
    "tool_calls",
    "function",
    "arguments",
    "timestamp",
    "type",
    "message",
    "item",
    "id",
    "text",
    "command",
    "event_type",
    "event",
    "msg",
    "usage",
    "response",
    "cost",
    "raw_output",
    "returncode",
    "interrupt_type",
    "summary",
    "aggregated_output",
    "exit_code",
    "is_error",
]
KINDS = [
    "system",
    "user",
    "assistant",
    "tool",
    "exit",
    "result",
    "item.completed",
    "item.started",
    "turn.completed",
    "command_execution",
    "agent_message",
    "ActionEvent",
    "MessageEvent",
    "tool_use",
    "tool_result",
    "thinking",
]
records = st.recursive(
    st.dictionaries(st.sampled_from(KEYS), values | st.sampled_from(KINDS), max_size=6),
    lambda inner: st.dictionaries(
        st.sampled_from(KEYS), inner | st.lists(inner, max_size=3) | st.sampled_from(KINDS), max_size=6
    ),
    max_leaves=6,
)


def read(path: Path, redactor: Redactor = PLAIN) -> tuple[Index, list[Text]]:
    """The index of a file, and all texts of all its chunks, parts put together."""
    index = index_of(path, None, redactor, None)
    texts: list[Text] = []
    for number in range(index.chunks):
        for body in chunk_of(path, index, "agent1", number, redactor).steps:
            for one in body.texts:
                if one.continues:
                    texts[-1] = Text(kind=one.kind, text=texts[-1].text + one.text, label=one.label)
                else:
                    texts.append(one)
    return index, texts


def written(name: str, content: bytes) -> tuple[Index, list[Text]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        return read(path)


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@given(record=records, begun=st.booleans())
@QUICK
def test_no_reader_raises_whatever_a_record_holds(reader: Any, record: dict[str, Any], begun: bool) -> None:
    event = reader.event(record, begun)
    assert all(isinstance(text.text, str) for text in event.texts)


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), words), max_size=12))
@example([("assistant", "\ud800 lone")])
@QUICK
def test_every_text_of_a_chat_is_in_a_chunk(turns: list[tuple[str, str]]) -> None:
    messages = [{"role": role, "content": content} for role, content in turns]
    index, texts = written("a_traj.json", json.dumps({"messages": messages}, indent=2).encode())
    shown = [text.text for text in texts]
    expected = [content.encode("utf-8", "replace" if "\ud800" in content else "strict") for _, content in turns]
    for content in (one.decode() for one in expected if one.strip() and b"?" not in one):
        assert any(content in one or content.partition("]: ")[2] in one for one in shown)
    assert [step.index for step in index.steps] == list(range(len(index.steps)))
    assert all(one.chunk + one.chunks <= index.chunks for one in index.steps)


@given(st.binary(max_size=400), st.sampled_from(["a_traj.json", "a_stream.jsonl"]))
@example(b'{"messages": [{"role": "assistant", "content": "hi"}, {"role": "us', "a_traj.json")
@example(b'{"type":"assistant","message":{"content":"x"}}\n\xff\xfe{\n', "a_stream.jsonl")
@QUICK
def test_whatever_bytes_a_file_holds_they_are_shown_or_counted(content: bytes, name: str) -> None:
    index, texts = written(name, content)
    if index.format == "raw":
        whole = "".join(text.text for text in texts)
        assert whole.replace("\ufffd", "") in content.decode("utf-8", "replace").replace("\ufffd", "") or not whole
    shown = sum(step.bytes for step in index.steps)
    hidden = sum(one.bytes or 0 for one in index.left_out if one.reason.startswith("fields"))
    assert shown + hidden >= len(content.strip())


def trajectory(*messages: Any) -> bytes:
    return json.dumps({"agent_id": "agent1", "messages": list(messages)}, indent=2).encode()


REPLIES = [{"role": "assistant", "content": f"reply {n}"} for n in range(5)]


@pytest.mark.parametrize("cut", [40, 100, 180, 260])
def test_a_file_that_was_cut_is_shown_up_to_there_and_the_rest_as_it_is(cut: int) -> None:
    content = trajectory(*REPLIES)[:cut]
    index, texts = written("a_traj.json", content)
    whole = content.count(b'"content": "reply') and [text.text for text in texts if text.kind == "thought"]
    assert not index.whole
    assert texts[-1].kind == "raw"
    assert content.decode().rstrip().endswith(texts[-1].text.rstrip()[-5:])
    assert whole == 0 or whole == [f"reply {n}" for n in range(len(whole))]
    assert any("as it is" in one.reason for one in index.left_out)


def test_bytes_that_are_no_utf_8_become_the_replacement_character_and_the_rest_is_read() -> None:
    content = trajectory(*REPLIES).replace(b"reply 2", b"re\xff\xfeply 2")
    _, texts = written("a_traj.json", content)
    assert [text.text for text in texts][2:4] == ["re\ufffd\ufffdply 2", "reply 3"]


def test_a_damaged_line_is_shown_as_it_is_and_counted_and_the_lines_after_it_are_read() -> None:
    line = json.dumps({"type": "assistant", "message": {"id": "m", "content": "hello"}})
    index, texts = written("a_stream.jsonl", f"{line}\n{{broken\n{line.replace('hello', 'again')}\n".encode())
    assert [text.text for text in texts] == ["hello", "{broken", "again"]
    assert [one.count for one in index.left_out if "no valid JSON" in one.reason] == [1]


def test_ansi_and_control_characters_and_markup_stay_as_they_were() -> None:
    hostile = "\x1b[31mred\x1b[0m \x00\x07 <script>alert(1)</script> \u202egnp.exe"
    _, texts = written("a_traj.json", trajectory({"role": "assistant", "content": hostile}))
    assert [text.text for text in texts] == [hostile]


def test_a_line_longer_than_a_chunk_is_split_over_chunks_and_comes_back_whole() -> None:
    long = "".join(f"{n:07} " for n in range(250_000))
    index, texts = written("a_traj.json", trajectory(REPLIES[0], {"role": "user", "content": long}, REPLIES[1]))
    assert [text.text for text in texts] == ["reply 0", long, "reply 1"]
    (step,) = [step for step in index.steps if step.chunks > 1]
    assert step.chunks == -(-step.bytes // CHUNK_BYTES)


def test_a_chunk_has_a_bounded_number_of_steps_and_of_bytes() -> None:
    index, _ = written("a_traj.json", trajectory(*[{"role": "assistant", "content": "x" * 900}] * 700))
    for number in range(index.chunks):
        members = [step for step in index.steps if step.chunk == number]
        assert len(members) <= CHUNK_STEPS
        assert sum(step.bytes for step in members) <= CHUNK_BYTES


def test_keys_addresses_and_names_in_home_paths_are_taken_out_everywhere(tmp_path: Path) -> None:
    secret = "mail ada.l@example.org, key sk-abcdefghijklmnop1234, file /home/ada/x and C:\\Users\\ada\\y, t0k3n-v4lue"
    path = tmp_path / "a_traj.json"
    call = {"function": {"name": "bash", "arguments": json.dumps({"command": f"send_message b '{secret}'"})}}
    path.write_bytes(
        trajectory(
            {"role": "user", "content": f"[Message from agent2]: {secret}"},
            {"role": "assistant", "content": secret, "tool_calls": [call], "extra": {}},
        )
    )
    index, texts = read(path, Redactor({"MY": "t0k3n-v4lue"}).personal())
    everything = f"{index} {texts}"
    for word in ("ada", "example.org", "abcdefghijklmnop", "t0k3n"):
        assert word not in everything
    for mark in ("email", "api_key", "home", "MY"):
        assert f"[redacted:{mark}]" in everything
