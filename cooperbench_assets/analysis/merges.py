"""``merge_conflicts`` and ``merge_kinds``: how often two patches get in each other's way.

What belongs here: what merging came to. What does not: where two patches touch (``store.overlaps``), and what agents
wrote to each other (``communication``).
"""

from __future__ import annotations

import polars as pl

from cooperbench_assets.analysis.comparability import refused_units, with_headline
from cooperbench_assets.analysis.frames import (
    CELL,
    HEADLINE,
    POPULATION,
    UNIT,
    Frames,
    cells_and_settings,
    cells_of,
    conform,
    has_verdict,
    is_clean,
    pairs_of,
    result_table,
    settings_of,
    table_of,
    tally,
)
from cooperbench_assets.analysis.intervals import CR2, WILSON, clustered_mean, wilson
from cooperbench_assets.store.overlaps import PATCH_OVERLAPS

CONDITIONS = {
    "all": pl.lit(True),
    "files overlap": pl.col("shared_files") > 0,
    "files apart": pl.col("shared_files") == 0,
    "lines overlap": pl.col("touching_places") > 0,
    "lines apart": pl.col("touching_places") == 0,
    "overlap not known": pl.col("shared_files").is_null(),
}
"""What the merges are restricted to; ``all`` first. Lines overlap where the patches change the same or
neighbouring lines, which is what makes a three-way merge conflict."""

MERGE_CONFLICTS = result_table(
    "merge_conflicts",
    "Conflict rates: of all merges first, then given that the patches overlap, where patches are known.",
    *UNIT,
    *POPULATION,
    ("condition", pl.String, "Merges counted: all, or by overlap of the two patches"),
    ("merges", pl.Int64, "Pairs whose merge is on record: clean, identical, conflicts, or hollow"),
    ("tasks", pl.Int64, "Their tasks"),
    ("conflicts", pl.Int64, "Merges that conflict, whatever upstream did about it afterwards"),
    ("rate", pl.Float64, "conflicts / merges"),
    ("low", pl.Float64, "Lower end of the 95 % interval of rate"),
    ("high", pl.Float64, "Upper end of it"),
    ("interval_method", pl.String, "How it was made: Wilson within a cell, by task over seeds"),
    ("interval_note", pl.String, "Why there is none"),
    ("hollow", pl.Int64, "Merges called clean that hold nothing; part of merges"),
    ("rate_not_hollow", pl.Float64, "conflicts over the merges that are not hollow"),
    *HEADLINE,
)

MERGE_KINDS = result_table(
    "merge_kinds",
    "What merging came to, and how many of each kind pass.",
    *UNIT,
    *POPULATION,
    ("kind", pl.String, "clean, identical, hollow, conflict, agent1_alone (its patch alone passed), union, not_merged"),
    ("pairs", pl.Int64, "Pairs"),
    ("share", pl.Float64, "Share of the setting's counted pairs"),
    ("passes_strict", pl.Int64, "Pass by the strict verdict"),
    ("passes_upstream", pl.Int64, "Pass by upstream's verdict"),
    ("fallback_unseen", pl.Int64, "Upstream tested agent 1's patch alone and kept no output of it"),
    *HEADLINE,
)


def merge_kind() -> pl.Expr:
    """What the merge of a pair came to; ``none`` where none is on record, as for solo."""
    status, strategy = pl.col("merge_status"), pl.col("merge_strategy").fill_null("")
    return (
        pl.when(status.is_null())
        .then(pl.lit("none"))
        .when(pl.col("hollow").fill_null(False))
        .then(pl.lit("hollow"))
        .when(status.is_in(["clean", "identical"]))
        .then(status)
        .when(strategy == "union")
        .then(pl.lit("union"))
        .when(strategy == "solo-agent1")
        .then(pl.lit("agent1_alone"))
        .when(status == "conflicts")
        .then(pl.lit("conflict"))
        .otherwise(pl.lit("not_merged"))
    )


def is_conflict() -> pl.Expr:
    """1 where the plain merge of a pair conflicts, 0 where it does not, NULL where no merge was made."""
    status = pl.col("merge_status")
    return pl.when(status.is_in(["clean", "identical", "conflicts"])).then((status == "conflicts").cast(pl.Int64))


