"""What a cron expression may be: the five fields that Dagster's scheduler takes, checked without importing it.

What belongs here: one sentence for an expression that would not load or never come true. What does not: when it comes
true (Dagster).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

SHORT: Final = frozenset({"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"})

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST: Final = dict(enumerate((31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), 1))
_ITEM: Final = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?")


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    first: int
    last: int
    words: tuple[str, ...] = ()
    """Names of the values, from the first on."""

    def number(self, text: str) -> int | None:
        """The value that a number or a name is; None if it is none of this field."""
        if text.lower() in self.words:
            return self.first + self.words.index(text.lower())
        return int(text) if text.isdecimal() and self.first <= int(text) <= self.last else None


_FIELDS: Final = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 6, _DAYS),
)


def problem(expression: str) -> str | None:
    """Why an expression cannot be used; None if it can."""
    if expression in SHORT:
        return None
    fields = expression.split()
    if len(fields) != len(_FIELDS):
        return f"has {len(fields)} fields, not five"
    values = []
    for field, text in zip(_FIELDS, fields, strict=True):
        found = _values(field, text)
        if isinstance(found, str):
            return found
        values.append(found)
    _, _, days, months, _ = values
    # Also where a day of the week is given: Dagster's scheduler fails on it then too.
    if all(min(days) > _LONGEST[month] for month in months):
        return f"names a day that none of its months has ({fields[2]})"
    return None


def _values(field: _Field, text: str) -> set[int] | str:
    """The values that a field names, or what is wrong with it."""
    chosen: set[int] = set()
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        low, high, step = match.groups() if match else ("", None, None)
        begin = field.first if low is None else field.number(low)
        end = field.last if low is None else begin if high is None else field.number(high)
        if begin is None or end is None:
            words = f" or {field.words[0]} to {field.words[-1]}" if field.words else ""
            return f"{field.name}: {item!r} is not {field.first} to {field.last}{words}"
        if begin > end or (begin == end and high is not None):
            return f"{field.name}: {item!r} does not end after it begins"
        if step is not None and (begin == end or not 1 <= int(step) <= end):
            return f"{field.name}: {item!r} has a step that cannot be taken"
        chosen.update(range(begin, end + 1, int(step or 1)))
    return chosen
