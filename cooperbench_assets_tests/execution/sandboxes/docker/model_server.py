"""A model on loopback: an OpenAI-compatible endpoint that plays a script instead of thinking.

It finds in the prompt which features it is asked for, and submits the dataset's own patches through the tool calls of
upstream's ``mini_swe_agent_v2``: apply, commit, push, open a pull request, end. In coop it tells the other agent what
it does. It can also fail in every way in which a provider does.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from cooperbench_assets.benchmark.pairs import Task

Trouble = Literal["401", "429", "503", "cut", "hang", "dead"]

PROMPT_TOKENS, COMPLETION_TOKENS = 1000, 100
"""What every answer says that it used."""

HANG_SECONDS = 300.0

_SAID = {
    "401": (401, "Incorrect API key provided", "invalid_request_error", "invalid_api_key"),
    "429": (429, "Rate limit reached for requests", "requests", "rate_limit_exceeded"),
    "503": (503, "The server is overloaded", "server_error", "unavailable"),
}
_WHO = re.compile(r"You are \*\*(agent\d+)\*\*")
_OTHER = re.compile(r"Your colleague is (agent\d+)")


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    path: str
    key: str
    """What it carried as its key."""

    model: str
    messages: list[dict[str, Any]] = field(repr=False)


@dataclass(frozen=True)
class Feature:
    """One feature of a task, as a prompt has it."""

    task: Task
    number: int
    text: str


class ModelServer:
    """The endpoint at `url`; use `serving`."""

    def __init__(self, dataset: Path) -> None:
        self._dataset = dataset
        self._features = list(_features(dataset))
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.asked: list[Asked] = []
        self.trouble: Trouble | None = None
        """How it fails from now on; None: not at all."""

        self.troubles: list[Trouble] = []
        """How it fails the next requests, one each."""

        self.trouble_after = 0
        """Answers that it gives before it fails."""

        self.trouble_for: str | None = None
        """The only agent that it fails; None: all of them."""

        self.endless = False
        """Never hand in anything: answer for ever, with a command that does nothing."""

        self.answered = 0
        """Answers that were given."""

        self.slow = threading.Event()
        """Set when a request came while `pause` was above 0."""

        self.pause = 0.0
        """Seconds before each answer."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and let those that hang go."""
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, asked: Asked) -> dict[str, Any]:
        """The next step of the script for a conversation."""
        text = "\n".join(str(message.get("content") or "") for message in asked.messages)
        features = [feature for feature in self._features if feature.text.strip() in text]
        if not features:
            return _message("yes")
        if self.endless:
            return _call("true", len(asked.messages))
        steps = self._script(text, features)
        done = sum(message["role"] == "assistant" for message in asked.messages)
        return _call(steps[min(done, len(steps) - 1)], done)

    def _script(self, prompt: str, features: list[Feature]) -> list[str]:
        task = self._dataset / features[0].task.folder
        who, other = _WHO.search(prompt), _OTHER.search(prompt)
        if who is None:
            patch = (task / "combined.patch").read_text()
        else:
            patch = (task / f"feature{features[0].number}" / "feature.patch").read_text()
        steps = [
            f"git apply - <<'PATCH'\n{patch}PATCH",
            "git add -A && git commit -q -m work && git push -q && gh pr create --title work --body done",
            "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT",
        ]
        # Whether the other one is still there to read it is a matter of luck, unless it is said at once.
        tell = f"send_message {other[1]} <<'MSG'\nI do feature {features[0].number}\nMSG" if other else None
        return [tell, *steps] if tell and "send_message" in prompt else steps

    def reset(self) -> None:
        """Forget what was asked, and work from now on."""
        self.trouble, self.troubles, self.trouble_after, self.trouble_for = None, [], 0, None
        self.pause, self.endless, self.answered, self.asked = 0.0, False, 0, []
        self.slow.clear()

    def _note(self, asked: Asked) -> Trouble | None:
        who = _WHO.search("\n".join(str(message.get("content") or "") for message in asked.messages))
        with self._lock:
            self.asked.append(asked)
            if self.troubles:
                return self.troubles.pop(0)
            infra_failed = self.trouble_for is None or (who is not None and who[1] == self.trouble_for)
            if infra_failed and self.answered >= self.trouble_after and self.trouble is not None:
                return self.trouble
            self.answered += 1
            return None

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request, or fail as told."""
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        key = str(handler.headers.get("Authorization", "")).removeprefix("Bearer ")
        asked = Asked(handler.path, key, str(body["model"]), list(body["messages"]))
        trouble = self._note(asked)
        if self.pause:
            self.slow.set()
            self._over.wait(self.pause)
        if trouble == "dead":
            handler.close_connection = True
            threading.Thread(target=self._server.server_close).start()
            return
        if trouble == "hang":
            self._over.wait(HANG_SECONDS)
            return
        if trouble in _SAID:
            status, message, kind, code = _SAID[trouble]
            _send(handler, status, {"error": {"message": message, "type": kind, "code": code}})
            return
        _send(handler, 200, self.answer(asked), cut=trouble == "cut")


@contextmanager
def serving(dataset: Path) -> Iterator[ModelServer]:
    """A server for as long as the context lasts."""
    server = ModelServer(dataset)
    try:
        yield server
    finally:
        server.close()


def _features(dataset: Path) -> Iterator[Feature]:
    for file in sorted(dataset.glob("*/task*/feature*/feature.md")):
        task = Task(file.parents[2].name, int(file.parents[1].name.removeprefix("task")))
        yield Feature(task, int(file.parent.name.removeprefix("feature")), file.read_text())


def _handler(server: ModelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            try:
                server.handle(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    return Handler


def _send(handler: BaseHTTPRequestHandler, status: int, content: dict[str, Any], *, cut: bool = False) -> None:
    body = json.dumps(content).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2] if cut else body)
    handler.close_connection = cut or handler.close_connection


def _message(content: str | None, calls: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = calls
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": "scripted-model-1",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}],
        "usage": {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": COMPLETION_TOKENS,
            "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
        },
    }


def _call(command: str, number: int) -> dict[str, Any]:
    function = {"name": "bash", "arguments": json.dumps({"command": command})}
    return _message("Next step.", [{"id": f"call_{number}", "type": "function", "function": function}])
