"""Candidates for the interval of a rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from cooperbench_assets.analysis.intervals import rate_ends
from perf.simulation.designs import Design, drawn

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

DESIGNS = [
    Design(rate, tasks, seeds, rho)
    for rate in (0.05, 0.1, 0.2, 0.35, 0.5, 0.7)
    for tasks in (6, 8, 12, 20, 26)
    for seeds in (1, 3, 5)
    for rho in (0.0, 0.2, 0.4, 0.6)
] + [
    Design(rate, tasks, seeds, 0.2, kind="drift")
    for rate in (0.1, 0.35)
    for tasks in (6, 12, 26)
    for seeds in (3, 5)
]  # fmt: skip
LEVEL = 0.95
CHOSEN = "CR2 logit, telling tasks"
"""In use: ``cooperbench_assets.analysis.intervals.rate_ends``."""


def cr2(sums: Floats, counts: Floats) -> tuple[Floats, Floats, float]:
    """Mean, CR2 standard error and Satterthwaite degrees of freedom of every draw."""
    n = counts.sum()
    w = counts / n
    mean = sums.sum(axis=1) / n
    variance = ((sums - counts * mean[:, None]) ** 2 / (1 - w)).sum(axis=1) / n**2
    b = w**2 / (1 - w)
    dof = 1 / ((w**2).sum() + b.sum() ** 2 - (b**2).sum())
    return mean, np.sqrt(variance), float(dof)


def of_rates(sums: Floats, counts: Floats, seeds: int) -> dict[str, tuple[Floats, Floats]]:
    """Both ends by every candidate."""
    mean, se, dof = cr2(sums, counts)
    n, tasks = counts.sum() * seeds, len(counts)
    telling = np.minimum((sums > 1e-9).sum(axis=1), (sums < counts - 1e-9).sum(axis=1)).astype(np.float64)
    t = special.stdtrit(dof, (1 + LEVEL) / 2)
    z = special.ndtri((1 + LEVEL) / 2)
    inside = (mean > 0) & (mean < 1)
    variance = np.where(inside, mean * (1 - mean), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        half = t * se / variance
        logit = np.log(mean / (1 - mean))
        at_logit = (special.expit(logit - half), special.expit(logit + half))
        size = np.minimum(variance / se**2, n)
    # At 0 and at n of n nothing shows how alike pairs of a task are: then a task counts once.
    size = np.where(inside, size, tasks)
    korn = size * (special.stdtrit(n - 1, 0.975) / t) ** 2
    korn = np.where(inside, korn, tasks)
    exact = _clopper_pearson(mean, korn)
    return {
        "CR2-t": (np.clip(mean - t * se, 0, 1), np.clip(mean + t * se, 0, 1)),
        "CR2 logit": (np.where(inside, at_logit[0], exact[0]), np.where(inside, at_logit[1], exact[1])),
        CHOSEN: rate_ends(mean, se, np.full(len(mean), dof), telling, np.full(len(mean), float(tasks))),
        "Korn-Graubard": exact,
        "Wilson, effective n": _wilson(mean, size, np.where(inside, t, z)),
    }


def _clopper_pearson(mean: Floats, n: Floats) -> tuple[Floats, Floats]:
    x = mean * n
    low = np.where(x > 0, special.betaincinv(np.maximum(x, 1e-12), n - x + 1, 0.025), 0.0)
    high = np.where(n - x > 1e-12, special.betaincinv(x + 1, np.maximum(n - x, 1e-12), 0.975), 1.0)
    return low, high


def _wilson(mean: Floats, n: Floats, z: Floats) -> tuple[Floats, Floats]:
    centre = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def measured(design: Design, draws: int, generator: np.random.Generator) -> dict[str, Any]:
    """Coverage, misses below and above, and mean width by candidate; and how many tasks have a pass."""
    sums, _ = drawn(design, draws, generator)
    found: dict[str, Any] = {"with_pass": float((sums > 0).sum(axis=1).mean())}
    for name, (low, high) in of_rates(sums, design.counts, design.seeds).items():
        below, above = (high < design.rate - 1e-12).mean(), (low > design.rate + 1e-12).mean()
        found[name] = {"coverage": float(1 - below - above), "below": float(below), "width": float((high - low).mean())}
    return found
