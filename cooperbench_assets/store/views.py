"""The views of results.duckdb that people query first; nothing that runs SQL belongs here.

Columns that are read most stand first. A sum over what is not known is NULL, never 0; a rate without a
denominator is NULL too.
"""

from __future__ import annotations

from dataclasses import dataclass

from cooperbench_assets.store.schema import PAIRS
from cooperbench_assets.store.types import identifier


@dataclass(frozen=True, slots=True)
class ViewColumn:
    """One column of a view."""

    name: str
    expression: str
    """SQL over the view's source."""

    description: str


@dataclass(frozen=True, slots=True)
class View:
    """One view: its columns over a source."""

    name: str
    description: str
    columns: tuple[ViewColumn, ...]
    source: str
    """What follows FROM."""

    needs: frozenset[str]
    """The tables that it looks at."""

    @property
    def sql(self) -> str:
        """The SELECT behind the view."""
        columns = ", ".join(f"{column.expression} AS {identifier(column.name)}" for column in self.columns)
        return f"SELECT {columns} FROM {self.source}"  # noqa: S608 - declarations of this module


def _columns(prefix: str, *rows: tuple[str, str, str] | tuple[str, str]) -> tuple[ViewColumn, ...]:
    """Columns from (name, description), taken from `prefix`, or (name, expression, description)."""
    return tuple(
        ViewColumn(row[0], f"{prefix}.{identifier(row[0])}", row[1]) if len(row) == 2 else ViewColumn(*row)
        for row in rows
    )


_CELL = (
    ("experiment", "Name of the experiment"),
    ("setting", "The user's label of how agents work"),
    ("seed", "Number of the independent repetition"),
)

_FIRST = (
    *("experiment", "setting", "seed", "pair", "outcome", "reason", "outcome_strict", "reason_strict"),
    *("stage", "family", "evidence", "cost_usd", "steps", "duration_seconds", "merge_status", "merge_strategy"),
)
_FROM_PROVENANCE = _columns(
    "v",
    ("model", "Model of the cell's run"),
    ("agent", "Agent framework of the cell's run"),
    ("mode", "solo, coop or team"),
    ("messaging", "Agents could send messages; NULL for solo"),
    ("harness_version", "Version of the harness, or a range where fingerprinted"),
    ("merge_policy", "union, agent1_alone, none (solo) or unknown"),
)


def _pair_columns(*, first: bool) -> tuple[ViewColumn, ...]:
    names = {column.name: column.description for column in PAIRS.columns}
    chosen = _FIRST if first else [name for name in names if name not in _FIRST]
    return tuple(
        ViewColumn("result_model" if name == "model" else name, f"p.{identifier(name)}", names[name]) for name in chosen
    )


OUTCOMES = View(
    "outcomes",
    "One row for every planned pair of every cell, with what made it: pairs joined with provenance.",
    (*_pair_columns(first=True), *_FROM_PROVENANCE, *_pair_columns(first=False)),
    "pairs p LEFT JOIN provenance v USING (experiment, setting, seed)",
    frozenset({"pairs", "provenance"}),
)

_CELL_SOURCE = """provenance v
LEFT JOIN (
    SELECT experiment, setting, seed,
        count(*) FILTER (has_result) AS results,
        count(*) FILTER (has_eval) AS evals,
        count(*) FILTER (has_eval AND NOT coalesce(stale, false)) AS evaluated,
        count(*) FILTER (outcome = 'pass') AS passed,
        count(*) FILTER (outcome = 'fail') AS failed,
        count(*) FILTER (outcome = 'infra_error') AS infra_error,
        count(*) FILTER (outcome = 'unevaluated') AS unevaluated,
        count(*) FILTER (outcome = 'missing') AS missing,
        count(*) FILTER (outcome_strict = 'pass') AS passed_strict,
        count(*) FILTER (outcome_strict = 'fail') AS failed_strict,
        count(*) FILTER (suspect) AS suspect,
        count(*) FILTER (hollow) AS hollow,
        count(*) FILTER (limits_exceeded) AS limits_exceeded,
        count(*) FILTER (accepted) AS accepted,
        sum(cost_usd) AS cost_usd,
        count(*) FILTER (has_result AND cost_usd IS NULL) AS cost_unknown
    FROM pairs GROUP BY experiment, setting, seed
) p USING (experiment, setting, seed)
LEFT JOIN (
    SELECT experiment, setting, seed, count(*) AS checks, count(*) FILTER (NOT passed) AS checks_failed
    FROM check_results WHERE setting IS NOT NULL GROUP BY experiment, setting, seed
) c USING (experiment, setting, seed)"""


