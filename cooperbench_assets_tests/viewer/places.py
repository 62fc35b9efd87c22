"""An experiment whose pairs hold what the viewer must show, and a viewer that serves it.

What belongs here: log trees with transcripts, hostile ones too, and starting the server. What does not: asserting.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from cooperbench_assets.viewer.server import listen, make_app, server_of
from cooperbench_assets.viewer.shelves import library_of_project
from cooperbench_assets_tests.experiments import bind, fill, tree
from cooperbench_assets_tests.trees import agent, message, put
from cooperbench_assets_tests.ui import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.experiment_context import ExperimentContext
    from cooperbench_assets.viewer.library import Library

START = 1784196000.0
SCRIPT = "<script>window.hacked = true</script><img src=x onerror='window.hacked = true'>"
ANSI = "\x1b[31mred\x1b[0m \u202eright to left"
KEY = "sk-proj-0123456789abcdefghijABCDEFGHIJ"
NEVER_READ = "I renamed parse() to parse_all(), use that"
FIRST_TRY = "litellm.AuthenticationError: 401 in the first try"
TRACE = "FAILED tests/test_parser.py::test_empty_line - AssertionError: assert None == ''"
PATCH = """diff --git a/src/parser.py b/src/parser.py
--- a/src/parser.py
+++ b/src/parser.py
@@ -10,3 +10,4 @@ def parse(text):
     lines = text.splitlines()
-    return lines
+    kept = [line for line in lines if line]
+    return {}
     # end
"""


def reply(at: float, said: str, command: str) -> dict[str, Any]:
    """A call of the model with one command."""
    call = {"function": {"name": "bash", "arguments": f'{{"command": {command!r}}}'.replace("'", '"')}}
    usage = {"usage": {"prompt_tokens": 1200, "completion_tokens": 80}}
    extra = {"timestamp": START + at, "cost": 0.01, "response": usage}
    return {"role": "assistant", "content": said, "tool_calls": [call], "extra": extra}


def output(at: float, said: str, code: int = 0) -> dict[str, Any]:
    """What came of a command."""
    return {
        "role": "tool",
        "content": f"<returncode>{code}</returncode>\n<output>\n{said}\n</output>",
        "extra": {"timestamp": START + at},
    }


def trajectory(feature_text: str, *messages: dict[str, Any]) -> dict[str, Any]:
    """A trajectory of mini-swe-agent v2."""
    before = [{"role": "system", "content": "You are an agent."}, {"role": "user", "content": feature_text}]
    return {"trajectory_format": "mini-swe-agent-1.1", "messages": [*before, *messages]}


def conversation() -> tuple[dict[str, Any], dict[str, Any]]:
    """Two messages: the second is never read."""
    first = message("agent1", "agent2", "I take parser.py", timestamp=START + 12)
    return first, message("agent1", "agent2", NEVER_READ, timestamp=START + 40)


def write_talk(experiment: ExperimentContext, pair: Pair) -> None:
    """A pair whose tests fail, whose patches overlap, and one of whose messages is never read."""
    built = tree(experiment, "coop-comm")
    a, b = pair.features
    built.result(pair, messages_sent=2)
    outputs = (f"collected 3 items\n{'x' * 200}\n{TRACE}\n1 failed, 2 passed in 0.1s", None)
    built.evaluation(pair, passed=(False, True), outputs=outputs)
    built.conversation(pair, *conversation())
    built.patches(pair, PATCH.format("kept"), PATCH.format("list(kept)"))
    first = trajectory(
        "Add feature A.",
        reply(10, "I look first.", "ls src"),
        output(11, "parser.py"),
        reply(12, "I tell the other.", "send_message agent2 I take parser.py"),
        output(13, "sent"),
        reply(40, "Renamed.", f"send_message agent2 {NEVER_READ}"),
        output(41, "sent"),
        reply(50, "Done.", "git push origin agent1"),
        output(52, "ok"),
    )
    second = trajectory(
        "Add feature B.",
        reply(9, "I look first.", "cat src/parser.py"),
        output(10, SCRIPT),
        {"role": "user", "content": "[Message from agent1]: I take parser.py", "extra": {"timestamp": START + 20}},
        reply(21, "Good.", "pytest"),
        output(30, f"{ANSI} {KEY}", 1),
        reply(60, "Done.", "git push origin agent2"),
        output(61, "ok"),
    )
    tried = built.attempt(pair, "agent", 1, outcome="infra_error", family="auth", evidence=FIRST_TRY)
    put(tried.parent / f"agent{a}_traj.json", trajectory("Add feature A.", reply(1, "I begin.", "git status")))
    built.attempt(pair, "agent", 2, promoted=True)
    built.write(pair, f"agent{a}_traj.json", first)
    built.write(pair, f"agent{b}_traj.json", second)


def write_hostile(experiment: ExperimentContext, pair: Pair) -> None:
    """A pair whose every text tries to be something else."""
    built = tree(experiment, "coop-comm")
    first, second = (agent(status="Error", error=f"litellm.AuthenticationError: 401 {SCRIPT}"), agent())
    built.result(pair, agents=[first, second], model=SCRIPT, messages_sent=1)
    said = f"{SCRIPT}\n{ANSI}\nFAILED {SCRIPT}\n1 failed in 0.1s"
    built.evaluation(pair, passed=(False, True), outputs=(said, None))
    built.conversation(pair, message(text=f"{SCRIPT} {ANSI}", timestamp=None))
    built.patches(
        pair, f"diff --git a/../../etc/passwd b/{SCRIPT}\n--- a/x\n+++ b/{SCRIPT}\n@@ -1 +1 @@\n-{SCRIPT}\n+y\n", ""
    )
    built.write(
        pair,
        f"agent{pair.features[0]}_traj.json",
        b'[{"role": "assistant", "content": "\xff\xfe ' + b"long " * 2_000_000 + b'"}]',
    )
    (built.folder(pair) / "outside").symlink_to("/etc")


def make_experiment(root: Path) -> ExperimentContext:
    """The experiment `made`: all cells filled, with a pair that talks and a hostile one in coop-comm."""
    experiment = bind(root, run_name="run-{setting}{seed_suffix}")
    for cell in experiment.cells:
        fill(experiment, cell.cell.setting, cell.cell.seed)
    talk, hostile, *_ = experiment.subset().pairs
    write_talk(experiment, talk)
    write_hostile(experiment, hostile)
    return experiment


@contextlib.contextmanager
def serving(library: Library) -> Iterator[str]:
    """The real server on a free port, in a thread; gives its address."""
    address = f"http://127.0.0.1:{free_port()}"
    with listen(address) as listener:
        server = server_of(make_app(library))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield address
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def viewing(experiment: ExperimentContext) -> Iterator[str]:
    """The real server of an experiment's project."""
    with serving(library_of_project(experiment.project)) as address:
        yield address
