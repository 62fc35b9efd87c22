"""``paired_comparisons``, ``conclusions`` and ``paired_tables``: one setting against another, over common pairs.

What belongs here: contrasts of settings within an experiment. What does not: how a contrast is estimated and tested
(``contrasts``), and whether it may be (``comparability``).
"""

from __future__ import annotations

import polars as pl

from cooperbench_assets.analysis.comparability import refusals, window_gaps, without_refused
from cooperbench_assets.analysis.contrasts import ESTIMATE, against_each_other, conclusion, contrasted, pair_means
from cooperbench_assets.analysis.declarations import plans_of, with_plan, without_excluded
from cooperbench_assets.analysis.endpoints import ENDPOINTS, endpoint_scores
from cooperbench_assets.analysis.frames import (
    HEADLINE,
    POPULATION,
    SCORE,
    VERDICT,
    Frames,
    cells_of,
    columns,
    compared_cells,
    conform,
    pairs_of,
    result_table,
    scores_of,
    settings_of,
    tally,
)
from cooperbench_assets.analysis.grid import gold_passes
from cooperbench_assets.analysis.significance import mcnemar

_KEY = ["experiment", "setting_a", "setting_b"]
_ONLY = "these pairs only: pairs of one task are taken as independent"
_SIDES = columns(
    ("setting_a", pl.String, "First setting: solo before coop"),
    ("setting_b", pl.String, "Second setting, which is subtracted"),
)

PAIRED_COMPARISONS = result_table(
    "paired_comparisons",
    "Mean over common pairs of (mean over seeds in A − mean over seeds in B), tested and clustered by task.",
    *VERDICT,
    *POPULATION,
    *_SIDES,
    *ESTIMATE,
    *HEADLINE,
)

CONCLUSIONS = result_table(
    "conclusions",
    "What changes the conclusion: every contrast by verdict, with dead pairs in or out, over all pairs or sound ones.",
    *_SIDES,
    ("endpoint", pl.String, "success or merging"),
    ("family", pl.String, "planned or exploratory"),
    ("verdict", pl.String, "Whose verdict"),
    ("dead_pairs", pl.String, "out (clean verdicts only) or in (every eval.json, infra_error left in)"),
    ("which_pairs", pl.String, "all, or without those that the gold baseline shows broken"),
    ("pairs", pl.Int64, "Common pairs"),
    ("tasks", pl.Int64, "Their tasks"),
    ("difference", pl.Float64, "Rate of the first setting less that of the second"),
    ("p_holm", pl.Float64, "p on other tasks like these, adjusted by Holm within its family"),
    ("conclusion", pl.String, "Which setting is higher, or that no difference is shown or can be"),
    ("flips", pl.Boolean, "It is another than by the strict verdict over all clean pairs"),
)

PAIRED_TABLES = result_table(
    "paired_tables",
    "Both / only A / only B / neither and exact McNemar, by seed and by majority: a statement on these pairs only.",
    *VERDICT,
    *POPULATION,
    *_SIDES,
    ("basis", pl.String, "seed, or majority if both settings have the same odd number of seeds; open ones left out"),
    ("seed", pl.Int32, "Seed; NULL for the majority"),
    ("pairs", pl.Int64, "Pairs judged on both sides"),
    ("both", pl.Int64, "Passed in A and in B"),
    ("only_a", pl.Int64, "Passed in A only"),
    ("only_b", pl.Int64, "Passed in B only"),
    ("neither", pl.Int64, "Passed in neither"),
    ("p_mcnemar", pl.Float64, "Exact two-sided McNemar test, not adjusted"),
    ("label", pl.String, "What the p value is about"),
    ("refused", pl.String, "Why these settings may not be compared"),
)


def paired_comparisons(frames: Frames) -> dict[str, pl.DataFrame]:
    """Every two settings, over the pairs that both were judged on, clustered by task."""
    cells, plans = cells_of(frames), plans_of(frames)
    contrasts, used = with_plan(contrasts_of(cells), plans), compared_cells(cells)
    gaps = window_gaps(frames, used, contrasts).rename({"gap": "caution"})
    reasons = refusals(used, contrasts).join(gaps, on=_KEY, how="left")
    frames = without_excluded(frames, plans)
    rows = contrasted(endpoint_scores(frames, cells), contrasts, reasons, SCORE)
    rows = rows.sort(*SCORE, pl.col("endpoint").cast(pl.Enum([*ENDPOINTS])), "place_a", "place_b")
    sound = _sound(frames, cells)
    again = rows.clear() if sound is None else contrasted(endpoint_scores(sound, cells), contrasts, reasons, SCORE)
    return {
        PAIRED_COMPARISONS.name: conform(PAIRED_COMPARISONS, rows),
        CONCLUSIONS.name: conform(CONCLUSIONS, _conclusions(rows, again)),
    }


