"""Patches as they are shown: their hunks, and which of them the other agent's patch overlaps.

What belongs here: where hunks stand in a diff's text. What does not: what changes overlap (``benchmark.diffs``).
"""

from __future__ import annotations

import re

import msgspec

from cooperbench_assets.benchmark.diffs import changes_of
from cooperbench_assets.transcripts.model import Hunk

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_FILE = re.compile(r"(---|\+\+\+) (?:[ab]/)?([^\t\n]*)")


def hunks_of(patch: str) -> list[Hunk]:
    """The hunks of a unified diff, in order."""
    found: list[Hunk] = []
    lines = patch.split("\n")
    place, old, new = 0, "", ""
    while place < len(lines):
        match = _FILE.match(lines[place])
        if match is not None:
            old, new = (match[2], new) if match[1] == "---" else (old, match[2])
        header = _HUNK.match(lines[place])
        length = 1
        if header is not None:
            removed, added = int(header[2] or 1), int(header[3] or 1)
            length = 1 + _length(lines[place + 1 :], removed, added)
            file = old if new == "/dev/null" else new
            found.append(Hunk(file=file, line=place, lines=length, old_start=int(header[1]), old_lines=removed))
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


def marked(patch: str, other: str) -> list[Hunk]:
    """The hunks of a patch, with those marked that touch or neighbour a change of the other patch."""
    theirs = changes_of(other)
    found = []
    for hunk in hunks_of(patch):
        lines = patch.split("\n")[hunk.line : hunk.line + hunk.lines]
        own = changes_of("\n".join([f"--- a/{hunk.file}", f"+++ b/{hunk.file}", *lines]))[hunk.file].places
        their_places = theirs[hunk.file].places if hunk.file in theirs else []
        overlaps = any(start <= end_b and start_b <= end for start, end in own for start_b, end_b in their_places)
        found.append(msgspec.structs.replace(hunk, overlaps=overlaps))
    return found
