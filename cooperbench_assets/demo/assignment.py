"""What a scripted agent is told, and what it can submit.

What belongs here: reading the harness's arguments, the environment and the dataset. What does not: deciding or doing
anything (``endings``, ``agents``).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cooperbench_assets.errors import UserError

from .chance import chance
from .difficulty import Traits
from .endings import Setting, setting_of
from .injected_faults import ATTEMPT_VARIABLE, KEY, FaultPolicy, PolicyError
from .session import Checkout

DATASET_VARIABLE = "COOPERBENCH_ASSETS_DATASET"
SEED_VARIABLE = "COOPERBENCH_ASSETS_SEED"

_SEED = re.compile(r"seed[-_]?(\d+)$")
_LABEL = re.compile(r"(solo|coop|comm|nocomm|team)$")


class AssignmentError(UserError):
    """The agent cannot tell what to do; its text starts with the family of the failure."""

    def __init__(self, text: str) -> None:
        super().__init__(f"[infra:configuration] {text}")


@dataclass(frozen=True, slots=True)
class Options:
    """What an agent config may say to the scripted agents. Other keys are the harness's own."""

    seed: int | None = None
    dataset: str | None = None
    pace_seconds: float = 0.001
    """Time that a step takes."""

    patience_seconds: float = 5.0
    """How long an agent waits for a message."""

    injected_faults: FaultPolicy = FaultPolicy()  # noqa: RUF009 - frozen

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None) -> Options:
        """The options in the config that the harness hands on.

        Raises:
            AssignmentError: if one is none.
        """
        given = {name: value for name, value in (config or {}).items() if name in cls.__dataclass_fields__}
        try:
            given[KEY] = FaultPolicy.from_config(config)
        except PolicyError as error:
            raise AssignmentError(f"agent config: {error}") from error
        options = cls(**given)
        if not (options.seed is None or isinstance(options.seed, int)):
            raise AssignmentError(f"agent config: seed is {options.seed!r}; write a whole number")
        for name in ("pace_seconds", "patience_seconds"):
            value = getattr(options, name)
            if not (isinstance(value, (int, float)) and value >= 0):
                raise AssignmentError(f"agent config: {name} is {value!r}; write seconds from 0")
        return options


@dataclass(frozen=True, slots=True)
class Assignment:
    """One try of one pair in one cell."""

    repo: str
    task_id: int
    features: tuple[int, int]
    setting: Setting
    seed: int
    attempt: int
    dataset: Path
    log_dir: Path
    options: Options

    @property
    def pair(self) -> str:
        """The pair's name."""
        return f"{self.repo}/{self.task_id}/f{self.features[0]}_f{self.features[1]}"

    @classmethod
    def read(cls, log_dir: str | None, *, talking: bool, config: Mapping[str, Any] | None) -> Assignment:
        """The assignment of the try whose log folder is `log_dir`.

        The seed is that of the agent config, else of ``COOPERBENCH_ASSETS_SEED``, else the number that the run's name
        ends in (``…-seed2``), else 0 where it ends in a setting's name, else a number made from the run's name.
        The dataset is that of the agent config, else of ``COOPERBENCH_ASSETS_DATASET``, else ``dataset`` in the working
        directory. The try's number is ``COOPERBENCH_ASSETS_ATTEMPT``, else 1.

        Args:
            log_dir: ``<logs>/<run>/<mode>/<repo>/<task>/f<a>_f<b>``, which is all the harness tells about the pair.
            talking: Whether the agents can send messages.
            config: The agent config.

        Raises:
            AssignmentError: if something of it is missing or wrong.
        """
        match = re.search(r"([^/]+)/(solo|coop|team)/([^/]+)/(\d+)/f(\d+)_f(\d+)/*$", log_dir or "")
        if match is None:
            raise AssignmentError(f"the demo's agents read the pair from the log folder, and {log_dir!r} is none")
        run, mode, repo, task_id, first, second = match.groups()
        options = Options.from_config(config)
        setting = setting_of(mode, messaging=talking)
        seed = options.seed if options.seed is not None else _seed(run)
        dataset = Path(options.dataset or os.environ.get(DATASET_VARIABLE) or "dataset")
        features = (int(first), int(second))
        attempt = _number(ATTEMPT_VARIABLE, 1)
        return cls(repo, int(task_id), features, setting, seed, attempt, dataset, Path(log_dir or "."), options)

    def traits(self) -> Traits:
        """What is known of the pair.

        Raises:
            AssignmentError: if the dataset does not know it.
        """
        try:
            return Traits(**self._read("pairs.json")[self.pair])
        except KeyError as error:
            raise AssignmentError(f"{self.pair} is no pair of the demo's dataset at {self.dataset}") from error

    def submissions(self) -> Submissions:
        """What can be submitted for the pair."""
        content = self._read(f"patches/{self.repo}-{self.task_id}.json")
        return Submissions(content["features"], content["pairs"], content["titles"], self.features)

    def checkout(self) -> Checkout:
        """The task's files."""
        return Checkout(self.dataset / self.repo / f"task{self.task_id}" / "repo")

    def _read(self, name: str) -> dict[str, Any]:
        path = self.dataset / ".demo" / name
        try:
            content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise AssignmentError(
                f"{path} cannot be read ({error}): build the demo's dataset, and name its folder in {DATASET_VARIABLE}"
            ) from error
        return content


@dataclass(frozen=True, slots=True)
class Submissions:
    """Patches that were made with the dataset."""

    by_feature: dict[str, dict[str, str]]
    by_pair: dict[str, dict[str, str]]
    titles: dict[str, str]
    features: tuple[int, int]

    def one(self, agent: int, work: str, *, aside: bool = False) -> str:
        """The patch of one feature: the first of the pair for agent 1, the second for agent 2."""
        if work == "missing":
            return ""
        variant = "aside" if (work, aside) == ("right", True) else f"{work}-aside" if aside else work
        return self.by_feature[str(self.features[agent - 1])][variant]

    def both(self, works: tuple[str, str]) -> str:
        """The patch of both features, one of which may be missing."""
        if "missing" in works:
            return next((self.one(agent, work) for agent, work in enumerate(works, 1) if work != "missing"), "")
        return self.by_pair[f"{self.features[0]}_{self.features[1]}"]["-".join(works)]

    def title(self, agent: int) -> str:
        """The title of an agent's feature."""
        return self.titles[str(self.features[agent - 1])]


def _seed(run: str) -> int:
    """The seed by the environment or the run's name."""
    if match := _SEED.search(run):
        return _number(SEED_VARIABLE, int(match[1]))
    return _number(SEED_VARIABLE, 0 if _LABEL.search(run) else int(chance("run", run) * 2**31))


def _number(variable: str, default: int) -> int:
    """A whole number in the environment."""
    value = os.environ.get(variable)
    try:
        return default if value is None else int(value)
    except ValueError as error:
        raise AssignmentError(f"{variable} is {value!r}; set a whole number") from error
