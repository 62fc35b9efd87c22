"""``results_manifest`` and ``cost_report``: what was run, what it cost, and what the money came to.

What belongs here: counts, sums and means of agents, steps, tokens, time and money. What does not: outcomes
(``summary``). What is not known is counted as unknown, and never as 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from cooperbench_assets.analysis.frames import (
    CELL,
    EXPERIMENT,
    cells_of,
    columns,
    conform,
    is_clean,
    level_order,
    pairs_of,
    result_table,
    settings_of,
    table_of,
    tally,
)
from cooperbench_assets.benchmark.records import TOKENS
from cooperbench_assets.store import schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cooperbench_assets.analysis.frames import Frames

_LEVEL = columns(
    ("level", pl.String, "cell, setting or experiment; every cell counts, planned or not: its money is spent"),
    ("setting", pl.String, "Setting; NULL for the experiment"),
    ("seed", pl.Int32, "Seed; NULL over seeds"),
)
_COUNTED = (
    "pairs",
    "spent_unknown",
    "cost_unknown",
    "tokens_unknown",
    "hours_unknown",
    "lost",
    "lost_unknown",
    "unjudged",
)

_LEFT_OUT = {"left_out": "Pairs with a result and without a clean verdict: in no mean but the two that name them"}

RESULTS_MANIFEST = result_table(
    "results_manifest",
    "What was run, per cell, setting and experiment: pairs, agents, how they ended, patches, cost, steps, messages.",
    EXPERIMENT,
    _LEVEL,
    columns(
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
        *((name, pl.Int64, text) for name, text in _LEFT_OUT.items()),
        ("left_out_usd_per_pair", pl.Float64, "Mean over those of these pairs whose cost is known"),
        ("left_out_steps_per_pair", pl.Float64, "Mean over those of these pairs whose steps are known"),
        ("wall_minutes", pl.Float64, "From the first start to the last end of agents, summed over cells"),
        ("longest_pair_minutes", pl.Float64, "Agents' time of the longest pair"),
        ("messages", pl.Int64, "Messages sent; NULL where no pair has agents that could send any"),
    ),
)

COST_REPORT = result_table(
    "cost_report",
    "Money, tokens and time per cell, setting and experiment, and what they came to.",
    EXPERIMENT,
    _LEVEL,
    columns(
        ("pairs", pl.Int64, "Pairs with a readable result or a recorded try"),
        ("spent_usd", pl.Float64, "Known cost of every try, and of results without recorded tries; NULL: none known"),
        ("spent_estimated_usd", pl.Float64, "The part of it that is an estimate"),
        ("spent_unknown", pl.Int64, "Tries, and results without recorded tries, whose cost is not known"),
        ("cost_usd", pl.Float64, "Known cost of the results of record"),
        ("cost_unknown", pl.Int64, "Results whose cost is not known"),
        ("cost_mean_usd", pl.Float64, "Mean over the results with a clean verdict whose cost is known"),
        ("cost_median_usd", pl.Float64, "Median over them"),
        ("cost_mean_left_out_usd", pl.Float64, "Mean over the other results whose cost is known"),
        *((name, pl.Int64, f"Known {name.replace('_', ' ')} of the results of record") for name in TOKENS),
        ("tokens_unknown", pl.Int64, "Results whose tokens are not known, or not those of every agent"),
        ("hours", pl.Float64, "Agents' time of the results of record, summed"),
        ("hours_unknown", pl.Int64, "Results whose time is not known"),
        ("passes_strict", pl.Int64, "Passes by the strict verdict"),
        ("passes_upstream", pl.Int64, "Passes by upstream's verdict"),
        ("usd_per_pass_strict", pl.Float64, "spent_usd over passes_strict; NULL without a pass or with unknown cost"),
        ("usd_per_pass_upstream", pl.Float64, "spent_usd over passes_upstream, likewise"),
        ("hours_per_pass_strict", pl.Float64, "hours over passes_strict; NULL without a pass or with unknown time"),
        ("hours_per_pass_upstream", pl.Float64, "hours over passes_upstream, likewise"),
        ("lost_usd", pl.Float64, "Known cost of tries and results that infrastructure brought to nothing"),
        ("lost", pl.Int64, "Those tries and results"),
        ("lost_unknown", pl.Int64, "Those whose cost is not known"),
        ("unjudged_usd", pl.Float64, "Known cost of results of record that have no verdict yet"),
        ("unjudged", pl.Int64, "Those results"),
    ),
)


def results_manifest(frames: Frames) -> dict[str, pl.DataFrame]:
    """Counts and totals of what was run, at three levels."""
    agents = table_of(frames, schema.AGENTS)
    status = pl.col("status")
    ends = agents.group_by(*CELL, "pair").agg(
        submitted=tally(status == "Submitted"),
        limits=tally(status == "LimitsExceeded"),
        errors=tally(status == "Error"),
    )
    pairs = pairs_of(frames).join(ends, on=[*CELL, "pair"], how="left")
    cells = pairs.group_by(CELL).agg(_manifest_sums())
    return {RESULTS_MANIFEST.name: _levels(RESULTS_MANIFEST, cells, frames, _manifest_rates())}


def _known(name: str) -> pl.Expr:
    """The sum of what is known; NULL where nothing is."""
    return _sum_of(pl.col(name))


def _manifest_sums() -> list[pl.Expr]:
    done = pl.col("has_result").fill_null(False)
    of_done = {name: pl.col(name).filter(done) for name in ("cost_usd", "steps", "agents", "patches")}
    ends = [pl.col(name).sum().alias(name) for name in ("submitted", "limits", "errors")]
    counted = pl.sum_horizontal("submitted", "limits", "errors")
    wall = (pl.col("ended_at").max() - pl.col("started_at").min()).dt.total_seconds() / 60
    return [
        tally(done).alias("pairs"),
        pl.len().cast(pl.Int64).alias("planned"),
        of_done["agents"].sum().cast(pl.Int64).alias("agents"),
        *ends,
        (pl.col("agents").fill_null(0) - counted).filter(done).sum().clip(0).cast(pl.Int64).alias("other"),
        of_done["patches"].sum().cast(pl.Int64).alias("patches"),
        of_done["patches"].null_count().cast(pl.Int64).alias("patches_unknown"),
        (pl.col("patches") >= pl.col("agents")).filter(done).sum().cast(pl.Int64).alias("pairs_all_patches"),
        _sum_of(of_done["cost_usd"]).alias("cost_usd"),
        of_done["cost_usd"].null_count().cast(pl.Int64).alias("cost_unknown"),
        _sum_of(of_done["steps"]).alias("steps"),
        of_done["steps"].null_count().cast(pl.Int64).alias("steps_unknown"),
        wall.alias("wall_minutes"),
        (pl.col("duration_seconds").max() / 60).alias("longest_pair_minutes"),
        _known("messages_sent").alias("messages"),
        tally(done & ~is_clean()).alias("left_out"),
        *(total.alias(f"_{name}_{part}") for name, part, total in _mean_parts(done)),
    ]


def _mean_parts(done: pl.Expr) -> Iterator[tuple[str, str, pl.Expr]]:
    """Sum and number of what is known of each mean, over the clean pairs and over the others with a result."""
    for name, chosen in {"clean": done & is_clean(), "left_out": done & ~is_clean()}.items():
        for column in ("cost_usd", "steps", "duration_seconds"):
            yield f"{column}_{name}", "sum", pl.col(column).filter(chosen).sum()
            yield f"{column}_{name}", "n", pl.col(column).filter(chosen).count()


def _mean(name: str, scale: float = 1.0) -> pl.Expr:
    return pl.when(pl.col(f"_{name}_n") > 0).then(pl.col(f"_{name}_sum") / pl.col(f"_{name}_n") / scale)


def _sum_of(values: pl.Expr) -> pl.Expr:
    return pl.when(values.count() > 0).then(values.sum())


def _part_of(values: pl.Expr, chosen: pl.Expr) -> pl.Expr:
    """The known sum over the chosen rows: 0 where none is chosen, NULL where none of them is known."""
    return pl.when(chosen.sum() == 0).then(0.0).otherwise(_sum_of(values.filter(chosen)))


def _manifest_rates() -> list[pl.Expr]:
    return [
        _mean("cost_usd_clean").alias("cost_per_pair_usd"),
        _mean("steps_clean").alias("steps_per_pair"),
        _mean("duration_seconds_clean", 60).alias("minutes_per_pair"),
        _mean("cost_usd_left_out").alias("left_out_usd_per_pair"),
        _mean("steps_left_out").alias("left_out_steps_per_pair"),
    ]


def _levels(
    table: schema.Table,
    cells: pl.DataFrame,
    frames: Frames,
    rates: Sequence[pl.Expr],
    pairs: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Sums of cells per setting and experiment beside the cells, with `rates` worked out at each level.

    Args:
        table: The result table.
        cells: One row for every cell, of columns that can be added up; ``longest_…`` ones take the largest.
        frames: The input, for the order of settings.
        rates: Columns made of the sums.
        pairs: Rows with ``cost_usd`` whose mean and median are added, where the table has them.
    """
    places = settings_of(cells_of(frames)).select("experiment", "setting", "place")
    cells = cells.join(places, on=["experiment", "setting"])
    names = [name for name in cells.columns if name not in (*CELL, "place")]
    sums = [pl.col(name).max() if name.startswith("longest") else _known(name) for name in names]
    levels = {"cell": [*CELL, "place"], "setting": ["experiment", "setting", "place"], "experiment": ["experiment"]}
    parts = []
    for level, by in levels.items():
        part = cells.group_by(by).agg(*(total.alias(name) for total, name in zip(sums, names, strict=True)))
        if pairs is not None:
            on = [name for name in by if name != "place"]
            spread = pairs.group_by(on).agg(
                cost_mean_usd=pl.col("cost_usd").filter(is_clean()).mean(),
                cost_median_usd=pl.col("cost_usd").filter(is_clean()).median(),
                cost_mean_left_out_usd=pl.col("cost_usd").filter(~is_clean()).mean(),
            )
            part = part.join(spread, on=on, how="left")
        parts.append(part.with_columns(*rates, level=pl.lit(level)))
    rows = pl.concat(parts, how="diagonal")
    return conform(table, rows.sort("experiment", level_order(), "place", "seed", nulls_last=True))


