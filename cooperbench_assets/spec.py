"""An experiment as plain data: what defs.yaml says, checked as far as the YAML alone can be.

What belongs here: the fields of an experiment, their checks, and its cells. What does not: Dagster
(``experiment``), and anything that looks at logs, datasets, keys or engines: what is missing there is an error of
the asset that needs it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from cooperbench_assets import cron
from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.defs_file import COMPONENT as COMPONENT
from cooperbench_assets.defs_file import ExperimentError as ExperimentError
from cooperbench_assets.defs_file import read_component
from cooperbench_assets.execution.job import NEEDS_ENGINE, Fleet, Limits, PreflightSettings
from cooperbench_assets.execution.runner.message_server import ON_BRIDGE
from cooperbench_assets.store.cells import Cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""What an experiment's name and a setting's label may look like: they become folders and partition keys."""

LONGEST_NAME = 255
"""Bytes that file systems take for a folder's name."""

MODULE = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
"""What a module's name looks like."""

OWNER = re.compile(r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Z|a-z]{2,7}\b|team:.+", re.DOTALL)
"""What Dagster takes for an owner: an e-mail address, or a team."""

GOLD_SETTINGS = ("gold-solo", "gold-coop")
"""Labels under which gold_baseline's cells stand in the store."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Setting(_Strict):
    """How agents work in some of the experiment's cells, and how often."""

    seeds: list[int]
    """Independent repetitions: the numbers that name them."""

    mode: Literal["solo", "coop", "team"] | None = None
    """Upstream's mode; read from the log tree where `execution` is none and it is not given."""

    messaging: bool = True
    """Agents can send each other messages (coop and team)."""

    git: bool = False
    """Agents share a git server (coop and team)."""

    gold: bool = False
    """The runs are of the dataset's own patches, no agent's: shown beside the others, and compared with none."""

    run_name: str | None = None
    """Upstream's run name, a template like the experiment's."""


class Accepted(_Strict):
    """A pair whose infrastructure failure a person has accepted; it is still counted as infra_error."""

    pair: str
    """repo/task_id/f1_f2."""

    reason: str
    setting: str | None = None
    """Only in this setting; everywhere if not given."""

    seed: int | None = None
    """Only in this seed; everywhere if not given."""


class Exclusion(_Strict):
    """A pair that no comparison counts."""

    pair: str
    """repo/task_id/f1_f2."""

    reason: str


class AnalysisPlan(_Strict):
    """What the study asks, said before there are results: everything else that is compared is exploratory."""

    control: str | None = None
    """Setting that the others are held against; the first one if not given."""

    endpoint: Literal["success", "merging", "conflict", "retained"] = "success"
    """What the planned contrasts are about."""

    contrasts: list[tuple[str, str]] = []
    """Planned contrasts, two settings each; every setting against the control if none is given."""

    equivalence_margin: float | None = Field(default=None, gt=0, lt=1)
    """Differences below this share count as equivalent (0.1: ten points)."""

    excluded: list[Exclusion] = []
    """Pairs left out of every comparison."""

    def problems(self, settings: Iterable[str]) -> Iterator[str]:
        """What is wrong with it, given the experiment's settings."""
        there = list(settings)
        named = [name for two in self.contrasts for name in two] + ([self.control] if self.control else [])
        for name in dict.fromkeys(named):
            if name not in there:
                yield f"analysis: {name!r} is no setting; settings are: {', '.join(there)}"
        for one, other in self.contrasts:
            if one == other:
                yield f"analysis.contrasts: {one} is held against itself; name two settings"
        for entry in self.excluded:
            try:
                Pair.parse(entry.pair)
            except ValueError as error:
                yield f"analysis.excluded: {error}"

    def text(self) -> str:
        """As JSON, the same for the same plan: what its hash is made of."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


class Retry(_Strict):
    """How patiently the retry sensor tries again."""

    backoff_minutes: float = Field(default=5, ge=0)
    """Pause before the second try; it doubles with each further one, up to six hours."""

    every_seconds: int = Field(default=30, ge=1)
    """How often the sensor looks."""


class Alerts(_Strict):
    """Where alerts go beside the log."""

    webhook_variable: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable that holds a webhook's address (Slack's format). Never the address."""

    base_url: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")
    """Address of the Dagster UI that links in alerts lead to; else that of COOPERBENCH_ASSETS_UI_URL, which `make ui`
    sets and .env may, else http://127.0.0.1:3000."""


class Docker(_Strict):
    """What one container may use: those of agents and those of evaluations."""

    memory_gb: float | None = Field(default=None, ge=0.01)
    """Memory in GiB, without any swap beside it; as much as there is where not given."""

    cpus: float | None = Field(default=None, gt=0)
    """CPUs at once."""

    pids: int | None = Field(default=None, ge=1)
    """Processes and threads at once."""


class SandboxSettings(_Strict):
    """What programs that run tests may reach."""

    network: bool | None = None
    """Whether they reach the network. Not given: in containers yes, because most tasks install packages as they are
    tested; elsewhere no. A plain subprocess cannot be kept from it: false asks for bubblewrap where there is no
    container."""


