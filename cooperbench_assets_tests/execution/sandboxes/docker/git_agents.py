"""Agents that share a git server, for tests: each pushes a branch from a container, and waits to be told to go on.

The harness imports this module by name. The server's image is the test's, for want of a registry.
"""

from __future__ import annotations

import importlib
import os
import time
from pathlib import Path
from typing import Any

import docker
from cooperbench.agents import AgentResult, register  # type: ignore[import-untyped,unused-ignore]

from cooperbench_assets.execution.sandboxes.docker.git_server import MODULE

server: Any = importlib.import_module(MODULE)
server._IMAGE_TAG = os.environ["GIT_IMAGE"]

PUSH = """
git push -q "$0" HEAD:refs/heads/"$1" && git ls-remote "$0" "refs/heads/$1"
"""


@register("sharing")
class SharingAgent:
    """Pushes its branch, and says what the server has then."""

    def run(self, task: str, image: str, *, agent_id: str, git_server_url: str, **given: Any) -> Any:
        client = docker.from_env()
        said = client.containers.run(
            image,
            ["bash", "-c", PUSH, git_server_url, agent_id],
            entrypoint="",
            working_dir="/workspace/repo",
            network=given["config"]["git_network"],
            remove=True,
        )
        client.close()
        Path(f"{agent_id}.pushed").write_bytes(said)
        while not Path("go").exists():
            time.sleep(0.02)
        return AgentResult(status="Submitted", patch="", cost=0.0, steps=1)
