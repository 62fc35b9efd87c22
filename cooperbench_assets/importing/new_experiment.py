"""A defs.yaml for runs that exist: what it says, and putting it in place only when it is valid.

What belongs here: the text of an experiment with ``execution: none``, and its file. What does not: finding and reading
the runs (``importing``), and printing.
"""

from __future__ import annotations

import math
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from cooperbench_assets.defs_file import read_documents
from cooperbench_assets.files import write_atomically
from cooperbench_assets.importing.run_templates import ImportLogsError
from cooperbench_assets.spec import COMPONENT, LABEL, ExperimentError, ExperimentSpec, dagster_name, load_experiments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cooperbench_assets.importing.run_templates import Survey, Template
    from cooperbench_assets.project import Project

FILE: Final = "defs.yaml"
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./~-]+")


@dataclass(frozen=True, slots=True)
class NewSetting:
    """One setting of the experiment to be written."""

    label: str
    mode: str
    messaging: bool
    template: str
    runs: tuple[Survey, ...]


@dataclass(frozen=True, slots=True)
class NewExperiment:
    """An experiment to be written."""

    name: str
    subset: str
    """As defs.yaml will say it: a name, or a path."""

    logs: str
    settings: tuple[NewSetting, ...]

    @property
    def surveys(self) -> list[Survey]:
        """All its runs."""
        return [run for setting in self.settings for run in setting.runs]

    @property
    def models(self) -> list[str]:
        """The models its runs name."""
        return sorted(frozenset[str]().union(*(run.models for run in self.surveys)))

    @property
    def agents(self) -> list[str]:
        """The agent frameworks its runs name."""
        return sorted(frozenset[str]().union(*(run.agents for run in self.surveys)))


def settings_of(
    surveys: Sequence[Survey], templates: Sequence[Template], said: Mapping[str, bool]
) -> tuple[NewSetting, ...]:
    """The settings of an experiment, in the order of the templates.

    Args:
        surveys: The runs found.
        templates: The templates that found them.
        said: Whether a setting's agents could send messages, by label, where a person has said it. Else they could
            if any message was found.

    Raises:
        ImportLogsError: if the runs of a setting are of different modes, or nothing says of which.
    """
    return tuple(
        _setting(template, tuple(run for run in surveys if run.run.setting == template.setting), said)
        for template in templates
    )


def _setting(template: Template, runs: tuple[Survey, ...], said: Mapping[str, bool]) -> NewSetting:
    label = template.setting
    modes = {run.mode: run.run.folder.name for run in runs if run.mode is not None}
    if not modes:
        raise ImportLogsError(f"nothing in the runs of {label} says their mode; say it: --mode {label}=solo")
    if len(modes) > 1:
        found = ", ".join(f"{name} is {mode}" for mode, name in modes.items())
        raise ImportLogsError(f"the runs of {label} are of different modes ({found}); make them two settings")
    (mode,) = modes
    silent = mode != "solo" and any(run.results for run in runs) and not any(run.messages for run in runs)
    return NewSetting(label, mode, said.get(label, not silent), template.text, runs)


def text_of(new: NewExperiment) -> str:
    """The defs.yaml of an experiment, with comments on what was found."""
    return "\n".join([*_head(new), "  settings:", *_settings(new), ""])


def _head(new: NewExperiment) -> Iterator[str]:
    yield "# Written by `cooperbench-assets import-logs`; yours to change. Paths are relative to the project's root."
    yield f"type: {COMPONENT}"
    yield "attributes:"
    yield "  execution: none  # the logs come from elsewhere and are only read"
    for key, field, named in (("model_name", "models", new.models), ("agent", "agents", new.agents)):
        if len(named) == 1:
            yield f"  {key}: {_scalar(named[0])}"
        elif not named:
            yield f"  # No file names the {key}."
        else:
            yield f"  # {key} differs between runs, so that comparisons between them are refused:"
            for run in new.surveys:
                found = ", ".join(_scalar(name) for name in sorted(getattr(run, field)))
                yield f"  #   {_scalar(run.run.folder.name)}: {found or 'none named'}"
    yield f"  subset: {_scalar(new.subset)}"
    yield f"  logs: {_scalar(new.logs)}"


