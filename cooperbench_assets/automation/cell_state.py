"""From what is on disk to the state of a cell: which pairs are still to run, which wait, and what has been tried.

What belongs here: pure functions over plans and recorded tries. What does not: reading them (``observation``), deciding
(``policy``). The plan of a launch is the only judge of what is still to run: automation and a person's launch never
differ but in what a person alone may ask for.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cooperbench_assets.automation.policy import LONGEST_LIMIT, rounds_of
from cooperbench_assets.execution.attempts.records import of_stage
from cooperbench_assets.execution.options import LaunchOptions
from cooperbench_assets.execution.planning.plan import plan_agents, plan_evaluations
from cooperbench_assets.execution.planning.usage import History

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.attempts.pair_state import PairState
    from cooperbench_assets.execution.attempts.records import Attempt
    from cooperbench_assets.execution.job import CellJob
    from cooperbench_assets.execution.worker.protocol import Stage
    from cooperbench_assets.spec import ExperimentSpec
    from cooperbench_assets.store.cells import Cell

QUOTA_PAUSE: Final = timedelta(hours=1)
"""How long to wait for a usage limit whose text does not say when it is lifted."""

_AUTOMATIC: Final = LaunchOptions(automatic=True)
_NOT_ASKED_SETTINGS: Final = frozenset({"nightly", "retry", "alerts"})


@dataclass(frozen=True, slots=True)
class PairsToRun:
    """What is still to run of a cell, and what prevents it."""

    agents: tuple[str, ...] = ()
    evaluations: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    exhausted: Mapping[str, Stage] = field(default_factory=dict)
    """Pairs that used up their tries, with the stage."""

    waiting: Mapping[str, str] = field(default_factory=dict)
    """Pairs that wait for a person, with the family of the failure."""

    rounds: int = 0
    newest_end: datetime | None = None
    not_before: datetime | None = None
    tries: Mapping[str, int] = field(default_factory=dict)
    """Recorded tries by stage, whatever they came to."""

    @property
    def complete(self) -> bool:
        """Whether every pair has its verdict, or is accepted as it is."""
        return not (self.agents or self.evaluations or self.unwanted or self.exhausted or self.waiting)


def assess(
    job: CellJob, states: Mapping[Pair, PairState], retry_generations: Mapping[str, int], *, whole: bool, now: datetime
) -> PairsToRun:
    """What is still to run of a cell when nobody asks.

    Args:
        job: The cell.
        states: Every planned pair as it stands.
        retry_generations: The present retry generation of each stage.
        whole: Whether somebody wanted all pairs; else those that were never tried are nobody's wish.
        now: The present time, UTC.
    """
    agents = plan_agents(job, states, _AUTOMATIC, History(), _present("agent", retry_generations))
    evaluations = plan_evaluations(job, states, _AUTOMATIC, History(), _present("eval", retry_generations))
    to_run = {step.pair for step in agents.runs}
    unwanted = set() if whole else {pair for pair in to_run if _untouched(states[pair])}
    again = {step.pair for step in evaluations.runs}
    tries = [one for state in states.values() for one in state.attempts]
    used = max((step.used for plan in (agents, evaluations) for step in plan.runs), default=0)
    given_up = [(plan, step) for plan in (agents, evaluations) for step in plan.given_up]
    return PairsToRun(
        agents=_names(to_run - unwanted),
        evaluations=_names(again),
        unwanted=_names(unwanted),
        exhausted={step.pair.name: plan.stage for plan, step in given_up if step.code == "exhausted"},
        waiting={step.pair.name: step.family or "unknown" for _, step in given_up if step.code == "needs_person"},
        rounds=rounds_of(used, _streak(tries), job.limits.breaker),
        newest_end=max((_when(one) for one in tries if one.failed), default=None),
        not_before=_not_before((states[pair] for pair in to_run | again), now),
        tries={stage: len(of_stage(tries, stage)) for stage in ("agent", "eval")},
    )


def _present(stage: str, retry_generations: Mapping[str, int]) -> int:
    return max(1, int(retry_generations.get(stage, 1)))


def _untouched(state: PairState) -> bool:
    return not (state.attempts or state.has_result or state.torn)


def _names(pairs: Iterable[Pair]) -> tuple[str, ...]:
    return tuple(sorted(pair.name for pair in pairs))


def _streak(tries: Iterable[Attempt]) -> int:
    """How many of the cell's last tries failed in a row."""
    streak = 0
    for one in sorted((one for one in tries if one.retry_generation), key=_when, reverse=True):
        if not one.failed:
            break
        streak += 1
    return streak


