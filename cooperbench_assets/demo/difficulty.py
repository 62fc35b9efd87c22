"""How hard each pair of the demo is for its scripted agents, and whether its features get in each other's way.

What belongs here: what is true of a pair whoever works on it. What does not: how a try of it ends (``endings``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .chance import chance
from .compose import Part, collide
from .sources import Feature, TaskSource, tasks

_LUCK, _SIZE, _OVERLAP = 0.6, 0.25, 0.15
"""Shares of a pair's difficulty: nothing that can be seen, lines of its gold patches, whether they collide."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What the endings of a pair depend on."""

    difficulty: float
    """From 0, the easiest pair of the demo, to 1, the hardest; evenly spread."""

    lines: int
    """Lines that the two gold patches add."""

    conflict: bool
    """Git cannot merge the two gold patches."""

    stubborn: bool
    """Git cannot merge them either where the second agent keeps out of the first one's way."""

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def pair_traits() -> dict[str, Traits]:
    """The traits of every pair of the demo, by the pair's name ``repo/task_id/f<a>_f<b>``."""
    pairs = {f"{task.repo}/{task.task_id}/f{a}_f{b}": (task, a, b) for task in tasks() for a, b in task.pairs}
    lines = {name: _lines(task.features[a]) + _lines(task.features[b]) for name, (task, a, b) in pairs.items()}
    conflicts = {name: _collide(*pair, aside=False) for name, pair in pairs.items()}
    sizes = _ranks({name: float(count) for name, count in lines.items()})
    scores = {
        name: _LUCK * chance("difficulty", name) + _SIZE * sizes[name] + _OVERLAP * conflicts[name] for name in pairs
    }
    return {
        name: Traits(round(rank, 4), lines[name], conflicts[name], _collide(*pairs[name], aside=True))
        for name, rank in _ranks(scores).items()
    }


def _lines(feature: Feature) -> int:
    return sum(len(edit.right) for edit in (*feature.edits, *feature.files))


def _collide(task: TaskSource, a: int, b: int, *, aside: bool) -> bool:
    return collide(task, Part(task.features[a]), Part(task.features[b], "aside" if aside else "right"))


def _ranks(scores: dict[str, float]) -> dict[str, float]:
    """Ranks from 0 to 1, ties by name, in the order of `scores`."""
    order = sorted(scores, key=lambda name: (scores[name], name))
    rank = {name: place / (len(order) - 1) for place, name in enumerate(order)}
    return {name: rank[name] for name in scores}