def _settings(new: NewExperiment) -> Iterator[str]:
    for setting in new.settings:
        yield f"    {_scalar(setting.label)}:"
        yield f"      mode: {setting.mode}"
        if setting.mode != "solo" and not setting.messaging:
            found = any(run.messages for run in setting.runs)
            yield f"      messaging: false  # {'as told' if found else 'no message in any conversation.json'}"
        yield f"      run_name: {_scalar(setting.template)}"
        yield f"      seeds: [{', '.join(str(run.run.seed) for run in setting.runs)}]"
        for run in setting.runs:
            yield f"      # {_scalar(run.run.folder.name)}: {run.results} results, {run.evals} evals"


def _scalar(text: str) -> str:
    """Text as YAML reads it back, in one line: plain where that is safe, else quoted."""
    style = None if _PLAIN.fullmatch(text) else '"'
    return str(yaml.safe_dump(text, default_style=style, width=math.inf)).splitlines()[0]


def check_place(project: Project, name: str, *, replace: bool) -> None:
    """Refuse a name that cannot be written.

    Raises:
        ImportLogsError: if it is no name, or is taken by what must not be replaced.
    """
    if not LABEL.fullmatch(name):
        raise ImportLogsError(f"{name!r} is no name for an experiment; use letters, digits, '.', '_', '-'")
    for other in sorted(project.defs.glob("*/defs.yaml")):
        if other.parent.name != name and dagster_name(other.parent.name) == dagster_name(name):
            raise ImportLogsError(
                f"{other.parent.name} exists, and Dagster would call both {dagster_name(name)}; pick another name"
            )
    folder = project.defs / name
    file = folder / FILE
    if not folder.exists():
        return
    taken = f"{project.relative(folder)} exists"
    if not replace:
        raise ImportLogsError(f"{taken}; pick another name, or write it anew with --replace")
    if file.exists() and (execution := _execution(file)) != "none":
        what = f"is an experiment with execution: {execution}" if execution else "is something else"
        raise ImportLogsError(f"{taken} and {what}, which is not replaced; pick another name, or --adopt runs into it")


def _execution(file: Path) -> str | None:
    """The `execution:` of the experiment in a file; None if the file holds none."""
    try:
        documents = read_documents(file)
    except ExperimentError:
        return None
    ours = [entry for entry in documents if isinstance(entry, dict) and entry.get("type") == COMPONENT]
    if len(documents) != 1 or not ours:
        return None
    attributes = ours[0].get("attributes")
    return str(attributes.get("execution", "none")) if isinstance(attributes, dict) else "none"


def write(project: Project, new: NewExperiment) -> tuple[Path, ExperimentSpec]:
    """Put an experiment's defs.yaml in place, once it is known to load; returns the file and what it says.

    Raises:
        ImportLogsError: if it would not load, or cannot be written; then nothing has changed.
    """
    text = text_of(new)
    spec = _load(new.name, text)
    folder = project.defs / new.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / FILE, text.encode())
    except OSError as error:
        raise ImportLogsError(f"{folder / FILE}: {error.strerror or error}") from error
    return folder / FILE, spec


def _load(name: str, text: str) -> ExperimentSpec:
    """The experiment that a text describes, loaded as the definitions load it, but from another place."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name / FILE
        file.parent.mkdir()
        file.write_text(text)
        try:
            return load_experiments(Path(folder))[name]
        except ExperimentError as error:
            told = str(error).removeprefix(f"{file}: ")
            raise ImportLogsError(f"these runs make no valid experiment: {told}") from error


def differences(new: NewExperiment) -> Iterable[str]:
    """What a person should know about runs that are not alike."""
    for what, names in (("model", new.models), ("agent", new.agents)):
        if len(names) > 1:
            yield f"the runs name different {what}s ({', '.join(names)}): comparisons between such cells are refused"
