"""What to run: one cell with everything that its two stages need to know.

What belongs here: plain data, filled in by the assets and the CLI from an experiment. What does not: what a person
wants differently for one launch (``options``), and anything read from disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

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


@dataclass(frozen=True, slots=True)
class Limits:
    """What one cell may use, and when to give up."""

    concurrency: int = 4
    """Pairs whose agents run at once; a cap below the machine's slots."""

    eval_concurrency: int = 10
    """Pairs that are evaluated at once; a cap below the machine's slots."""

    agent_attempts: int = 3
    """Tries of a pair's agents per retry generation, counting those that ended as infrastructure."""

    eval_attempts: int = 2
    """Tries of an evaluation of one patch per retry generation, counted alike."""

    pair_timeout_minutes: float = 90
    """Deadline of a pair's agents, wall time."""

    test_timeout_seconds: float = 600
    """Deadline of one test run inside the sandbox."""

    max_cost_usd: float | None = None
    """Budget of the whole experiment, USD."""

    cell_max_cost_usd: float | None = None
    """Budget of this cell, USD."""

    expected_cost_usd: float | None = None
    """What one try of a pair's agents may cost, USD: counted under a budget until the cost of one is known."""

    breaker: int = 5
    """Tries in a row without one successful model reply that stop the cell."""


FREE_GB = 2.0
"""Free disk in GB that a launch asks for where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """What is looked at before the first pair of a stage."""

    ask_model: bool = True
    """Ask the model for one token before agents are run, where the harness calls it from this machine."""

    free_gb: float = FREE_GB
    """Free disk in GB that must be left where logs are written, and where Docker keeps its data."""


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

    preflight: Preflight = field(default_factory=Preflight)
    image_lock: Path | None = None
    """Lock file of the task images, with execution docker: the images that results are made with. None: any will do."""

    gold_accepted: frozenset[str] = frozenset()
    """Names of pairs for which agents are bought although their own solution fails or flakes."""

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
