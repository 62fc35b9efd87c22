"""Agents for tests of execution: each model name is one way to behave. The harness imports this module by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from cooperbench.agents import AgentResult, register  # type: ignore[import-untyped,unused-ignore]

_SLEEPER = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]


@register("toy")
class ToyAgent:
    """Does what the model name says."""

    def run(self, task: str, image: str, **given: Any) -> Any:
        model, _, argument = given["model_name"].partition(":")
        patch = getattr(self, f"_{model}")(argument, given) or ""
        sent = [{"to": "agent2", "content": "hello", "timestamp": 1.0}] if given.get("messaging_enabled") else []
        return AgentResult(status="Submitted", patch=patch, cost=0.5, steps=3, sent_messages=sent)

    def _gold(self, argument: str, given: dict[str, Any]) -> str:
        task = Path(os.environ["TOY_TASK"])
        features = _features(given)
        return "".join((task / f"feature{feature}" / "feature.patch").read_text() for feature in features)

    def _raise(self, argument: str, given: dict[str, Any]) -> None:
        raise RuntimeError(argument)

    def _exit(self, argument: str, given: dict[str, Any]) -> None:
        if argument in ("", given["agent_id"]):
            raise SystemExit(3)

    def _sleep(self, argument: str, given: dict[str, Any]) -> None:
        time.sleep(float(argument))

    def _stubborn(self, argument: str, given: dict[str, Any]) -> None:
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)

    def _leave(self, argument: str, given: dict[str, Any]) -> None:
        """Leave programs behind: one in the group, one in a session of its own, one whose parent has gone."""
        group = subprocess.Popen(_SLEEPER)
        session = subprocess.Popen(_SLEEPER, start_new_session=True)
        # The orphan must not hold the pipe on which its number is told.
        script = (
            "import subprocess, sys; none = subprocess.DEVNULL;"
            "print(subprocess.Popen(sys.argv[1:], start_new_session=True, stdout=none, stderr=none).pid)"
        )
        orphan = subprocess.run([sys.executable, "-S", "-c", script, *_SLEEPER], capture_output=True, check=True)
        pids = [group.pid, session.pid, int(orphan.stdout)]
        Path("pids.json").write_text(json.dumps(pids))
        if argument == "hang":
            time.sleep(600)

    def _die(self, argument: str, given: dict[str, Any]) -> None:
        os.kill(os.getpid(), int(argument))
        time.sleep(60)

    def _tell(self, argument: str, given: dict[str, Any]) -> None:
        content = {
            "environment": dict(os.environ),
            "cwd": str(Path.cwd()),
            "log_dir": given["log_dir"],
            "config": given["config"],
            "comm_url": given["comm_url"],
            "messaging_enabled": given["messaging_enabled"],
            "git_enabled": given["git_enabled"],
            "threads": threading.active_count(),
            "timezone": time.tzname[0],
        }
        Path(f"told-{given['agent_id']}.json").write_text(json.dumps(content))

    def _environments(self, argument: str, given: dict[str, Any]) -> None:
        """Tell the variables that this process has, and those that anybody reads of it and of its parent."""
        seen = [Path(f"/proc/{pid}/environ").read_text(errors="replace") for pid in (os.getpid(), os.getppid())]
        Path("environments.json").write_text(json.dumps({"own": dict(os.environ), "seen": seen}))

    def _secret(self, argument: str, given: dict[str, Any]) -> None:
        print("printed", os.environ["TOY_API_KEY"][:3])
        raise SystemExit(f"key {os.environ['TOY_API_KEY']} was refused")


def _features(given: dict[str, Any]) -> list[int]:
    both = [int(part[1:]) for part in Path(given["log_dir"]).name.split("_")]
    return both if given["agent_id"] == "solo" else [both[int(given["agent_id"].removeprefix("agent")) - 1]]