def cost_report(frames: Frames) -> dict[str, pl.DataFrame]:
    """Money, tokens and time at three levels, with what wasted on failed tries."""
    pairs = pairs_of(frames)
    spending = _spending(pairs, table_of(frames, schema.ATTEMPTS))
    done = pairs.filter(pl.col("has_result").fill_null(False))
    no_verdict = ~pl.col("outcome").is_in(["pass", "fail"])
    unjudged = no_verdict & ~((pl.col("outcome") == "infra_error") & (pl.col("stage") == "agent"))
    of_record = done.group_by(CELL).agg(
        _known("cost_usd").alias("cost_usd"),
        pl.col("cost_usd").null_count().cast(pl.Int64).alias("cost_unknown"),
        *(_known(name).alias(name) for name in TOKENS),
        tally(_some_tokens_unknown()).alias("tokens_unknown"),
        (_known("duration_seconds") / 3600).alias("hours"),
        pl.col("duration_seconds").null_count().cast(pl.Int64).alias("hours_unknown"),
        _part_of(pl.col("cost_usd"), unjudged).alias("unjudged_usd"),
        tally(unjudged).alias("unjudged"),
    )
    passes = pairs.group_by(CELL).agg(
        passes_strict=tally(pl.col("outcome_strict") == "pass"),
        passes_upstream=tally(pl.col("outcome") == "pass"),
    )
    cells = passes.join(spending, on=CELL, how="left").join(of_record, on=CELL, how="left")
    counts = [name for name in cells.columns if name in _COUNTED]
    cells = cells.with_columns(pl.col(counts).fill_null(0))
    return {COST_REPORT.name: _levels(COST_REPORT, cells, frames, _per_pass(), done)}


