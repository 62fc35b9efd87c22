"""Patches as they are shown: which of their hunks the other agent's patch overlaps.

What belongs here: where hunks stand in a diff's text. What does not: what changes overlap (``benchmark.diffs``).
"""

from __future__ import annotations

import re

from cooperbench_assets.benchmark.diffs import HUNK, changes_of

_FILE = re.compile(r"(---|\+\+\+) (?:[ab]/)?([^\t\n]*)")


def overlapping(patch: str, other: str) -> list[int]:
    """Lines of a unified diff, from 0, at which hunks stand that touch or neighbour a change of the other diff."""
    theirs = changes_of(other)
    found: list[int] = []
    lines = patch.split("\n")
    place, old, new = 0, "", ""
    while place < len(lines):
        if match := _FILE.match(lines[place]):
            old, new = (match[2], new) if match[1] == "---" else (old, match[2])
        length = 1
        if header := HUNK.match(lines[place]):
            length += _length(lines[place + 1 :], int(header[2] or 1), int(header[3] or 1))
            file = old if new == "/dev/null" else new
            hunk = [f"--- a/{file}", f"+++ b/{file}", *lines[place : place + length]]
            own = changes_of("\n".join(hunk))[file].places
            their_places = theirs[file].places if file in theirs else []
            if any(start <= end_b and start_b <= end for start, end in own for start_b, end_b in their_places):
                found.append(place)
        place += length
    return found


def _length(lines: list[str], removed: int, added: int) -> int:
    """How many lines a hunk has, by the lengths that its header states."""
    for place, line in enumerate(lines):
        if removed <= 0 and added <= 0 and not line.startswith("\\"):
            return place
        kind = line[:1]
        removed -= kind not in ("+", "\\")
        added -= kind not in ("-", "\\")
    return len(lines)
