"""``success_by_difficulty``, ``success_auc`` and ``retention``: what is left of solo success when two agents work.

What belongs here: curves over difficulty, areas under them, and the ratio of means. What does not: difficulty itself
(``difficulty``).
"""

from __future__ import annotations

import polars as pl

from cooperbench_assets.analysis.comparability import (
    CONTRAST_REASONS,
    beside_the_headline,
    refusals,
    with_headline,
    without_refused,
)
from cooperbench_assets.analysis.contrasts import pair_means
from cooperbench_assets.analysis.difficulty import (
    BUCKETS,
    difficulties,
    held_out_difficulties,
    solo_scores,
)
from cooperbench_assets.analysis.formatting import counted
from cooperbench_assets.analysis.frames import (
    HEADLINE,
    POPULATION,
    SCORE,
    VERDICT,
    Frames,
    cells_of,
    compared_cells,
    conform,
    joined_reasons,
    reference_settings,
    result_table,
    scores_of,
    settings_of,
)
from cooperbench_assets.analysis.intervals import FIELLER, clustered_mean, ratio_intervals, why_no_interval

LEAVE_ONE_OUT = "leave-one-seed-out"
REPRODUCTION = "reproduction, circular"
_CIRCULAR = pl.when(pl.col("method") == REPRODUCTION).then(pl.lit("circular"))

SUCCESS_BY_DIFFICULTY = result_table(
    "success_by_difficulty",
    "Success of each setting at each difficulty: the points of the curves of Figure 4.",
    *VERDICT,
    *POPULATION,
    ("setting", pl.String, "Setting"),
    ("method", pl.String, f"{LEAVE_ONE_OUT} or {REPRODUCTION}: which solo seeds difficulty is made from"),
    ("held_out", pl.Int32, "Solo seed left out of difficulty, that solo is scored on; NULL: all seeds, or all these"),
    ("scale", pl.String, "level (every difficulty that occurs) or bucket (the paper's ten)"),
    ("level", pl.String, "The difficulty as a fraction; NULL for a bucket"),
    ("bucket", pl.Int32, "The bucket, 0 to 9; NULL for a level"),
    ("x", pl.Float64, "Difficulty of the point: the level, or the bucket's midpoint"),
    ("pairs", pl.Int64, "Pairs"),
    ("tasks", pl.Int64, "Tasks of the pairs"),
    ("passes", pl.Int64, "Passes, over pairs and seeds"),
    ("n", pl.Int64, "Verdicts, over pairs and seeds"),
    ("rate", pl.Float64, "passes / n"),
    ("low", pl.Float64, "Lower end of its 95 % interval (by task)"),
    ("high", pl.Float64, "Upper end of its 95 % interval"),
    ("interval_note", pl.String, "Why there is no interval"),
    ("refused", pl.String, "Why it, or solo, may have no headline; rate is NULL where the two are not comparable"),
    *HEADLINE,
)

SUCCESS_AUC = result_table(
    "success_auc",
    "Area under success over difficulty buckets, by the trapezoidal rule over the midpoints of those not empty.",
    *VERDICT,
    *POPULATION,
    ("setting", pl.String, "Setting"),
    ("method", pl.String, f"{LEAVE_ONE_OUT} (the mean over held-out solo seeds) or {REPRODUCTION}"),
    ("auc", pl.Float64, f"{LEAVE_ONE_OUT}: area / span; {REPRODUCTION}: the area alone, as the paper has it"),
    ("span", pl.Float64, "Difficulty from the first to the last point, mean over held-out seeds"),
    ("points", pl.Float64, "Buckets that are not empty, mean over held-out seeds"),
    ("seeds", pl.Int64, "Solo seeds that difficulty is made from, the held-out one counted"),
    ("curves", pl.Int64, "Curves averaged: one for each held-out seed that gives two points or more"),
    ("retention", pl.Float64, "auc over the solo setting's; NULL where that is 0"),
    ("note", pl.String, "What to know before it is quoted, or why there is no figure"),
    *HEADLINE,
)

