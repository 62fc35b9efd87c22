"""What every analysis starts from: cells, settings, scores, and result tables of an exact schema.

What belongs here: the few frames that more than one analysis needs. What does not: statistics (``intervals``,
``significance``) and answers (the other modules of this room).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

import polars as pl

from cooperbench_assets.store import schema
from cooperbench_assets.store.schema import Column, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from polars._typing import PolarsDataType

    Row: TypeAlias = tuple[str, PolarsDataType, str]

Frames: TypeAlias = Mapping[str, pl.DataFrame]
"""Tables of the results store by name, filtered to one experiment or several. A table that is not there is empty."""

VERDICTS = ("strict", "upstream")
"""Whose verdict: ours first (solo, or a clean or identical merge of two applied patches), then upstream's own."""

POPULATIONS = ("clean", "evaluated")
"""Which pairs count: those whose outcome is pass or fail, or every pair with a usable eval.json, infra_error or not."""

CELL = ("experiment", "setting", "seed")
SCORE = ("experiment", "verdict", "population")
"""The columns that one statistic is computed within: one kind of score in one experiment."""

TASK = pl.format("{}/{}", "repo", "task_id").alias("task")
"""The task of a pair, as ``repo/task_id``: what results are clustered by."""

_REST = 1e-14
"""Less than this is what subtracting equal numbers leaves."""

_P_VALUES = ("p", "p_holm", "p_these", "p_these_holm", "p_smallest", "p_mcnemar")


def columns(*rows: Row | Column) -> tuple[Column, ...]:
    """Columns of a table, from (name, type, description) or as they are."""
    return tuple(Column(*row) if isinstance(row, tuple) else row for row in rows)


UNIT = columns(
    ("setting", pl.String, "Setting"),
    ("seed", pl.Int32, "Seed; NULL over the planned seeds of the setting"),
)
LEVEL = columns(
    ("level", pl.String, "cell, setting or experiment"),
    ("setting", pl.String, "Setting; NULL for the experiment"),
    ("seed", pl.Int32, "Seed; NULL over seeds"),
)
VERDICT = columns(("verdict", pl.String, "Whose verdict: strict (the default) or upstream's own, beside it"))
POPULATION = columns(
    (
        "population",
        pl.String,
        "Pairs that count: clean (outcome pass or fail) or evaluated (every eval.json, infra_error left in)",
    )
)
HEADLINE = columns(
    ("headline", pl.Boolean, "The figure may stand by itself as a result"),
    ("why_not", pl.String, "Why it may not; NULL where it may"),
)


def result_table(name: str, description: str, *rows: Row | Column) -> Table:
    """A table of an analysis: published whole for one experiment at a time, whose name comes first."""
    first = ("experiment", pl.String, "Name of the experiment")
    return Table(name, description, columns(first, *rows), key=("experiment",))


