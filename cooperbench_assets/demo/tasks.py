"""The demo's libraries, tasks and features as the package holds them, and trees with features put in.

What belongs here: reading ``libraries/``. What does not: git (``gitwork``), and folders of a dataset (``dataset``).

``libraries/<repo>/base`` has a library's files with ``.txt`` behind their names, so that no tool takes them for code of
this package. ``libraries/<repo>/task<id>`` lists in ``released.json`` the features of another task that its base has
already; each of its folders ``feature<n>`` has the task text, ``feature.patch`` and ``tests.patch``, and three more
patches that agents submit: ``wrong``, ``aside`` (at another place, where nobody else works) and ``wrong-aside``.

All patches only insert lines and add files. So two of them go together even where git cannot merge them: what is
inserted at one place stands one below the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LIBRARIES = Path(__file__).parent / "libraries"
VARIANTS = {
    "right": "feature.patch",
    "wrong": "wrong.patch",
    "aside": "aside.patch",
    "wrong-aside": "wrong-aside.patch",
}
"""How a feature can be put in, and the patch that does it."""

_HUNK = re.compile(r"@@ -(\d+)(,0)?")

Files = dict[str, str]


@dataclass(frozen=True, slots=True)
class Feature:
    """What can be asked for."""

    folder: Path

    @property
    def title(self) -> str:
        """The title in the task text's first line."""
        return self.text("feature.md").splitlines()[0].removeprefix("**Title**: ")

    def text(self, name: str) -> str:
        """One of its files."""
        return (self.folder / name).read_text("utf-8")


@dataclass(frozen=True, slots=True)
class DemoTask:
    """A library with some features released, and the features that can be asked for, numbered from 1."""

    repo: str
    task_id: int
    released: tuple[Feature, ...]
    features: dict[int, Feature]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every two features, in order."""
        numbers = sorted(self.features)
        return [(a, b) for a in numbers for b in numbers if a < b]

    def releases(self) -> list[tuple[str, Files]]:
        """Title and files of each commit up to the base: the library, then one released feature after another."""
        base = LIBRARIES / self.repo / "base"
        first = {
            file.relative_to(base).as_posix().removesuffix(".txt"): file.read_text("utf-8")
            for file in sorted(base.rglob("*.txt"))
        }
        commits = [("First version", first)]
        for count, feature in enumerate(self.released, 1):
            code = [one.text("feature.patch") for one in self.released[:count]]
            tests = [one.text("tests.patch") for one in self.released[:count]]
            commits.append((feature.title, insert(first, [*code, *tests])))
        return commits

    def base(self) -> Files:
        """The files of the base commit, with the tests of released features."""
        return self.releases()[-1][1]


@cache
def tasks() -> tuple[DemoTask, ...]:
    """All tasks of the demo, by repository and number."""
    folders = sorted(LIBRARIES.glob("*/task*"), key=lambda folder: (folder.parent.name, _number(folder)))
    return tuple(_task(folder) for folder in folders)


def insert(files: Files, patches: Iterable[str]) -> Files:
    """The files with the lines of all patches, in the order of the patches where they share a place."""
    inserted: dict[str, dict[int, list[str]]] = {}
    for patch in patches:
        for path, at, line in _insertions(patch):
            inserted.setdefault(path, {}).setdefault(at, []).append(line)
    return files | {path: _inserted(files.get(path, ""), places) for path, places in inserted.items()}


def _inserted(text: str, places: dict[int, list[str]]) -> str:
    """A file with lines put in below so many of its own."""
    lines = list(places.get(0, ()))
    for number, line in enumerate(text.splitlines(), 1):
        lines += [line, *places.get(number, ())]
    return "\n".join(lines) + "\n"


def _insertions(patch: str) -> Iterable[tuple[str, int, str]]:
    """Each inserted line of a patch: file, number of the file's own lines above it, and the line."""
    path, at = "", 0
    for line in patch.splitlines():
        if line.startswith("+++ b/"):
            path = line.removeprefix("+++ b/")
        elif match := _HUNK.match(line):
            at = int(match[1]) - (0 if match[2] else 1)
        elif line.startswith("+"):
            yield path, at, line[1:]
        elif line.startswith(" "):
            at += 1


def _task(folder: Path) -> DemoTask:
    features = {_number(one): Feature(one) for one in folder.glob("feature*")}
    record = folder / "released.json"
    names = json.loads(record.read_text("utf-8")) if record.exists() else []
    released = tuple(Feature(folder.parent / name) for name in names)
    return DemoTask(folder.parent.name, _number(folder), released, dict(sorted(features.items())))


def _number(folder: Path) -> int:
    """The number that a folder's name ends in."""
    return int(folder.name.lstrip("abcdefghijklmnopqrstuvwxyz"))