def _count(name: str, description: str, expression: str | None = None) -> tuple[str, str, str]:
    return name, f"coalesce({expression or 'p.' + name}, 0)", description


def _rate(name: str, part: str, whole: str, description: str) -> tuple[str, str, str]:
    return name, f"{part} / nullif({whole}, 0)", description


CELLS = View(
    "cells",
    "One row a cell: how many pairs came to what, rates over three denominators, money, times and what made it.",
    _columns(
        "v",
        *_CELL,
        ("planned", "The experiment asks for this cell"),
        ("expected", "v.expected_pairs", "Pairs of the subset"),
        _count("results", "Pairs with a readable result.json"),
        _count("evals", "Pairs with a readable eval.json"),
        _count("pass", "Pairs that passed, by upstream's verdict", "p.passed"),
        _count("fail", "Pairs that failed, by upstream's verdict", "p.failed"),
        _count("infra_error", "Pairs that infrastructure failed"),
        _count("unevaluated", "Pairs with a result and no verdict"),
        _count("missing", "Pairs with nothing readable"),
        _count("pass_strict", "Pairs that passed by the strict verdict", "p.passed_strict"),
        _count("fail_strict", "Pairs that failed by the strict verdict", "p.failed_strict"),
        _rate("pass_rate_planned", "p.passed", "v.expected_pairs", "pass / expected"),
        _rate("pass_rate_evaluated", "p.passed", "p.evaluated", "pass / pairs with an eval.json that is not stale"),
        _rate("pass_rate_clean", "p.passed", "(p.passed + p.failed)", "pass / (pass + fail)"),
        _rate("strict_rate_planned", "p.passed_strict", "v.expected_pairs", "pass_strict / expected"),
        _rate(
            "strict_rate_evaluated",
            "p.passed_strict",
            "p.evaluated",
            "pass_strict / pairs with an eval.json that is not stale",
        ),
        _rate(
            "strict_rate_clean",
            "p.passed_strict",
            "(p.passed_strict + p.failed_strict)",
            "pass_strict / (pass_strict + fail_strict)",
        ),
        ("cost_usd", "p.cost_usd", "Sum of the known costs of the results of record, USD; NULL if none is known"),
        _count("cost_unknown", "Results whose cost is not known"),
        ("started_at", "Earliest start of an agent, UTC"),
        ("ended_at", "Latest end of an agent or an evaluation, UTC"),
        ("truncated", "A budget stopped the cell before all pairs were bought"),
        _count("checks", "Check results of this cell", "c.checks"),
        _count("checks_failed", "Check results of this cell that did not pass", "c.checks_failed"),
        _count("suspect", "Pairs that look graded but should not be trusted"),
        _count("hollow", "Pairs whose clean merge has an empty diff"),
        _count("limits_exceeded", "Pairs with an agent that ended at its limit"),
        _count("accepted", "Pairs whose infrastructure failure a person has accepted"),
        ("mode", "solo, coop or team"),
        ("messaging", "Agents could send messages; NULL for solo"),
        ("model", "Model of the run"),
        ("agent", "Agent framework of the run"),
        ("agent_config_sha256", "Hash of the effective agent config"),
        ("harness_version", "Version of the harness, or a range where fingerprinted"),
        ("merge_policy", "union, agent1_alone, none (solo) or unknown"),
        ("subset", "Name of the subset"),
        ("execution", "docker, process, modal, gcp or none"),
        ("origin", "executed, imported or adopted"),
        ("run_name", "Upstream's name of the run"),
        ("path", "Folder of the run, relative to the log root"),
        ("read_at", "When the tree was last read to a different content, UTC"),
    ),
    _CELL_SOURCE,
    frozenset({"provenance", "pairs", "check_results"}),
)