class Harness(_Strict):
    """An existing harness in another virtual environment."""

    python: str
    """The interpreter that has it."""


@dataclass(frozen=True, slots=True)
class CellSpec:
    """One planned cell: its names, and how its agents work."""

    cell: Cell
    mode: str | None
    messaging: bool
    git: bool
    run_name: str
    gold: bool = False


class ExperimentSpec(_Strict):
    """One model, agent, agent config, subset and harness, in some settings and seeds."""

    subset: str
    """A name in <dataset>/subsets, or a path: the pairs, and how many results a cell must have."""

    settings: dict[str, Setting]
    """By label: solo, coop-comm, coop-nocomm, …"""

    execution: Literal["docker", "process", "modal", "gcp", "none"] = "none"
    """Where pairs are run; none: logs come from elsewhere and are only read."""

    model_name: str | None = None
    agent: str | None = None
    agent_config: dict[str, Any] | None = None
    """Passed to the agent; the effective file is written and hashed."""

    run_name: str = "{experiment}-{setting}{seed_suffix}"
    """Template over experiment, setting, seed and seed_suffix ("" for seed 0, else -seed<n>)."""

    logs: str = "data/logs"
    dataset: str = "data/dataset"
    dataset_module: str | None = Field(default=None, pattern=MODULE)
    """Module that makes the dataset: see ``dataset_module``."""

    harness: Harness | None = None
    fleet: Annotated[Fleet | None, BeforeValidator(lambda said: {"kind": said} if isinstance(said, str) else said)] = (
        None
    )
    """Machines that pairs run on: `ray`, or its keys. This machine if not given."""

    limits: Limits = Limits()
    accepted: list[Accepted] = []
    external_agents: list[str] = []
    """Modules that register agents with the harness."""

    environment: dict[str, str] = {}
    """Variables that the harness sees."""

    secrets: list[str] = []
    """Names of variables whose values the harness sees, and nobody else."""

    redis_url: str | None = None
    """Redis for messages; an embedded one is started on loopback where this is not given, and where it is
    docker-bridge, on this machine's address on Docker's bridge: for agents that talk from their containers."""

    docker: Docker = Docker()
    sandbox: SandboxSettings = SandboxSettings()
    preflight: PreflightSettings = PreflightSettings()
    gold_accepted: list[str] = []
    """Pairs (repo/task_id/f1_f2) whose own solution fails or flakes in gold_baseline, and for which agents are bought
    all the same: a person has looked at them."""

    analysis: AnalysisPlan | None = None
    """Control, endpoint, planned contrasts, equivalence margin and excluded pairs. It counts as declared before only
    if a cell's first launch found it here: later changes are called declared afterwards."""

    nightly: str | None = None
    """Cron expression (UTC) of a schedule that backfills what is missing, incomplete or stale; none if not given."""

    retry: Retry = Retry()
    alerts: Alerts = Alerts()
    owners: list[str] = []
    """Who answers for the experiment, as the Dagster UI shows it with each asset: e-mail addresses, or team:NAME."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = [*self._setting_problems(), *self._execution_problems(), *self._accepted_problems()]
        problems += [
            f"owners: {owner!r} is neither an e-mail address nor team:NAME; correct it"
            for owner in self.owners
            if not OWNER.fullmatch(owner)
        ]
        if self.analysis is not None:
            problems += self.analysis.problems(self.settings)
        if self.nightly is not None and (wrong := cron.problem(self.nightly)) is not None:
            problems.append(f"nightly: {self.nightly!r}: {wrong}; write a cron expression such as '0 2 * * *'")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _setting_problems(self) -> Iterable[str]:
        if not self.settings:
            yield "settings: name at least one"
        for label, setting in self.settings.items():
            if not LABEL.fullmatch(label):
                yield f"settings.{label}: a label has letters, digits, '.', '_' and '-' only, and no mark first"
            elif "..." in label:
                yield f"settings.{label}: '...' says \"from … to\" where partitions are chosen; use another label"
            if not setting.seeds:
                yield f"settings.{label}.seeds: list at least one seed"
            for seed, times in Counter(setting.seeds).items():
                if times > 1:
                    yield f"settings.{label}.seeds: seed {seed} is listed {times} times; list each seed once"
                if seed < 0:
                    yield f"settings.{label}.seeds: {seed} is negative; seeds count from 0"
            if self.execution != "none" and setting.mode is None:
                yield f"settings.{label}.mode: say solo, coop or team"
            if self.execution != "none" and setting.gold:
                yield f"settings.{label}.gold: this is for logs that are only read; gold_baseline makes its own runs"
            if self.execution != "none" and label in GOLD_SETTINGS:
                yield f"settings.{label}: this label is gold_baseline's own; choose another"

    def _execution_problems(self) -> Iterable[str]:
        if self.execution == "none":
            if self.fleet is not None:
                yield "fleet: execution: none runs no pair; leave it out"
            return
        if not self.agent or not self.model_name:
            yield f"agent and model_name: both are needed with execution: {self.execution}"
        if self.execution == "process" and self.agent in NEEDS_ENGINE:
            yield (
                f"agent: {self.agent} works in containers, and execution: process has none; "
                "use execution: docker (or modal, gcp)"
            )
        if self.redis_url == ON_BRIDGE and self.execution != "docker":
            yield f"redis_url: {ON_BRIDGE} is for agents in containers, with execution: docker; leave it out"
        if self.sandbox.network is not None and self.execution not in ("docker", "process"):
            yield f"sandbox.network: tests run at {self.execution}, which has a network; leave it out"
        if self.agent == "openhands_sdk" and self.execution != "modal":
            yield "agent: openhands_sdk runs on Modal only; use execution: modal"

    def _accepted_problems(self) -> Iterable[str]:
        for entry in self.accepted:
            try:
                Pair.parse(entry.pair)
            except ValueError as error:
                yield f"accepted: {error}"
            if entry.setting is not None and entry.setting not in self.settings:
                yield f"accepted: {entry.pair} names the setting {entry.setting!r}, which is not in settings"
        for name in self.gold_accepted:
            try:
                Pair.parse(name)
            except ValueError as error:
                yield f"gold_accepted: {error}"

    def cell(self, experiment: str, setting: str, seed: int) -> CellSpec:
        """The cell of a setting and a seed, planned or not.

        Raises:
            KeyError: if the experiment has no such setting.
        """
        chosen = self.settings[setting]
        template = chosen.run_name or self.run_name
        names = {
            "experiment": experiment,
            "setting": setting,
            "seed": seed,
            "seed_suffix": f"-seed{seed}" if seed else "",
        }
        return CellSpec(
            Cell(experiment, setting, seed),
            chosen.mode,
            chosen.messaging,
            chosen.git,
            template.format(**names),
            chosen.gold,
        )

    def cells(self, experiment: str) -> tuple[CellSpec, ...]:
        """The planned cells, in the order of the file."""
        return tuple(
            self.cell(experiment, label, seed) for label, setting in self.settings.items() for seed in setting.seeds
        )

    def accepted_in(self, cell: Cell) -> frozenset[str]:
        """Names of the pairs whose infrastructure failure is accepted in this cell."""
        return frozenset(
            entry.pair
            for entry in self.accepted
            if entry.setting in (None, cell.setting) and entry.seed in (None, cell.seed)
        )


def dagster_name(experiment: str) -> str:
    """An experiment's name as it begins the names of groups, ops, jobs and sensors: letters, digits, underscores."""
    return re.sub(r"[^A-Za-z0-9]", "_", experiment)


