"""``experiment_comparisons``: one experiment against another in the same setting, over the pairs both were judged on.

What belongs here: contrasts of experiments, whose models or agents are the question. What does not: how a contrast is
estimated and tested (``contrasts``), and contrasts within an experiment (``comparisons``).

The table is no table of the store, whose rows belong to one experiment each: the report of several makes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from cooperbench_assets.analysis.comparability import (
    SAME_SETTING,
    contrast_differences,
    named_refusals,
    refused_settings,
    require_comparable_experiments,
    with_sides,
)
from cooperbench_assets.analysis.contrasts import ESTIMATE, against_each_other, contrasted
from cooperbench_assets.analysis.declarations import PLANNED
from cooperbench_assets.analysis.frames import (
    HEADLINE,
    POPULATION,
    VERDICT,
    Frames,
    cells_of,
    columns,
    compared_cells,
    conform,
    joined_reasons,
    pairs_of,
    scores_of,
    settings_of,
)
from cooperbench_assets.store.schema import Table

if TYPE_CHECKING:
    from collections.abc import Sequence


_KEY = ["experiment", "setting_a", "setting_b"]
_SWAPPED = {"experiment": "setting", "setting": "experiment"}
_QUESTION = {"model": ("model",), "others": ("agent", "agent_config_sha256")}

EXPERIMENT_COMPARISONS = Table(
    "experiment_comparisons",
    "In one setting: mean over common pairs of (mean over seeds in A − mean over seeds in B), clustered by task.",
    columns(
        ("setting", pl.String, "Setting that both experiments have"),
        *VERDICT,
        *POPULATION,
        ("experiment_a", pl.String, "First experiment, in the order that they were named in"),
        ("experiment_b", pl.String, "Second experiment, which is subtracted"),
        ("differs", pl.String, "What differs between them as far as it is on record: what is compared"),
        *ESTIMATE,
        *HEADLINE,
    ),
    key=("setting",),
)


def experiment_comparisons(frames: Frames, experiments: Sequence[str]) -> pl.DataFrame:
    """Every two of these experiments in every setting that both have, by both verdicts and over both populations.

    Holm's method counts all contrasts of one verdict and population, of whatever settings.

    Args:
        frames: The store's tables of all of them.
        experiments: In the order in which they are set against each other.

    Raises:
        NotComparable: if the experiments differ in subset, harness version or merge policy.
    """
    require_comparable_experiments(frames, experiments)
    cells = cells_of(frames).filter(pl.col("experiment").is_in(list(experiments)))
    used = compared_cells(cells).rename(_SWAPPED)
    place = pl.col("setting").replace_strict({name: at for at, name in enumerate(experiments)}, return_dtype=pl.Int64)
    sides = used.group_by("experiment", "setting").agg().with_columns(place=place)
    contrasts = against_each_other(sides)
    contrasts = contrasts.with_columns(
        family=pl.lit(PLANNED), primary=pl.lit("success"), margin=pl.lit(None, pl.Float64)
    )
    marks = {"place": place, "endpoint": pl.lit("success")}
    scores = scores_of(frames, cells).rename(_SWAPPED).with_columns(**marks)
    rows = contrasted([scores], contrasts, _reasons(frames, cells, contrasts), ["verdict", "population"])
    rows = rows.with_columns(statement=pl.format("{}: {}", "experiment", "statement"))
    order = settings_of(cells).group_by("setting").agg(rank=pl.col("rank").min()).rename({"setting": "experiment"})
    rows = rows.join(order, on="experiment", how="left")
    rows = rows.sort("rank", "experiment", "verdict", "population", "place_a", "place_b")
    names = {"experiment": "setting", "setting_a": "experiment_a", "setting_b": "experiment_b"}
    return conform(EXPERIMENT_COMPARISONS, rows.rename(names))


def _reasons(frames: Frames, cells: pl.DataFrame, contrasts: pl.DataFrame) -> pl.DataFrame:
    """Per contrast: what differs, why it is refused, why a side may have no headline, what to be careful about."""
    used = compared_cells(cells).rename(_SWAPPED)
    found = contrasts.select(_KEY)
    for name, fields in {"refused": SAME_SETTING, **_QUESTION}.items():
        differing = contrast_differences(used, contrasts, fields).rename({"differs": name})
        found = found.join(differing, on=_KEY, how="left")
    several = pl.col("model").is_not_null() & pl.col("others").is_not_null()
    caution = pl.format("besides the model, {}: a difference has more than one possible cause", "others")
    found = found.join(_unknown_git(used, contrasts), on=_KEY, how="left")
    found = found.join(_plans(frames, used, contrasts), on=_KEY, how="left").with_columns(
        refused=joined_reasons(pl.col("refused"), pl.col("plans")),
        differs=joined_reasons(pl.col("model"), pl.col("others")),
        caution=joined_reasons(pl.when(several).then(caution), pl.col("git_unknown")),
    )
    return with_sides(found, named_refusals(refused_settings(compared_cells(cells)).rename(_SWAPPED))).drop(
        "model", "others", "plans", "git_unknown"
    )


def _unknown_git(used: pl.DataFrame, contrasts: pl.DataFrame) -> pl.DataFrame:
    """Per contrast ``git_unknown``: a sentence where it is not on record whether agents of a side shared a server."""
    lacking = used.filter(pl.col("git").is_null() & (pl.col("mode") != "solo")).select("experiment", "setting").unique()
    sides = [
        contrasts.select(*_KEY, pl.col(side).alias("setting")).join(lacking, on=["experiment", "setting"])
        for side in ("setting_a", "setting_b")
    ]
    names = pl.col("setting").sort().str.join(" and ")
    text = pl.format("whether agents shared a git server is not known of {}, so that it cannot be said to agree", names)
    return pl.concat(sides).group_by(_KEY).agg(git_unknown=text)


def _plans(frames: Frames, used: pl.DataFrame, contrasts: pl.DataFrame) -> pl.DataFrame:
    """Per contrast ``plans``: a sentence where the two do not plan the same pairs, whatever is known of the subset."""
    rows = (
        pairs_of(frames)
        .rename(_SWAPPED)
        .join(used.select("experiment", "setting", "seed"), on=["experiment", "setting", "seed"], how="semi")
    )
    plans = rows.group_by("experiment", "setting").agg(plan=pl.col("pair").unique().sort(), n=pl.col("pair").n_unique())
    sides = with_sides(contrasts.select(_KEY), plans)
    text = pl.format("the planned pairs differ ({} and {})", "n_a", "n_b")
    return sides.select(*_KEY, plans=pl.when(pl.col("plan_a") != pl.col("plan_b")).then(text))
