"""docs/reliability.md, from the kept runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf.measure import ROOT
from perf.soak.results import merged, percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf.soak.results import Injected, SoakRun

PAGE: Final = ROOT / "docs" / "reliability.md"

HEAD: Final = """\
# Reliability

This page is written by `make soak` (`python -m perf.soak`), from the runs it made. Scripted agents work on the built-in
benchmark while faults are injected at random. After every fault, and when a pass has ended and nothing runs any more:

- **lost**: a verdict, a result or a record of an attempt that was on disk is gone or changed, or a pair has no verdict.
- **leaked**: a process, a container, a slot, a lock or a temporary file that nobody will use again.
- **wrong**: outcome, reason, patch hash or verdict of a pair differ from the undisturbed run; a pair was worked on
  twice at once; the results store could not be read, or says something else than the log tree.

Limits of attempts are raised so that kills exhaust none. Times, costs and numbers of attempts may differ. A fault is
**recovered** when an attempt that began after it has completed, or nothing was left to run; the time to recover counts
from the end of the fault, so it holds the time of that attempt, and of starting a killed command or daemon again.
"""


def page(runs: Sequence[SoakRun]) -> str:
    """The page in Markdown."""
    faults = sum(one.count for one in merged(runs))
    broken = {name: sum(len(getattr(run, name)) for run in runs) for name in ("lost", "leaked", "wrong")}
    said = ", ".join(f"{count} {name}" for name, count in broken.items())
    passes, verdicts = (sum(getattr(run, name) for run in runs) for name in ("passes", "verdicts"))
    parts = [HEAD, f"**{faults:,} faults in {passes} passes: {said}; {verdicts:,} verdicts compared.**\n"]
    for execution in sorted({run.execution for run in runs}):
        chosen = [run for run in runs if run.execution == execution]
        parts += [f"## Sandboxes: `{execution}`\n", _table(merged(chosen)), ""]
    parts += ["## Runs\n", _runs(runs), ""]
    problems = [f"- {what}" for run in runs for what in (*run.lost, *run.leaked, *run.wrong)]
    if problems:
        parts += ["## What did not hold\n", *problems, ""]
    return "\n".join(parts)


def _table(rows: Sequence[Injected]) -> str:
    head = (
        "| fault | injected | recovered | seconds to recover: median | 95 % | longest |\n| --- " + "| ---: " * 5 + "|"
    )
    return "\n".join([head, *(_row(row) for row in rows)])


def _row(one: Injected) -> str:
    times = (percentile(one.seconds, share) for share in (0.5, 0.95, 1.0))
    shown = " | ".join("–" if value is None else f"{value:.1f}" for value in times)
    return f"| {one.kind} | {one.count} | {one.recovered} | {shown} |"


def _runs(runs: Sequence[SoakRun]) -> str:
    head = (
        "| date | seed | sandboxes | run by | pairs a cell | passes | minutes | faults | lost | leaked | wrong |\n"
        "| --- | ---: | --- | --- | " + "---: | " * 7
    ).rstrip()
    return "\n".join([head, *(_run(run) for run in runs)])


def _run(run: SoakRun) -> str:
    faults = sum(one.count for one in run.faults)
    broken = (len(run.lost), len(run.leaked), len(run.wrong))
    cells = (run.date, run.seed, run.execution, run.driver, run.pairs, run.passes, round(run.minutes), faults, *broken)
    return f"| {' | '.join(str(cell) for cell in cells)} |"
