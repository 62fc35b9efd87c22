"""``setting_summary``: what became of every planned pair, per cell, setting and experiment, and rates with their n.

What belongs here: counts and rates of outcomes. What does not: comparisons between settings (``comparisons``).
"""

from __future__ import annotations

import polars as pl

from cooperbench_assets.analysis.comparability import refused_units, with_headline
from cooperbench_assets.analysis.frames import (
    CELL,
    HEADLINE,
    LEVEL,
    VERDICT,
    VERDICTS,
    Frames,
    cells_of,
    columns,
    conform,
    has_verdict,
    joined_reasons,
    level_order,
    outcome_column,
    pairs_of,
    reason_column,
    recorded_pass,
    result_table,
    settings_of,
)
from cooperbench_assets.analysis.intervals import CR2, WILSON, clustered_mean, wilson

REASONS = ("tests", "conflict", "not_applied", "empty_patch", "agent_error", "agent_timeout", "test_timeout")
"""Reasons of a fail; any other text counts as ``fail_other``."""

_LEVELS: dict[str, tuple[str, ...]] = {
    "cell": CELL,
    "setting": ("experiment", "setting"),
    "experiment": ("experiment",),
}
_RATES = {
    "planned": ("passes", "planned"),
    "evaluated": ("evaluated_passes", "evaluated"),
    "clean": ("passes", "clean"),
}

_COUNTS = columns(
    ("cells", pl.Int64, "Cells counted; an unplanned cell only has a row of its own"),
    ("seeds", pl.Int64, "Those of the cells that have a clean verdict"),
    ("tasks", pl.Int64, "Tasks of the pairs"),
    ("planned", pl.Int64, "Planned pairs: every row adds up to this"),
    ("passes", pl.Int64, "Outcome pass"),
    ("fails", pl.Int64, "Outcome fail"),
    *((f"fail_{reason}", pl.Int64, f"Fails whose reason is {reason}") for reason in REASONS),
    ("fail_other", pl.Int64, "Fails of another reason or none"),
    ("infra_error", pl.Int64, "Outcome infra_error"),
    ("infra_agent", pl.Int64, "infra_error of the agent stage"),
    ("infra_eval", pl.Int64, "infra_error of the eval stage"),
    ("unevaluated", pl.Int64, "Outcome unevaluated"),
    ("missing", pl.Int64, "Outcome missing"),
    ("clean", pl.Int64, "Clean verdicts: passes and fails"),
    ("evaluated", pl.Int64, "Pairs with an eval.json of the present result, whatever else happened"),
    ("evaluated_passes", pl.Int64, "Those that it calls passed"),
    ("suspect", pl.Int64, "Clean verdicts flagged suspect"),
    ("limits_exceeded", pl.Int64, "Clean verdicts of an agent that ended at its limit"),
    ("accepted", pl.Int64, "infra_error that a person has accepted"),
    ("first_try", pl.Int64, "Pairs whose tries are on record"),
    ("first_try_passes", pl.Int64, "Those that passed with their first agent try"),
)

SETTING_SUMMARY = result_table(
    "setting_summary",
    "Outcomes and success rates per cell, per setting over its planned seeds, and per experiment.",
    *LEVEL,
    *VERDICT,
    *_COUNTS,
    *(
        (name, pl.Float64, text)
        for rate, over in {
            "planned": "all planned pairs, every non-verdict as fail",
            "evaluated": "evaluated pairs, infra_error left in",
            "clean": "clean verdicts",
        }.items()
        for name, text in (
            (f"rate_{rate}", f"Success over {over}"),
            (f"{rate}_low", f"Lower end of the interval of rate_{rate}"),
            (f"{rate}_high", f"Upper end of the interval of rate_{rate}"),
        )
    ),
    ("bound_low", pl.Float64, "Success if every non-verdict had failed, over all planned pairs"),
    ("bound_high", pl.Float64, "Success if every non-verdict had passed, over all planned pairs"),
    ("seed_low", pl.Float64, "Lowest rate_clean of a seed; NULL for a cell"),
    ("seed_high", pl.Float64, "Highest rate_clean of a seed; NULL for a cell"),
    ("rate_first_try", pl.Float64, "first_try_passes over first_try"),
    ("interval_method", pl.String, "How the intervals were made; NULL where there is none"),
    ("interval_note", pl.String, "Why there is no interval of rate_clean"),
    ("design_effect", pl.Float64, "CR2 variance of rate_clean over that of as many independent verdicts"),
    ("icc", pl.Float64, "Correlation of two verdicts of one task that gives this design effect"),
    *HEADLINE,
)

