"""Unified diffs: which lines a patch changes, and where two patches of one base touch, so that a merge conflicts.

What belongs here: reading patches. What does not: the table of overlaps (``store.overlaps``), and showing a patch.

The library ``unidiff`` reads diffs too. It raises on one that is cut, which a log may hold and which is read here as
far as it goes; it takes five times as long (1.8 s for 5 MB); and gaps, by which merges conflict, would still have to be
counted from its lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@")
"""The header of a hunk: where it begins in the base, its length there and in the new file (1 where it is not given)."""

_GIT = re.compile(r'diff --git "?a/(.*?)"? "?b/(.*?)"?')
_NOWHERE = "/dev/null"


@dataclass(slots=True)
class FileChange:
    """What a patch changes of one file, in line numbers of the base."""

    lines: set[int] = field(default_factory=set)
    """Lines that are changed or removed."""

    places: list[tuple[int, int]] = field(default_factory=list)
    """Changed stretches as (gap before, gap after): gap k lies after line k, so an insertion is (k, k)."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """What two patches change in common."""

    files: tuple[str, ...]
    """Files that both change, sorted."""

    lines: int
    """Lines of the base that both change or remove."""

    places: int
    """Changed stretches of the first that touch or neighbour one of the second's."""


def changes_of(patch: str) -> dict[str, FileChange]:
    """What a unified diff changes, by path. Renames and binary files count as files, without lines."""
    changes: dict[str, FileChange] = {}
    lines = iter(patch.splitlines())
    current, old = FileChange(), ""
    for line in lines:
        if match := _GIT.fullmatch(line):
            changes.setdefault(match[1], FileChange())  # a file that is renamed away is changed, too
            current = changes.setdefault(match[2], FileChange())
        elif line.startswith("--- "):
            old = _path(line[4:])
        elif line.startswith("+++ "):
            new = _path(line[4:])
            current = changes.setdefault(old if new == _NOWHERE else new, FileChange())
        elif match := HUNK.match(line):
            _read_hunk(lines, match, current)
    return changes


def _path(text: str) -> str:
    """The path of a ``---`` or ``+++`` line, without the prefix and a trailing time."""
    name = text.split("\t")[0].strip().strip('"')
    return name if name == _NOWHERE else name.removeprefix("a/").removeprefix("b/")


def _read_hunk(lines: Iterable[str], header: re.Match[str], change: FileChange) -> None:
    """Read one hunk to the lengths that its header states, so that content that looks like a header is none."""
    start, old_left = int(header[1]), int(header[2] or 1)
    new_left = int(header[3] or 1)
    # With an old length of 0 the header names the line before the insertion.
    gap = start if old_left == 0 else start - 1
    first: int | None = None
    for line in lines if old_left or new_left else ():
        kind = line[:1]
        if kind in "-+" and kind:
            first = gap if first is None else first
            if kind == "-":
                gap, old_left = gap + 1, old_left - 1
                change.lines.add(gap)
            else:
                new_left -= 1
        elif kind != "\\":
            if first is not None:
                change.places.append((first, gap))
                first = None
            gap, old_left, new_left = gap + 1, old_left - 1, new_left - 1
        if old_left <= 0 and new_left <= 0:
            break
    if first is not None:
        change.places.append((first, gap))


def patch_overlap(patch_a: str, patch_b: str) -> Overlap:
    """What two patches of one base change in common.

    Args:
        patch_a: A unified diff, as ``git diff`` prints it; empty for an agent that changed nothing.
        patch_b: The other.
    """
    a, b = changes_of(patch_a), changes_of(patch_b)
    shared = sorted(a.keys() & b.keys())
    lines = sum(len(a[name].lines & b[name].lines) for name in shared)
    places = sum(_touching(a[name].places, b[name].places) for name in shared)
    return Overlap(tuple(shared), lines, places)


def _touching(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> int:
    return sum(any(start <= end_b and start_b <= end for start_b, end_b in second) for start, end in first)
