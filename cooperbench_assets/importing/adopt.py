"""Runs from elsewhere become cells of an experiment that runs pairs itself, so that they can be evaluated and extended.

What belongs here: deciding whether a run can take a cell's place, and linking its files there, a run at a time and
never over another. What does not: finding runs (``importing``), reading what is in them (``benchmark.logtree``).

Files are hard-linked. Execution replaces files by rename and never writes into one, so the originals keep their
content; `copy` is for those whose originals somebody else still writes into.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import filelock

from cooperbench_assets.benchmark.attempts import ATTEMPTS
from cooperbench_assets.benchmark.logtree import MODES
from cooperbench_assets.benchmark.provenance import facts_of
from cooperbench_assets.errors import UserError
from cooperbench_assets.execution.cell_lock import cell_lock
from cooperbench_assets.execution.errors import CellBusy
from cooperbench_assets.execution.provenance import PROVENANCE_FILE, read_provenance, write_provenance
from cooperbench_assets.faultpoints import hit
from cooperbench_assets.files import sync_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cooperbench_assets.importing.run_templates import Survey
    from cooperbench_assets.project import Project
    from cooperbench_assets.spec import ExperimentSpec

_TEMPORARY: Final = ".adopting-"
_LOCK: Final = ".adopting.lock"
_PAIR: Final = re.compile(r"f\d+(_f\d+)*")
_NO_LINK: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES})
"""What `link` says where two folders lie on two file systems, or this one or its owner allows no further link."""


class AdoptionError(UserError):
    """A run cannot be adopted; nothing of it was taken, and the message says what to do."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """A run that is to be the run of a cell."""

    source: Path
    """The run folder to take; only read."""

    target: Path
    """The cell's run folder; must not exist, or hold nothing."""

    mode: str
    """The only mode folder that is taken: solo, coop or team."""

    facts: Mapping[str, Any]
    """What is known of the run, by the names of its provenance record; None where it is not."""

    harness: Mapping[str, Any] = field(default_factory=dict)
    """The harness that its files point to. Kept apart, because nobody recorded it."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """What adopting one run did."""

    target: Path
    linked: int = 0
    """Files that share their content with the original."""

    copied: int = 0
    left: tuple[str, ...] = ()
    """What was not taken, each with the reason."""

    before: bool = False
    """The same run was adopted earlier; nothing was done."""


def adoptions(name: str, spec: ExperimentSpec, project: Project, surveys: Iterable[Survey]) -> list[Adoption]:
    """What is to be adopted, once every run is known to fit its cell.

    Raises:
        AdoptionError: naming all runs that do not fit; nothing is adopted then.
    """
    if spec.execution == "none":
        raise AdoptionError(
            f"{name} has execution: none and runs nothing itself; import the runs as an experiment of their own, "
            "without --adopt"
        )
    found = list(surveys)
    problems = [problem for survey in found if (problem := _misfit(name, spec, survey))]
    if problems:
        raise AdoptionError("; ".join(problems))
    return [
        Adoption(
            survey.run.folder,
            project.resolve(spec.logs) / spec.cell(name, survey.run.setting, survey.run.seed).run_name,
            str(spec.settings[survey.run.setting].mode),
            *_facts(survey),
        )
        for survey in found
    ]


def _facts(survey: Survey) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run's files say of what made it: recorded facts, and the harness they point to."""
    facts = facts_of(survey.reading)
    policy = facts.harness.merge_policy
    times = {"started_at": facts.started_at, "ended_at": facts.ended_at}
    recorded = {
        "model": facts.model,
        "agent": facts.agent,
        "git": facts.git,
        "merge_policy": None if policy == "unknown" else policy,
        **{name: time and time.replace(tzinfo=UTC).isoformat() for name, time in times.items()},
    }
    return recorded, {"harness_version": facts.harness.version, "harness_version_source": facts.harness.source}


def _misfit(name: str, spec: ExperimentSpec, survey: Survey) -> str | None:
    """Why a run cannot be the run of its cell; None if it can."""
    run = survey.run
    setting = spec.settings.get(run.setting)
    if setting is None:
        return f"{name} has no setting {run.setting!r} (it has {', '.join(spec.settings)})"
    if run.seed not in setting.seeds:
        return f"{name} plans no seed {run.seed} of {run.setting}; add it to seeds: in its defs.yaml first"
    if not survey.results:
        return f"{run.folder.name} holds no readable {setting.mode} result, and {run.setting} is {setting.mode}"
    if survey.messages and not setting.messaging and setting.mode != "solo":
        return f"{run.folder.name} holds {survey.messages} messages, and {run.setting} has messaging: false"
    return None


def adopted_before(adoption: Adoption) -> bool:
    """Whether the cell's run folder already holds this run, adopted.

    Raises:
        AdoptionError: if it holds anything else.
    """
    target = adoption.target
    try:
        content = {path.name for path in target.iterdir() if not path.name.startswith(".")}
    except FileNotFoundError:
        return False
    except OSError as error:
        raise AdoptionError(f"{target}: {error.strerror or error}") from error
    if not content:
        return False
    if target.samefile(adoption.source):
        raise AdoptionError(f"{target} is the cell's run folder already: there is nothing to adopt; materialise it")
    record = read_provenance(target).get("adopted")
    if isinstance(record, dict) and record.get("listing_sha256") == _listing_sha256(adoption.source):
        return True
    raise AdoptionError(
        f"{target} exists, and is not {adoption.source.name} as it is now; it was left alone. Move it away, or give "
        "the cell another run_name in defs.yaml"
    )