def _when(attempt: Attempt) -> datetime:
    moment = datetime.fromisoformat(attempt.ended_at or attempt.started_at)
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _not_before(states: Iterable[PairState], now: datetime) -> datetime | None:
    """When the last of the usage limits that these pairs ran into is expected to be lifted."""
    resets = []
    for state in states:
        last = max((one for one in state.attempts if one.failed), key=_when, default=None)
        if last is not None and last.family in ("quota", "rate_limit"):
            lifted = lifted_at(last.evidence or "", _when(last))
            if lifted is None and last.family == "quota":
                lifted = _when(last) + QUOTA_PAUSE
            if lifted is not None and lifted > now:
                resets.append(lifted)
    return max(resets, default=None)


_SPAN = re.compile(
    r"(?:try again|retry|resets?|available)\D{0,30}?((?:\d+(?:\.\d+)?\s*(?:d|h|m|s|ms|days?|hours?|min(?:ute)?s?|"
    r"sec(?:ond)?s?)(?![a-z])[\s,]*(?:and\s+)?)+)",
    re.IGNORECASE,
)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)", re.IGNORECASE)
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_CLOCK = re.compile(
    r"resets?(?: at)?\s+(\d{1,2})(?::(\d\d))?\s*(am|pm)?(?:\s*\(?([A-Z][A-Za-z]*(?:/[A-Za-z_]+)?)\)?)?", re.IGNORECASE
)
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?)")


def lifted_at(evidence: str, failed: datetime) -> datetime | None:
    """When a usage limit is lifted, from the text of the failure; None where it does not say.

    Understood are spans ("try again in 1h2m"), times of day ("resets 3:40pm (UTC)"; UTC where no zone is named) and
    ISO 8601 instants. Nothing that lies further off than a week is believed.

    Args:
        evidence: The failure's text.
        failed: When it happened, UTC.
    """
    found = _after_span(evidence, failed) or _at_instant(evidence) or _at_clock(evidence, failed)
    return found if found is not None and failed <= found <= failed + LONGEST_LIMIT else None


def _after_span(evidence: str, failed: datetime) -> datetime | None:
    match = _SPAN.search(evidence)
    if match is None:
        return None
    seconds = 0.0
    for number, unit in _PART.findall(match[1]):
        short = "ms" if unit.lower() == "ms" else unit[0].lower()
        seconds += float(number) * _SECONDS[short]
    return failed + timedelta(seconds=min(seconds, 10 * LONGEST_LIMIT.total_seconds()))


def _at_instant(evidence: str) -> datetime | None:
    match = _INSTANT.search(evidence)
    if match is None or not re.search(r"reset|again|until|lifted|available", evidence, re.IGNORECASE):
        return None
    try:
        moment = datetime.fromisoformat(match[1])
    except ValueError:
        return None
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _at_clock(evidence: str, failed: datetime) -> datetime | None:
    match = _CLOCK.search(evidence)
    if match is None:
        return None
    hour, minute = int(match[1]), int(match[2] or 0)
    if match[3] and hour > 12:
        return None
    if match[3]:
        hour = hour % 12 + (12 if match[3].lower() == "pm" else 0)
    try:
        zone = ZoneInfo(match[4]) if match[4] else ZoneInfo("UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        zone = ZoneInfo("UTC")
    here = failed.replace(tzinfo=UTC).astimezone(zone)
    try:
        then = here.replace(hour=hour, minute=minute, second=0, microsecond=0)
    except ValueError:
        return None
    if then < here:
        then += timedelta(days=1)
    return then.astimezone(UTC).replace(tzinfo=None)


def fingerprint(
    cell: Cell, spec: ExperimentSpec, subset_sha256: str, to_run: PairsToRun, newest_change: datetime | None
) -> str:
    """What tells one state of one cell from another. Cells of equal state differ: an outage fails many of them alike.

    Args:
        cell: The cell.
        spec: The experiment; how it is looked after does not count.
        subset_sha256: Hash of its subset.
        to_run: What is still to run of the cell, and how many tries it has on record.
        newest_change: When the log tree last changed, where its tables are older than that.
    """
    content: dict[str, Any] = {
        "cell": [cell.experiment, cell.setting, cell.seed],
        "settings": spec.model_dump(mode="json", exclude=set(_NOT_ASKED_SETTINGS)),
        "subset": subset_sha256,
        "tries": dict(to_run.tries),
        # The first release's name: another one would give each cell a new fingerprint, and launch it once more.
        "owed": [to_run.agents, to_run.evaluations],
        "changed": None if newest_change is None else newest_change.isoformat(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]
