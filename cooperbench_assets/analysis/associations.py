"""``communication_associations``: what goes with success and with conflicts, and what only seems to.

What belongs here: associations of traits of a conversation with its pair's outcome. What does not: causes. Nobody
drew lots over who writes what.
"""

from __future__ import annotations

import polars as pl

from cooperbench_assets.analysis.communication import talk_of_pairs
from cooperbench_assets.analysis.frames import (
    VERDICT,
    VERDICTS,
    Frames,
    cells_of,
    compared_cells,
    conform,
    is_clean,
    result_table,
    score,
    settings_of,
)
from cooperbench_assets.analysis.merges import is_conflict
from cooperbench_assets.analysis.messages import labels_of
from cooperbench_assets.analysis.significance import stratified_correlation

TRAITS = {
    "messages": "number of messages",
    "plan_first": "an agent's first message has a plan",
    "any_question": "a question was asked",
    "any_answer": "a question was answered",
    "any_unanswered": "a question had no answer",
    "any_mentions_file": "a file was named",
    "any_mentions_line": "a line was named",
}
"""Traits of a pair's conversation; the ones that are true or false count as 1 and 0."""

STRATA = {
    "pair": "within pair and given the seed: neither what is the same for a pair nor a drift over seeds explains it",
    "task": "means of pairs within task: pairs of a task may still differ in difficulty",
    "none": "raw: confounded by difficulty",
}

COMMUNICATION_ASSOCIATIONS = result_table(
    "communication_associations",
    "Association of traits of a conversation with passing and with conflicts, over clean pairs; exploratory.",
    ("setting", pl.String, "Setting"),
    *VERDICT,
    ("outcome", pl.String, "pass, or conflict: the plain merge conflicts"),
    ("trait", pl.String, "Trait: " + "; ".join(f"{name} ({text})" for name, text in TRAITS.items())),
    ("stratum", pl.String, "What rows are compared within: pair (across seeds), task, or none"),
    ("label", pl.String, "What the stratum leaves open"),
    ("n", pl.Int64, "Pairs times seeds with trait and outcome; for task: pairs"),
    ("strata", pl.Int64, "Strata"),
    ("informative", pl.Int64, "Strata in which trait and outcome both vary; all others say nothing"),
    ("slope", pl.Float64, "Change of the outcome's rate for one more of the trait, within strata"),
    ("correlation", pl.Float64, "Correlation within strata"),
    ("p", pl.Float64, "Mantel-Haenszel correlation test, not adjusted for the many tests here; NULL for raw"),
    ("note", pl.String, "Why there is no figure"),
)


def communication_associations(frames: Frames) -> dict[str, pl.DataFrame]:
    """What in a conversation goes with success and with conflicts."""
    cells = compared_cells(cells_of(frames))
    places = settings_of(cells).filter(pl.col("mode") != "solo").select("experiment", "setting", "place")
    pairs = talk_of_pairs(frames, labels_of(frames)).join(places, on=["experiment", "setting"])
    pairs = pairs.join(cells.select("experiment", "setting", "seed"), on=["experiment", "setting", "seed"], how="semi")
    parts = [
        _associated(pairs.with_columns(y=value), name).with_columns(outcome=pl.lit(outcome), verdict=pl.lit(verdict))
        for verdict, outcome, value in _outcomes()
        for name in STRATA
    ]
    rows = pl.concat(parts).with_columns(p=pl.when(pl.col("stratum") != "none").then("p"), note=_note())
    stratum = pl.col("stratum").cast(pl.Enum([*STRATA]))
    rows = rows.sort("experiment", "place", "verdict", "outcome", "trait", stratum)
    return {COMMUNICATION_ASSOCIATIONS.name: conform(COMMUNICATION_ASSOCIATIONS, rows)}


def _outcomes() -> list[tuple[str, str, pl.Expr]]:
    """What traits are held against, over clean pairs: (verdict, name, 1 or 0). A conflict is one by any verdict."""
    passes = [(verdict, "pass", score(verdict, "clean")) for verdict in VERDICTS]
    return [*passes, (VERDICTS[0], "conflict", pl.when(is_clean()).then(is_conflict()))]


def _associated(pairs: pl.DataFrame, stratum: str) -> pl.DataFrame:
    by = ["experiment", "setting", "place"]
    traits = list(TRAITS)
    if stratum == "task":
        # Seeds of a pair cannot be swapped with those of another, so a pair is one row.
        judged = pairs.filter(pl.col("y").is_not_null())
        pairs = judged.group_by(*by, "task", "pair").agg(pl.col(*traits, "y").mean()).sort(*by, "task", "pair")
    if stratum == "pair":
        # What changes for all pairs from seed to seed, such as the service, is no association within a pair.
        judged = pairs.filter(pl.col("y").is_not_null())
        pairs = judged.with_columns(
            pl.col(name).cast(pl.Float64) - pl.col(name).cast(pl.Float64).mean().over(*by, "seed")
            for name in (*traits, "y")
        )
    within = pl.lit("all") if stratum == "none" else pl.col(stratum)
    rows = stratified_correlation(pairs.with_columns(stratum=within), by, "stratum", traits, "y")
    return rows.with_columns(stratum=pl.lit(stratum), label=pl.lit(STRATA[stratum]))


def _note() -> pl.Expr:
    same = pl.col("stratum").replace_strict(
        {
            "pair": "no pair in which both vary otherwise than all pairs do from seed to seed",
            "task": "no task within which both vary",
            "none": "trait or outcome is the same everywhere",
        }
    )
    raw = pl.lit("no p value: seeds of a pair and pairs of a task are not independent")
    return pl.when(pl.col("slope").is_null()).then(same).when(pl.col("stratum") == "none").then(raw)
