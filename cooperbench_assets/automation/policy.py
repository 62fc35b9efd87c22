"""What to do about a cell that nobody looks after: pure functions of its state.

What belongs here: the decision, and how long to wait. What does not: finding the state (``observation``), asking
Dagster for runs (``retry_sensor``), telling people (``alert_rules``). Nothing here reads a clock, a disk or Dagster's
storage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

from cooperbench_assets.wording import count, counted

if TYPE_CHECKING:
    from cooperbench_assets.execution.worker.protocol import Stage
    from cooperbench_assets.store.cells import Cell

LONGEST_PAUSE: Final = timedelta(hours=6)
"""The pause between two tries stops growing here."""

LONGEST_LIMIT: Final = timedelta(days=7)
"""No usage limit is believed to last longer."""

LONGEST_WAIT: Final = timedelta(minutes=2)
"""A command that runs a cell again by itself waits this long at most for a usage limit to be lifted."""

FRUITLESS_RUNS: Final = 3
"""Runs asked for of one and the same state of a cell that may fail before a person is needed."""


@dataclass(frozen=True, slots=True)
class CellState:
    """One cell as automation sees it. Everything but the runs comes from disk."""

    cell: Cell
    now: datetime
    """UTC, like every time here."""

    fingerprint: str = ""
    """Hash of the experiment's settings, the tries on disk and what is still to run: it differs where these do."""

    executes: bool = True
    """The experiment runs pairs itself."""

    launched: bool = True
    """There is a try, a result or a launch on record: somebody wanted this cell."""

    whole: bool = True
    """All its pairs were asked for, not a chosen few."""

    active_run: str | None = None
    """A run of it that is queued, started or about to be."""

    holder: str | None = None
    """Who holds its lock."""

    cancelled_run: str | None = None
    """Its newest run, if a person cancelled that."""

    asked: int = 0
    """Runs asked for of exactly this state that are over: Dagster launches a run key once, so each has its own."""

    fruitless: int = 0
    """Runs asked for of exactly this state that failed."""

    newest_failure: datetime | None = None
    """When the last of them ended."""

    done_already: bool = False
    """A run of exactly this state succeeded: it changed nothing, and a further one would not."""

    problem: str | None = None
    """Why the cell cannot be looked at; a person must fix it."""

    agents: tuple[str, ...] = ()
    """Pairs whose agents a retry may run: failed, interrupted, torn, or missing where the whole cell was wanted."""

    evaluations: tuple[str, ...] = ()
    """Pairs whose evaluation is still to run, whose agents are done."""

    unwanted: int = 0
    """Pairs that were never tried, and that nobody asked for yet."""

    unread: bool = False
    """The log tree is newer than the tables made of it."""

    exhausted: Mapping[str, Stage] = field(default_factory=dict)
    """Pairs that used up their tries, with the stage."""

    waiting: Mapping[str, str] = field(default_factory=dict)
    """Pairs that wait for a person, with the family of their failure."""

    money: str | None = None
    """Why no further agents may be bought; None while they may."""

    rounds: int = 0
    """Rounds of failures that lie behind what is still to run: see `rounds_of`."""

    newest_end: datetime | None = None
    """When the last try ended."""

    not_before: datetime | None = None
    """When a usage limit is expected to be lifted."""

    backoff: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Launch:
    """Ask for one run of the cell."""

    run_key: str
    assets: tuple[str, ...]
    agents: tuple[str, ...] | None
    """The only pairs whose agents to run; None: whatever is still to run."""

    evaluations: tuple[str, ...] | None
    """The only pairs to evaluate, alike."""

    why: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Something is still to run, and not now."""

    reason: str
    until: datetime | None = None
    """None: until what the reason names has ended."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """Nothing is left that automation could run."""

    reason: str


Decision: TypeAlias = Launch | Wait | Nothing


def decide(state: CellState) -> Decision:
    """What to do about one cell now."""
    if not state.executes:
        return Nothing("its logs are made elsewhere")
    if not state.launched:
        return Nothing("nobody has launched it yet")
    if state.active_run is not None:
        return Wait(f"run {state.active_run[:8]} of it is not over")
    if state.holder is not None:
        return Wait(f"it is held by {state.holder}")
    if state.problem is not None:
        return Nothing(state.problem)
    if state.cancelled_run is not None:
        return Nothing(f"a person cancelled its last run ({state.cancelled_run[:8]}); materialise it to go on")
    return _about_pairs(state)


def _about_pairs(state: CellState) -> Decision:
    agents = state.agents if state.money is None else ()
    if not (agents or state.evaluations or state.unread):
        return Nothing(_why_nothing(state))
    if state.done_already:
        return Nothing("a run of it as it stands ended well and changed nothing; something must change first")
    if state.fruitless >= FRUITLESS_RUNS:
        return Nothing(f"{state.fruitless} runs of it as it stands failed; a person must look at their errors")
    until = ready_at(state, tries_left_to_run=bool(agents or state.evaluations))
    if until is not None and state.now < until:
        return Wait(f"pause before the next try, until {until:%Y-%m-%d %H:%M:%S} UTC", until)
    return _launch(state, agents)


def _launch(state: CellState, agents: tuple[str, ...]) -> Launch:
    cell = state.cell
    evaluations = tuple(dict.fromkeys((*agents, *state.evaluations)))
    assets = [name for name, to_run in (("run_logs", agents), ("eval_outputs", evaluations)) if to_run]
    said = [
        f"agents of {count(len(agents), 'pair')}" if agents else "",
        f"evaluation of {count(len(state.evaluations), 'pair')}" if state.evaluations else "",
        "reading" if not evaluations else "",
    ]
    return Launch(
        run_key=f"{cell.experiment}:{cell.setting}:{cell.seed}:{state.fingerprint}:{state.asked}",
        assets=(*assets, "pair_results"),
        agents=None if state.whole else agents,
        evaluations=None if state.whole else evaluations,
        why=", ".join(part for part in said if part),
    )


def _why_nothing(state: CellState) -> str:
    still = counted(len(state.agents), "pair", "is", "are")
    parts = [
        f"{still} still to run, and {state.money}" if state.money and state.agents else "",
        f"{count(len(state.exhausted), 'pair')} used up all tries" if state.exhausted else "",
        f"{counted(len(state.waiting), 'pair', 'waits', 'wait')} for a person" if state.waiting else "",
        f"{counted(state.unwanted, 'pair', 'was', 'were')} never asked for" if state.unwanted else "",
    ]
    return "; ".join(part for part in parts if part) or "nothing is left to run"


def ready_at(state: CellState, *, tries_left_to_run: bool) -> datetime | None:
    """When the next run may be asked for; None if nothing has failed before it."""
    times = []
    if tries_left_to_run and state.newest_end is not None and state.rounds:
        times.append((state.newest_end, pause(state.backoff, state.rounds), LONGEST_PAUSE))
    if tries_left_to_run and state.not_before is not None:
        times.append((state.not_before, timedelta(), LONGEST_LIMIT))
    if state.fruitless and state.newest_failure is not None:
        times.append((state.newest_failure, pause(state.backoff, state.fruitless), LONGEST_PAUSE))
    # A time that lies further ahead is one of a clock that was wrong, and would be waited for until that came true.
    return max((begin + length for begin, length, ahead in times if begin <= state.now + ahead), default=None)


def wait_for_round(state: CellState) -> timedelta | None:
    """How long a command that somebody watches waits before it runs a cell again; None where it had better not.

    It makes none of the pauses that grow: whoever watches can stop it. What a provider asks for is waited for.
    """
    agents = state.agents if state.money is None else ()
    if state.problem is not None or not (agents or state.evaluations):
        return None
    wait = max((state.not_before or state.now) - state.now, timedelta())
    return wait if wait <= LONGEST_WAIT else None


def pause(backoff: timedelta, rounds: int) -> timedelta:
    """Pause after so many rounds of failures: doubled with each one after the first, up to `LONGEST_PAUSE`."""
    return min(backoff * (1 << min(max(rounds, 1) - 1, 20)), LONGEST_PAUSE)


def rounds_of(tries: int, streak: int, breaker: int) -> int:
    """How many rounds of failures lie behind a cell.

    Args:
        tries: The most tries that any pair still to run has used up in its retry generation.
        streak: Tries of the cell that failed in a row up to now, over all pairs.
        breaker: Tries in a row that stop a launch. A provider that is down for a day ends each launch after so many
            tries, of other pairs each time: without this, the pause would never grow, and a weekend burn every try.
    """
    return max(tries, math.ceil(streak / breaker) if streak >= breaker else 0)