def _sound(frames: Frames, cells: pl.DataFrame) -> Frames | None:
    """The frames without pairs that a gold baseline judged and never passed; None where there is none such."""
    broken = gold_passes(pairs_of(frames), cells).filter(~pl.col("gold_passes"))
    return {**frames, "pairs": frames["pairs"].join(broken, on="pair", how="anti")} if broken.height else None


def _conclusions(rows: pl.DataFrame, sound: pl.DataFrame) -> pl.DataFrame:
    """One row for each way of counting, the strict verdict over all clean pairs first."""
    key = [*_KEY, "endpoint"]
    parts = [rows.with_columns(which_pairs=pl.lit("all")), sound.with_columns(which_pairs=pl.lit("sound by gold"))]
    found = pl.concat(part.filter(pl.col("endpoint").is_in(["success", "merging"])) for part in parts)
    found = found.with_columns(
        conclusion=conclusion(),
        dead_pairs=pl.when(pl.col("population") == "clean").then(pl.lit("out")).otherwise(pl.lit("in")),
    )
    first = found.filter(verdict="strict", dead_pairs="out", which_pairs="all").select(*key, first="conclusion")
    found = found.join(first, on=key, how="left").with_columns(flips=pl.col("conclusion") != pl.col("first"))
    return found.sort(
        pl.col("experiment"), pl.col("endpoint") != "success", "place_a", "place_b", "which_pairs",
        pl.col("dead_pairs") != "out", "verdict",
    )  # fmt: skip


def contrasts_of(cells: pl.DataFrame) -> pl.DataFrame:
    """Every two settings of an experiment: experiment, setting_a, place_a, setting_b, place_b."""
    return against_each_other(settings_of(compared_cells(cells)).select("experiment", "setting", "place"))


def paired_tables(frames: Frames) -> dict[str, pl.DataFrame]:
    """Fourfold tables and exact McNemar tests by seed and by majority, for these pairs only."""
    cells = cells_of(frames)
    rows = _tables(scores_of(frames, cells), cells)
    rows = rows.with_columns(p_mcnemar=mcnemar(rows["only_a"], rows["only_b"]), label=pl.lit(_ONLY))
    contrasts = contrasts_of(cells)
    rows = rows.join(refusals(compared_cells(cells), contrasts).select(*_KEY, "refused"), on=_KEY, how="left")
    rows = rows.with_columns(without_refused("p_mcnemar"))
    rows = rows.sort(*SCORE, "place_a", "place_b", pl.col("basis") == "majority", "seed")
    return {PAIRED_TABLES.name: conform(PAIRED_TABLES, rows)}


def _tables(scores: pl.DataFrame, cells: pl.DataFrame) -> pl.DataFrame:
    """Counts of the four ways that a pair can go in two settings, by seed and by majority."""
    seeds = scores.filter(pl.col("score").is_not_null()).select(
        *SCORE, "setting", "place", "seed", "pair", basis=pl.lit("seed"), passed=pl.col("score") == 1
    )
    judged = pl.concat([seeds, _majorities(scores, cells)], how="diagonal")
    match = [*SCORE, "basis", "seed", "cells"]
    both = judged.join(judged, on=[*match, "pair"], suffix="_b", nulls_equal=True)
    a, b = pl.col("passed"), pl.col("passed_b")
    sides = (pl.col("setting", "place").name.suffix("_a"), pl.col("setting_b", "place_b"))
    return both.filter(pl.col("place") < pl.col("place_b")).group_by(*match, *sides).agg(
        pairs=pl.len().cast(pl.Int64), both=tally(a & b), only_a=tally(a & ~b), only_b=tally(~a & b),
        neither=tally(~a & ~b),
    )  # fmt: skip


def _majorities(scores: pl.DataFrame, cells: pl.DataFrame) -> pl.DataFrame:
    """Pairs that passed, or failed, in more than half of all seeds of a setting with an odd number of them.

    A pair with so few verdicts that the seeds without one could turn the majority has none.
    """
    seeds = settings_of(compared_cells(cells)).select("experiment", "setting", cells="seeds")
    pairs = pair_means(scores).join(seeds, on=["experiment", "setting"]).filter(pl.col("cells") % 2 == 1)
    passed = 2 * pl.col("k") > pl.col("cells")
    failed = 2 * (pl.col("n") - pl.col("k")) > pl.col("cells")
    return pairs.filter(passed | failed).select(
        *SCORE, "setting", "place", "cells", "pair", basis=pl.lit("majority"), passed=passed
    )