RETENTION = result_table(
    "retention",
    "Mean success of a setting over mean success of solo, on the pairs that both were judged on.",
    *VERDICT,
    *POPULATION,
    ("setting", pl.String, "Setting"),
    ("reference", pl.String, "Solo setting it is held against"),
    ("pairs", pl.Int64, "Common pairs"),
    ("tasks", pl.Int64, "Their tasks"),
    ("mean_setting", pl.Float64, "Mean over common pairs of the setting's mean over seeds"),
    ("mean_solo", pl.Float64, "The same for solo"),
    ("retention", pl.Float64, "mean_setting / mean_solo; NULL where solo never passes"),
    ("low", pl.Float64, "Lower end of its 95 % interval; 0 where the setting never passes"),
    ("high", pl.Float64, "Upper end; a bound where the setting never passes"),
    ("interval_method", pl.String, "How the interval was made"),
    ("note", pl.String, "Why there is no figure or no interval"),
    *HEADLINE,
)


def success_by_difficulty(frames: Frames) -> dict[str, pl.DataFrame]:
    """Success over difficulty, the areas under it, and what coop retains of solo success."""
    cells = cells_of(frames)
    scores = scores_of(frames, cells)
    points = _with_rates(_points(scores, cells))
    curves = _with_standing(_refused(points.join(reference_settings(cells), on="experiment"), cells))
    areas, retention = _areas(points, scores, cells), _retention(scores, cells)
    return {
        SUCCESS_BY_DIFFICULTY.name: conform(
            SUCCESS_BY_DIFFICULTY, curves.sort(*SCORE, "method", "scale", "held_out", "place", "x")
        ),
        SUCCESS_AUC.name: conform(SUCCESS_AUC, areas.sort(*SCORE, "method", "place")),
        RETENTION.name: conform(RETENTION, retention.sort(*SCORE, "place")),
    }


def _points(scores: pl.DataFrame, cells: pl.DataFrame) -> pl.DataFrame:
    """Passes and verdicts of every setting, pair and difficulty, for both methods: what the curves are sums of."""
    key = [*SCORE, "task", "pair"]
    fraction = ["level", "bucket", "difficulty"]
    solo = solo_scores(scores, cells)
    pairs = pair_means(scores).filter(pl.col("n") > 0).select(*key, "setting", "place", "k", "n")
    circular = pairs.join(difficulties(solo).select(*key, *fraction), on=key).filter(pl.col("level").is_not_null())
    circular = circular.with_columns(method=pl.lit(REPRODUCTION, pl.Categorical), held_out=pl.lit(None, pl.Int32))
    held = held_out_difficulties(solo).select(*key, "held_out", *fraction)
    others = pairs.join(reference_settings(cells), on="experiment").filter(pl.col("setting") != pl.col("reference"))
    own = solo.filter(pl.col("score").is_not_null()).select(
        *key, "setting", "place", k=pl.col("score").cast(pl.Int64), n=pl.lit(1, pl.Int64), held_out="seed"
    )
    left_out = pl.concat(
        [others.drop("reference").join(held, on=key), own.join(held, on=[*key, "held_out"])], how="diagonal"
    ).with_columns(method=pl.lit(LEAVE_ONE_OUT, pl.Categorical))
    return pl.concat([circular, left_out], how="diagonal")


def _with_rates(points: pl.DataFrame) -> pl.DataFrame:
    """The curves: on both scales over all seeds or held-out seeds, with intervals, and by bucket for each held-out one.

    Pooled over held-out seeds, a pair of another setting counts once for each; as its task is what is clustered
    by, that does not narrow the interval.
    """
    by = [*SCORE, "setting", "place", "method"]
    points = points.with_columns(middle=(pl.col("bucket") + 0.5) / BUCKETS)
    each = points.filter(pl.col("held_out").is_not_null()).group_by(*by, "held_out", "bucket", x="middle").agg(
        pairs=pl.len().cast(pl.Int64), tasks=pl.col("task").n_unique().cast(pl.Int64), scale=pl.lit("bucket"),
        passes=pl.col("k").sum(), n=pl.col("n").sum(), interval_note=pl.lit("given over all held-out seeds"),
    )  # fmt: skip
    each = each.with_columns(rate=pl.col("passes") / pl.col("n"))
    levels = _pooled(points, [*by, "level", "difficulty"]).rename({"difficulty": "x"})
    buckets = _pooled(points, [*by, "bucket", "middle"]).rename({"middle": "x"})
    scales = [levels.with_columns(scale=pl.lit("level")), buckets.with_columns(scale=pl.lit("bucket"))]
    return pl.concat([*scales, each], how="diagonal")


