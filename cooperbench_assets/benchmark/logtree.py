"""Reading one run of a log tree: which pairs there are, and what their files say.

What belongs here: walking a run folder at fixed depth, and putting into quarantine what cannot be used, with a
sentence that names it and a remedy. What does not: the files of one pair (``pairfolder``), judging it
(``outcomes``), and rows (``store.rows``).

A run folder is ``<logs>/<run name>/<mode>/<repo>/<task id>/f<a>_f<b>``, or without the mode level in older trees.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cooperbench_assets.benchmark import attempts as tries
from cooperbench_assets.benchmark.attempt_tree import LONGEST_NUMBER, walk_attempts
from cooperbench_assets.benchmark.jsonfiles import Quarantined, printable
from cooperbench_assets.benchmark.pairfolder import (
    MODES,
    Evaluation,
    Exclusions,
    FeatureVerdict,
    PairReading,
    Patch,
    patch_sha256,
    read_pair,
)
from cooperbench_assets.benchmark.pairs import Pair, parse_folder
from cooperbench_assets.benchmark.records import (
    CONFIG,
    EVAL_SUMMARY,
    PROVENANCE,
    ConfigRecord,
    EvalSummaryRecord,
    ProvenanceRecord,
    parse_time,
    text_of,
)
from cooperbench_assets.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "MODES",
    "Evaluation",
    "FeatureVerdict",
    "LogTreeError",
    "PairReading",
    "Patch",
    "Provenance",
    "RunReading",
    "patch_sha256",
    "read_run",
]

_FEATURES = re.compile(r"f\d+(?:_f\d+)+")
_RUN_KEY = re.compile(r"(.+)/(\d{1,18})/(\d{1,18}),(\d{1,18})")


class LogTreeError(UserError):
    """A run folder cannot be read as one run."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """provenance.json of a run: as it stands, and what the columns need of it."""

    text: str
    record: ProvenanceRecord


@dataclass(slots=True)
class RunReading:
    """Everything that was found in one run folder."""

    run_dir: Path
    exists: bool
    mode: str | None
    """solo, coop or team; None where nothing in the folder says it."""

    layout: str | None = None
    """modes (a folder for each mode), legacy (none), or None for a run without pairs."""

    config: ConfigRecord | None = None
    eval_summary: EvalSummaryRecord | None = None
    provenance: Provenance | None = None
    pairs: dict[Pair, PairReading] = field(default_factory=dict)
    quarantine: list[Quarantined] = field(default_factory=list)
    files_read: int = 0
    bytes_read: int = 0


def read_run(
    run_dir: Path,
    mode: str | None = None,
    *,
    alive: Callable[[tries.Attempt], bool] = tries.process_alive,
    only: Pair | None = None,
    find_steps: bool = True,
) -> RunReading:
    """Read one run folder. A bad file is excluded by itself, and the rest is read.

    Args:
        run_dir: The folder; one that is not there gives an empty reading with `exists` False.
        mode: solo, coop or team; None to take it from the tree.
        alive: Whether the process of a try that has no end yet is still there.
        only: Read this pair alone, with its attempts.
        find_steps: Whether to look for the steps of messages, for which whole trajectories are read.

    Raises:
        LogTreeError: if the folder cannot be listed, or holds several modes and `mode` does not say which.
    """
    return _Walk(run_dir, mode, alive, only, find_steps).reading()


def _entries(path: str) -> list[tuple[str, bool, bool]]:
    """Names in a folder, sorted, whether each is a folder, and whether it is a link; hidden ones are nobody's."""
    with os.scandir(path) as found:
        return sorted(
            (entry.name, _is_dir(entry), entry.is_symlink()) for entry in found if not entry.name.startswith(".")
        )


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _plain_first(places: list[str], name: str) -> list[str]:
    """Places in order, one that is written like `name` before all others."""
    return places if len(places) == 1 else sorted(places, key=lambda place: (not place.endswith(name), place))


