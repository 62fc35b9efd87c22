"""What infrastructure errors are left after a run: by family, with a sample, and what to do about each.

What belongs here: finding and saying them on the command line. What does not: whether a retry can help (the plan).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cooperbench_assets.benchmark.failures import FAMILIES
from cooperbench_assets.wording import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cooperbench_assets.automation.observation import Observation
    from cooperbench_assets.experiment_context import ExperimentContext

EVIDENCE_SHOWN: Final = 160
"""Characters of the text that shows an error."""

HELPS, USED_UP, NEEDS_FIX, OTHER = "a retry can help", "retries are used up", "needs a fix first", "see status"


@dataclass(frozen=True, slots=True)
class ErrorLeft:
    """One pair without a verdict because of an infrastructure error."""

    family: str
    where: str
    """Setting, seed and pair."""

    evidence: str
    """First line of it, cut."""

    state: str
    """One of the words above: whether a retry can help."""


def errors_left(
    experiment: ExperimentContext, looks: Iterable[Observation], only: Sequence[str] = ()
) -> list[ErrorLeft]:
    """The pairs of these cells that have an infrastructure error in place of a verdict, and are not accepted so.

    Args:
        experiment: An experiment that executes pairs itself.
        looks: Its cells as they stand.
        only: Only these pairs; all if none is named.

    Raises:
        LaunchError: if a run folder cannot be read.
    """
    return [one for seen in looks for one in _of_cell(experiment, seen) if not only or one.where.split()[-1] in only]


def _of_cell(experiment: ExperimentContext, seen: Observation) -> Iterator[ErrorLeft]:
    from cooperbench_assets.assets.execution import job_of
    from cooperbench_assets.execution.attempts.pair_state import read_states

    cell, now = seen.spec.cell, seen.state
    if now.problem is not None or not now.launched:
        return
    accepted = experiment.spec.accepted_in(cell)
    states = read_states(job_of(experiment, seen.spec, experiment.subset()))
    for pair, state in states.items():
        if state.outcome == "infra_error" and pair.name not in accepted:
            where = f"{cell.setting} seed {cell.seed} {pair.name}"
            yield ErrorLeft(state.family or "unknown", where, _first_line(state.evidence), _state(seen, pair.name))


def _state(seen: Observation, pair: str) -> str:
    now = seen.state
    if pair in now.agents or pair in now.evaluations:
        return HELPS
    if pair in now.exhausted:
        return USED_UP
    return NEEDS_FIX if pair in now.waiting else OTHER


def _first_line(evidence: str | None) -> str:
    line = next((line.strip() for line in (evidence or "").splitlines() if line.strip()), "no text on record")
    return line if len(line) <= EVIDENCE_SHOWN else f"{line[: EVIDENCE_SHOWN - 1]}…"


def described(experiment: str, sensor: str, looks: Sequence[Observation], left: Sequence[ErrorLeft]) -> Iterator[str]:
    """Lines that say what is left and what to do; none if nothing is."""
    if not left:
        return
    yield f"{count(len(left), 'pair')} without a verdict because of infrastructure errors:"
    by_family: dict[str, list[ErrorLeft]] = defaultdict(list)
    for one in left:
        by_family[one.family].append(one)
    for family, errors in sorted(by_family.items(), key=lambda item: (-len(item[1]), item[0])):
        yield from _of_family(family, errors)
    for seen in looks:
        cell = seen.spec.cell
        yield from (f"  {cell.setting} seed {cell.seed} was stopped: {stop.reason}" for stop in seen.stops)
    yield from _next(experiment, sensor, looks, {one.state for one in left})


def _of_family(family: str, errors: Sequence[ErrorLeft]) -> Iterator[str]:
    states = [one.state for one in errors]
    told = ", ".join(f"{state} ({states.count(state)})" for state in dict.fromkeys(states))
    yield f"  {family}, {count(len(errors), 'pair')}: {told}"
    yield f"    {errors[0].where}: {errors[0].evidence}"
    if family in FAMILIES:
        yield f"    how to fix: {FAMILIES[family].remedy}"


def _next(experiment: str, sensor: str, looks: Sequence[Observation], states: set[str]) -> Iterator[str]:
    """Which command or sensor goes on, for each kind of pair that is left."""
    again = f"cooperbench-assets materialize {experiment}"
    if HELPS in states:
        limits = [seen.state.not_before for seen in looks if seen.state.not_before is not None]
        when = f", after {max(limits):%Y-%m-%d %H:%M} UTC" if limits else ""
        yield f"  {HELPS}: {again}{when}; or switch on the sensor {sensor} in the UI (Automation)"
    if NEEDS_FIX in states:
        yield f"  {NEEDS_FIX}: fix the cause, then {again}"
    if USED_UP in states:
        yield f"  {USED_UP}: fix the cause, then reset the retry counters with {again} --reset-retries"
    if OTHER in states:
        yield f"  {OTHER}: {again} --dry-run shows what is planned for the other pairs, and why"
