"""The streams of agents that ask their model from inside their containers, read as they are written.

What belongs here: what the lines of each program's stream say of its model, and reading new lines. What does not: the
counts (``model_calls``), and the whole stream, which upstream copies out at the end. Standard library and the harness
only.

Lines carry no times, so each counts from when it was first seen. A line is a reply only if the model must have
answered for it to be there: a program also writes when it tries again, or when a command of the agent has ended.
"""

from __future__ import annotations

import importlib
import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from cooperbench_assets.execution.worker.model_calls import Calls, present_agent

EVERY_SECONDS = 5.0
"""Between two looks at a stream."""

LOOK_SECONDS = 60
"""How long one look may take on a busy machine."""

# New bytes only: a stream grows to many megabytes. A program that is started again begins a new one.
_LOOK = (
    "f={path}; n={seen}; s=$(wc -c <$f) || exit 0; [ $s -lt $n ] && n=0; "
    "echo $n $s; tail -c +$((n + 1)) $f | head -c $((s - n))"
)

_STATUS = re.compile(r"\b[45]\d\d\b")
_TROUBLE = re.compile(r"error|retry|reconnect|disconnect", re.IGNORECASE)
_TOOLS = frozenset({"command_execution", "mcp_tool_call", "collab_tool_call", "web_search"})


class Stream(Protocol):
    """What a line of one program's stream says of its model."""

    def take(self, line: str) -> None:
        """Take the next line."""


class ClaudeStream:
    """``claude --output-format stream-json``.

    An answer comes in several lines, one for each block, with one id. What it says of its tokens was true as it
    began, so that only those of the question are known.
    """

    def __init__(self, calls: Calls, agent: str) -> None:
        self._calls = calls
        self._agent = agent
        self._answers: set[str] = set()

    def take(self, line: str) -> None:
        """Take the next line."""
        event = _event(line)
        kind, message = event.get("type"), event.get("message")
        if kind == "assistant" and isinstance(message, dict):
            self._answer(event, message)
        elif kind == "user" or (kind == "system" and event.get("subtype") == "init"):
            self._calls.asked(self._agent)
        elif kind == "system" and event.get("subtype") == "api_retry":
            self._calls.failed(self._agent, _kind_of(event.get("error"), event.get("error_status")))

    def _answer(self, event: dict[str, Any], message: dict[str, Any]) -> None:
        blocks = [block for block in _list(message.get("content")) if isinstance(block, dict)]
        if message.get("model") == "<synthetic>" or event.get("error"):
            said = " ".join(str(block.get("text", "")) for block in blocks)
            self._calls.failed(self._agent, _kind_of(event.get("error"), said))
            return
        name = str(message.get("id"))
        usage = {} if name in self._answers else _question(message.get("usage"))
        self._answers.add(name)
        goes_on = not any(block.get("type") == "tool_use" for block in blocks)
        self._calls.replied(self._agent, tokens=usage, goes_on=goes_on)


class CodexStream:
    """``codex exec --json``. Its tokens are told at the end of a turn, which is the end of its work."""

    def __init__(self, calls: Calls, agent: str) -> None:
        self._calls = calls
        self._agent = agent
        self._running: set[str] = set()

    def take(self, line: str) -> None:
        """Take the next line."""
        event = _event(line)
        kind, item = event.get("type"), event.get("item")
        if kind in ("turn.started", "thread.started"):
            self._calls.asked(self._agent)
        elif kind in ("error", "turn.failed"):
            self._calls.failed(self._agent, _kind_of(None, event.get("message") or event.get("error")))
        elif kind in ("item.started", "item.updated", "item.completed") and isinstance(item, dict):
            self._item(kind, str(item.get("id")), str(item.get("type")), item)

    def _item(self, kind: str, name: str, what: str, item: dict[str, Any]) -> None:
        if what == "error":
            self._calls.failed(self._agent, _kind_of(None, item.get("message")))
        elif what not in _TOOLS:
            self._calls.replied(self._agent, goes_on=not self._running)
        elif kind == "item.started":
            self._running.add(name)
            self._calls.replied(self._agent)
        elif kind == "item.completed":
            if name not in self._running:
                self._calls.replied(self._agent)
            self._running.discard(name)
            if not self._running:
                self._calls.asked(self._agent)


