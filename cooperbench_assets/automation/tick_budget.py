"""How much one tick looks at, and where the next one goes on: Dagster ends a tick that takes longer than a minute.

What belongs here: the time box, the place in the round of an experiment's cells, and the words of a tick. What does
not: looking (``observation``), and what follows (``retry_sensor``, ``watch_sensor``, ``nightly_schedule``).
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from cooperbench_assets.automation.observation import Observation, observe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    import dagster as dg

    from cooperbench_assets.experiment_context import ExperimentContext
    from cooperbench_assets.store.cells import Cell

TICK_SECONDS: Final = 40.0
"""A tick that has looked for so long ends, and the next one goes on behind it: Dagster allows 60 s."""

NAMED: Final = 3
"""Cells that are named where many have one and the same reason."""


class Place(msgspec.Struct, frozen=True):
    """Where in the round of its cells a sensor is; its cursor, which may be lost."""

    next: str = ""
    """The cell to look at first."""

    complete: int = 0
    """How many cells in a row were complete up to here."""

    cells: str = ""
    """Hash of the cells that there were."""


_PLACE: Final = msgspec.json.Decoder(Place)


@dataclass(frozen=True, slots=True)
class Portion:
    """What one tick has looked at."""

    looks: list[Observation]
    place: Place
    whole: bool
    """It was every cell."""

    all_complete: bool
    """Every cell of the experiment is complete, as far as this tick and those before it have seen."""


def time_box(clock: Callable[[], float] = time.monotonic) -> Callable[[], bool]:
    """Begin a tick: what is returned says whether its time is over."""
    began = clock()
    return lambda: clock() - began > TICK_SECONDS


def look_on(
    experiment: ExperimentContext,
    instance: dg.DagsterInstance,
    now: datetime,
    place: Place,
    is_over: Callable[[], bool],
    *,
    backfilled: Mapping[str, str] | None = None,
) -> Portion:
    """Look at the planned cells from a place on, one at least and all at most, until the time is over.

    Raises:
        MissingInputError: if there is no subset.
    """
    labels = [str(cell.cell) for cell in experiment.cells]
    known = hashlib.sha256("\n".join(labels).encode()).hexdigest()[:16]
    first = labels.index(place.next) if place.next in labels else 0
    order = (*experiment.cells[first:], *experiment.cells[:first])
    complete = place.complete if place.cells == known else 0
    looks: list[Observation] = []
    for seen in observe(experiment, instance, now, cells=order, backfilled=backfilled):
        looks.append(seen)
        complete = min(complete + 1, len(order)) if seen.complete else 0
        if is_over():
            break
    following = str(order[len(looks) % len(order)].cell)
    return Portion(looks, Place(following, complete, known), len(looks) == len(order), complete == len(order))


def read_place(cursor: str | None) -> Place:
    """The place that a cursor says; the first one where it says none that can be read."""
    try:
        return _PLACE.decode(cursor or "")
    except (msgspec.DecodeError, UnicodeEncodeError):
        return Place()


def write_place(place: Place) -> str:
    """A cursor that says a place."""
    return msgspec.json.encode(place).decode()


def by_reason(reasons: Iterable[tuple[Cell, str]]) -> list[str]:
    """Why nothing is done about cells, a line for each reason: a tick is stored, and there may be a thousand cells."""
    cells: dict[str, list[Cell]] = defaultdict(list)
    for cell, reason in reasons:
        cells[reason].append(cell)
    return [line for reason, several in cells.items() for line in _lines(several, reason)]


def _lines(cells: list[Cell], reason: str) -> list[str]:
    if len(cells) <= NAMED:
        return [f"{cell}: {reason}" for cell in cells]
    return [f"{', '.join(map(str, cells[:NAMED]))} and {len(cells) - NAMED} more cells: {reason}"]