def conform(table: Table, frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with exactly the columns of `table`, NaN and infinities as NULL.

    Numbers are cut to 10 significant digits, and to 0 below 1e-14, but for p values: sums over threads differ in
    their last digits from run to run, and the same store must give the same table.

    Raises:
        polars.exceptions.ColumnNotFoundError: if a column of the table is not in the frame.
    """
    cast = frame.select(pl.col(name).cast(dtype) for name, dtype in table.schema.items())
    floats = [column.name for column in table.columns if column.dtype == pl.Float64]
    return cast.with_columns(_settled(name) for name in floats)


def _settled(name: str) -> pl.Expr:
    value = pl.col(name)
    rest = value.abs() < _REST if name not in _P_VALUES else pl.lit(False)
    return pl.when(rest).then(0.0).when(value.is_finite()).then(value.round_sig_figs(10)).alias(name)


def table_of(frames: Frames, table: Table) -> pl.DataFrame:
    """One input table; an empty frame of its schema where `frames` has none.

    A column that it lacks, as in a store of an earlier layout, is NULL.
    """
    found = frames[table.name] if table.name in frames else table.schema.to_frame()
    lacking = [pl.lit(None, dtype).alias(name) for name, dtype in table.schema.items() if name not in found.columns]
    return found.with_columns(lacking) if lacking else found


def pairs_of(frames: Frames) -> pl.DataFrame:
    """PAIRS with the pair's task as a column."""
    return table_of(frames, schema.PAIRS).with_columns(TASK)


def cells_of(frames: Frames) -> pl.DataFrame:
    """One row for every cell, with what made it and its setting's place in every comparison.

    Adds to PROVENANCE, whose columns are NULL for a cell it does not know: ``mode`` (read from the label
    where provenance has none), ``gold``, ``planned`` and ``truncated`` without NULL, and ``rank``: solo, then
    coop with messages, coop without, team, gold.
    """
    known = pl.concat(table_of(frames, table).select(CELL) for table in (schema.PAIRS, schema.PROVENANCE)).unique()
    cells = known.join(table_of(frames, schema.PROVENANCE), on=CELL, how="left")
    label = pl.col("setting").str.to_lowercase()
    named = (
        pl.when(label.str.contains("solo"))
        .then(pl.lit("solo"))
        .when(label.str.starts_with("team"))
        .then(pl.lit("team"))
        .otherwise(pl.lit("coop"))
    )
    silent = ~pl.col("messaging").fill_null(~label.str.contains("nocomm"))
    cells = cells.with_columns(
        mode=pl.coalesce("mode", named),
        planned=pl.col("planned").fill_null(True),
        truncated=pl.col("truncated").fill_null(False),
        gold=pl.col("gold").fill_null(False),
    ).with_columns(
        rank=pl.when("gold").then(9).when(pl.col("mode") == "solo").then(0)
        .when(pl.col("mode") == "team").then(3).when(silent).then(2).otherwise(1)
    )  # fmt: skip
    return cells.sort("experiment", "rank", "setting", "seed")


def settings_of(cells: pl.DataFrame) -> pl.DataFrame:
    """One row for every setting, in the order of ``rank``: ``place`` (from 0) in its experiment, mode, gold, seeds."""
    return (
        cells.group_by("experiment", "setting")
        .agg(pl.col("rank").min(), pl.col("mode").first(), pl.col("gold").any(), seeds=pl.len())
        .sort("experiment", "rank", "setting")
        .with_columns(place=pl.int_range(pl.len()).over("experiment"))
    )


def compared_cells(cells: pl.DataFrame) -> pl.DataFrame:
    """The cells that statistics over seeds are made of: planned ones, and no gold baseline."""
    return cells.filter(pl.col("planned") & ~pl.col("gold"))


def outcome_column(verdict: str) -> str:
    """The column of PAIRS that holds a pair's outcome by `verdict`."""
    return "outcome_strict" if verdict == "strict" else "outcome"


def reason_column(verdict: str) -> str:
    """The column of PAIRS that holds the reason of a fail by `verdict`."""
    return "reason_strict" if verdict == "strict" else "reason"


def has_verdict() -> pl.Expr:
    """Whether a pair has an eval.json whose verdict belongs to the present result."""
    return pl.col("has_eval").fill_null(False) & ~pl.col("stale").fill_null(False)


def is_clean() -> pl.Expr:
    """Whether a pair has a clean verdict; strict and upstream's agree in that."""
    return pl.col("outcome").is_in(["pass", "fail"])


def recorded_pass(verdict: str) -> pl.Expr:
    """What eval.json says, by `verdict`: also of an infra_error, whose verdict is not used."""
    if verdict == "upstream":
        return pl.col("both_passed")
    applied = (pl.col("apply_a") == "applied") & (pl.col("apply_b") == "applied")
    merged = pl.col("merge_status").is_in(["clean", "identical"]) & applied.fill_null(True)
    as_strict = pl.col("both_passed") & merged.fill_null(True)
    return pl.coalesce("both_passed_strict", as_strict)


def score(verdict: str, population: str, value: pl.Expr | None = None) -> pl.Expr:
    """1 for a pass, 0 for a fail, or another `value`; NULL for a pair that does not count in `population`."""
    if population == "clean":
        counts, passed = is_clean(), pl.col(outcome_column(verdict)) == "pass"
    else:
        counts, passed = has_verdict(), recorded_pass(verdict)
    return pl.when(counts).then((passed if value is None else value).cast(pl.Int8)).alias("score")


def scores_of(
    frames: Frames, cells: pl.DataFrame | None = None, value: Callable[[str], pl.Expr] | None = None
) -> pl.DataFrame:
    """One row for every verdict, population and pair of every compared cell.

    Args:
        frames: The input.
        cells: As ``cells_of`` gives them.
        value: Another score than success of the pairs that count, by verdict: 1, 0 or NULL.

    Returns:
        verdict, population, experiment, setting, seed, pair, task, ``score`` (1, 0, NULL), ``place`` and ``mode``.
    """
    used = compared_cells(cells_of(frames) if cells is None else cells)
    places = settings_of(used).select("experiment", "setting", "place", "mode")
    rows = pairs_of(frames).join(used.select(CELL), on=CELL, how="semi").join(places, on=["experiment", "setting"])
    # Grouped and joined by the number of a category, which takes less memory and time than by strings.
    rows = rows.with_columns(pl.col("pair", "task").cast(pl.Categorical))
    return pl.concat(
        rows.select(
            pl.lit(verdict, pl.Categorical).alias("verdict"),
            pl.lit(population, pl.Categorical).alias("population"),
            *(*CELL, "pair", "task", "place", "mode"),
            score(verdict, population, None if value is None else value(verdict)),
        )
        for verdict in VERDICTS
        for population in POPULATIONS
    )


def reference_settings(cells: pl.DataFrame) -> pl.DataFrame:
    """The solo setting that difficulty and retention refer to: experiment, ``reference``.

    It is the setting called ``solo``, or else the first with mode solo; an experiment without one has no row.
    """
    solo = settings_of(compared_cells(cells)).filter(pl.col("mode") == "solo")
    return (
        solo.sort("experiment", pl.col("setting") != "solo", "place")
        .group_by("experiment", maintain_order=True)
        .agg(reference=pl.col("setting").first())
    )


def level_order() -> pl.Expr:
    """Sort key of ``level``: the experiment, then its settings, then their cells."""
    return pl.col("level").replace_strict({"experiment": 0, "setting": 1, "cell": 2}, return_dtype=pl.Int8)


def tally(flag: pl.Expr) -> pl.Expr:
    """How many rows have `flag`; what is not known has not."""
    return flag.fill_null(False).sum().cast(pl.Int64)


def cells_and_settings(rows: pl.DataFrame, cells: pl.DataFrame) -> pl.DataFrame:
    """Rows of every cell, and those of planned cells once more without a seed: over the seeds of their setting."""
    planned = rows.join(cells.filter("planned").select(CELL), on=CELL, how="semi")
    return pl.concat([rows, planned.with_columns(seed=pl.lit(None, pl.Int32))])


def joined_reasons(*reasons: pl.Expr) -> pl.Expr:
    """The sentences that are not NULL, joined by "; "; NULL where there is none."""
    text = pl.concat_str(reasons, separator="; ", ignore_nulls=True)
    return pl.when(text != "").then(text)
