"""The demo's libraries, tasks and features as the package holds them: text with named places.

What belongs here: reading ``libraries/``. What does not: putting features into a library (``compose``), and
anything about git or folders of a dataset (``dataset``).

A library's files lie in ``libraries/<repo>/base`` with ``.txt`` behind their names, so that no tool takes them
for code of this package. A line ``#@ name`` in one is a *place*: features insert lines there, and it is no
line of the library itself. ``#@ name~`` is the *other place* for the same lines, apart from the first:
whoever inserts there does not collide with those who insert at ``name``. ``#@ name +2`` puts two empty
lines before what is inserted.

A feature is one file: sections headed by ``== feature.md ==`` (the task text), ``== path @ place ==`` (lines to
insert) and ``== path ==`` (a new file). In a line ``code  #! other code`` the other code is what an agent
that gets it wrong writes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LIBRARIES = Path(__file__).parent / "libraries"
DESCRIPTION = "feature.md"

_HEADING = re.compile(r"== (?P<path>\S+)(?: @ (?P<place>.+?))? ==")
_PLACE = re.compile(r"\s*#@ (?P<name>[a-z ]+~?)(?: \+(?P<empty>\d))?")
_WRONG = "  #! "


@dataclass(frozen=True, slots=True)
class Place:
    """Where lines can be inserted: before line `line` (from 0) of the library's file `path`."""

    path: str
    line: int
    empty: int = 0
    """Empty lines before each insertion."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Lines that a feature inserts at a place, right and wrong."""

    path: str
    place: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]

    def lines(self, *, wrong: bool) -> tuple[str, ...]:
        """The lines to insert."""
        return self.wrong if wrong else self.right


@dataclass(frozen=True, slots=True)
class Feature:
    """What is asked for, the edits and new files that do it, and the tests that tell."""

    name: str
    description: str
    edits: tuple[Edit, ...]
    files: tuple[Edit, ...]
    """New files of the library, as edits without a place."""

    tests: dict[str, str]
    """Text of the test files, by path."""

    @property
    def title(self) -> str:
        """The title in the description's first line."""
        return self.description.splitlines()[0].removeprefix("**Title**: ")


@dataclass(frozen=True, slots=True)
class Library:
    """The files of a library without their places, and the places by file and name."""

    repo: str
    files: dict[str, str]
    places: dict[tuple[str, str], Place]


@dataclass(frozen=True, slots=True)
class TaskSource:
    """A library with some features released, and the features that can be asked for, numbered from 1."""

    library: Library
    task_id: int
    released: tuple[Feature, ...]
    features: dict[int, Feature]

    @property
    def repo(self) -> str:
        """The dataset's name of the repository."""
        return self.library.repo

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every two features, in order."""
        numbers = sorted(self.features)
        return [(a, b) for a in numbers for b in numbers if a < b]


@cache
def tasks() -> tuple[TaskSource, ...]:
    """All tasks of the demo, by repository and number."""
    found: list[TaskSource] = []
    for folder in sorted(LIBRARIES.iterdir()):
        library = _library(folder)
        features = {file.stem: _feature(file) for file in sorted((folder / "features").glob("*.txt"))}
        for entry in json.loads((folder / "tasks.json").read_text("utf-8")):
            asked = {number: features[name] for number, name in enumerate(entry["features"], 1)}
            released = tuple(features[name] for name in entry["released"])
            found.append(TaskSource(library, entry["task_id"], released, asked))
    return tuple(found)


def _library(folder: Path) -> Library:
    """The library in a folder, its places taken out of its files."""
    files: dict[str, str] = {}
    places: dict[tuple[str, str], Place] = {}
    for file in sorted((folder / "base").rglob("*.txt")):
        path = file.relative_to(folder / "base").as_posix().removesuffix(".txt")
        lines: list[str] = []
        for line in file.read_text("utf-8").splitlines():
            match = _PLACE.fullmatch(line)
            if match is None:
                lines.append(line)
            else:
                places[path, match["name"]] = Place(path, len(lines), int(match["empty"] or 0))
        files[path] = "\n".join(lines) + "\n"
    return Library(folder.name, files, places)


def _feature(file: Path) -> Feature:
    """The feature in a file."""
    description, tests = "", {}
    edits: list[Edit] = []
    files: list[Edit] = []
    for path, place, lines in _sections(file.read_text("utf-8")):
        if path == DESCRIPTION:
            description = "\n".join(lines) + "\n"
        elif path.startswith("tests/"):
            tests[path] = "\n".join(lines) + "\n"
        else:
            edit = Edit(path, place, tuple(map(_right, lines)), tuple(map(_wrong, lines)))
            (edits if place else files).append(edit)
    return Feature(file.stem, description, tuple(edits), tuple(files), tests)


def _sections(text: str) -> list[tuple[str, str, list[str]]]:
    """Path, place and lines of each section, without the empty lines around them."""
    sections: list[tuple[str, str, list[str]]] = []
    for line in text.splitlines():
        match = _HEADING.fullmatch(line)
        if match is not None:
            sections.append((match["path"], match["place"] or "", []))
        elif sections[-1][2] or line:
            sections[-1][2].append(line)
    for _, _, lines in sections:
        while lines and not lines[-1]:
            lines.pop()
    return sections


def _right(line: str) -> str:
    return line.partition(_WRONG)[0]


def _wrong(line: str) -> str:
    """The line as an agent writes it that gets it wrong, as far in as the right one."""
    right, _, wrong = line.partition(_WRONG)
    return right if not wrong else right[: len(right) - len(right.lstrip())] + wrong
