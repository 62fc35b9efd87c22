"""Runs that exist already become an experiment: finding them by a template, and writing its defs.yaml.

What belongs here: run name templates read backwards, what a defs.yaml of ``execution: none`` says, and putting it in
place only when it is valid. What does not: reading results (``benchmark.logtree``), taking runs over into another
experiment (``adoption``), and printing.
"""

from __future__ import annotations

import json
import os
import re
import string
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cooperbench_assets.spec import COMPONENT, LABEL, ExperimentSpec, load_experiments

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cooperbench_assets.project import Project

_PARTS = {"seed": r"(?P<seed{n}>\d+)", "seed_suffix": r"(?:-seed(?P<seed{n}>\d+))?"}
"""What stands for a seed in a folder's name; numbered, because a template may name it twice."""


class ImportLogsError(ValueError):
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
        ImportLogsError: if a template finds none, a setting stands there twice, or two want one folder.
    """
    folders = _folders(logs)
    for setting, times in Counter(template.setting for template in templates).items():
        if times > 1:
            raise ImportLogsError(f"the setting {setting} stands there twice; a setting has one run name template")
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


def _folders(logs: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(logs) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise ImportLogsError(f"log tree {logs}: {error.strerror or error}") from error


def _listing(names: Sequence[str], limit: int = 20) -> str:
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