SUCCESS_BY_ATTEMPT = result_table(
    "success_by_attempt",
    "Success by number of the try that gave the outcome of record; tries follow infrastructure failures only.",
    ("setting", pl.String, "Setting"),
    *VERDICT,
    ("stage", pl.String, "agent or eval: whose tries are counted"),
    ("attempt", pl.Int32, "Number of the try, from 1"),
    ("planned", pl.Int64, "Planned pairs of the setting, over its seeds"),
    ("recorded", pl.Int64, "Pairs whose tries at this stage are on record"),
    ("pairs", pl.Int64, "Pairs that came to this try"),
    ("passes", pl.Int64, "Passes of record at this try"),
    ("fails", pl.Int64, "Fails of record at this try"),
    ("passes_so_far", pl.Int64, "Passes of record at this try or before"),
    ("rate_so_far", pl.Float64, "passes_so_far over recorded"),
)


def setting_summary(frames: Frames) -> dict[str, pl.DataFrame]:
    """Outcomes and success rates of cells, settings and experiments, with bounds and intervals."""
    cells = cells_of(frames)
    counts = _counts_by_task(frames, cells)
    levels = [_level(counts, level) for level in _LEVELS]
    rows = pl.concat(levels, how="diagonal_relaxed").join(_refusals(cells), on=CELL, how="left", nulls_equal=True)
    no_verdict = pl.when(pl.col("clean") == 0).then(pl.lit("no clean verdict"))
    beside = pl.when(pl.col("verdict") != "strict").then(pl.lit("stands beside the strict verdict"))
    rows = with_headline(rows, beside, pl.col("why_not"), no_verdict)
    rows = rows.sort("experiment", level_order(), "place", "seed", "verdict", nulls_last=True)
    return {SETTING_SUMMARY.name: conform(SETTING_SUMMARY, rows)}


def _counts_by_task(frames: Frames, cells: pl.DataFrame) -> pl.DataFrame:
    """Sums of every count per cell, task and verdict, with what levels the cell counts in."""
    used = cells.join(settings_of(cells), on=["experiment", "setting"]).select(*CELL, "planned", "gold", "place")
    pairs = pairs_of(frames)
    counts = pl.concat(
        pairs.group_by(*CELL, "task").agg(pl.lit(verdict).alias("verdict"), *_count_expressions(verdict))
        for verdict in VERDICTS
    )
    return counts.join(used.rename({"planned": "asked"}), on=CELL)


def _count_expressions(verdict: str) -> list[pl.Expr]:
    outcome, reason = pl.col(outcome_column(verdict)), pl.col(reason_column(verdict))
    failed, infra = outcome == "fail", outcome == "infra_error"
    clean = outcome.is_in(["pass", "fail"])
    evaluated = has_verdict() & pl.col("both_passed").is_not_null()
    flags = {
        "passes": outcome == "pass",
        "fails": failed,
        **{f"fail_{name}": failed & (reason == name) for name in REASONS},
        "fail_other": failed & ~reason.fill_null("").is_in(REASONS),
        "infra_error": infra,
        "infra_agent": infra & (pl.col("stage") == "agent"),
        "infra_eval": infra & (pl.col("stage") == "eval"),
        "unevaluated": outcome == "unevaluated",
        "missing": outcome == "missing",
        "clean": clean,
        "evaluated": evaluated,
        "evaluated_passes": evaluated & recorded_pass(verdict),
        "suspect": clean & pl.col("suspect"),
        "limits_exceeded": clean & pl.col("limits_exceeded"),
        "accepted": infra & pl.col("accepted"),
        "first_try": pl.col("agent_tries").is_not_null(),
        "first_try_passes": (pl.col("agent_tries") == 1) & (outcome == "pass"),
    }
    counted = {name: flag.fill_null(False).sum().cast(pl.Int64) for name, flag in flags.items()}
    return [pl.len().cast(pl.Int64).alias("planned"), *(count.alias(name) for name, count in counted.items())]


def _level(counts: pl.DataFrame, level: str) -> pl.DataFrame:
    """The rows of one level, with rates and intervals."""
    by = [*_LEVELS[level], "verdict"]
    if level != "cell":
        counts = counts.filter("asked")
    if level == "experiment":
        counts = counts.filter(~pl.col("gold"))
    sums = [column.name for column in _COUNTS if column.name not in ("cells", "seeds", "tasks")]
    rows = counts.group_by(by).agg(
        pl.lit(level).alias("level"),
        pl.col("place").first() if level != "experiment" else pl.lit(None, pl.Int64).alias("place"),
        pl.struct("setting", "seed").n_unique().cast(pl.Int64).alias("cells"),
        pl.struct("setting", "seed").filter(pl.col("clean") > 0).n_unique().cast(pl.Int64).alias("seeds"),
        pl.col("task").n_unique().cast(pl.Int64).alias("tasks"),
        *(pl.col(name).sum() for name in sums),
    )
    rows = _with_rates(rows)
    if level == "cell":
        return _with_wilson(rows)
    return _with_seed_range(_with_clustered(rows, counts, by), counts, by)


