"""Words around numbers and names: nouns with their numbers, and lists that are cut.

What belongs here: what any room may need to say something to a person. What does not: what is said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def plural(n: int, one: str, many: str | None = None) -> str:
    """The word that goes with a number; `many` where it is not `one` with an s."""
    return one if n == 1 else many or f"{one}s"


def count(n: int, one: str, many: str | None = None) -> str:
    """``1 run``, ``3 runs``, ``1,200 runs``."""
    return f"{n:,} {plural(n, one, many)}"


def counted(n: int, noun: str, verb: str, verb_of_many: str) -> str:
    """``1 pair waits``, ``3 pairs wait``."""
    return f"{count(n, noun)} {plural(n, verb, verb_of_many)}"


def some(names: Sequence[str], limit: int = 10) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
