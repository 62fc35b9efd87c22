"""Which cells may be compared, and what stands against it.

What belongs here: the fields that must agree, time windows, and the error that names a difference. What does not:
the comparisons (``comparisons``), and how a difference is shown (``notices``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from cooperbench_assets.analysis.frames import CELL, Frames, cells_of, compared_cells, joined_reasons, pairs_of
from cooperbench_assets.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence


MUST_AGREE = {
    "model": "model",
    "agent": "agent",
    "agent_config_sha256": "agent config",
    "harness_version": "harness version",
    "merge_policy": "merge policy",
}
"""Columns of PROVENANCE that must agree among compared cells, and what a person calls them."""

ACROSS_EXPERIMENTS = ("subset_sha256", "harness_version", "merge_policy")
"""Columns that must agree for two experiments to be set side by side: there the model or agent is the question."""

SAME_SETTING = (*ACROSS_EXPERIMENTS, "mode", "messaging", "git")
"""Columns that must agree for one setting of two experiments to be contrasted: what a setting is, beside these."""

_NAMES = {**MUST_AGREE, "subset_sha256": "subset", "mode": "mode", "messaging": "messaging", "git": "shared git server"}
_NO_VALUE = ("", "none", "unknown")
_STOPPED = "a budget stopped it before all pairs were bought"


class NotComparable(UserError):
    """Cells differ in what must agree, so that a difference of their results has no one cause."""


def comparable_values(cells: pl.DataFrame) -> pl.DataFrame:
    """`cells` with the fields of ``MUST_AGREE`` as far as they are known and bind.

    What is unknown is NULL and agrees with everything. A fingerprinted harness version is a range, and ranges of
    one version differ with what a tree shows, so only recorded versions bind; solo has no merge policy.
    """
    recorded = pl.col("harness_version_source") == "recorded"
    known = [
        pl.when(~pl.col(name).str.to_lowercase().is_in(_NO_VALUE)).then(pl.col(name)).alias(name)
        for name in (*MUST_AGREE, "subset_sha256")
    ]
    return cells.with_columns(pl.when(recorded).then("harness_version").alias("harness_version")).with_columns(*known)


def _difference(name: str) -> pl.Expr:
    """A sentence on the values of `name`, if there is more than one; a cell may list several by commas."""
    listed = pl.col(name).cast(pl.String).drop_nulls().str.split(",").explode(empty_as_null=False)
    values = listed.str.strip_chars().unique().sort()
    text = pl.concat_str([pl.lit(f"{_NAMES[name]} differs: "), values.str.slice(0, 40).str.join(" / ")])
    return pl.when(values.len() > 1).then(text)


def differences(cells: pl.DataFrame, by: Sequence[str], fields: Sequence[str] = tuple(MUST_AGREE)) -> pl.DataFrame:
    """What differs among the cells of each group.

    Returns:
        One row per group: `by`, and ``differs``, a sentence, or NULL where nothing known does.
    """
    groups = comparable_values(cells).group_by(by, maintain_order=True)
    return groups.agg(differs=joined_reasons(*map(_difference, fields)))


def contrast_differences(
    cells: pl.DataFrame, contrasts: pl.DataFrame, fields: Sequence[str] = tuple(MUST_AGREE)
) -> pl.DataFrame:
    """What differs among the cells of both settings of each contrast.

    Args:
        cells: As ``frames.cells_of`` gives them.
        contrasts: Columns experiment, setting_a, setting_b.
        fields: Columns of `cells` that are looked at.

    Returns:
        experiment, setting_a, setting_b, ``differs``.
    """
    key = ["experiment", "setting_a", "setting_b"]
    sides = pl.concat(
        [
            contrasts.join(cells, left_on=["experiment", side], right_on=["experiment", "setting"])
            for side in ("setting_a", "setting_b")
        ],
        how="diagonal",
    )
    return differences(sides, key, fields)


def refused_settings(cells: pl.DataFrame) -> pl.DataFrame:
    """Why a setting may have no headline over its planned seeds: experiment, setting, ``why_not`` (NULL: it may)."""
    asked = cells.filter("planned")
    by = ["experiment", "setting"]
    seeds = pl.col("seed").filter("truncated").sort().cast(pl.String)
    word = pl.when(seeds.len() == 1).then(pl.lit("seed ")).otherwise(pl.lit("seeds "))
    stopped = asked.group_by(by, maintain_order=True).agg(
        stopped=pl.when(pl.col("truncated").any()).then(
            pl.concat_str(pl.lit(f"{_STOPPED} ("), word, seeds.str.join(", "), pl.lit(")"))
        )
    )
    return stopped.join(differences(asked, by), on=by, how="left").select(
        *by, why_not=joined_reasons(pl.col("stopped"), pl.col("differs"))
    )


def refused_units(cells: pl.DataFrame) -> pl.DataFrame:
    """Why a cell, or a setting over its planned seeds, may have no headline.

    Returns:
        experiment, setting, seed (NULL for a setting), ``why_not`` (NULL: it may).
    """
    stopped = pl.when("truncated").then(pl.lit(_STOPPED))
    unplanned = pl.when(~pl.col("planned")).then(pl.lit("not planned"))
    found = cells.join(differences(cells, CELL), on=CELL, how="left")
    found = found.select(*CELL, why_not=joined_reasons(stopped, unplanned, pl.col("differs")))
    settings = refused_settings(cells).with_columns(seed=pl.lit(None, pl.Int32))
    return pl.concat([found, settings.select(found.columns)])


def refusals(cells: pl.DataFrame, contrasts: pl.DataFrame) -> pl.DataFrame:
    """Why contrasts may have no figure, or no headline.

    Returns:
        experiment, setting_a, setting_b, ``refused`` (what differs, so that there is no figure), ``why_a`` and
        ``why_b`` (why a side may have no headline of its own).
    """
    found = contrast_differences(cells, contrasts).rename({"differs": "refused"})
    return with_sides(found, named_refusals(refused_settings(cells)))


def named_refusals(refused: pl.DataFrame) -> pl.DataFrame:
    """Out of ``refused_settings``: experiment, setting, ``why``, a sentence that names the setting, or NULL."""
    return refused.select("experiment", "setting", why=pl.format("{}: {}", "setting", "why_not"))


def with_sides(contrasts: pl.DataFrame, settings: pl.DataFrame) -> pl.DataFrame:
    """Contrasts with what is known of either setting: the columns of `settings` with _a and _b."""
    for side in ("a", "b"):
        named = settings.rename({name: f"{name}_{side}" for name in settings.columns if name != "experiment"})
        contrasts = contrasts.join(named, on=["experiment", f"setting_{side}"], how="left")
    return contrasts


CONTRAST_REASONS = (pl.col("refused"), pl.col("why_a"), pl.col("why_b"))
"""Why a contrast may have no headline: the columns that ``refusals`` gives."""


def beside_the_headline() -> pl.Expr:
    """Why a row of another verdict or population is no headline; NULL for the strict verdict over clean pairs."""
    other = (pl.col("verdict") != "strict") | (pl.col("population") != "clean")
    return pl.when(other).then(pl.lit("stands beside the strict verdict over clean pairs"))


def with_headline(rows: pl.DataFrame, *reasons: pl.Expr) -> pl.DataFrame:
    """`rows` with ``why_not``, every reason that is not NULL, and ``headline``, whether there is none."""
    return rows.with_columns(why_not=joined_reasons(*reasons)).with_columns(headline=pl.col("why_not").is_null())


def without_refused(*figures: str) -> list[pl.Expr]:
    """These columns, NULL in rows that are ``refused``."""
    return [pl.when(pl.col("refused").is_null()).then(name).alias(name) for name in figures]


def require_comparable_experiments(frames: Frames, experiments: Sequence[str]) -> None:
    """Check that experiments may be set side by side: one subset, harness version and merge policy.

    Raises:
        NotComparable: naming the fields that differ and their values.
    """
    cells = compared_cells(cells_of(frames)).filter(pl.col("experiment").is_in(list(experiments)))
    found = differences(cells.with_columns(all=pl.lit(0)), ["all"], ACROSS_EXPERIMENTS)["differs"].to_list()
    if text := next(iter(found), None):
        raise NotComparable(f"{', '.join(experiments)} cannot be set side by side, {text}")


def window_gaps(frames: Frames, cells: pl.DataFrame, contrasts: pl.DataFrame) -> pl.DataFrame:
    """Contrasts whose settings did not run in overlapping times.

    Returns:
        experiment, setting_a, setting_b, ``gap``: a sentence, NULL where they overlap or times are unknown.
    """
    rows = pairs_of(frames).join(cells.select(CELL), on=CELL, how="semi")
    when = rows.group_by("experiment", "setting").agg(
        first=pl.col("started_at").min(), last=pl.coalesce("ended_at", "started_at").max()
    )
    apart = (pl.col("last_a") < pl.col("first_b")) | (pl.col("last_b") < pl.col("first_a"))
    gap = pl.max_horizontal(pl.col("first_b") - pl.col("last_a"), pl.col("first_a") - pl.col("last_b"))
    text = pl.format(
        "their time windows do not overlap ({} h apart): the model or the service may have changed between them",
        (gap.dt.total_minutes() / 60).round(1),
    )
    sides = with_sides(contrasts.select("experiment", "setting_a", "setting_b"), when)
    return sides.select("experiment", "setting_a", "setting_b", gap=pl.when(apart).then(text))