def adopt(adoption: Adoption, *, copy: bool = False) -> Adopted:
    """Link one run into the place of a cell, whole or not at all.

    Older trees without the mode level get it on the way. What is no regular file is left.

    Raises:
        AdoptionError: if another run is there, another process adopts at this moment, or a file cannot be taken.
    """
    logs = adoption.target.parent
    try:
        logs.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(logs / _LOCK, blocking=False):
            _sweep(logs)
            if adopted_before(adoption):
                return Adopted(adoption.target, before=True)
            return _take(adoption, copy=copy)
    except filelock.Timeout as error:
        raise AdoptionError(f"another process is adopting runs into {logs}; wait for it, and start again") from error
    except OSError as error:
        raise AdoptionError(f"{error.filename or adoption.source}: {error.strerror or error}") from error


def _sweep(logs: Path) -> None:
    """Remove what a killed adoption left; the lock says that nobody works in it."""
    for entry in os.scandir(logs):
        if entry.name.startswith(_TEMPORARY) and entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)


def _take(adoption: Adoption, *, copy: bool) -> Adopted:
    target = adoption.target
    temporary = target.with_name(_TEMPORARY + target.name)
    temporary.mkdir()
    try:
        done, left = _fill(adoption, temporary, copy=copy)
        _write_record(adoption, temporary, done)
        hit("adopt:linked")
        with _free(target):
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Adopted(target, done["linked"], done["copied"], tuple(left))


@contextlib.contextmanager
def _free(target: Path) -> Iterator[None]:
    """Remove a run folder that holds a lock file at most, so that the rename finds its place free.

    Raises:
        AdoptionError: if a launch of the cell holds the lock: it is about to write there.
    """
    if not target.exists():
        yield
        return
    try:
        with cell_lock(target, "an adoption"):
            for entry in os.scandir(target):
                if entry.is_file(follow_symlinks=False) and entry.name.startswith("."):
                    Path(entry.path).unlink()
            target.rmdir()
            yield
    except CellBusy as error:
        raise AdoptionError(str(error)) from error


def _fill(adoption: Adoption, temporary: Path, *, copy: bool) -> tuple[Counter[str], list[str]]:
    """Bring every file that is taken into the temporary folder; what was done, and what was left and why."""
    done: Counter[str] = Counter(linked=0, copied=0)
    layout = _Layout.of(adoption)
    left = [f"{name}/: {reason}" for name, reason in layout.left.items()]
    copied: list[Path] = []
    for relative, entry in _walk(adoption.source):
        place = layout.place(relative)
        if place is None:
            continue
        if not entry.is_file(follow_symlinks=False):
            left.append(f"{relative}: no regular file")
            continue
        destination = temporary / place
        destination.parent.mkdir(parents=True, exist_ok=True)
        linked = not copy and _link(entry.path, destination)
        if not linked:
            copied.append(Path(shutil.copy2(entry.path, destination)))
        done["linked" if linked else "copied"] += 1
    # Else a power cut leaves them empty in a run that counts as whole.
    sync_all(copied)
    return done, sorted(left)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a run's files go."""

    mode: str
    older: frozenset[str]
    """Folders of repositories in a tree without the mode level, which they get."""

    left: Mapping[str, str]
    """Folders that are not taken, and why."""

    @classmethod
    def of(cls, adoption: Adoption) -> _Layout:
        """The layout of a run: as the reader of log trees sees it."""
        present = [mode for mode in MODES if (adoption.source / mode).is_dir()]
        repositories = _legacy_repositories(adoption.source)
        left = {mode: "another mode" for mode in present if mode != adoption.mode}
        if present:
            left |= dict.fromkeys(repositories, f"its pairs lie beside {present[0]}/, so that nothing says their mode")
        return cls(adoption.mode, frozenset() if present else repositories, left)

    def place(self, relative: str) -> str | None:
        """Where a file goes; None where it is not taken: see `left`, and our own working files."""
        first = relative.partition("/")[0]
        if first.startswith(".") or relative == PROVENANCE_FILE or first in self.left:
            return None
        return f"{self.mode}/{relative}" if first in self.older else relative


def _walk(folder: Path | str, prefix: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below a folder that is no folder itself, in order; links are not followed."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        relative = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, relative + "/")
        else:
            yield relative, entry


def _legacy_repositories(source: Path) -> frozenset[str]:
    """Folders of the run that hold pairs without a mode level above them."""
    return frozenset(
        folder.name
        for folder in source.iterdir()
        if folder.name not in (*MODES, ATTEMPTS)
        and not folder.name.startswith(".")
        and any(_PAIR.fullmatch(pair.name) and pair.parent.name.isdecimal() for pair in folder.glob("*/*/"))
    )


def _listing_sha256(source: Path) -> str:
    """Hash of the names and sizes of a run's files: tells one run from another without reading either."""
    digest = hashlib.sha256()
    for relative, entry in _walk(source):
        if not relative.startswith("."):
            size = entry.stat(follow_symlinks=False).st_size
            digest.update(f"{relative}\0{size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _link(source: str, destination: Path) -> bool:
    """Hard-link a file; False where the file system cannot."""
    try:
        os.link(source, destination, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_LINK:
            return False
        raise
    return True


def _write_record(adoption: Adoption, temporary: Path, done: Mapping[str, int]) -> None:
    """provenance.json: what the run's own said, that it was adopted, and from which run; no path of elsewhere."""
    adopted = {
        "run": adoption.source.name,
        **adoption.harness,
        "listing_sha256": _listing_sha256(adoption.source),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": done["linked"] + done["copied"],
        "how": "copied" if not done["linked"] else "hard-linked" if not done["copied"] else "hard-linked and copied",
    }
    facts = {key: value for key, value in adoption.facts.items() if value is not None}
    record = {**facts, **read_provenance(adoption.source), "origin": "adopted", "adopted": adopted}
    write_provenance(temporary, record)
