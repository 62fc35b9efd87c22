"""What there is to tell of cells as they stand, and of runs that failed.

What belongs here: which state is worth a message, and its words. What does not: saying it (``alerts``).
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from cooperbench_assets.assets.keys import partition_key
from cooperbench_assets.automation.alerts import Alert
from cooperbench_assets.automation.dagster_runs import PARTITION_TAG, error_of, failed_since
from cooperbench_assets.automation.policy import FRUITLESS_RUNS
from cooperbench_assets.benchmark.failures import FAMILIES
from cooperbench_assets.wording import count, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import dagster as dg

    from cooperbench_assets.automation.alerts import Kind
    from cooperbench_assets.automation.observation import Observation
    from cooperbench_assets.experiment_context import ExperimentContext, MissingInputError

FAILURES_TOLD_FOR: Final = timedelta(hours=6)
"""Runs that failed longer before the last look than this are not told of any more."""

LONGEST_ABSENCE: Final = timedelta(days=7)
"""After a longer time without a look, runs that failed before that are not told of."""

NAMED: Final = 5
"""Pairs that a message names."""


def alerts_of(experiment: ExperimentContext, looks: Sequence[Observation], *, all_complete: bool) -> Iterator[Alert]:
    """Everything that is to be told of these cells of an experiment now; most of it was told before."""
    for seen in looks:
        yield from cell_alerts(seen)
    if all_complete:
        yield _complete(experiment)


def cell_alerts(seen: Observation) -> Iterator[Alert]:
    """What is to be told of one cell; nothing while it is being worked on."""
    state = seen.state
    if not state.executes or not state.launched or state.active_run is not None or state.holder is not None:
        return
    if state.problem is not None:
        text = f"it cannot be looked at, and nothing is tried any more: {state.problem}"
        yield _alert(seen, "problem", text, state.problem)
    for stop in seen.stops:
        what = "its budget is reached" if stop.kind == "budget" else "its circuit breaker tripped"
        kind: Kind = "budget" if stop.kind == "budget" else "breaker"
        yield _alert(seen, kind, f"{what}: {stop.reason}", stop.stage, stop.started_at)
    for family, n in seen.families.items():
        yield _alert(
            seen,
            "waiting",
            f"{counted(n, 'pair', 'waits', 'wait')} for a person ({family}): {_remedy(family)}; then materialise the "
            "cell once by hand",
            family,
            str(seen.tries),
        )
    if state.exhausted and not (state.agents or state.evaluations):
        names = sorted(state.exhausted)
        text = (
            f"{count(len(names), 'pair')} used up all tries ({_listed(names)}); the check retries_exhausted of "
            "pair_results shows why, how to re-open them and how to accept them"
        )
        yield _alert(seen, "exhausted", text, *names, str(seen.tries))
    if state.fruitless >= FRUITLESS_RUNS and (state.agents or state.evaluations or state.unread):
        text = f"{state.fruitless} runs of it in a row failed; nothing is tried any more until something changes"
        yield _alert(seen, "stuck", text, state.fingerprint)


def input_alerts(experiment: ExperimentContext, error: MissingInputError) -> Iterator[Alert]:
    """What is to be told of an experiment that cannot be looked at: nothing where nobody has launched any of it."""
    if any(experiment.run_dir(cell).is_dir() for cell in experiment.cells):
        yield Alert(
            "problem", f"nothing of it can be looked at or tried any more: {error}", f"{experiment.name} {error}"
        )


def told_since(now: datetime, last_look: datetime | None) -> datetime:
    """Since when failed runs are told of: since the last look, and a while before it, for clocks differ."""
    last = min(last_look or now, now) - FAILURES_TOLD_FOR
    return max(last, now - LONGEST_ABSENCE)


def run_alerts(
    instance: dg.DagsterInstance, experiment: ExperimentContext, since: datetime, is_settled: Callable[[str], bool]
) -> Iterator[Alert]:
    """One message for each run of an experiment that failed since then, except those of which nothing is left to say.

    Dagster's `run_failure_sensor` hears of failures after its own first tick only, goes on after a reaction that failed
    (a webhook that is down is offered a message once), and would be a second sensor for each experiment.

    Args:
        instance: Dagster's instance.
        experiment: The experiment.
        since: UTC without a zone.
        is_settled: Whether a run, by its id, was told of for good: its error is not read then.
    """
    for run in failed_since(instance, experiment.name, since):
        if is_settled(run.run_id):
            continue
        partition = run.tags.get(PARTITION_TAG)
        where = f", partition {partition}" if partition else ""
        yield Alert(
            "run_failed",
            f"{experiment.name}{where}: run {run.run_id[:8]} failed: {error_of(instance, run.run_id)}",
            run.run_id,
            run_id=run.run_id,
        )


def _complete(experiment: ExperimentContext) -> Alert:
    cells = [cell.cell for cell in experiment.cells]
    subset = experiment.subset()
    pairs = len(subset.pairs)
    where = "its one cell" if len(cells) == 1 else f"each of its {len(cells)} cells"
    return Alert(
        "complete",
        f"{experiment.name} is complete: {pairs} of {count(pairs, 'pair')} in {where}",
        " ".join([subset.sha256, *(str(cell) for cell in sorted(cells))]),
    )


def _alert(seen: Observation, kind: Kind, text: str, *about: str) -> Alert:
    cell = seen.state.cell
    return Alert(
        kind,
        f"{cell}: {text}",
        " ".join([str(cell), hashlib.sha256("\n".join(about).encode()).hexdigest()]),
        run_id=seen.newest_run,
        partition=partition_key(cell),
    )


def _remedy(family: str) -> str:
    known = FAMILIES.get(family)
    return known.remedy[0].lower() + known.remedy[1:] if known else "look at their evidence"


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
