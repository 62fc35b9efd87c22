"""What a node is told, and what it answers: plain data that travels between machines.

What belongs here: the fields. What does not: any doing (``node``, ``children``).
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from cooperbench_assets.benchmark.pairs import Pair

CONFIG_VARIABLE: Final = "COOPERBENCH_ASSETS_FLEET"
"""Variable with the `FleetConfig` as JSON, for a driver."""

SLACK_SECONDS: Final = 15.0
"""How long a node may take to end its children once its lease is over, SIGTERM and removal of containers included."""

ON_NODE: Final = "on-node"
"""In place of a Redis's URL in a request: one that the pair's node starts."""


@dataclass(frozen=True, slots=True)
class FleetConfig:
    """What the driver and the nodes must know of an experiment. It holds no secret."""

    address: str
    """The cluster's: host:port, or auto."""

    lost_after_seconds: float
    """How long a lease lasts."""

    dataset: str
    """Root of the dataset here."""

    dataset_on_nodes: str
    pairs: tuple[tuple[str, int, tuple[int, int]], ...]
    """The planned pairs: repository, number of the task, features."""

    execution: str
    sandbox: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    """Variables that the harness sees."""

    external_agents: tuple[str, ...] = ()
    agent: str = ""
    """What `wanted_agent` says."""

    python: str | None = None
    """The nodes' interpreter that has the harness; that of Ray's workers if not given."""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, line: str) -> FleetConfig:
        """The configuration that `to_json` wrote."""
        content = json.loads(line)
        content["external_agents"] = tuple(content["external_agents"])
        content["pairs"] = tuple((repo, task, (first, second)) for repo, task, (first, second) in content["pairs"])
        return cls(**content)

    @property
    def silence_seconds(self) -> float:
        """Seconds after which a node that hears nothing runs nothing."""
        return self.lost_after_seconds + SLACK_SECONDS

    def planned(self) -> list[Pair]:
        """The planned pairs."""
        return [Pair(*pair) for pair in self.pairs]


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What must be the same on every node."""

    versions: dict[str, str]
    """What is compared, by what it is called in an error: Ray, Python, harness …"""

    images: dict[str, str]
    """Task image → its identity, with execution docker."""

    clock: float
    """Seconds since 1970, when this was said."""

    info: dict[str, Any]
    """The node's `HarnessInfo`, as plain data."""

    problem: str | None = None
    """Why the node can run nothing."""


@dataclass(slots=True)
class Heard:
    """A node's answer to a heartbeat."""

    clock: float
    """The node's own clock (`node_clock`); the next heartbeat carries it back, which is what renews the lease."""

    ends: list[tuple[dict[str, Any], bytes]] = field(default_factory=list)
    """Children that ended and were not confirmed yet: each `ChildEnd` as plain data, and its staging folder."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """By child: what running ones have written of their calls and their progress, and the end of their log."""

    written: dict[str, float] = field(default_factory=dict)
    """By child: how many seconds ago its agents last wrote below their log folder."""


def node_clock() -> float:
    """Seconds that go on while a process is stopped and a machine sleeps; means something on its own machine only."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
