"""Chance that is the same every time: numbers and choices from a hash of what they are about.

What belongs here: these functions. What does not: what is decided by them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def chance(*about: object) -> float:
    """A number in [0, 1), evenly spread over different `about`, and always the same for the same one."""
    digest = hashlib.sha256("\x1f".join(map(str, about)).encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def choice(weights: Mapping[T, float], *about: object) -> T:
    """One key of `weights`, as often as its share of their sum says."""
    point = chance(*about) * sum(weights.values())
    for key, weight in weights.items():
        point -= weight
        if point < 0:
            return key
    return next(reversed(list(weights)))