def _with_rates(rows: pl.DataFrame) -> pl.DataFrame:
    planned = pl.col("planned")
    return rows.with_columns(
        *((pl.col(k) / pl.col(n)).alias(f"rate_{rate}") for rate, (k, n) in _RATES.items()),
        bound_low=pl.col("passes") / planned,
        bound_high=(planned - pl.col("fails")) / planned,
        rate_first_try=pl.col("first_try_passes") / pl.col("first_try"),
    )


def _with_wilson(rows: pl.DataFrame) -> pl.DataFrame:
    ends: list[pl.Expr] = []
    for rate, (k, n) in _RATES.items():
        low, high = wilson(pl.col(k), pl.col(n))
        ends += [low.alias(f"{rate}_low"), high.alias(f"{rate}_high")]
    method = pl.when(pl.col("planned") > 0).then(pl.lit(WILSON))
    return rows.with_columns(*ends, interval_method=method, interval_note=pl.lit(None, pl.String))


def _with_clustered(rows: pl.DataFrame, counts: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    for rate, (k, n) in _RATES.items():
        found = clustered_mean(counts, by, total=k, count=n)
        keep = [pl.col("low").alias(f"{rate}_low"), pl.col("high").alias(f"{rate}_high")]
        if rate == "clean":
            keep += [pl.col("interval_note"), pl.col("design_effect"), pl.col("icc")]
        rows = rows.join(found.select(*by, *keep), on=by, how="left")
    some = pl.any_horizontal(pl.col(f"{rate}_low").is_not_null() for rate in _RATES)
    return rows.with_columns(interval_method=pl.when(some).then(pl.lit(CR2)))


def _with_seed_range(rows: pl.DataFrame, counts: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    seeds = counts.group_by(*CELL, "verdict").agg(pl.col("passes").sum() / pl.col("clean").sum())
    seeds = seeds.with_columns(pl.col("passes").fill_nan(None))
    spread = seeds.group_by(by).agg(seed_low=pl.col("passes").min(), seed_high=pl.col("passes").max())
    return rows.join(spread, on=by, how="left")


def _refusals(cells: pl.DataFrame) -> pl.DataFrame:
    """Why a cell, setting or experiment may have no headline: experiment, setting, seed, ``why_not``."""
    units = refused_units(cells)
    asked = cells.filter(pl.col("planned") & ~pl.col("gold"))
    several = asked.group_by("experiment").agg(pl.col("setting").n_unique())
    mixes = pl.when(pl.col("setting") > 1).then(pl.lit("an experiment's row mixes its settings"))
    inner = units.filter(pl.col("seed").is_null() & pl.col("why_not").is_not_null()).group_by("experiment").agg(
        pl.format("{}: {}", "setting", "why_not").sort().str.join("; ").alias("inner")
    )  # fmt: skip
    whole = several.join(inner, on="experiment", how="left").select(
        "experiment",
        setting=pl.lit(None, pl.String),
        seed=pl.lit(None, pl.Int32),
        why_not=joined_reasons(mixes, pl.col("inner")),
    )
    return pl.concat([units, whole])


def success_by_attempt(frames: Frames) -> dict[str, pl.DataFrame]:
    """Success by the number of the try that gave the outcome of record."""
    asked = cells_of(frames).filter("planned").select(CELL)
    pairs = pairs_of(frames).join(asked, on=CELL, how="semi")
    parts = [_by_attempt(pairs, stage, verdict) for stage in ("agent", "eval") for verdict in VERDICTS]
    rows = pl.concat(parts).sort("experiment", "setting", "verdict", "stage", "attempt")
    return {SUCCESS_BY_ATTEMPT.name: conform(SUCCESS_BY_ATTEMPT, rows)}


def _by_attempt(pairs: pl.DataFrame, stage: str, verdict: str) -> pl.DataFrame:
    tries, outcome = pl.col(f"{stage}_tries"), pl.col(outcome_column(verdict))
    by = ["experiment", "setting"]
    totals = pairs.group_by(by).agg(
        planned=pl.len().cast(pl.Int64), recorded=(tries > 0).sum().cast(pl.Int64), most=tries.max()
    )
    grid = totals.filter(pl.col("most") > 0).with_columns(attempt=pl.int_ranges(1, pl.col("most") + 1))
    grid = grid.explode("attempt", empty_as_null=False).with_columns(pl.col("attempt").cast(pl.Int32))
    ended = pairs.group_by(*by, tries.alias("attempt")).agg(
        last=pl.len().cast(pl.Int64),
        passes=(outcome == "pass").sum().cast(pl.Int64),
        fails=(outcome == "fail").sum().cast(pl.Int64),
    )
    rows = grid.join(ended, on=[*by, "attempt"], how="left").sort(*by, "attempt")
    rows = rows.with_columns(pl.col("last", "passes", "fails").fill_null(0))
    so_far = pl.col("passes").cum_sum().over(by)
    return rows.with_columns(
        verdict=pl.lit(verdict),
        stage=pl.lit(stage),
        pairs=pl.col("last").cum_sum(reverse=True).over(by),
        passes_so_far=so_far,
        rate_so_far=so_far / pl.col("recorded"),
    )
