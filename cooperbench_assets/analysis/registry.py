"""Every analysis: its name, what it needs, and the tables that it makes.

What belongs here: the list, and running it. What does not: any figure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from cooperbench_assets.analysis import (
    associations,
    communication,
    comparisons,
    costs,
    curves,
    declarations,
    difficulty,
    funnel,
    grid,
    merges,
    messages,
    notices,
    summary,
)
from cooperbench_assets.analysis.frames import Frames
from cooperbench_assets.store.overlaps import PATCH_OVERLAPS
from cooperbench_assets.store.schema import Table

_BASE = ("pairs", "provenance")
_TALK = (*_BASE, "messages", messages.IMPORTED_LABELS.name)
_LABELS = (messages.MESSAGE_LABELS.name,)


@dataclass(frozen=True, slots=True)
class Analysis:
    """One question: a function from frames to the tables that answer it, whose first line says what is asked."""

    function: Callable[[Frames], dict[str, pl.DataFrame]]
    tables: tuple[Table, ...]
    """What the function gives, by the tables' names."""

    needs: tuple[str, ...] = _BASE
    """Input tables that it looks at; one that is not there counts as empty."""

    uses: tuple[str, ...] = ()
    """Tables of analyses before it in ``ANALYSES`` that it takes where they are at hand, or else makes itself."""

    @property
    def name(self) -> str:
        """The function's."""
        return self.function.__name__

    @property
    def description(self) -> str:
        """What is asked."""
        return (self.function.__doc__ or "").partition("\n")[0]


ANALYSES: tuple[Analysis, ...] = (
    Analysis(notices.warnings, (notices.WARNINGS,)),
    Analysis(declarations.analysis_plan, (declarations.ANALYSIS_PLAN,)),
    Analysis(summary.setting_summary, (summary.SETTING_SUMMARY,)),
    Analysis(summary.success_by_attempt, (summary.SUCCESS_BY_ATTEMPT,)),
    Analysis(funnel.outcome_funnel, (funnel.OUTCOME_FUNNEL, funnel.FUNNEL_LOSSES)),
    Analysis(comparisons.paired_comparisons, (comparisons.PAIRED_COMPARISONS, comparisons.CONCLUSIONS)),
    Analysis(comparisons.paired_tables, (comparisons.PAIRED_TABLES,)),
    Analysis(difficulty.pair_difficulty, (difficulty.PAIR_DIFFICULTY,)),
    Analysis(curves.success_by_difficulty, (curves.SUCCESS_BY_DIFFICULTY, curves.SUCCESS_AUC, curves.RETENTION)),
    Analysis(merges.merge_conflicts, (merges.MERGE_CONFLICTS, merges.MERGE_KINDS), (*_BASE, PATCH_OVERLAPS.name)),
    Analysis(messages.message_labels, (messages.MESSAGE_LABELS,), ("messages", messages.IMPORTED_LABELS.name)),
    Analysis(communication.communication, (communication.COMMUNICATION,), (*_TALK, "agents"), _LABELS),
    Analysis(associations.communication_associations, (associations.COMMUNICATION_ASSOCIATIONS,), _TALK, _LABELS),
    Analysis(costs.results_manifest, (costs.RESULTS_MANIFEST,), (*_BASE, "agents")),
    Analysis(costs.cost_report, (costs.COST_REPORT,), (*_BASE, "attempts")),
    Analysis(grid.pair_grid, (grid.PAIR_GRID, grid.PAIR_SUMMARY, grid.TASK_SUMMARY, grid.GOLD_SENSITIVITY)),
)
"""Every analysis, in the order of a report."""

RESULT_TABLES: tuple[Table, ...] = tuple(table for analysis in ANALYSES for table in analysis.tables)
"""Every table that the analyses make."""


def run_analysis(analysis: Analysis, frames: Frames) -> dict[str, pl.DataFrame]:
    """One analysis, given only the tables that it says it looks at."""
    seen = (*analysis.needs, *analysis.uses)
    return analysis.function({name: frames[name] for name in seen if name in frames})


def run_all(frames: Frames) -> dict[str, pl.DataFrame]:
    """Every result table by name, made of the store's tables in `frames`.

    Args:
        frames: PAIRS, AGENTS, MESSAGES, ATTEMPTS and PROVENANCE of one experiment or several, by table name; also
            ``imported_labels`` and ``patch_overlaps`` where there are any. Others are not looked at.
    """
    inputs = {name for analysis in ANALYSES for name in analysis.needs}
    given = {name: frame for name, frame in frames.items() if name in inputs}
    results: dict[str, pl.DataFrame] = {}
    for analysis in ANALYSES:
        results |= run_analysis(analysis, given | results)
    return results
