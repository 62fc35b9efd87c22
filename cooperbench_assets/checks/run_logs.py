"""What must hold of one cell's agent runs."""

from __future__ import annotations

import polars as pl

from cooperbench_assets.checks.finding import CellView, Check, Finding, found, pairs_named
from cooperbench_assets.wording import count

WRONG_PLACE = ("extra", "duplicate", "misplaced", "unknown_setting")
"""Kinds of quarantine that mean: this is not the tree of the planned cell."""


def expected_results(view: CellView) -> Finding:
    """Every planned pair has a readable result."""
    missing = view.pairs.filter(~pl.col("has_result"))
    expected = view.pairs.height
    return found(
        pairs_named(missing),
        good=f"{expected} of {expected} results",
        bad=lambda n: _missing(view, missing, n),
        remedy=view.again,
        numbers={"results": expected - missing.height, "expected": expected},
    )


def _missing(view: CellView, missing: pl.DataFrame, n: int) -> str:
    """How many results there are of those that were asked for: a smoke run of three asks for no other."""
    unasked = len(view.unasked)
    there, asked = view.pairs.height - missing.height, view.pairs.height - unasked
    if not unasked:
        return f"{there} of {asked} results; {n} missing or unreadable"
    lacking = f"; {missing.height - unasked} missing or unreadable" if missing.height > unasked else ""
    return f"{there} of {asked} results that were asked for{lacking}; the other {unasked} planned pairs were not yet"


def only_planned_pairs(view: CellView) -> Finding:
    """No pair is extra, stands twice or lies where it does not belong."""
    wrong = view.frames["quarantine"].filter(pl.col("kind").is_in(WRONG_PLACE))
    return found(
        (f"{row['kind']}: {row['path']}: {row['message']}" for row in wrong.iter_rows(named=True)),
        good="no extra, duplicate or misplaced pair",
        bad=lambda n: (
            f"{count(n, 'pair')} extra, duplicate or misplaced; nothing of the cell goes further until that is fixed"
        ),
        remedy="move them out of the run folder, or correct subset: or run_name: in defs.yaml",
    )


def no_agent_infra_error(view: CellView) -> Finding:
    """No agent was ended by infrastructure, but in accepted pairs."""
    infra_failed = view.pairs.filter((pl.col("outcome") == "infra_error") & (pl.col("stage") == "agent"))
    open_ones = infra_failed.filter(~pl.col("accepted"))
    return found(
        pairs_named(open_ones, "family"),
        good=f"no infrastructure failure at the agent stage ({infra_failed.height} accepted)",
        bad=lambda n: f"{count(n, 'pair')} lost to infrastructure errors (agents), whose verdicts do not count",
        remedy=view.again,
        numbers={"infra_error_agent": infra_failed.height, "retryable": open_ones.filter("retryable").height},
    )


def agents_as_set(view: CellView) -> Finding:
    """Each result lists the agents that its mode has: one for solo, one a feature otherwise."""
    expected = 1 if view.reading.mode == "solo" else 2
    wrong = view.pairs.filter(pl.col("has_result") & (pl.col("agents") != expected))
    return found(
        pairs_named(wrong, "agents"),
        good=f"{expected} agent{'s' if expected > 1 else ''} a pair",
        bad=lambda n: f"{count(n, 'pair')} without a list of {count(expected, 'agent')}",
        remedy="look at mode: of the setting in defs.yaml and at the files named",
    )


def messages_as_set(view: CellView) -> Finding:
    """Coop keeps a conversation; without messaging it is empty."""
    if view.reading.mode == "solo":
        return Finding(passed=True, description="one agent has nobody to write to")
    silent = [
        f"{pair.name}: no readable conversation.json"
        for pair, reading in sorted(view.reading.pairs.items())
        if reading.result is not None and reading.messages is None
    ]
    talking: list[str] = []
    if not view.spec.messaging:
        counts = view.frames["messages"].group_by("pair").len().sort("pair")
        talking = [f"{pair}: {count} messages without messaging" for pair, count in counts.iter_rows()]
    return found(
        [*silent, *talking],
        good=f"{view.frames['messages'].height} messages",
        bad=lambda n: f"{count(n, 'pair')} without a conversation, or with messages where there should be none",
        remedy="look at messaging: of the setting in defs.yaml, and at the files named",
        numbers={"messages": view.frames["messages"].height},
    )


def plausible_usage(view: CellView) -> Finding:
    """Times are in order; cost, steps and tokens are not negative."""
    pairs = view.pairs
    negative = pl.any_horizontal(pl.col("cost_usd", "steps", "input_tokens", "output_tokens", "duration_seconds") < 0)
    wrong = pairs.filter((pl.col("ended_at") < pl.col("started_at")) | negative)
    return found(
        pairs_named(wrong, "started_at", "ended_at", "cost_usd", "steps"),
        good="times in order, nothing negative",
        bad=lambda n: f"{count(n, 'pair')} with an end before the start, or a negative cost, step or token count",
        remedy="look at result.json of the pairs named; clocks of two machines may differ",
    )


def no_suspect_agent(view: CellView) -> Finding:
    """No agent said Submitted although its stream ended in an API error."""
    return found(
        pairs_named(view.pairs.filter("suspect")),
        good="no suspect result",
        bad=lambda n: f"{count(n, 'pair')} graded that should not be trusted: an agent's stream ended in an API error",
        remedy="read the streams of the pairs named before you quote a rate",
    )


RUN_LOGS_CHECKS: tuple[Check[CellView], ...] = (
    Check("expected_results", "Exactly the subset's pairs have a readable result", expected_results),
    Check("only_planned_pairs", "No extra, duplicate or misplaced pair", only_planned_pairs, blocking=True),
    Check("no_agent_infra_error", "No agent ended by infrastructure, but accepted ones", no_agent_infra_error),
    Check("agents_as_set", "One agent in solo, two otherwise", agents_as_set),
    Check("messages_as_set", "A conversation in coop; no message without messaging", messages_as_set),
    Check("plausible_usage", "Times in order; cost, steps and tokens not negative", plausible_usage),
    Check("no_suspect_agent", "No Submitted agent whose stream ended in an error", no_suspect_agent, warns=True),
)
