"""``results_manifest`` and ``cost_report``: what was run, what it cost, and what the money came to.

What belongs here: counts, sums and means of agents, steps, tokens, time and money. What does not: outcomes
(``summary``). What is not known is counted as unknown, and never as 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from cooperbench_assets.analysis.frames import (
    CELL,
    LEVEL,
    VERDICTS,
    Frames,
    cells_of,
    conform,
    is_clean,
    level_order,
    outcome_column,
    pairs_of,
    result_table,
    settings_of,
    table_of,
    tally,
)
from cooperbench_assets.analysis.intervals import ratio_intervals
from cooperbench_assets.benchmark.records import TOKENS
from cooperbench_assets.store import schema

if TYPE_CHECKING:
    from collections.abc import Callable

_LEVELS = {"cell": [*CELL, "place"], "setting": ["experiment", "setting", "place"], "experiment": ["experiment"]}
_DONE = pl.col("has_result").fill_null(False)

RESULTS_MANIFEST = result_table(
    "results_manifest",
    "What was run, planned or not: pairs, agents, how they ended, patches, cost, steps, messages.",
    *LEVEL,
    ("pairs", pl.Int64, "Pairs with a readable result"),
    ("planned", pl.Int64, "Pairs planned"),
    ("agents", pl.Int64, "Agents of those results"),
    ("submitted", pl.Int64, "Agents that ended as Submitted"),
    ("limits", pl.Int64, "Agents that ended as LimitsExceeded"),
    ("errors", pl.Int64, "Agents that ended as Error"),
    ("other", pl.Int64, "Agents with another status or none"),
    ("patches", pl.Int64, "Agents whose patch is not empty"),
    ("patches_unknown", pl.Int64, "Pairs whose patches are not known"),
    ("pairs_all_patches", pl.Int64, "Pairs in which no agent's patch is empty"),
    ("cost_usd", pl.Float64, "Known cost in all, USD; NULL where none is known"),
    ("cost_unknown", pl.Int64, "Pairs whose cost is not known"),
    ("cost_per_pair_usd", pl.Float64, "Mean over the clean pairs whose cost is known"),
    ("steps", pl.Int64, "Known steps in all; NULL where none is known"),
    ("steps_unknown", pl.Int64, "Pairs whose steps are not known"),
    ("steps_per_pair", pl.Float64, "Mean over the clean pairs whose steps are known"),
    ("minutes_per_pair", pl.Float64, "Mean of agents' time over the clean pairs whose time is known"),
    ("left_out", pl.Int64, "Pairs with a result and without a clean verdict: in no mean but the two that name them"),
    ("left_out_usd_per_pair", pl.Float64, "Mean over those of these pairs whose cost is known"),
    ("left_out_steps_per_pair", pl.Float64, "Mean over those of these pairs whose steps are known"),
    ("wall_minutes", pl.Float64, "From the first start to the last end of agents, summed over cells"),
    ("longest_pair_minutes", pl.Float64, "Agents' time of the longest pair"),
    ("messages", pl.Int64, "Messages sent; NULL where no pair has agents that could send any"),
)

COST_REPORT = result_table(
    "cost_report",
    "Money, tokens and time of every cell, planned or not, because its money is spent, and what they came to.",
    *LEVEL,
    ("pairs", pl.Int64, "Pairs with a readable result or a recorded try"),
    ("spent_usd", pl.Float64, "Known cost of every try, and of results without recorded tries; NULL: none known"),
    ("spent_estimated_usd", pl.Float64, "The part of it that is an estimate"),
    ("spent_unknown", pl.Int64, "Tries, and results without recorded tries, whose cost is not known"),
    ("cost_usd", pl.Float64, "Known cost of the results of record"),
    ("cost_unknown", pl.Int64, "Results whose cost is not known"),
    *((name, pl.Int64, f"Known {name.replace('_', ' ')} of the results of record") for name in TOKENS),
    ("tokens_unknown", pl.Int64, "Results whose tokens are not known, or not those of every agent"),
    ("hours", pl.Float64, "Agents' time of the results of record, summed"),
    ("hours_unknown", pl.Int64, "Results whose time is not known"),
    ("passes_strict", pl.Int64, "Passes by the strict verdict"),
    ("passes_upstream", pl.Int64, "Passes by upstream's verdict"),
    ("usd_per_pair", pl.Float64, "spent_usd over pairs, a pair counted in each of its seeds; NULL with unknown cost"),
    ("usd_per_pass_strict", pl.Float64, "spent_usd over passes_strict; NULL without a pass or with unknown cost"),
    ("usd_per_pass_strict_low", pl.Float64, "Lower end of its 95 % interval (Fieller, by task)"),
    ("usd_per_pass_strict_high", pl.Float64, "Upper end; NULL where passes cannot be told from 0"),
    ("usd_per_pass_upstream", pl.Float64, "spent_usd over passes_upstream, likewise"),
    ("usd_per_pass_upstream_low", pl.Float64, "Lower end of its interval"),
    ("usd_per_pass_upstream_high", pl.Float64, "Upper end of it"),
    ("hours_per_pass_strict", pl.Float64, "hours over passes_strict; NULL without a pass or with unknown time"),
    ("hours_per_pass_upstream", pl.Float64, "hours over passes_upstream, likewise"),
    ("lost_usd", pl.Float64, "Known cost of tries and results that infrastructure brought to nothing"),
    ("lost", pl.Int64, "Those tries and results"),
    ("lost_unknown", pl.Int64, "Those whose cost is not known"),
    ("unjudged_usd", pl.Float64, "Known cost of results of record that have no verdict yet"),
    ("unjudged", pl.Int64, "Those results"),
)


def results_manifest(frames: Frames) -> dict[str, pl.DataFrame]:
    """What was run: pairs, agents, statuses, patches, cost, steps, messages."""
    status = pl.col("status")
    ends = table_of(frames, schema.AGENTS).group_by(*CELL, "pair").agg(
        submitted=tally(status == "Submitted"),
        limits=tally(status == "LimitsExceeded"),
        errors=tally(status == "Error"),
    )  # fmt: skip
    pairs = _placed(pairs_of(frames), frames).join(ends, on=[*CELL, "pair"], how="left")
    wall = (pl.col("ended_at").max() - pl.col("started_at").min()).over(CELL).dt.total_seconds() / 60
    # Once in each cell, so that it adds up over cells.
    pairs = pairs.with_columns(wall=pl.when(pl.int_range(pl.len()).over(CELL) == 0).then(wall))
    rows = _at_levels(lambda by: pairs.group_by(by).agg(**_counts(), **_amounts()))
    return {RESULTS_MANIFEST.name: conform(RESULTS_MANIFEST, rows)}


def _placed(rows: pl.DataFrame, frames: Frames) -> pl.DataFrame:
    """Rows with the ``place`` of their setting."""
    places = settings_of(cells_of(frames)).select("experiment", "setting", "place")
    return rows.join(places, on=["experiment", "setting"])


def _at_levels(make: Callable[[list[str]], pl.DataFrame]) -> pl.DataFrame:
    """What `make` gives by the columns of each level, in the order of a report."""
    parts = [make(by).with_columns(level=pl.lit(level)) for level, by in _LEVELS.items()]
    return pl.concat(parts, how="diagonal").sort("experiment", level_order(), "place", "seed", nulls_last=True)


def _counts() -> dict[str, pl.Expr]:
    """Pairs and agents of the manifest."""
    ended = pl.sum_horizontal("submitted", "limits", "errors")
    return {
        "pairs": tally(_DONE),
        "planned": pl.len().cast(pl.Int64),
        "agents": _of_done("agents").sum().cast(pl.Int64),
        **{name: pl.col(name).sum() for name in ("submitted", "limits", "errors")},
        "other": (pl.col("agents").fill_null(0) - ended).filter(_DONE).sum().clip(0).cast(pl.Int64),
        "patches": _of_done("patches").sum().cast(pl.Int64),
        "patches_unknown": _unknown("patches"),
        "pairs_all_patches": tally((pl.col("patches") >= pl.col("agents")) & _DONE),
        "cost_unknown": _unknown("cost_usd"),
        "steps_unknown": _unknown("steps"),
        "left_out": tally(_DONE & ~is_clean()),
    }


def _amounts() -> dict[str, pl.Expr]:
    """Totals and means of the manifest: means over clean pairs, the others' beside them."""
    clean, others = _DONE & is_clean(), _DONE & ~is_clean()
    return {
        "cost_usd": _sum_of(_of_done("cost_usd")),
        "cost_per_pair_usd": pl.col("cost_usd").filter(clean).mean(),
        "steps": _sum_of(_of_done("steps")),
        "steps_per_pair": pl.col("steps").filter(clean).mean(),
        "minutes_per_pair": pl.col("duration_seconds").filter(clean).mean() / 60,
        "left_out_usd_per_pair": pl.col("cost_usd").filter(others).mean(),
        "left_out_steps_per_pair": pl.col("steps").filter(others).mean(),
        "wall_minutes": _sum_of(pl.col("wall")),
        "longest_pair_minutes": pl.col("duration_seconds").max() / 60,
        "messages": _sum_of(pl.col("messages_sent")),
    }


