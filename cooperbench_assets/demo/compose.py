"""Putting features into a library: the trees that agents and the dataset's own patches make.

What belongs here: from sources to the text of files, and which features get in each other's way. What does
not: git (``gitwork``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from .sources import Edit, Feature, Library, Place, TaskSource

Variant = Literal["right", "wrong", "aside", "wrong-aside"]
"""How a feature is put in: right or wrong, and ``aside`` at the other places, where nobody else works."""

VARIANTS: tuple[Variant, ...] = ("right", "wrong", "aside", "wrong-aside")


@dataclass(frozen=True, slots=True)
class Part:
    """One feature, put in one way."""

    feature: Feature
    variant: Variant = "right"

    @property
    def wrong(self) -> bool:
        """Whether the code is the wrong one."""
        return self.variant.startswith("wrong")

    @property
    def aside(self) -> bool:
        """Whether the code stands at the other places."""
        return self.variant.endswith("aside")


def base(task: TaskSource) -> dict[str, str]:
    """The files of a task's base commit: the library with its released features and their tests."""
    return compose(task, ())


def compose(task: TaskSource, parts: Iterable[Part]) -> dict[str, str]:
    """The files of a task with some features put in, one below the other where they share a place.

    Tests of released features are among the files, those of `parts` are not.
    """
    parts = sorted(parts, key=lambda part: _number(task, part.feature))
    released = [Part(feature) for feature in task.released]
    files = _insert(task.library, [*released, *parts])
    for part in [*released, *parts]:
        for new in part.feature.files:
            files[new.path] = "\n".join(new.lines(wrong=part.wrong)) + "\n"
    for feature in task.released:
        files.update(feature.tests)
    return files


def releases(task: TaskSource) -> list[tuple[str, dict[str, str]]]:
    """Title and files of each commit up to the base: the library, then one released feature after another."""
    commits = [("First version", dict(task.library.files))]
    for count, feature in enumerate(task.released, 1):
        earlier = TaskSource(task.library, task.task_id, task.released[:count], {})
        commits.append((feature.title, compose(earlier, ())))
    return commits


def collide(task: TaskSource, one: Part, other: Part) -> bool:
    """Whether git cannot merge the two parts: both insert between the same two lines of the base."""
    return not _gaps(task, one).isdisjoint(_gaps(task, other))


def _gaps(task: TaskSource, part: Part) -> set[tuple[str, int]]:
    """File and line (of the library without releases, which shifts both parts alike) of each insertion."""
    places = (_place(task.library, edit, aside=part.aside) for edit in part.feature.edits)
    return {(place.path, place.line) for place in places}


def _number(task: TaskSource, feature: Feature) -> int:
    return next(number for number, one in task.features.items() if one is feature)


def _place(library: Library, edit: Edit, *, aside: bool) -> Place:
    """Where an edit goes; one without another place always goes to its only one."""
    only = library.places[edit.path, edit.place]
    return library.places.get((edit.path, f"{edit.place}~"), only) if aside else only


def _insert(library: Library, parts: Sequence[Part]) -> dict[str, str]:
    """The library's files with the edits of `parts`, in order."""
    inserted: dict[tuple[str, int], list[str]] = {}
    for part in parts:
        for edit in part.feature.edits:
            place = _place(library, edit, aside=part.aside)
            lines = inserted.setdefault((place.path, place.line), [])
            lines += [""] * place.empty + list(edit.lines(wrong=part.wrong))
    files = {}
    for path, text in library.files.items():
        result: list[str] = []
        for number, line in enumerate([*text.splitlines(), None]):
            result += inserted.get((path, number), [])
            result += [line] if line is not None else []
        files[path] = "\n".join(result) + "\n"
    return files
