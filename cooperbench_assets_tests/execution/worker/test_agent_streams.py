"""What the lines of an agent's stream say of its model, and reading them while they are written."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.execution.worker.agent_streams import ClaudeStream, CodexStream, PlainStream, Stream, Watch
from cooperbench_assets.execution.worker.model_calls import FILE, Calls

KINDS = (ClaudeStream, CodexStream, PlainStream)


def counted(folder: Path, kind: type[ClaudeStream | CodexStream | PlainStream], *lines: Any) -> dict[str, Any]:
    """What an agent's counts are after these lines."""
    calls = Calls(folder, str)
    calls.begin("solo")
    stream = kind(calls, "solo")
    for line in lines:
        stream.take(line if isinstance(line, str) else json.dumps(line))
    content: dict[str, Any] = json.loads((folder / FILE).read_text())["agents"]["solo"]
    return content


def assistant(*blocks: str, **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 3, "cache_read_input_tokens": 5, "output_tokens": 1}
    message = {"id": "msg_1", "model": "m", "content": [{"type": block} for block in blocks], "usage": usage}
    return {"type": "assistant", "message": message | more.pop("message", {}), **more}


def item(kind: str, what: str, name: str = "i1", **more: Any) -> dict[str, Any]:
    return {"type": f"item.{kind}", "item": {"id": name, "type": what, **more}}


INIT = {"type": "system", "subtype": "init"}
RESULT = {"type": "user", "message": {"content": [{"type": "tool_result"}]}}
RETRY = {"type": "system", "subtype": "api_retry", "error": "rate_limit", "error_status": 429}
SYNTHETIC = assistant("text", message={"model": "<synthetic>", "content": [{"type": "text", "text": "API Error: 529"}]})


@pytest.mark.parametrize(
    ("kind", "lines", "replies", "waits"),
    [
        (ClaudeStream, [INIT], 0, True),
        (ClaudeStream, [INIT, assistant("text")], 1, True),
        (ClaudeStream, [INIT, assistant("text"), assistant("tool_use")], 2, False),
        (ClaudeStream, [INIT, assistant("tool_use"), RESULT], 1, True),
        (ClaudeStream, [INIT, RETRY, RETRY], 0, True),
        (ClaudeStream, [INIT, SYNTHETIC], 0, True),
        (CodexStream, [{"type": "turn.started"}], 0, True),
        (CodexStream, [item("completed", "reasoning")], 1, True),
        (CodexStream, [item("started", "command_execution")], 1, False),
        (CodexStream, [item("started", "command_execution"), item("completed", "command_execution")], 1, True),
        (CodexStream, [item("started", "mcp_tool_call"), item("completed", "agent_message", "i2")], 2, False),
        (CodexStream, [item("completed", "file_change")], 1, True),
        (CodexStream, [item("completed", "error", message="status 500")], 0, True),
        (CodexStream, [{"type": "error", "message": "Reconnecting... 2/5"}], 0, True),
        (PlainStream, ["thinking", "exec git status"], 2, True),
        (PlainStream, ["stream error: stream disconnected; retrying 1/5"], 0, True),
    ],
)
def test_only_what_a_reply_must_have_caused_is_one(
    tmp_path: Path, kind: type[Any], lines: list[Any], replies: int, waits: bool
) -> None:
    said = counted(tmp_path, kind, *lines)
    assert (said["replies"], said["waiting"] is not None) == (replies, waits)


def test_errors_are_kept_as_their_code_and_status_without_their_text(tmp_path: Path) -> None:
    assert counted(tmp_path, ClaudeStream, RETRY)["problem"] == "rate_limit status 429"
    assert counted(tmp_path, ClaudeStream, SYNTHETIC)["problem"] == "status 529"
    refused = {"type": "error", "message": "unexpected status 401 Unauthorized: sk-secret"}
    assert counted(tmp_path, CodexStream, refused)["problem"] == "status 401"
    assert counted(tmp_path, CodexStream, {"type": "turn.failed", "error": {"message": "?"}})["problem"] == "error"


def test_an_answer_in_several_lines_is_counted_once_in_tokens_and_its_own_are_not_known(tmp_path: Path) -> None:
    said = counted(tmp_path, ClaudeStream, assistant("text"), assistant("tool_use"))
    assert said["tokens"] == {"input_tokens": 3, "cache_read_tokens": 5}
    assert said["unpriced"] == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TYPES = st.sampled_from(["assistant", "user", "system", "error", "turn.failed", "item.started", "item.completed"])
EVENTS = st.fixed_dictionaries(
    {"type": TYPES}, optional={"message": JSON, "item": JSON, "error": JSON, "subtype": JSON, "error_status": JSON}
)


@given(st.sampled_from(KINDS), st.lists(EVENTS | JSON | st.text(max_size=20), max_size=5))
def test_no_line_is_too_odd_and_none_is_more_than_one_reply(
    tmp_path_factory: pytest.TempPathFactory, kind: type[Any], lines: list[Any]
) -> None:
    said = counted(tmp_path_factory.mktemp("odd"), kind, *lines)
    assert 0 <= said["replies"] <= len(lines)


class Shell:
    """Runs commands on this machine as upstream's containers run them."""

    def execute(self, action: dict[str, str], *, timeout: int) -> dict[str, Any]:
        done = subprocess.run(
            ["bash", "-c", action["command"]],
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return {"output": done.stdout, "returncode": done.returncode}


class Lines:
    """Takes lines as they come."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def take(self, line: str) -> None:
        self.taken.append(line)


def test_a_stream_is_read_in_whatever_pieces_it_grows_and_from_its_beginning_when_it_is_begun_anew(
    tmp_path: Path,
) -> None:
    file, lines = tmp_path / "stream.jsonl", Lines()
    taker: Stream = lines
    watch = Watch(Shell(), str(file), taker, lambda: False)
    watch.look()
    assert lines.taken == []
    text = '{"n": 1}\n{"umlaut": "äöü"}\n{"n": 3}\n'.encode()
    for end in (4, 9, 24, 25, 26, len(text)):
        file.write_bytes(text[:end])
        watch.look()
    assert (len(lines.taken), lines.taken[0], lines.taken[2]) == (3, '{"n": 1}', '{"n": 3}')
    # A character that is cut in two is spoilt; the line is whole.
    assert isinstance(json.loads(lines.taken[1])["umlaut"], str)
    watch.look()
    assert len(lines.taken) == 3
    file.write_text('{"again": 1}\n')
    watch.look()
    assert lines.taken[3:] == ['{"again": 1}']