class _Walk:
    """One reading of one run folder."""

    def __init__(
        self,
        run_dir: Path,
        mode: str | None,
        alive: Callable[[tries.Attempt], bool],
        only: Pair | None,
        find_steps: bool,
    ) -> None:
        self.exclusions = Exclusions(run_dir)
        self.run_dir = run_dir
        self.mode = mode
        self.alive = alive
        self.only = only
        self.find_steps = find_steps
        self.pairs: dict[Pair, PairReading] = {}
        self._outside: set[str] = set()
        """Links to folders out of the run folder, as far as they were met."""

    def reading(self) -> RunReading:
        try:
            top = self._inside("", _entries(self.exclusions.root))
        except FileNotFoundError:
            return RunReading(self.run_dir, False, self.mode)
        except OSError as error:
            raise LogTreeError(f"run folder {self.run_dir} cannot be listed: {error.strerror}") from error
        folders = [name for name, is_dir in top if is_dir and name != tries.ATTEMPTS]
        files = {name for name, is_dir in top if not is_dir}
        bases = self._bases(folders)
        self._read_pairs(bases)
        self._settle_mode()
        if (tries.ATTEMPTS, True) in top:
            self._read_attempts()
        reading = RunReading(self.run_dir, True, self.mode, pairs=self.pairs)
        if bases:
            reading.layout = "legacy" if bases[0].count("/") == 0 else "modes"
        self._read_run_files(reading, files)
        if reading.mode is None and reading.config is not None and reading.config.setting in MODES:
            reading.mode = reading.config.setting
        self._tell_duplicates()
        reading.quarantine = self.exclusions.quarantine
        reading.files_read, reading.bytes_read = self.exclusions.files_read, self.exclusions.bytes_read
        return reading

    def _list(self, relative: str) -> list[tuple[str, bool]]:
        """Entries of a folder; an unreadable one goes into quarantine and has none."""
        try:
            return self._inside(f"{relative}/", _entries(f"{self.exclusions.root}/{relative}"))
        except OSError as error:
            message = f"it cannot be listed: {error.strerror}"
            self.exclusions.exclude(relative, None, "unreadable", message, "fix its permissions")
            return []

    def _inside(self, base: str, entries: list[tuple[str, bool, bool]]) -> list[tuple[str, bool]]:
        """Entries without folders that are links out of the run folder, which may lead to any folder of the machine."""
        return [
            (name, is_dir)
            for name, is_dir, is_link in entries
            if not (is_link and is_dir and self._leads_out(f"{base}{name}"))
        ]

    def _leads_out(self, relative: str) -> bool:
        root = os.path.realpath(self.exclusions.root)
        if os.path.realpath(f"{root}/{relative}").startswith(f"{root}/"):
            return False
        if relative not in self._outside:
            self._outside.add(relative)
            message = "it is a link to a folder outside of the run folder, which is not followed"
            self.exclusions.exclude(relative, None, "unreadable", message, "put the folder itself there")
        return True

    def _bases(self, folders: list[str]) -> list[str]:
        """Folders of repositories, relative to the run folder: ``<mode>/<repo>``, or ``<repo>`` in older trees."""
        modes = [name for name in folders if name in MODES]
        if self.mode is None and modes:
            if len(filled := [name for name in modes if self._list(name)]) > 1:
                raise LogTreeError(
                    f"run folder {self.run_dir} holds pairs of several settings ({', '.join(filled)}); "
                    "say which one is meant, and give every setting a run of its own"
                )
            self.mode = (filled or modes)[0]
        bases = [f"{self.mode}/{name}" for name in self._repos(self.mode)] if self.mode in modes else []
        for name in folders:
            if name == self.mode or (name in modes and not self._list(name)):
                continue
            if not modes and self._is_repo(name):
                bases.append(name)
            else:
                self._unknown_setting(name)
        return bases

    def _repos(self, mode: str | None) -> list[str]:
        return [name for name, is_dir in self._list(str(mode)) if is_dir]

    def _is_repo(self, name: str) -> bool:
        """Whether a folder looks like a repository's: tasks have numbers."""
        return any(is_dir and task.isdecimal() for task, is_dir in self._list(name))

    def _unknown_setting(self, name: str) -> None:
        meant = f"this run is of setting {self.mode}" if self.mode else f"the settings are {', '.join(MODES)}"
        self.exclusions.exclude(
            name,
            None,
            "unknown_setting",
            f"this folder is of no setting that is read here: {meant}",
            "move it out of the run folder, or correct the experiment's mode",
        )

    def _read_pairs(self, bases: list[str]) -> None:
        """Read every pair folder; of two that stand for one pair, the one with the plain name counts."""
        found: dict[Pair, list[str]] = {}
        for base in bases:
            if self.only is not None and printable(base.rpartition("/")[2]) != self.only.repo:
                continue
            for task, is_dir in self._list(base):
                if not is_dir or (self.only is not None and task.isdecimal() and int(task) != self.only.task_id):
                    continue
                if not task.isdecimal() or len(task) > LONGEST_NUMBER:
                    self._stray(f"{base}/{task}", "a task's folder is a number")
                    continue
                for folder, is_pair_dir in self._list(f"{base}/{task}"):
                    if is_pair_dir and (pair := self._pair(base, task, folder)) is not None:
                        found.setdefault(pair, []).append(f"{base}/{task}/{folder}")
        mode = None if bases and bases[0].count("/") == 0 and self.mode is None else self.mode
        for pair, places in found.items():
            if self.only not in (None, pair):
                continue
            place, *others = _plain_first(places, pair.name)
            self.pairs[pair] = read_pair(self.exclusions, pair, place, mode, find_steps=self.find_steps)
            for other in others:
                self.exclusions.exclude(
                    other,
                    pair,
                    "duplicate",
                    f"it stands for the same pair as {printable(place)}, which is read",
                    "delete the one that is not meant",
                )

    def _pair(self, base: str, task: str, folder: str) -> Pair | None:
        """The pair that a folder stands for; one that stands for none goes into quarantine."""
        repo = printable(base.rpartition("/")[2])
        if (features := parse_folder(folder)) is not None:
            return Pair(repo, int(task), features)
        relative = f"{base}/{task}/{folder}"
        if not _FEATURES.fullmatch(folder):
            self._stray(relative, "a pair's folder is f<a>_f<b>")
            return None
        numbers = sorted({int(part[1:]) for part in folder.split("_")})
        if len(numbers) == 2 and folder.count("_") == 1:
            named = f"f{numbers[0]}_f{numbers[1]}"
            self.exclusions.exclude(
                relative, None, "misplaced", "its features are not in order", f"rename the folder to {named}"
            )
        else:
            self.exclusions.exclude(
                relative,
                None,
                "features",
                f"it stands for {folder.count('_') + 1} features, and a pair has two",
                "delete the folder: the subset plans pairs",
            )
        return None

    def _stray(self, relative: str, rule: str) -> None:
        self.exclusions.exclude(relative, None, "stray", f"its name stands for nothing: {rule}", "rename or delete it")

    def _settle_mode(self) -> None:
        """In an older tree the results say the mode.

        Raises:
            LogTreeError: if they say different ones.
        """
        if self.mode is not None:
            return
        said = sorted({reading.mode for reading in self.pairs.values() if reading.mode is not None})
        if len(said) > 1:
            raise LogTreeError(
                f"run folder {self.run_dir} holds results of several settings ({', '.join(said)}); "
                "say which one is meant, and give every setting a run of its own"
            )
        self.mode = said[0] if said else None

    def _read_run_files(self, reading: RunReading, files: set[str]) -> None:
        if "config.json" in files:
            reading.config = self.exclusions.load("config.json", None, CONFIG)
        if "provenance.json" in files:
            reading.provenance = self._read_provenance()
        if "eval_summary.json" in files:
            reading.eval_summary = self.exclusions.load("eval_summary.json", None, EVAL_SUMMARY)
            self._spread_errors(reading.eval_summary)

    def _read_provenance(self) -> Provenance | None:
        raw = self.exclusions.read("provenance.json", None)
        if raw is None:
            return None
        record = self.exclusions.decode(raw, "provenance.json", None, PROVENANCE)
        return None if record is None else Provenance(raw.decode("utf-8-sig", "replace"), record)

    def _spread_errors(self, summary: EvalSummaryRecord | None) -> None:
        """Give each pair the error that only the run's evaluation summary kept."""
        for entry in [] if summary is None else summary.results:
            match = _RUN_KEY.fullmatch(entry.run or "")
            if match is None or not (text := text_of(entry.error or None)):
                continue
            low, high = sorted((int(match[3]), int(match[4])))
            reading = self.pairs.get(Pair(match[1], int(match[2]), (low, high))) if low < high else None
            if reading is not None:
                reading.eval_error = text
                reading.eval_error_at = parse_time(summary.evaluated_at if summary else None)

    def _tell_duplicates(self) -> None:
        """A misplaced copy of a result that also lies in its own place is a duplicate."""
        for index, named, record in self.exclusions.strangers:
            own = self.pairs.get(named)
            if own is not None and own.result is not None and own.result == record:
                entry = self.exclusions.quarantine[index]
                self.exclusions.quarantine[index] = replace(
                    entry, kind="duplicate", remedy="delete it: the same result lies in its own place"
                )

    def _read_attempts(self) -> None:
        """Read the recorded tries, also those of pairs that have no folder."""
        modes = [name for name, is_dir in self._list(tries.ATTEMPTS) if is_dir and name in MODES]
        if self.mode is None and len(modes) == 1:
            self.mode = modes[0]
        if self.mode not in modes:
            return
        found = walk_attempts(self.run_dir, str(self.mode), self._list_meant, self._load_attempt)
        for pair, attempts in found.items():
            reading = self.pairs.get(pair)
            if reading is None:
                reading = PairReading(pair, self.run_dir, f"{self.mode}/{pair.name}", self.mode)
                self.pairs[pair] = reading
            reading.mode = reading.mode or self.mode
            reading.attempts = [tries.ended(attempt, alive=self.alive(attempt)) for attempt in attempts]

    def _list_meant(self, relative: str) -> list[tuple[str, bool]]:
        """Entries of a folder of attempts, as far as they are of the only pair that is read."""
        entries = self._list(relative)
        depth = relative.count("/") - 1
        if self.only is None or depth > 2:
            return entries
        name = self.only.name.split("/")[depth]
        return [entry for entry in entries if entry[0] == name]

    def _load_attempt(self, relative: str, pair: Pair) -> tries.Attempt | None:
        return self.exclusions.load(relative, pair, tries.ATTEMPT)