def _some_tokens_unknown() -> pl.Expr:
    """Whether the tokens of a result are not known, or not those of every agent."""
    of_some = pl.col("agents_with_tokens") < pl.col("agents")
    return pl.any_horizontal(*(pl.col(name).is_null() for name in TOKENS[:2]), of_some.fill_null(False))


def _spending(pairs: pl.DataFrame, attempts: pl.DataFrame) -> pl.DataFrame:
    """Per cell, what every try cost. A pair without a recorded agent try is one try, its result's.

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
    others = pairs.filter(pl.col("has_result").fill_null(False)).join(recorded, on=[*CELL, "pair"], how="anti")
    others = others.select(*CELL, "pair", "cost_usd", estimated=pl.lit(False), lost=lost.fill_null(False))
    spent = pl.concat([tries, others])
    cost = pl.col("cost_usd")
    return spent.group_by(CELL).agg(
        pairs=pl.col("pair").n_unique().cast(pl.Int64),
        spent_usd=_known("cost_usd"),
        spent_estimated_usd=cost.filter("estimated").sum(),
        spent_unknown=cost.null_count().cast(pl.Int64),
        lost_usd=_part_of(cost, pl.col("lost")),
        lost=tally(pl.col("lost")),
        lost_unknown=cost.filter("lost").null_count().cast(pl.Int64),
    )


def _per_pass() -> list[pl.Expr]:
    rates = []
    for verdict in ("strict", "upstream"):
        passes = pl.col(f"passes_{verdict}")
        usd = pl.when((passes > 0) & (pl.col("spent_unknown") == 0)).then(pl.col("spent_usd") / passes)
        hours = pl.when((passes > 0) & (pl.col("hours_unknown") == 0)).then(pl.col("hours") / passes)
        rates += [usd.alias(f"usd_per_pass_{verdict}"), hours.alias(f"hours_per_pass_{verdict}")]
    return rates


def manifest_json(manifest: pl.DataFrame) -> dict[str, dict[str, object]]:
    """``results_manifest`` as JSON: experiment → ``all``, ``settings`` and ``cells``; unknown is null."""
    found: dict[str, dict[str, object]] = {}
    for row in manifest.iter_rows(named=True):
        kept = {name: value for name, value in row.items() if name not in ("experiment", "level")}
        parts = found.setdefault(row["experiment"], {"all": None, "settings": [], "cells": []})
        if row["level"] == "experiment":
            parts["all"] = {name: value for name, value in kept.items() if name not in ("setting", "seed")}
        else:
            rows = parts["settings" if row["level"] == "setting" else "cells"]
            assert isinstance(rows, list)
            rows.append({name: value for name, value in kept.items() if row["level"] == "cell" or name != "seed"})
    return found
