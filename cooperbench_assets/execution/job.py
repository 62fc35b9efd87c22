"""What to run: one cell with everything that its two stages need to know.

What belongs here: plain data, filled in by the assets and the CLI from an experiment. What does not: what a person
wants differently for one launch (``options``), and anything read from disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from cooperbench_assets.benchmark.attempts import ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cooperbench_assets.benchmark.pairs import Pair, Subset

Execution = Literal["process", "docker", "modal", "gcp"]

STAGING = ".staging"
"""Folder in the run folder where children write; upstream looks at its own mode folders only."""

NEEDS_ENGINE = frozenset({"mini_swe_agent_v2", "swe_agent", "openhands_sdk", "claude_code", "codex"})
"""Agents that come with the harness; each works in a container or a remote sandbox."""


ASKS_FROM_HERE = frozenset({"mini_swe_agent_v2", "mini_swe_agent", "swe_agent"})
"""Agents whose model is called by the harness itself, through litellm; others call it from their containers."""


GOLD: Final = "gold"
"""What stands for agent and model where the dataset's own patches are evaluated, and no agent is run."""

_Count = Annotated[int, Field(ge=1)]
_Positive = Annotated[float, Field(gt=0)]
_NotNegative = Annotated[float, Field(ge=0)]
_LeaseSeconds = Annotated[float, Field(ge=10, le=600)]
_TestSeconds = Annotated[float, Field(gt=0, le=600)]
# What these two say to pydantic holds where a defs.yaml is read: an unknown key is an error.
_STRICT: Final = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a cell of an experiment may use, and when to give up: `limits` in defs.yaml."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    concurrency: _Count = 4
    """Pairs of one cell whose agents run at once; the machine's slots bound all cells together."""

    eval_concurrency: _Count = 10
    """Pairs of one cell that are evaluated at once; bounded alike."""

    agent_attempts: _Count = 3
    """Tries of a pair's agents per retry generation, counting only those that infrastructure ended."""

    eval_attempts: _Count = 2
    """Tries of an evaluation of one patch per retry generation, counted alike."""

    pair_timeout_minutes: _Positive = 90
    """Deadline of a pair's agents, wall time."""

    test_timeout_seconds: _TestSeconds = 600
    """Deadline of one test run inside the sandbox; upstream's own is 600."""

    max_cost_usd: _Positive | None = None
    """Stops launches of the whole experiment at this cost of model calls, USD."""

    cell_max_cost_usd: _Positive | None = None
    """The same for each cell."""

    expected_cost_usd: _Positive | None = None
    """What one try of a pair's agents may cost, USD: what tries count for under a budget until the cost of one is
    known. Without it, one pair runs at a time until then."""

    breaker: _Count = 5
    """Tries in a row without one successful model reply that stop a cell."""


@dataclass(frozen=True, slots=True)
class PreflightSettings:
    """What is looked at before the first pair of a stage: `preflight` in defs.yaml."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    ask_model: bool = True
    """Ask the model for one token before agents are run, where the harness calls it from this machine."""

    free_gb: _NotNegative = 2.0
    """Free disk in GB that must be left where logs are written, and where Docker keeps its data."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Machines that pairs run on, where it is not this one: `fleet` in defs.yaml."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    kind: Literal["ray"] = "ray"
    """A Ray cluster, whose nodes have the custom resources agents and evaluations: one for each slot."""

    address: str = "auto"
    """The cluster's, host:port; auto: that of which this machine is a node, or RAY_ADDRESS."""

    lost_after_seconds: _LeaseSeconds = 60.0
    """A node that hears nothing of its launch for so long ends its pairs by itself."""

    dataset: str | None = None
    """Root of the dataset on the nodes; the same path as here if not given."""


@dataclass(frozen=True, slots=True)
class CellJob:
    """One cell of an experiment, ready to be run."""

    experiment: str
    setting: str
    seed: int
    mode: str
    """solo, coop or team."""

    run_name: str
    logs: Path
    """Root of the experiment's log tree; the cell's run folder is ``<logs>/<run_name>``."""

    dataset: Path
    subset: Subset
    model_name: str
    agent: str
    execution: Execution
    messaging: bool = False
    git: bool = False
    agent_config: Path | None = None
    """The effective agent config file."""

    agent_config_text: str | None = field(default=None, repr=False)
    """What the agents are given: a launch writes it into that file, under the cell's lock and without secrets. None:
    the file is there already, and it is what they are given."""

    limits: Limits = field(default_factory=Limits)
    accepted: frozenset[str] = frozenset()
    """Names of pairs whose infrastructure failure a person has accepted."""

    harness_python: Path | None = None
    """Interpreter that has the harness; ours if not given."""

    external_agents: tuple[str, ...] = ()
    """Modules that register agents with the harness."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that the harness sees."""

    secrets: tuple[str, ...] = ()
    """Names of variables of this process that are handed to the harness; their values are written nowhere."""

    redis_url: str | None = None
    siblings: tuple[Path, ...] = ()
    """Run folders of the experiment's other cells: they share its budget, and show how long a pair takes."""

    sandbox: Mapping[str, Any] = field(default_factory=dict)
    """Options that the sandbox of an evaluation understands, beside the test timeout."""

    preflight: PreflightSettings = field(default_factory=PreflightSettings)
    image_lock: Path | None = None
    """Lock file of the task images, with execution docker: the images that results are made with. None: any will do."""

    analysis: str | None = None
    """The declared analysis as JSON, whose hash goes on record before the first result."""

    gold_accepted: frozenset[str] = frozenset()
    """Names of pairs for which agents are bought although their own solution fails or flakes."""

    fleet: Fleet | None = None
    """The cluster that pairs run on; this machine if not given."""

    state: Path | None = None
    """The machine's state folder with the slots; the user's own if not given."""

    @property
    def run_dir(self) -> Path:
        """The cell's run folder."""
        return self.logs / self.run_name

    @property
    def label(self) -> str:
        """The cell as a person names it."""
        return f"{self.experiment} {self.setting} seed {self.seed}"

    @property
    def needs_redis(self) -> bool:
        """Whether agents of this cell talk over Redis: messages, or a team's task list."""
        return self.mode == "team" or (self.mode == "coop" and self.messaging)

    def pair_dir(self, pair: Pair) -> Path:
        """The pair's folder in the log tree."""
        return self.logs / f"{self.run_name}/{self.mode}/{pair.name}"

    def attempts_dir(self, pair: Pair) -> Path:
        """The folder with every recorded try of the pair."""
        return self.logs / f"{self.run_name}/{ATTEMPTS}/{self.mode}/{pair.name}"
