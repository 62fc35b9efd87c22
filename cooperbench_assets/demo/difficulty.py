"""How hard each pair of the demo is for its scripted agents, and whether its features get in each other's way.

What belongs here: what is true of a pair whoever works on it. What does not: how a try of it ends (``endings``).
"""

from __future__ import annotations

from dataclasses import dataclass


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
