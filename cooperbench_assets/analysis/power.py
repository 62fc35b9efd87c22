"""What a design of so many tasks, pairs and seeds would find, from how much results vary.

What belongs here: variances of the difference of two settings, and what follows from them. What does not: contrasts
of an experiment (``contrasts``), and asking for it on the command line (``commands.power``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy

from cooperbench_assets.analysis.contrasts import POWER, pair_means
from cooperbench_assets.analysis.intervals import ALPHA, FEWEST_TASKS

MOST_TASKS = 2000
"""Beyond this many tasks none are looked for."""


@dataclass(frozen=True, slots=True)
class Variances:
    """Variance of the difference of two settings, in squared shares, by where it comes from."""

    task: float
    """Between tasks: how the settings differ turns with the task."""

    pair: float
    """Between pairs of a task."""

    seed: float
    """Between the seeds of a pair, both settings together."""

    pairs: float = 4.0
    """Pairs of a task."""

    seeds_known: bool = True
    """False: no pair has two seeds in both settings, so that what seeds vary is in ``pair``."""


def variances(scores: pl.DataFrame, setting_a: str, setting_b: str) -> Variances | None:
    """The variances of one contrast, by the analysis of variance of tasks of uneven size; None below two tasks.

    Source: Searle, Casella & McCulloch, Variance Components (1992), 3.6.

    Args:
        scores: Of one experiment, as ``frames.scores_of`` gives them; the strict verdict over clean pairs counts.
        setting_a: One setting.
        setting_b: The other.
    """
    k, n = pl.col("k"), pl.col("n")
    spread = pl.when(n > 1).then(k * (n - k) / (n * (n - 1)))
    means = pair_means(scores.filter(verdict="strict", population="clean")).filter(n > 0).with_columns(s=spread)
    a, b = (means.filter(setting=name).select("task", "pair", "mean", "s", "n") for name in (setting_a, setting_b))
    both = a.join(b, on="pair", suffix="_b").with_columns(d=pl.col("mean") - pl.col("mean_b"))
    squares = ((pl.col("d") - pl.col("d").mean()) ** 2).sum()
    tasks = both.group_by("task").agg(m=pl.len().cast(pl.Float64), mean=pl.col("d").mean(), ss=squares)
    total, groups = float(both.height), tasks.height
    if groups < 2:
        return None
    m, mean = tasks["m"].to_numpy(), tasks["mean"].to_numpy()
    between = float((m * (mean - (m * mean).sum() / total) ** 2).sum()) / (groups - 1)
    within = float(tasks["ss"].sum()) / (total - groups) if total > groups else 0.0
    task = max(0.0, (between - within) / ((total - float((m**2).sum()) / total) / (groups - 1)))
    seeds = [both[name].mean() for name in ("s", "s_b")]
    known = all(value is not None for value in seeds)
    noise = both.select((pl.col("s") / pl.col("n") + pl.col("s_b") / pl.col("n_b")).mean()).item() if known else 0.0
    pair = max(0.0, within - (noise or 0.0))
    return Variances(task, pair, sum(seeds) if known else 0.0, total / groups, known)  # type: ignore[arg-type]


def detectable(found: Variances, tasks: int, pairs: float, seeds: int, contrasts: int = 1) -> float | None:
    """The smallest true difference that four of five such studies find, Bonferroni over contrasts.

    Returns:
        A share; None where no difference can be found: too few tasks for an interval, or for p to come to .05.
    """
    if tasks < FEWEST_TASKS or contrasts * 2 * 0.5**tasks > ALPHA:
        return None
    variance = (found.task + (found.pair + found.seed / seeds) / pairs) / tasks
    dof = np.array([tasks - 1.0])
    reach = scipy.special.stdtrit(dof, 1 - ALPHA / 2 / contrasts) + scipy.special.stdtrit(dof, POWER)
    return float(reach[0] * np.sqrt(variance))


def tasks_needed(found: Variances, difference: float, pairs: float, seeds: int, contrasts: int = 1) -> int | None:
    """The fewest tasks that find a difference in four of five studies; None beyond ``MOST_TASKS``."""
    for tasks in range(FEWEST_TASKS, MOST_TASKS + 1):
        least = detectable(found, tasks, pairs, seeds, contrasts)
        if least is not None and least <= difference:
            return tasks
    return None
