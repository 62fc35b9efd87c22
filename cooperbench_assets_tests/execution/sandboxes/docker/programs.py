"""Stand-ins for the programs that upstream installs in containers: they write the streams that these document.

The model's name says what becomes of it: `works` answers for ever, `hangs` and `retries` answer three times and then
say nothing, or that they ask again; `waits` answers three times and then runs a command of its own for ever.
"""

from __future__ import annotations

import secrets

from cooperbench_assets.benchmark.images import image_name
from cooperbench_assets.benchmark.pairs import Task
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets_tests.execution.sandboxes.docker.images import make_image

NPM = "#!/bin/sh\nexit 0\n"

_BEGINNING = """#!/usr/bin/env python3
import json, os, sys, time

if sys.argv[1] == "--version":
    sys.exit(print("1.0.0"))

def say(kind, **more):
    print(json.dumps({"type": kind, **more}), flush=True)
"""

_END = """
print("warning: something that is no event", flush=True)
begin()
n = 0
while n < 3 or does == "works":
    n += 1
    answer(n)
    time.sleep(0.2)
    command_ended(n)
if does == "waits":
    answer(4)
while True:
    if does == "retries":
        ask_again()
    time.sleep(0.2)
"""

CLAUDE = f"""{_BEGINNING}
does = os.environ["ANTHROPIC_MODEL"].rpartition("/")[2]
usage = {{"input_tokens": 10, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 0, "output_tokens": 1}}

def begin():
    say("system", subtype="init", session_id="s", model="m")

def answer(n):
    command = {{"type": "tool_use", "id": f"t{{n}}", "name": "Bash", "input": {{}}}}
    for block in ({{"type": "text", "text": "x"}}, command):
        say("assistant", message={{"id": f"msg_{{n}}", "model": "m", "content": [block], "usage": usage}})

def command_ended(n):
    say("user", message={{"role": "user", "content": [{{"type": "tool_result", "tool_use_id": f"t{{n}}"}}]}})

def ask_again():
    say("system", subtype="api_retry", attempt=1, max_retries=10, error_status=529, error="server_error")
{_END}"""

CODEX = f"""{_BEGINNING}
does = sys.argv[sys.argv.index("--model") + 1]

def begin():
    say("thread.started", thread_id="t")
    say("turn.started")

def answer(n):
    say("item.completed", item={{"id": f"r{{n}}", "type": "reasoning", "text": "x"}})
    say("item.started", item={{"id": f"i{{n}}", "type": "command_execution", "command": "true"}})

def command_ended(n):
    say("item.completed", item={{"id": f"i{{n}}", "type": "command_execution", "command": "true", "exit_code": 0}})

def ask_again():
    say("error", message="Reconnecting... 1/5 (unexpected status 503 Service Unavailable)")
{_END}"""


def make_programs(engine: Engine, base: str) -> Task:
    """A task whose image has the stand-ins; it is named as no other one is."""
    task = Task(f"own{secrets.token_hex(4)}_task", 1)
    files = {"usr/local/bin/npm": NPM, "usr/local/bin/claude": CLAUDE, "usr/local/bin/codex": CODEX}
    make_image(engine, image_name(task), base, {path: text.encode() for path, text in files.items()})
    return task