def merged_pairs(frames: Frames, cells: pl.DataFrame) -> pl.DataFrame:
    """Pairs of two agents with a merge on record, by population, with ``kind`` and ``conflict``."""
    places = settings_of(cells).filter(pl.col("mode") != "solo").select("experiment", "setting", "place")
    pairs = pairs_of(frames).join(places, on=["experiment", "setting"])
    pairs = pairs.filter(pl.col("merge_status").is_not_null() & has_verdict())
    pairs = pairs.with_columns(kind=merge_kind(), conflict=is_conflict())
    counted = {"clean": is_clean(), "evaluated": pl.lit(True)}
    return pl.concat(pairs.filter(test).with_columns(population=pl.lit(name)) for name, test in counted.items())


def merge_conflicts(frames: Frames) -> dict[str, pl.DataFrame]:
    """How often merges conflict, in all and given that the patches overlap."""
    cells = cells_of(frames)
    merged = merged_pairs(frames, cells)
    overlaps = table_of(frames, PATCH_OVERLAPS).select(*CELL, "pair", "shared_files", "touching_places")
    merged = merged.join(overlaps, on=[*CELL, "pair"], how="left")
    rows = cells_and_settings(merged, cells)
    order = [pl.col("experiment", "place", "setting"), pl.col("seed").is_not_null(), pl.col("seed", "population")]
    place = pl.col("condition").cast(pl.Enum([*CONDITIONS]))
    rates, kinds = _with_standing(_rates(rows), cells), _with_standing(_kinds(rows), cells)
    return {
        MERGE_CONFLICTS.name: conform(MERGE_CONFLICTS, rates.sort(*order, place)),
        MERGE_KINDS.name: conform(MERGE_KINDS, kinds.sort(*order, pl.col("kind"))),
    }


def _with_standing(rows: pl.DataFrame, cells: pl.DataFrame) -> pl.DataFrame:
    """Why a row is no headline: its cell or setting may have none, or it is of another population."""
    beside = pl.when(pl.col("population") != "clean").then(pl.lit("stands beside the clean pairs"))
    rows = rows.join(refused_units(cells), on=CELL, how="left", nulls_equal=True)
    return with_headline(rows, beside, pl.col("why_not"))


def _conditioned(merged: pl.DataFrame) -> pl.DataFrame:
    """Rows for every condition that they meet; overlap conditions only where some overlap is known."""
    known = merged.filter(pl.col("conflict").is_not_null())
    parts = [known.filter(test).with_columns(condition=pl.lit(name)) for name, test in CONDITIONS.items()]
    rows = pl.concat(parts)
    some = pl.col("shared_files").is_not_null().any().over("experiment", "setting")
    return rows.filter(some | (pl.col("condition") == "all"))


def _rates(merged: pl.DataFrame) -> pl.DataFrame:
    """Conflict rates under every condition, Wilson's interval for a cell, one clustered by task over seeds."""
    by = [*CELL, "place", "population", "condition"]
    rows = _conditioned(merged).with_columns(n=pl.lit(1, pl.Int64))
    sums = rows.group_by(by).agg(
        merges=pl.len().cast(pl.Int64), conflicts=pl.col("conflict").sum(), hollow=tally(pl.col("kind") == "hollow")
    )
    solid, one_cell = pl.col("merges") - pl.col("hollow"), pl.col("seed").is_not_null()
    found = clustered_mean(rows, by, total="conflict").select(*by, "tasks", "low", "high", "interval_note")
    low, high = wilson(pl.col("conflicts"), pl.col("merges"))
    clustered = pl.when(pl.col("low").is_not_null()).then(pl.lit(CR2))
    return sums.join(found, on=by, how="left", nulls_equal=True).with_columns(
        rate=pl.col("conflicts") / pl.col("merges"),
        rate_not_hollow=pl.when(solid > 0).then(pl.col("conflicts") / solid),
        low=pl.when(one_cell).then(low).otherwise("low"),
        high=pl.when(one_cell).then(high).otherwise("high"),
        interval_method=pl.when(one_cell).then(pl.lit(WILSON)).otherwise(clustered),
        interval_note=pl.when(~one_cell).then("interval_note"),
    )


def _kinds(merged: pl.DataFrame) -> pl.DataFrame:
    by = [*CELL, "place", "population"]
    rows = merged.group_by(*by, "kind").agg(
        pairs=pl.len().cast(pl.Int64),
        passes_strict=tally(pl.col("outcome_strict") == "pass"),
        passes_upstream=tally(pl.col("outcome") == "pass"),
        fallback_unseen=tally(pl.col("fallback_unseen")),
    )
    return rows.with_columns(share=pl.col("pairs") / pl.col("pairs").sum().over(by))
