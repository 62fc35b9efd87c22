"""Agents whose container is gone: noticed at their next command, so that no further answer is paid for.

What belongs here: asking the engine after a command that failed, and ending the agents of a pair. What does not:
labels and limits of their containers (``sandboxes.docker.agent_cli``). Standard library and the harness only.

Upstream hands every failure of ``docker exec`` to the model as the command's output, and the model tries on, for money,
until its steps are used up.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from cooperbench_assets.execution.infra_errors import InfrastructureError

MODULE = "cooperbench.agents.mini_swe_agent_v2.environments.docker"
"""Upstream's containers of agents, whichever agent it is."""

TRIES = 5
PAUSE_SECONDS = 2.0
"""Between two questions to an engine that is away: it may be starting again, and its containers live on."""

KILLED = 137
"""What ``docker exec`` returns for a command that SIGKILL ended: its own, or that of the whole container."""

KILLED_SECONDS = 3.0
"""How long after such a command its container may still be said to run: the engine learns of the command first."""

ASK_SECONDS = 60.0
_LOOK_AGAIN_SECONDS = 0.3
_SLACK_SECONDS = 10.0
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_GONE = re.compile(r"no such (?:object|container)", re.IGNORECASE)


class ContainerLimit(RuntimeError):
    """A container lived as long as upstream lets it; the agent in it had its time."""


class Containers:
    """The containers of a child's agents, and how the first of them was lost."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.lost: Exception | None = None
        """Why the pair's agents have ended; None while all containers are there."""

    def watch(self) -> None:
        """Look at every container that upstream makes from now on."""
        try:
            kind: Any = importlib.import_module(MODULE).DockerEnvironment
            start, execute, cleanup = kind._start_container, kind.execute, kind.cleanup
        except (ImportError, AttributeError):
            return  # an older harness

        def watched_start(environment: Any) -> None:
            start(environment)
            environment.watched_since = time.monotonic()

        def watched_execute(environment: Any, *args: Any, **kwargs: Any) -> Any:
            self._raise_if_lost(environment)
            done = execute(environment, *args, **kwargs)
            if done.get("returncode") != 0 and _is_watched(environment):
                settle = KILLED_SECONDS if done["returncode"] == KILLED else 0.0
                self._note(environment, problem(environment, settle))
            self._raise_if_lost(environment)
            return done

        def watched_cleanup(environment: Any) -> None:
            environment.watched_since = None
            cleanup(environment)

        kind._start_container, kind.execute, kind.cleanup = watched_start, watched_execute, watched_cleanup

    def raise_if_untold(self, result: Path) -> None:
        """Take back a result that does not tell of a lost container: upstream hides it as it collects the patch.

        Raises:
            InfrastructureError: that which was lost.
        """
        if not isinstance(self.lost, InfrastructureError) or not result.is_file():
            return
        if json.dumps(str(self.lost))[1:-1] not in result.read_text():
            result.unlink()
            raise self.lost

    def _note(self, environment: Any, lost: Exception | None) -> None:
        # It may have been given up by its agent while the engine was asked.
        if lost is not None and _is_watched(environment):
            with self._lock:
                self.lost = self.lost or lost

    def _raise_if_lost(self, environment: Any) -> None:
        # Of all agents of the pair: what the others still do is paid for, and can be graded no more.
        if self.lost is not None and _is_watched(environment):
            raise self.lost


def _is_watched(environment: Any) -> bool:
    return getattr(environment, "watched_since", None) is not None


def problem(environment: Any, settle_seconds: float = 0.0) -> Exception | None:
    """Why upstream's container cannot be used any more; None where it can.

    Args:
        environment: Upstream's object for it.
        settle_seconds: How long it must go on running before it is believed to.
    """
    said = ""
    until = time.monotonic() + settle_seconds
    for n in range(TRIES):
        if n:
            time.sleep(PAUSE_SECONDS)
        try:
            done = _inspect(environment)
            while done.stdout.strip() == "true" and time.monotonic() < until:
                time.sleep(_LOOK_AGAIN_SECONDS)
                done = _inspect(environment)
        except subprocess.TimeoutExpired:
            return None  # a busy engine; the command itself was answered
        said = done.stderr.strip()
        if done.returncode == 0:
            return None if done.stdout.strip() == "true" else _ended(environment)
        if _GONE.search(said):
            return _ended(environment)
    return InfrastructureError("engine", f"the engine does not answer, and an agent's container is on it: {said}")


def _inspect(environment: Any) -> subprocess.CompletedProcess[str]:
    command = [environment.config.executable, "inspect", "--format", "{{.State.Running}}", environment.container_id]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=ASK_SECONDS, check=False, stdin=subprocess.DEVNULL
    )


def _ended(environment: Any) -> Exception:
    name, limit = str(environment.container_id)[:12], str(environment.config.container_timeout)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", limit)
    seconds = float(found[1]) * _UNITS[found[2] or "s"] if found else float("inf")
    since = environment.watched_since
    if since is not None and time.monotonic() - since >= seconds - _SLACK_SECONDS:
        return ContainerLimit(f"[agent_timeout] the agent worked for {limit}: upstream lets no container live longer")
    return InfrastructureError("container_died", f"the container {name} of an agent is gone")
