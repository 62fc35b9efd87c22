"""The chapters of a report: which figures and tables answer which question, and what each figure shows.

What belongs here: order, titles and definitions. What does not: how things are drawn (``charts``) or written down
(``tables``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import polars as pl

from cooperbench_assets.analysis.registry import ANALYSES, RESULT_TABLES
from cooperbench_assets.report.charts import (
    communication,
    contrasts,
    costs,
    difficulty,
    grid,
    merges,
    outcomes,
    success,
)
from cooperbench_assets.report.style import Chart, MarkStyle

Draw: TypeAlias = Callable[[Mapping[str, pl.DataFrame], MarkStyle], Chart | str]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure to be made."""

    name: str
    draw: Draw
    definition: str
    """What it shows and how to read it: whole sentences."""


@dataclass(frozen=True, slots=True)
class Section:
    """One chapter."""

    name: str
    title: str
    drawings: tuple[Drawing, ...]
    tables: tuple[str, ...]
    """Result tables by name, the one that answers the question first."""


SUCCESS = Section(
    "success",
    "Success",
    (
        Drawing(
            "success_by_setting",
            success.success_by_setting,
            "A pair passes if the tests of both features pass. The strict verdict counts a pass of solo, or of a clean "
            "or identical merge of two applied patches; upstream's verdict also counts pairs that agent 1's patch "
            "alone, or a union merge, passes. The point is the rate over clean verdicts (pass or fail) of all planned "
            "seeds; its interval is cluster-robust by task (CR2, on the logit scale), because pairs of a task are not "
            "independent. The grey bar goes from the rate if every pair without a verdict had failed to the rate if "
            "every one had passed: a rate without it hides what infrastructure took away. A setting "
            "without a headline shows its bounds only.",
        ),
    ),
    ("setting_summary", "success_by_attempt"),
)

OUTCOMES = Section(
    "outcomes",
    "Where pairs were lost",
    (
        Drawing(
            "outcome_funnel",
            outcomes.outcome_funnel,
            "Stages that a planned pair goes through, each a part of the one before, summed over planned seeds. Solo "
            "needs no merge: what is judged there counts as merged.",
        ),
        Drawing(
            "outcome_losses",
            outcomes.outcome_losses,
            "Every planned pair once, by both verdicts: passed, failed for a reason, or without a verdict because "
            "infrastructure broke, nothing was judged or nothing is there. Infrastructure failures are neither passes "
            "nor fails.",
        ),
    ),
    ("funnel_losses", "outcome_funnel"),
)

COMPARISONS = Section(
    "comparisons",
    "Settings against each other",
    (
        Drawing(
            "paired_comparisons",
            contrasts.paired_comparisons,
            "Over pairs with at least one clean seed in both settings: the mean of (mean over seeds of the first − "
            "mean over seeds of the second). p is a two-sided sign-flip test of the sums of tasks (mid-p), "
            "about other tasks like these, adjusted by Holm over the planned contrasts or the exploratory ones; the "
            "interval is each contrast's own, what the test does not reject. The grey bar is where the "
            "difference would lie if the first setting's non-verdicts all failed and the second's all passed, and the "
            "reverse; a difference is called robust only if one is claimed and its sign is the same at both ends.",
        ),
    ),
    ("paired_comparisons", "conclusions", "analysis_plan", "paired_tables"),
)

DIFFICULTY = Section(
    "difficulty",
    "Success over difficulty",
    (
        Drawing(
            "success_by_difficulty",
            difficulty.success_by_difficulty,
            "Difficulty of a pair is the share of its judged solo seeds that fail. Each solo seed is left out in turn: "
            "difficulty is made from the others, solo is scored on the one left out, and the other settings on the "
            "same difficulties. Left: the difficulties that occur; right: the paper's ten equal-width buckets, at "
            "their midpoints. Empty buckets are left out, not drawn as 0.",
        ),
        Drawing(
            "success_by_difficulty_paper",
            difficulty.success_by_difficulty_paper,
            "The same with difficulty from all solo seeds, as the paper has it. Solo is then scored on the seeds that "
            "difficulty is made from, so that its curve is an identity. It must not be compared with an experiment of "
            "another number of seeds.",
        ),
    ),
    ("retention", "success_auc", "success_by_difficulty", "pair_difficulty"),
)

MERGES = Section(
    "merges",
    "Merge conflicts",
    (
        Drawing(
            "merge_conflicts",
            merges.merge_conflicts,
            "A conflict is one of the plain merge of the two patches, whatever upstream did about it afterwards. The "
            "rate over all merges stands first; rates given that the patches touch the same files or lines follow "
            "where patch files were read.",
        ),
        Drawing(
            "merge_kinds",
            merges.merge_kinds,
            "What merging came to, of clean pairs with a merge on record. A clean merge that holds nothing (both "
            "patches empty) is shown apart: it is called clean, and is no cooperation.",
        ),
    ),
    ("merge_conflicts", "merge_kinds"),
)

COMMUNICATION = Section(
    "communication",
    "Communication",
    (
        Drawing(
            "communication",
            communication.communication,
            "Messages that agents sent each other, per pair with a clean verdict, and per step of the agents over "
            "those of them whose steps are known; pairs of dead agents and what was not judged are counted beside "
            "them. Which steps they were sent in is known only where trajectories are kept "
            "that hold one turn for every step.",
        ),
        Drawing(
            "message_kinds",
            communication.message_kinds,
            "Share of messages that do each thing, by rules on their words and order (or by imported labels, where the "
            "figure says so). The rules read words, not minds, and how often they are right stands in the figure. Plan "
            "in the first message is a share of agents that wrote; unanswered is a share of questions.",
        ),
    ),
    ("communication", "communication_associations", "message_labels"),
)

COSTS = Section(
    "costs",
    "Money and time",
    (
        Drawing(
            "cost_report",
            costs.cost_report,
            "Spent is the known cost of every try over the pairs that were tried, each counted in every seed, so that "
            "settings of different numbers of seeds can be held against each other; in parts: results that have a "
            "verdict, results that have none yet, and tries wasted on infrastructure errors. USD per pass is all that "
            "was spent over passes, with Fieller's interval over tasks, and is not given where a cost is not known; "
            "a line without an upper end is cut: passes cannot be told from 0 there. Unknown is never counted as 0.",
        ),
    ),
    ("cost_report", "results_manifest"),
)

PAIRS = Section(
    "pairs",
    "Every pair",
    (
        Drawing(
            "pair_grid",
            grid.pair_grid,
            "Rows of one colour are settled pairs, mixed rows within one setting are flaky ones; a task whose rows "
            "never pass may be dead. A question mark is a verdict that is suspect.",
        ),
    ),
    ("pair_grid", "pair_summary", "task_summary", "gold_sensitivity"),
)

_CHOSEN = (SUCCESS, OUTCOMES, COMPARISONS, DIFFICULTY, MERGES, COMMUNICATION, COSTS, PAIRS)

WARNINGS = "warnings"
"""The result table that stands before all chapters."""


def _others() -> tuple[Section, ...]:
    """Tables of analyses that no chapter names, so that none is lost."""
    named = {WARNINGS, *(table for section in _CHOSEN for table in section.tables)}
    found = [
        (analysis, tuple(table.name for table in analysis.tables if table.name not in named)) for analysis in ANALYSES
    ]
    return tuple(Section(analysis.name, analysis.description, (), tables) for analysis, tables in found if tables)


SECTIONS: tuple[Section, ...] = (*_CHOSEN, *_others())
"""Every chapter, in the order of the page."""

DECLARED = {table.name: table for table in RESULT_TABLES}
"""Result tables by name."""
