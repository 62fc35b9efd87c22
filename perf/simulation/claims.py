"""Whole studies in which nothing differs, through the whole analysis: how often a difference is claimed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from cooperbench_assets.analysis.comparisons import paired_comparisons
from perf.simulation.designs import Design

if TYPE_CHECKING:
    import numpy.typing as npt

SETTINGS = ("solo", "coop-comm", "coop-nocomm")
STUDIES = 1000
BATCH = 100
DESIGNS = [Design(rate, tasks, 2, 0.3) for rate in (0.1, 0.3) for tasks in (6, 8, 12)]


def measured(design: Design, draws: int, generator: np.random.Generator) -> dict[str, Any]:
    """Share of studies of three settings in which a planned contrast is claimed, at most ``STUDIES`` of them."""
    studies = min(draws, STUDIES)
    claimed = 0
    for start in range(0, studies, BATCH):
        frames = {"pairs": _pairs(design, min(BATCH, studies - start), generator)}
        found = paired_comparisons(frames)["paired_comparisons"]
        planned = found.filter(verdict="strict", population="clean", endpoint="success", family="planned")
        claimed += planned.filter("claimed")["experiment"].n_unique()
    return {"studies": studies, "claimed": claimed / studies}


def _pairs(design: Design, studies: int, generator: np.random.Generator) -> pl.DataFrame:
    """Rows of PAIRS, as far as success needs them: every setting draws from the same chances."""
    counts = design.counts.astype(int)
    size = (1 - design.rho) / design.rho
    of_task = generator.beta(design.rate * size, (1 - design.rate) * size, (studies, design.tasks))
    chance: npt.NDArray[np.float64] = np.repeat(of_task, counts, axis=1)
    study, pair = (index.ravel() for index in np.indices(chance.shape))
    base = pl.DataFrame(
        {
            "experiment": np.char.add("e", study.astype(str)), "pair": np.char.add("p", pair.astype(str)),
            "task_id": np.repeat(np.arange(design.tasks), counts)[pair], "repo": "r",
        }
    )  # fmt: skip
    parts = [
        base.with_columns(
            setting=pl.lit(name), seed=pl.lit(seed, pl.Int32),
            outcome=pl.Series(np.where(generator.random(chance.size) < chance.ravel(), "pass", "fail")),
        )
        for name in SETTINGS
        for seed in range(design.seeds)
    ]  # fmt: skip
    return pl.concat(parts).with_columns(outcome_strict="outcome")
