"""What a check is and what it finds, without Dagster: the same finding goes to the UI and into the store.

What belongs here: the shape of checks. What does not: what they assert (the modules beside this one).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import polars as pl

    from cooperbench_assets.benchmark.logtree import RunReading
    from cooperbench_assets.benchmark.pairs import Subset
    from cooperbench_assets.spec import CellSpec

SAMPLE = 10
"""Affected rows or files that a finding names; the rest are counted."""

View = TypeVar("View")


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether a check passed, how many offend, a sample of them, and what fixes it."""

    passed: bool
    description: str
    affected: int = 0
    sample: tuple[str, ...] = ()
    remedy: str = ""
    numbers: Mapping[str, float | int | None] = field(default_factory=dict)
    """Further figures that plot over time."""

    rows: tuple[Mapping[str, str | float | None], ...] = ()
    """What is affected, as a table, where a line of text is not enough."""


@dataclass(frozen=True, slots=True)
class Check(Generic[View]):
    """One assertion about a view of data."""

    name: str
    description: str
    find: Callable[[View], Finding]
    blocking: bool = False
    """A failure stops what is downstream in the same run: for extra, duplicate or misplaced pairs only."""

    warns: bool = False
    """A failure is a warning: worth a look, and no defect of the data."""


@dataclass(frozen=True, slots=True)
class CellView:
    """What the checks of one cell look at."""

    spec: CellSpec
    subset: Subset
    accepted: frozenset[str]
    executes: bool
    """The experiment runs pairs itself, so that a missing one can be run here."""

    reading: RunReading
    frames: Mapping[str, pl.DataFrame]
    left_behind: Mapping[str, str] | None = field(default_factory=dict)
    """Pairs that no retry will touch, with the reason; None where that cannot be told."""

    asked_whole: bool = True
    """Some launch was about all pairs of the cell; False where each was about a chosen few."""

    @property
    def pairs(self) -> pl.DataFrame:
        """The pairs table of the cell."""
        return self.frames["pairs"]

    @property
    def unasked(self) -> frozenset[str]:
        """Pairs that no launch was about yet: they are planned, and nothing is wrong with them."""
        if self.asked_whole:
            return frozenset()
        untried = (row for row in self.pairs.iter_rows(named=True) if not row["has_result"] and not row["agent_tries"])
        return frozenset(row["pair"] for row in untried)

    @property
    def again(self) -> str:
        """The command that does what is still to run of this cell."""
        cell = self.spec.cell
        command = f"cooperbench-assets materialize {cell.experiment} --setting {cell.setting} --seed {cell.seed}"
        if self.executes:
            return command
        return f"fix the logs where they were made (this experiment only reads them), then: {command}"


def found(
    affected: Iterable[str],
    *,
    good: str,
    bad: Callable[[int], str],
    remedy: str = "",
    numbers: Mapping[str, float | int | None] = {},
) -> Finding:
    """A finding that passes if nothing is affected.

    Args:
        affected: What is affected, in order; a sample of it is kept.
        good: Description where nothing offends.
        bad: Description otherwise, from the number that are affected.
        remedy: What fixes it.
        numbers: Further figures.
    """
    listed = tuple(affected)
    if not listed:
        return Finding(passed=True, description=good, numbers=numbers)
    return Finding(
        passed=False,
        description=bad(len(listed)),
        affected=len(listed),
        sample=listed[:SAMPLE],
        remedy=remedy,
        numbers=numbers,
    )


def pairs_named(frame: pl.DataFrame, *columns: str) -> list[str]:
    """Rows of a pairs table as text: the pair, and the named columns behind it."""
    return [
        " ".join([str(row["pair"]), *(f"{column}={row[column]}" for column in columns)])
        for row in frame.select("pair", *columns).iter_rows(named=True)
    ]
