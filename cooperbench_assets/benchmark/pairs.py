"""What is measured: tasks, pairs, and the subsets that name them.

What belongs here: the dataset's names for things and the subset files. What does not: anything an agent or a
test has done with them (``benchmark.logtree``).
"""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cooperbench_assets.errors import UserError

_FOLDER = re.compile(r"f(\d+)_f(\d+)")
_FEATURE = re.compile(r"feature(\d+)")


class SubsetError(UserError):
    """A subset file is missing or says something that cannot be planned."""


@dataclass(frozen=True, order=True, slots=True)
class Task:
    """A repository at one point, with features that can be asked for."""

    repo: str
    task_id: int

    @property
    def folder(self) -> str:
        """The task's folder below the dataset root."""
        return f"{self.repo}/task{self.task_id}"


@dataclass(frozen=True, order=True, slots=True)
class Pair:
    """Two features of one task, the lower one first."""

    repo: str
    task_id: int
    features: tuple[int, int]

    def __post_init__(self) -> None:
        if self.features[0] >= self.features[1]:
            raise ValueError(f"features of a pair are two different numbers in order, not {self.features}")

    @property
    def task(self) -> Task:
        """The pair's task."""
        return Task(self.repo, self.task_id)

    @property
    def folder(self) -> str:
        """The pair's folder below its task's, as upstream writes it: ``f<a>_f<b>``."""
        return f"f{self.features[0]}_f{self.features[1]}"

    @property
    def name(self) -> str:
        """``repo/task_id/f<a>_f<b>``: the pair's key in every table, and its path below a mode folder."""
        return f"{self.repo}/{self.task_id}/{self.folder}"

    @classmethod
    def parse(cls, name: str) -> Pair:
        """The pair that `name` (``repo/task_id/f<a>_f<b>``) stands for.

        Raises:
            ValueError: if it stands for none.
        """
        repo, _, rest = name.partition("/")
        task_id, _, folder = rest.partition("/")
        features = parse_folder(folder)
        if not repo or not task_id.isdecimal() or features is None:
            raise ValueError(f"{name!r} is no pair; write repo/task_id/f1_f2")
        return cls(repo, int(task_id), features)


def parse_folder(folder: str) -> tuple[int, int] | None:
    """The two features that a folder's name stands for, in order; None where it stands for none."""
    match = _FOLDER.fullmatch(folder)
    if match is None:
        return None
    first, second = int(match[1]), int(match[2])
    return (first, second) if first < second else None


@dataclass(frozen=True, slots=True)
class Subset:
    """The pairs that an experiment plans, in order, and a hash of them."""

    name: str
    pairs: tuple[Pair, ...]
    path: Path

    @property
    def sha256(self) -> str:
        """Hash of the pairs: equal for two files that plan the same ones, whatever else they say."""
        return hashlib.sha256("\n".join(pair.name for pair in self.pairs).encode()).hexdigest()

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The distinct tasks, in order."""
        return tuple(dict.fromkeys(pair.task for pair in self.pairs))


class _TaskEntry(msgspec.Struct):
    repo: str
    task_id: int
    pairs: list[tuple[int, int]] | None = None


class _SubsetFile(msgspec.Struct):
    tasks: list[_TaskEntry]
    name: str | None = None


_SUBSET = msgspec.json.Decoder(_SubsetFile)


def find_subset(subset: str, dataset: Path) -> Path:
    """The file of a subset: `subset` is a path to one, or a name in ``<dataset>/subsets``.

    Raises:
        SubsetError: if neither is there; the message lists the names that are.
    """
    named = dataset / "subsets" / f"{subset}.json"
    if named.is_file():
        return named
    if (path := Path(subset)).suffix == ".json" and path.is_file():
        return path
    known = sorted(file.stem for file in (dataset / "subsets").glob("*.json"))
    there = f"there are: {', '.join(known)}" if known else f"no subset lies in {dataset / 'subsets'}"
    raise SubsetError(
        f"subset {subset!r} is neither a file nor a name in {dataset / 'subsets'} ({there}); "
        "correct `subset:` or `dataset:` in defs.yaml"
    )


def load_subset(path: Path, dataset: Path | None = None) -> Subset:
    """Read a subset file.

    Args:
        path: The file: ``{"name", "tasks": [{"repo", "task_id", "pairs": [[a, b], …]}]}``.
        dataset: Root of the dataset; only needed where a task lists no pairs, which means every two of its
            features.

    Raises:
        SubsetError: if the file is missing, is no subset, plans a pair twice, or lists no pairs for a
            task whose features cannot be looked up.
    """
    try:
        content = _SUBSET.decode(path.read_bytes())
    except OSError as error:
        raise SubsetError(f"subset file {path}: {error.strerror or error}") from error
    except msgspec.DecodeError as error:
        raise SubsetError(f"subset file {path} is no subset: {error}") from error
    pairs: list[Pair] = []
    for entry in content.tasks:
        features = entry.pairs if entry.pairs is not None else _all_pairs(entry, path, dataset)
        try:
            pairs += [Pair(entry.repo, entry.task_id, (min(two), max(two))) for two in features]
        except ValueError as error:
            raise SubsetError(f"subset file {path}, {entry.repo}/{entry.task_id}: {error}") from error
    if not pairs:
        raise SubsetError(f"subset file {path} plans no pair")
    planned = sorted(pairs)
    twice = sorted({a.name for a, b in itertools.pairwise(planned) if a == b})
    if twice:
        raise SubsetError(f"subset file {path} plans a pair twice: {', '.join(twice[:5])}")
    return Subset(content.name or path.stem, tuple(planned), path)


def _all_pairs(entry: _TaskEntry, path: Path, dataset: Path | None) -> list[tuple[int, int]]:
    """Every two features of a task, as upstream reads an entry without pairs."""
    root = None if dataset is None else dataset / Task(entry.repo, entry.task_id).folder
    if root is None or not root.is_dir():
        raise SubsetError(
            f"subset file {path} lists no pairs for {entry.repo}/{entry.task_id}, "
            f"and its features cannot be looked up in {root or 'a dataset'}"
        )
    found = (match for file in root.iterdir() if (match := _FEATURE.fullmatch(file.name)))
    return list(itertools.combinations(sorted(int(match[1]) for match in found), 2))
