"""What measurements give: plain data that goes from the measuring process to the page."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

Role = Literal["ours", "peer", "floor", "part"]
"""ours · peer: what people use today · floor: what cannot be saved · part: a share of ours, to see where it goes."""


class Record(Struct, kw_only=True):
    """One thing that was measured."""

    name: str
    role: Role
    seconds: float | None = None
    """Median of the rounds."""

    cpu_seconds: float | None = None
    """Median over the rounds, user and system, of this process and of the children it waited for."""

    peak_mib: float | None = None
    """Highest resident memory over what the process held before, in a process of its own."""

    rounds: int = 1
    n: int = 1
    """How many things (pairs, rows, cells) one round handled."""

    note: str = ""


class Target(Struct, kw_only=True):
    """One target of the measurement, and what came of it."""

    text: str
    value: str
    met: bool | None
    """None where it could not be measured."""

    why: str = ""
    """Where it is not met: what the profile says."""


class Section(Struct, kw_only=True):
    """All of one measurement."""

    name: str
    title: str
    records: list[Record] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    text: str = ""
    """What was measured, on what, and what is to be known of it."""

    table: list[list[str]] = field(default_factory=list)
    """A table of its own, header first, where records do not say it."""

    facts: dict[str, float] = field(default_factory=dict)
    """Figures that the reckoning at the end uses."""

    load: tuple[float, float] = (0.0, 0.0)
    """Load average of the machine, one minute, before and after."""

    seconds: float = 0.0
    date: str = ""
    """Day on which it was measured, UTC: year, month and day."""


def find(records: list[Record], name: str) -> Record:
    """The record of a name."""
    return next(record for record in records if record.name == name)


def ratio(records: list[Record], one: str, other: str) -> float:
    """How many times as long `one` took as `other`."""
    a, b = find(records, one).seconds, find(records, other).seconds
    assert a
    assert b
    return a / b