def _with_standing(curves: pl.DataFrame) -> pl.DataFrame:
    """Points without the figures of what is refused, and why a point is no headline."""
    one = pl.when(pl.col("held_out").is_not_null()).then(pl.lit("one held-out seed of several"))
    rows = curves.with_columns(without_refused("rate", "low", "high"))
    rows = rows.with_columns(refused=joined_reasons(*CONTRAST_REASONS))
    return with_headline(rows, beside_the_headline(), _CIRCULAR, one, pl.col("refused"))


def _pooled(points: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    """Points of one scale over all held-out seeds. A pair belongs to one task, so pairs of tasks add up."""
    by_task = points.group_by(*key, "task").agg(pl.col("k", "n").sum(), pairs=pl.col("pair").n_unique().cast(pl.Int64))
    sums = by_task.group_by(key).agg(pl.col("pairs").sum(), passes=pl.col("k").sum())
    rates = clustered_mean(by_task, key, total="k").rename({"mean": "rate"})
    return sums.join(rates, on=key)


def _areas(curves: pl.DataFrame, scores: pl.DataFrame, cells: pl.DataFrame) -> pl.DataFrame:
    """One row for every setting and method, whether or not it has an area."""
    by = [*SCORE, "setting", "method"]
    x, y = pl.col("x"), pl.col("rate")
    trapezoids = ((x - x.shift()) * (y + y.shift()) / 2).sum()
    whole = (pl.col("method") == REPRODUCTION) == pl.col("held_out").is_null()
    buckets = curves.filter((pl.col("scale") == "bucket") & whole).sort(*by, "held_out", "x")
    areas = buckets.group_by(*by, "held_out", maintain_order=True).agg(
        area=trapezoids, span=x.last() - x.first(), points=pl.len().cast(pl.Float64)
    )
    drawn = areas.filter(pl.col("points") > 1).with_columns(
        auc=pl.when(pl.col("method") == REPRODUCTION).then("area").otherwise(pl.col("area") / pl.col("span"))
    )
    means = drawn.group_by(by).agg(pl.col("auc", "span", "points").mean(), curves=pl.len().cast(pl.Int64))
    methods = pl.DataFrame({"method": [LEAVE_ONE_OUT, REPRODUCTION]}, {"method": pl.Categorical})
    settings = scores.select(*SCORE, "setting", "place").unique().join(_solo_seeds(cells), on="experiment")
    rows = settings.join(methods, how="cross").join(means, on=by, how="left")
    solo = rows.filter(pl.col("setting") == pl.col("reference")).select(*SCORE, "method", auc_solo="auc")
    rows = rows.join(solo, on=[*SCORE, "method"], how="left").with_columns(
        pl.col("curves").fill_null(0),
        retention=pl.when(pl.col("auc_solo") > 0).then(pl.col("auc") / pl.col("auc_solo")),
    )
    rows = _refused(rows, cells).with_columns(without_refused("auc", "span", "points", "retention"))
    no_figure = pl.when(pl.col("auc").is_null()).then(pl.lit("no figure"))
    rows = rows.with_columns(note=joined_reasons(pl.col("refused"), _area_note()))
    return with_headline(rows, beside_the_headline(), _CIRCULAR, *CONTRAST_REASONS, no_figure)


def _area_note() -> pl.Expr:
    circular = pl.format(
        "difficulty is made from the same {} that solo is scored on, so that solo's area is an identity; "
        "no interval, and not to be compared with an experiment of another number of seeds",
        counted("seeds", "solo seed"),
    )
    alone = (pl.col("method") == LEAVE_ONE_OUT) & (pl.col("seeds") < 2)
    leaving = pl.lit("no figure: leaving one solo seed out needs at least two")
    none = pl.when(alone).then(leaving).otherwise(pl.lit("no figure: fewer than two difficulties occur"))
    made = pl.when((pl.col("method") == REPRODUCTION) & pl.col("auc").is_not_null()).then(circular)
    return made.when(pl.col("auc").is_null() & pl.col("refused").is_null()).then(none)


def _solo_seeds(cells: pl.DataFrame) -> pl.DataFrame:
    """Each experiment's reference setting and its number of seeds."""
    seeds = settings_of(compared_cells(cells)).select("experiment", "setting", "seeds")
    found = reference_settings(cells).join(
        seeds, left_on=["experiment", "reference"], right_on=["experiment", "setting"]
    )
    return found.with_columns(pl.col("seeds").cast(pl.Int64))


def _retention(scores: pl.DataFrame, cells: pl.DataFrame) -> pl.DataFrame:
    """One row for every setting but the solo reference."""
    means = pair_means(scores).join(reference_settings(cells), on="experiment")
    of_solo = pl.col("setting") == pl.col("reference")
    key = [*SCORE, "task", "pair"]
    solo = means.filter(of_solo).select(*key, solo="mean")
    pairs = means.filter(~of_solo).join(solo, on=key)
    common = pl.col("mean").is_not_null() & pl.col("solo").is_not_null()
    by = [*SCORE, "setting", "reference", "place"]
    rows = pairs.group_by(by).agg(
        pairs=common.sum().cast(pl.Int64),
        tasks=pl.col("task").filter(common).n_unique().cast(pl.Int64),
        mean_setting=pl.col("mean").filter(common).mean(),
        mean_solo=pl.col("solo").filter(common).mean(),
    )
    rows = rows.with_columns(
        retention=pl.when(pl.col("mean_solo") > 0).then(pl.col("mean_setting") / pl.col("mean_solo"))
    )
    sums = pairs.filter(common).group_by(*by, "task").agg(pl.col("mean", "solo").sum(), n=pl.len().cast(pl.Float64))
    rows = rows.join(ratio_intervals(sums, by, above="mean", below="solo"), on=by, how="left")
    return _with_sentences(_refused(rows, cells))


def _refused(rows: pl.DataFrame, cells: pl.DataFrame) -> pl.DataFrame:
    """`rows` with why its setting and the solo setting may not be compared: ``refused``, ``why_a``, ``why_b``."""
    contrasts = rows.select("experiment", setting_a="reference", setting_b="setting").unique()
    found = refusals(compared_cells(cells), contrasts).rename({"setting_a": "reference", "setting_b": "setting"})
    return rows.join(found, on=["experiment", "reference", "setting"], how="left")


def _with_sentences(rows: pl.DataFrame) -> pl.DataFrame:
    """Refused retentions without figures, and why others have none, no interval, or no headline."""
    rows = rows.with_columns(without_refused("retention", "low", "high", "mean_setting", "mean_solo"))
    rows = rows.with_columns(
        undefined=_why_undefined(), interval_method=pl.when(pl.col("low").is_not_null()).then(pl.lit(FIELLER))
    )
    nothing = pl.when(pl.col("retention").is_null()).then("undefined")
    note = joined_reasons(pl.col("refused"), pl.when(pl.col("low").is_null()).then("undefined"))
    return with_headline(rows.with_columns(note=note), beside_the_headline(), *CONTRAST_REASONS, nothing)


def _why_undefined() -> pl.Expr:
    near_none = pl.lit("no interval: over these tasks solo's own success cannot be told from 0")
    return (
        pl.when(pl.col("refused").is_not_null())
        .then(pl.lit(None, pl.String))
        .when(pl.col("pairs") == 0)
        .then(pl.lit("no pair was judged in both settings"))
        .when(pl.col("mean_solo") == 0)
        .then(pl.lit("solo passes none of the common pairs, so that there is nothing to retain"))
        .otherwise(pl.coalesce(why_no_interval(pl.lit(False)), near_none))
    )
