"""What a scripted agent does step by step, written down as mini-swe-agent v2 does.

What belongs here: commands, what they print, and the trajectory. What does not: which work is handed in and what is
said to the other agent (``agents``, ``conversation``).

Nothing is executed: hundreds of agents would take minutes. Every command is one whose output follows from the
checkout's files, and a test runs them all again to see that it is what they print. Times are when it happened.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .usage import Usage

SYSTEM = "This is a scripted agent of the demo of cooperbench-assets. No model is behind it; its results are made up."
SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
_FILE = re.compile(r"^diff --git a/\S+ b/(\S+)", re.MULTILINE)
_WINDOW = 25

Act = tuple[str, str, str, int]
"""A thought, a command, what it prints, and its exit code."""


class Session:
    """One agent's work, as far as it came."""

    def __init__(self, task: str, used: Usage, pace_seconds: float) -> None:
        self.messages: list[dict[str, Any]] = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": task},
        ]
        self._used, self._pace = used, pace_seconds
        self._steps = 0

    def hear(self, heard: Sequence[dict[str, Any]]) -> None:
        """Messages that the next step begins with."""
        self.messages += [
            {"role": "user", "content": f"[Message from {one['from']}]: {one['content']}"} for one in heard
        ]

    def reply(self, thought: str, command: str) -> None:
        """The model's part of a step, which takes as long as the pace says."""
        time.sleep(self._pace)
        number, used = self._steps, self._used
        self._steps += 1
        call = {"name": "bash", "arguments": json.dumps({"command": command})}
        usage = {"prompt_tokens": used.prompt_tokens(number), "completion_tokens": used.output_tokens // used.steps}
        extra = {"timestamp": time.time(), "cost": used.cost / used.steps, "response": {"usage": usage}}
        calls = [{"id": f"call_{number}", "type": "function", "function": call}]
        self.messages.append({"role": "assistant", "content": thought, "tool_calls": calls, "extra": extra})

    def output(self, printed: str, code: int = 0) -> None:
        """What came of the step."""
        said = json.dumps({"returncode": code, "output": printed})
        extra = {"returncode": code, "timestamp": time.time()}
        name = f"call_{self._steps - 1}"
        self.messages.append({"role": "tool", "tool_call_id": name, "content": said, "extra": extra})

    def act(self, act: Act) -> None:
        """One whole step."""
        thought, command, printed, code = act
        self.reply(thought, command)
        self.output(printed, code)

    def end(self, status: str) -> None:
        """Write down how it ended."""
        extra = {"exit_status": status, "submission": "", "timestamp": time.time()}
        text = "" if status == "Submitted" else status
        self.messages.append({"role": "exit", "content": text, "extra": extra})


class Checkout:
    """A task's files, and what commands print of them."""

    def __init__(self, root: Path) -> None:
        found = (file for file in sorted(root.rglob("*")) if file.is_file() and ".git" not in file.parts)
        self._files = {file.relative_to(root).as_posix(): file.read_text("utf-8") for file in found}

    def looking(self, patch: str) -> Iterator[Act]:
        """Steps without end that look at the files which a patch changes, then at the others."""
        touched = [path for path in _FILE.findall(patch) if path in self._files]
        paths = list(dict.fromkeys([*touched, *self._files]))
        listed = "".join(f"{path}\n" for path in sorted(self._files, key=str.encode))
        yield "I look at what is there.", "git ls-files", listed, 0
        while True:
            for path in paths:
                text = self._files[path]
                yield f"I read {path}.", f"cat {path}", text, 0
                yield f"Which functions are in {path}?", *self._grep("def ", path)
                yield f"And which classes in {path}?", *self._grep("class ", path)
                lines = text.splitlines(keepends=True)
                for first in range(0, len(lines), _WINDOW):
                    last = first + _WINDOW
                    printed = "".join(lines[first:last])
                    yield f"Once more, from line {first + 1}.", f"sed -n '{first + 1},{last}p' {path}", printed, 0

    def _grep(self, word: str, path: str) -> tuple[str, str, int]:
        lines = self._files[path].splitlines()
        found = "".join(f"{number}:{line}\n" for number, line in enumerate(lines, 1) if word in line)
        return f"grep -n '{word}' {path}", found, 0 if found else 1


def finishing(patch: str, title: str, room: int) -> list[Act]:
    """The steps from the change on, at most `room` of them; with room for one, that does it all."""
    apply = f"git apply <<'PATCH'\n{patch}PATCH"
    parse = " && ".join(f"python3 -m ast {path} > /dev/null" for path in _FILE.findall(patch) if path.endswith(".py"))
    commit = f"git add -A && git -c user.name=agent -c user.email=agent@demo.invalid commit -q -m '{title}'"
    change: Act = (f"I put it in: {title}.", apply, "", 0)
    submit: Act = ("That is all.", SUBMIT, f"{SUBMIT.removeprefix('echo ')}\n", 0)
    if room < 2:
        return [(change[0], f"{apply}\n{commit}\n{SUBMIT}", submit[2], 0)]
    between: list[Act] = [
        ("Is it valid Python?", parse or "true", "", 0),
        ("I look at my change.", "git add -A && git diff --cached --full-index", patch, 0),
        ("I commit it.", commit, "", 0),
    ]
    return [change, *between[len(between) - min(len(between), room - 2) :], submit]
