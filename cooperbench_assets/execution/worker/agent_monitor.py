"""Everything that is watched while upstream's agents run in a child: their calls, their streams, their containers.

What belongs here: putting the watches in their places before upstream's function is called. What does not: what each
of them sees (``model_calls``, ``agent_streams``, ``agent_containers``). Standard library and the harness only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cooperbench_assets.execution.worker import agent_containers, agent_streams
from cooperbench_assets.execution.worker.model_calls import Calls, listen, watch_runners

WATCHED: Final = (agent_containers.MODULE, *agent_streams.ADAPTERS)
"""Modules of upstream's in which something is put in its place before agents run."""


def watch_agents(function: Callable[..., Any], clean: Callable[[str], str]) -> agent_containers.Containers:
    """Watch the agents that an upstream function for a mode is going to run in this process.

    Args:
        function: Upstream's; its module is where it looks agents up.
        clean: Takes out of a text what must be in no file.

    Returns:
        Their containers, which are to be asked when the function has returned.
    """
    calls = Calls(Path(), clean)
    listen(calls)
    watch_runners(sys.modules[function.__module__], calls)
    agent_streams.watch_streams(calls)
    containers = agent_containers.Containers()
    containers.watch()
    return containers