def _of_done(name: str) -> pl.Expr:
    return pl.col(name).filter(_DONE)


def _unknown(name: str) -> pl.Expr:
    return _of_done(name).null_count().cast(pl.Int64)


def _sum_of(values: pl.Expr) -> pl.Expr:
    """The sum of what is known; NULL where nothing is."""
    return pl.when(values.count() > 0).then(values.sum())


def _part_of(values: pl.Expr, chosen: pl.Expr) -> pl.Expr:
    """The known sum over the chosen rows: 0 where none is chosen, NULL where none of them is known."""
    return pl.when(chosen.sum() == 0).then(0.0).otherwise(_sum_of(values.filter(chosen)))


def cost_report(frames: Frames) -> dict[str, pl.DataFrame]:
    """Money, tokens and time, per pass and wasted on failed tries."""
    pairs = _placed(pairs_of(frames), frames)
    tries = _placed(_tries(pairs, table_of(frames, schema.ATTEMPTS)), frames)
    tasks = _by_task(pairs, tries)
    rows = _at_levels(lambda by: _costs(pairs, tries, tasks, by))
    return {COST_REPORT.name: conform(COST_REPORT, rows)}


def _costs(pairs: pl.DataFrame, tries: pl.DataFrame, tasks: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """The rows of one level."""
    rows = pairs.group_by(by).agg(**_of_record())
    rows = rows.join(tries.group_by(by).agg(**_spending()), on=by, how="left")
    rows = rows.with_columns(pl.col("pairs", "spent_unknown", "lost", "lost_unknown").fill_null(0))
    rows = rows.with_columns(**_ratios())
    for verdict in VERDICTS:
        rows = _with_ends(rows, tasks, by, verdict)
    return rows


def _of_record() -> dict[str, pl.Expr]:
    """Passes, and what the results of record took."""
    by_agent = (pl.col("outcome") == "infra_error") & (pl.col("stage") == "agent")
    unjudged = (_DONE & ~is_clean() & ~by_agent).fill_null(False)
    of_some = (pl.col("agents_with_tokens") < pl.col("agents")).fill_null(False)
    return {
        **{f"passes_{verdict}": tally(pl.col(outcome_column(verdict)) == "pass") for verdict in VERDICTS},
        "cost_usd": _sum_of(_of_done("cost_usd")),
        "cost_unknown": _unknown("cost_usd"),
        **{name: _sum_of(_of_done(name)) for name in TOKENS},
        "tokens_unknown": tally(_DONE & pl.any_horizontal(of_some, *(pl.col(name).is_null() for name in TOKENS[:2]))),
        "hours": _sum_of(_of_done("duration_seconds")) / 3600,
        "hours_unknown": _unknown("duration_seconds"),
        "unjudged_usd": _part_of(pl.col("cost_usd"), unjudged),
        "unjudged": tally(unjudged),
    }


def _tries(pairs: pl.DataFrame, attempts: pl.DataFrame) -> pl.DataFrame:
    """What every try cost. A pair without a recorded agent try is one try, its result's.

    A try is wasted where infrastructure ended it or it was interrupted; a result without recorded
    tries where its outcome is infra_error of the agent stage.
    """
    came_to_nothing = pl.col("outcome").is_in(["infra_error", "interrupted"])
    tries = attempts.select(
        *CELL, "pair", "cost_usd", estimated=pl.col("cost_estimated").fill_null(False), lost=came_to_nothing,
        costs=(pl.col("stage") == "agent") | pl.col("cost_usd").is_not_null(),
    ).filter("costs").drop("costs")  # fmt: skip
    recorded = attempts.filter(pl.col("stage") == "agent").select(*CELL, "pair").unique()
    lost = (pl.col("outcome") == "infra_error") & (pl.col("stage") == "agent")
    others = pairs.filter(_DONE).join(recorded, on=[*CELL, "pair"], how="anti")
    others = others.select(*CELL, "pair", "cost_usd", estimated=pl.lit(False), lost=lost.fill_null(False))
    return pl.concat([tries, others])


def _spending() -> dict[str, pl.Expr]:
    """What tries cost."""
    cost = pl.col("cost_usd")
    return {
        "pairs": pl.struct(*CELL, "pair").n_unique().cast(pl.Int64),
        "spent_usd": _sum_of(cost),
        "spent_estimated_usd": cost.filter("estimated").sum(),
        "spent_unknown": cost.null_count().cast(pl.Int64),
        "lost_usd": _part_of(cost, pl.col("lost")),
        "lost": tally(pl.col("lost")),
        "lost_unknown": cost.filter("lost").null_count().cast(pl.Int64),
    }


def _by_task(pairs: pl.DataFrame, tries: pl.DataFrame) -> pl.DataFrame:
    """Per cell and task: pairs that were tried, what they cost, and how many passed by either verdict."""
    spent = tries.group_by(*CELL, "pair").agg(usd=pl.col("cost_usd").sum())
    return pairs.join(spent, on=[*CELL, "pair"]).group_by(*CELL, "place", "task").agg(
        pl.col("usd").sum(),
        n=pl.len().cast(pl.Float64),
        **{verdict: (pl.col(outcome_column(verdict)) == "pass").sum().cast(pl.Float64) for verdict in VERDICTS},
    )  # fmt: skip


def _with_ends(rows: pl.DataFrame, tasks: pl.DataFrame, by: list[str], verdict: str) -> pl.DataFrame:
    """`rows` with the interval of money per pass, where that is known: that of passes for money, turned round."""
    name = f"usd_per_pass_{verdict}"
    ends = rows.join(ratio_intervals(tasks, by, above=verdict, below="usd"), on=by, how="left")
    turned = {
        f"{name}_{end}": pl.when((pl.col(name) > 0) & (pl.col(other) > 0)).then(1 / pl.col(other))
        for end, other in (("low", "high"), ("high", "low"))
    }
    return ends.with_columns(**turned).drop("low", "high")


def _ratios() -> dict[str, pl.Expr]:
    """Money for each pair, money and time for each pass; NULL where some of it is not known."""
    usd = pl.when(pl.col("spent_unknown") == 0).then("spent_usd")
    hours = pl.when(pl.col("hours_unknown") == 0).then("hours")
    rates = {"usd_per_pair": usd / pl.col("pairs")}
    for verdict in VERDICTS:
        passed = pl.when(pl.col(f"passes_{verdict}") > 0).then(f"passes_{verdict}")
        rates |= {f"usd_per_pass_{verdict}": usd / passed, f"hours_per_pass_{verdict}": hours / passed}
    return rates
