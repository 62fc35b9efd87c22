"""Runs that exist already: finding them by a template, and what they say of themselves.

What belongs here: run name templates read backwards, and a summary of each run found. What does not: reading results
(``benchmark.logtree``), writing an experiment's file (``new_experiment``), taking runs over into another experiment
(``adopt``), and printing.
"""

from __future__ import annotations

import os
import re
import string
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cooperbench_assets.benchmark.logtree import LogTreeError, read_run
from cooperbench_assets.errors import UserError
from cooperbench_assets.spec import LABEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from cooperbench_assets.benchmark.logtree import RunReading
    from cooperbench_assets.benchmark.pairs import Subset

_PARTS = {"seed": r"(?P<seed{n}>\d+)", "seed_suffix": r"(?:-seed(?P<seed{n}>\d+))?"}
"""What stands for a seed in a folder's name; numbered, because a template may name it twice."""


class ImportLogsError(UserError):
    """Runs cannot be taken as asked; the message says what there is and what to do."""


@dataclass(frozen=True, slots=True)
class Template:
    """A setting's run name with a place for the seed, as in defs.yaml."""

    setting: str
    text: str

    @classmethod
    def parse(cls, argument: str) -> Template:
        """``solo=flash_solo_{seed}`` as a template.

        Raises:
            ImportLogsError: if it has no label, a label that cannot be one, or a placeholder nobody knows.
        """
        setting, equals, text = argument.partition("=")
        if not equals or not text:
            raise ImportLogsError(f"{argument!r}: write SETTING=RUN_NAME, as in 'solo=my_run_{{seed}}'")
        if not LABEL.fullmatch(setting):
            raise ImportLogsError(f"{setting!r}: a setting has letters, digits, '.', '_' and '-' only")
        template = cls(setting, text)
        try:
            fields = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
            if fields <= {"experiment", "setting", "seed", "seed_suffix"}:
                template.run_name("x", 0)
                return template
        except ValueError as error:
            raise ImportLogsError(f"run name {text!r}: {error}") from error
        raise ImportLogsError(
            f"run name {text!r}: a template knows {{seed}}, {{seed_suffix}}, {{setting}} and {{experiment}}"
        )

    def run_name(self, experiment: str, seed: int) -> str:
        """The run name of one seed, exactly as an experiment makes it."""
        suffix = f"-seed{seed}" if seed else ""
        return self.text.format(experiment=experiment, setting=self.setting, seed=seed, seed_suffix=suffix)

    def seed_of(self, folder: str, experiment: str) -> int | None:
        """The seed whose run is called `folder`; None if none is. A template without a seed is seed 0."""
        match = re.fullmatch(self._pattern(experiment), folder)
        if match is None:
            return None
        seeds = {int(digits) for digits in match.groups() if digits is not None} or {0}
        # The name is made again, so that 01 is not taken for 1, nor two places for two seeds.
        return next((seed for seed in seeds if self.run_name(experiment, seed) == folder), None)

    def _pattern(self, experiment: str) -> str:
        known = {"experiment": re.escape(experiment), "setting": re.escape(self.setting)}
        pattern = ""
        for n, (literal, field, _, _) in enumerate(string.Formatter().parse(self.text)):
            pattern += re.escape(literal)
            if field is not None:
                pattern += known.get(field) or _PARTS[field].format(n=n)
        return pattern


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A folder of a log tree that is a run of one setting and seed."""

    setting: str
    seed: int
    folder: Path


def find_runs(logs: Path, templates: Sequence[Template], experiment: str) -> list[FoundRun]:
    """The runs below `logs` that the templates name, by setting and seed.

    Raises:
        ImportLogsError: if a template finds none, a setting is listed twice, or two want one folder.
    """
    folders = _folders(logs)
    for setting, times in Counter(template.setting for template in templates).items():
        if times > 1:
            raise ImportLogsError(f"the setting {setting} is listed twice; a setting has one run name template")
    found: dict[str, FoundRun] = {}
    for template in templates:
        mine = [
            FoundRun(template.setting, seed, logs / name)
            for name in folders
            if (seed := template.seed_of(name, experiment)) is not None
        ]
        if not mine:
            there = f"there are: {_listing(folders)}" if folders else "there is no folder"
            raise ImportLogsError(f"no run in {logs} is called {template.text!r} ({there})")
        for run in sorted(mine, key=lambda run: run.seed):
            if other := found.get(run.folder.name):
                raise ImportLogsError(
                    f"{run.folder.name} would be both {other.setting} and {run.setting}; tell the templates apart"
                )
            found[run.folder.name] = run
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Survey:
    """What a found run holds."""

    run: FoundRun
    reading: RunReading

    @property
    def mode(self) -> str | None:
        """solo, coop or team; None where nothing in the run says it."""
        return self.reading.mode

    @property
    def results(self) -> int:
        """Pairs with a readable result."""
        return sum(pair.result is not None for pair in self.reading.pairs.values())

    @property
    def evals(self) -> int:
        """Pairs with a readable verdict."""
        return sum(pair.evaluation is not None for pair in self.reading.pairs.values())

    @property
    def messages(self) -> int:
        """Messages between agents: in conversation.json, or else as the results count them."""
        return sum(
            len(pair.messages or ()) or (pair.result.messages_sent or 0 if pair.result else 0)
            for pair in self.reading.pairs.values()
        )

    @property
    def models(self) -> frozenset[str]:
        """Models that the results name; without one, the run's config.json."""
        return self._named("model")

    @property
    def agents(self) -> frozenset[str]:
        """Agent frameworks that the results name; without one, the run's config.json."""
        return self._named("agent_framework")

    def _named(self, field: str) -> frozenset[str]:
        results = (pair.result for pair in self.reading.pairs.values() if pair.result is not None)
        if named := frozenset(name for result in results if (name := getattr(result, field))):
            return named
        name = getattr(self.reading.config, field, None)
        return frozenset([name] if name else [])

    def beyond(self, subset: Subset) -> list[str]:
        """Pairs with a result that the subset does not plan."""
        planned = frozenset(subset.pairs)
        found = self.reading.pairs.items()
        return sorted(pair.name for pair, read in found if read.result is not None and pair not in planned)


def survey(runs: Iterable[FoundRun], modes: Mapping[str, str]) -> list[Survey]:
    """Read every run.

    Args:
        runs: The runs found.
        modes: The mode of a setting, by label, where a person has said it.

    Raises:
        ImportLogsError: if a run holds several modes and nobody said which one is meant.
    """
    try:
        return [Survey(run, read_run(run.folder, modes.get(run.setting))) for run in runs]
    except LogTreeError as error:
        raise ImportLogsError(f"{error} (--mode SETTING=MODE says it)") from error


def _folders(logs: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(logs) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise ImportLogsError(f"log tree {logs}: {error.strerror or error}") from error


def _listing(names: Sequence[str], limit: int = 20) -> str:
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