_COST_SOURCE = """provenance v
LEFT JOIN (
    SELECT p.experiment, p.setting, p.seed,
        sum(p.cost_usd) AS record,
        sum(CASE WHEN t.tries IS NULL THEN p.cost_usd ELSE t.cost END) AS every,
        sum(CASE WHEN t.tries IS NULL THEN CASE WHEN p.outcome = 'infra_error' AND p.stage = 'agent'
            THEN p.cost_usd END ELSE t.lost END) AS lost,
        count(*) FILTER (p.outcome = 'pass') AS passed,
        count(*) FILTER (p.has_result AND p.cost_usd IS NULL) AS unknown,
        sum(CASE WHEN t.tries IS NULL THEN 0 ELSE t.unknown END)::BIGINT AS tries_unknown,
        sum(t.estimated)::BIGINT AS estimated,
        sum(p.input_tokens)::BIGINT AS input_tokens,
        sum(p.output_tokens)::BIGINT AS output_tokens,
        sum(p.cache_read_tokens)::BIGINT AS cache_read_tokens,
        sum(p.cache_write_tokens)::BIGINT AS cache_write_tokens,
        count(*) FILTER (p.has_result AND (
            p.input_tokens IS NULL OR p.output_tokens IS NULL OR coalesce(p.agents_with_tokens < p.agents, false)
        )) AS tokens_unknown,
        sum(p.steps)::BIGINT AS steps,
        sum(p.duration_seconds) / 3600 AS hours
    FROM pairs p
    LEFT JOIN (
        SELECT experiment, setting, seed, pair,
            count(*) AS tries,
            sum(cost_usd) AS cost,
            sum(cost_usd) FILTER (outcome IN ('infra_error', 'interrupted')) AS lost,
            count(*) FILTER (cost_usd IS NULL) AS unknown,
            count(*) FILTER (cost_estimated) AS estimated
        FROM attempts WHERE stage = 'agent' GROUP BY experiment, setting, seed, pair
    ) t USING (experiment, setting, seed, pair)
    GROUP BY p.experiment, p.setting, p.seed
) c USING (experiment, setting, seed)"""

COSTS = View(
    "costs",
    "One row a cell: money and tokens. Sums are over what is known; the columns *_unknown count what is not.",
    _columns(
        "v",
        *_CELL,
        ("cost_usd", "c.record", "Cost of record: of the results that the outcomes come from, USD"),
        (
            "cost_all_usd",
            "c.every",
            "Cost of all agent tries, USD; of a pair without recorded tries, that of its result",
        ),
        (
            "cost_lost_usd",
            "c.lost",
            "Part of cost_all_usd that bought nothing: tries that infrastructure or an interruption ended",
        ),
        _rate("cost_per_pass_usd", "c.every", "c.passed", "cost_all_usd / pairs that passed; NULL without a pass"),
        _count("cost_unknown", "Results whose cost is not known", "c.unknown"),
        _count("tries_cost_unknown", "Recorded agent tries whose cost is not known", "c.tries_unknown"),
        _count("tries_cost_estimated", "Recorded agent tries whose cost is an estimate", "c.estimated"),
        ("input_tokens", "c.input_tokens", "Prompt tokens of the results of record"),
        ("output_tokens", "c.output_tokens", "Completion tokens of the results of record"),
        ("cache_read_tokens", "c.cache_read_tokens", "Prompt tokens read from a cache"),
        ("cache_write_tokens", "c.cache_write_tokens", "Prompt tokens written to a cache"),
        _count("tokens_unknown", "Results whose tokens are not known, or not those of every agent", "c.tokens_unknown"),
        ("steps", "c.steps", "Model calls of the results of record"),
        ("agent_hours", "c.hours", "Wall time of the agents of record, hours"),
    ),
    _COST_SOURCE,
    frozenset({"provenance", "pairs", "attempts"}),
)

VIEWS = (OUTCOMES, CELLS, COSTS)
"""All views, in the order in which they are made."""
