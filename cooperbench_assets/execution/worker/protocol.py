"""What the parent and the harness server say to each other: one request a child, one end a child.

What belongs here: plain data, standard library only, because the server may run in another environment
that has the harness and nothing of ours. What does not: any doing (``server``, ``runner.harness_client``).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cooperbench_assets.benchmark.failures import Stage as Stage

REPORT = "child.json"
"""File in the staging folder that says how a child ended, for a parent that was not there to hear it."""

PROGRESS = "evaluation.json"
"""File in the staging folder that says what an evaluation is doing."""

LOG = "child.log"
"""File in the staging folder with all that a child printed."""

EXTERNAL_AGENTS = "COOPERBENCH_EXTERNAL_AGENTS"
"""Upstream's variable with the modules that register agents, separated by commas."""

WANTED_AGENT = "COOPERBENCH_ASSETS_AGENT"
"""The agent that is to be run; empty where none is. No other one of upstream's own is imported."""

Errand = Literal["agent", "eval", "ask"]
"""What a child does: a stage of a pair, or asking the model for one token."""


@dataclass(frozen=True, slots=True)
class ChildRequest:
    """One pair at one stage, to be run by upstream's own function in a process group of its own."""

    key: str
    """The parent's name of this try; unique among running children."""

    stage: Errand
    mode: str
    """solo, coop or team."""

    repo: str
    task_id: int
    features: tuple[int, int]
    run_name: str
    staging: str
    """Absolute folder that becomes the child's working directory; its log tree is ``<staging>/logs``."""

    dataset: str
    """Absolute root of the dataset."""

    backend: str
    """process, docker, modal or gcp: the sandbox of an evaluation, or the backend that agents are told."""

    agent: str = ""
    model_name: str = ""
    agent_config: str | None = None
    """Absolute path of the effective agent config, or None."""

    agent_config_text: str | None = field(default=None, repr=False)
    """What the agent config says, secrets included: the child has it in a file of its own, in place of that path."""

    messaging: bool = False
    git: bool = False
    redis_url: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    """Variables set in this child only."""

    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    """More of these, whose values must be in no text. Neither the server nor another child has them."""

    sandbox: dict[str, Any] = field(default_factory=dict)
    """Options of the sandbox: ``test_timeout_seconds``, ``isolation``, ``labels``, ``memory_mb`` …"""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> ChildRequest:
        """The request that `to_json` wrote."""
        content = json.loads(line)
        content["features"] = tuple(content["features"])
        return cls(**content)


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How a child's process ended. Whether the pair succeeded is read from its files, never from here."""

    key: str
    pid: int
    exit_code: int | None
    """None where a signal ended it."""

    signal: int | None
    error: str | None = None
    """Text of an exception that escaped upstream's function."""
    isolation: str | None = None
    """The sandbox's isolation, where one was made: ``bubblewrap``, ``subprocess`` …"""


@dataclass(frozen=True, slots=True)
class HarnessInfo:
    """What the harness server has imported."""

    version: str
    python: str
    """Path of the interpreter."""

    python_version: str
    commit: str | None
    """Of the checkout that the harness is installed from, where it is one."""

    dirty: bool | None
    """True where that checkout has changes that are not committed."""

    packages: dict[str, str]
    """Name → version of every distribution in its environment."""

    agents: tuple[str, ...]
    backends: tuple[str, ...]
    isolation: str
    """What ``process`` sandboxes use on this machine: ``bubblewrap`` or ``subprocess``."""

    isolation_reason: str
    """Why bubblewrap is not used; empty where it is."""

    warnings: tuple[str, ...] = ()

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> HarnessInfo:
        """The record that JSON's lists stand for."""
        for name in ("agents", "backends", "warnings"):
            content[name] = tuple(content[name])
        return cls(**content)