def _explain(error: ValidationError) -> str:
    """Pydantic's findings in one line, each with its key."""

    def one(finding: Any) -> str:
        key = ".".join(str(part) for part in finding["loc"])
        if finding["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            return f"{key}: unknown key"
        message = str(finding["msg"]).removeprefix("Value error, ")
        return f"{key}: {message}" if key else message

    return "; ".join(one(finding) for finding in error.errors())


def parse_experiment(name: str, attributes: object, file: Path) -> ExperimentSpec:
    """An experiment from the attributes of its defs.yaml.

    Raises:
        ExperimentError: if something in it is wrong, naming all that is.
    """
    if not LABEL.fullmatch(name):
        raise ExperimentError(f"{file}: {name!r} is no name for an experiment; use letters, digits, '.', '_', '-'")
    if not isinstance(attributes, dict):
        said = "missing" if attributes is None else "no mapping"
        raise ExperimentError(f"{file}: attributes: {said}; give at least subset and settings")
    try:
        spec = ExperimentSpec.model_validate(attributes)
    except ValidationError as error:
        raise ExperimentError(f"{file}: {_explain(error)}") from error
    try:
        runs = Counter(cell.run_name for cell in spec.cells(name))
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ExperimentError(
            f"{file}: run_name: {error}; a template knows experiment, setting, seed and seed_suffix"
        ) from error
    for run, times in runs.items():
        if times > 1:
            raise ExperimentError(f"{file}: run_name: {times} cells would be called {run!r}; tell them apart")
        if not run or "/" in run or "\0" in run or run.startswith(".") or len(run.encode()) > LONGEST_NAME:
            raise ExperimentError(f"{file}: run_name: {run[:80]!r} is no folder name")
    return spec


def load_experiment(file: Path) -> ExperimentSpec | None:
    """The experiment in a defs.yaml; None if it holds another component, which is left to Dagster.

    Raises:
        ExperimentError: if the file cannot be read or something in it is wrong.
    """
    found = read_component(file)
    return None if found is None else parse_experiment(file.parent.name, found.get("attributes"), file)


def load_experiments(defs: Path) -> dict[str, ExperimentSpec]:
    """Every experiment below a defs folder, by name. Other components are left alone.

    Raises:
        ExperimentError: at the first file that cannot be read or in which something is wrong.
    """
    found = {file.parent.name: load_experiment(file) for file in sorted(defs.glob("*/defs.yaml"))}
    return {name: spec for name, spec in found.items() if spec is not None}