class PlainStream:
    """What a program prints for people, as codex does for Azure: every line but those that tell of trouble."""

    def __init__(self, calls: Calls, agent: str) -> None:
        self._calls = calls
        self._agent = agent

    def take(self, line: str) -> None:
        """Take the next line."""
        if _TROUBLE.search(line):
            self._calls.failed(self._agent, _kind_of(None, line))
        elif line.strip():
            self._calls.replied(self._agent, goes_on=True)


ADAPTERS: Final[dict[str, Callable[[Calls, str], Stream]]] = {
    "cooperbench.agents.claude_code.adapter": ClaudeStream,
    "cooperbench.agents.codex.adapter": CodexStream,
}
"""Upstream's modules for agents that ask their model from inside their container, and what these print."""


def watch_streams(calls: Calls) -> None:
    """Watch the stream of every agent of upstream's that asks its model from inside its container."""
    for name, stream in ADAPTERS.items():
        try:
            adapter: Any = importlib.import_module(name)
            make, path = adapter._build_environment, str(adapter.CONTAINER_STREAM_LOG)
        except (ImportError, AttributeError):
            continue  # an older harness
        azure = getattr(adapter, "resolve_azure_config", None)
        kind = PlainStream if azure is not None and azure() else stream
        # Upstream keeps this name for its own tests to put another one there.
        adapter._build_environment = _watching(make, path, kind, calls)


def _watching(
    make: Callable[..., Any], path: str, kind: Callable[[Calls, str], Stream], calls: Calls
) -> Callable[..., Any]:
    def build(*args: Any, **kwargs: Any) -> Any:
        environment, agent = make(*args, **kwargs), present_agent()
        if agent:
            watch = Watch(environment, path, kind(calls, agent), lambda: calls.is_over(agent))
            threading.Thread(target=watch.run, name=f"stream of {agent}", daemon=True).start()
        return environment

    return build


class Watch:
    """Reads new lines of one stream until its container is gone."""

    def __init__(self, environment: Any, path: str, stream: Stream, is_over: Callable[[], bool]) -> None:
        """Begin at the stream's beginning.

        Args:
            environment: Upstream's object for the container, which runs commands in it.
            path: The stream in there.
            stream: What takes its lines.
            is_over: Whether the agent has ended.
        """
        self._environment = environment
        self._path = path
        self._stream = stream
        self._is_over = is_over
        self._lost = False
        self._seen = 0
        self._rest = ""

    def run(self) -> None:
        """Look now and then, as long as there is something to be seen."""
        while not self._lost and not self._is_over():
            time.sleep(EVERY_SECONDS)
            self.look()

    def look(self) -> None:
        """Take what is new; the last line only once it is whole."""
        command = _LOOK.format(path=self._path, seen=self._seen)
        try:
            done = self._environment.execute({"command": command}, timeout=LOOK_SECONDS)
        except Exception:
            self._lost = True  # The container is gone; the agent's own command finds out why.
            return
        told, _, new = str(done.get("output") or "").partition("\n")
        numbers = told.split()
        if len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
            return  # there is no stream yet
        if int(numbers[0]) != self._seen:
            self._rest = ""
        self._seen = int(numbers[1])
        *lines, self._rest = (self._rest + new).split("\n")
        for line in lines:
            self._stream.take(line)


def _event(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line) if line.startswith("{") else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _question(usage: Any) -> dict[str, int]:
    """The tokens of what the model was asked, by upstream's names."""
    told = usage if isinstance(usage, dict) else {}
    names = {
        "input_tokens": "input_tokens",
        "cache_read_tokens": "cache_read_input_tokens",
        "cache_write_tokens": "cache_creation_input_tokens",
    }
    return {ours: told[theirs] for ours, theirs in names.items() if isinstance(told.get(theirs), int)}


def _kind_of(code: Any, said: Any) -> str:
    """A few words for an error: its code, and the HTTP status that its text names. No text: that may hold anything."""
    found = _STATUS.search(str(said or ""))
    words = [str(code)[:60]] if isinstance(code, str) and code else []
    words += [f"status {found[0]}"] if found else []
    return " ".join(words) or "error"
