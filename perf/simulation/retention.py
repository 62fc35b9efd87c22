"""Candidates for the interval of retention: what a setting keeps of solo's success, a ratio of two means."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from perf.simulation.designs import Design, drawn
from perf.simulation.rates import cr2

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ends = tuple[Floats, Floats]

RESAMPLES = 799
BATCH = 1_000

DESIGNS = [
    Design(rate, tasks, seeds, rho, rate * kept, kind)
    for rate in (0.2, 0.5, 0.7)
    for kept in (0.2, 0.5, 1.0)
    for tasks in (6, 8, 12, 20, 26)
    for seeds, rho, kind in ((1, 0.2, "shared"), (3, 0.4, "shared"), (3, 0.3, "drift"))
]


def of_ratios(above: Floats, below: Floats, counts: Floats) -> dict[str, Ends]:
    """Both ends by every candidate; NaN where it gives none."""
    a, _, dof = cr2(above, counts)
    b, _, _ = cr2(below, counts)
    n = counts.sum()
    w = counts / n
    t = special.stdtrit(dof, 0.975)
    of_a, of_b = above - counts * a[:, None], below - counts * b[:, None]
    v_aa, v_bb, v_ab = ((x * y / (1 - w)).sum(axis=1) / n**2 for x, y in ((of_a, of_a), (of_b, of_b), (of_a, of_b)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = a / b
        half = t * np.sqrt(np.maximum(v_aa / a**2 + v_bb / b**2 - 2 * v_ab / (a * b), 0))
        found = {
            "log ratio t": (ratio * np.exp(-half), ratio * np.exp(half)),
            "Fieller": _fieller(a, b, v_aa, v_bb, v_ab, t),
        }
    none_passes = (a == 0) & (b > 0)
    bound = _bound(len(counts)) / np.maximum(b, 1e-12)
    for name, (low, high) in found.items():
        found[name] = (np.where(none_passes, 0.0, low), np.where(none_passes, bound, high))
    return found | _bootstraps(above, below)


def _bound(tasks: int) -> float:
    """The largest rate with which a one in forty chance is left that no task of so many has a pass."""
    return float(1 - 0.025 ** (1 / tasks))


def _fieller(a: Floats, b: Floats, v_aa: Floats, v_bb: Floats, v_ab: Floats, t: float) -> Ends:
    square, linear, rest = b**2 - t**2 * v_bb, a * b - t**2 * v_ab, a**2 - t**2 * v_aa
    root = np.sqrt(linear**2 - square * rest)
    bounded = (square > 0) & np.isfinite(root)
    low = np.where(bounded, np.maximum((linear - root) / square, 0), np.nan)
    return low, np.where(bounded, (linear + root) / square, np.nan)


@cache
def _resamples(tasks: int) -> Floats:
    draws = np.random.default_rng(11).multinomial(tasks, np.full(tasks, 1 / tasks), size=RESAMPLES)
    return np.asarray(draws, dtype=np.float64)


def _bootstraps(above: Floats, below: Floats) -> dict[str, Ends]:
    """Percentiles of tasks drawn with replacement, as they are and bias-corrected and accelerated."""
    resamples = _resamples(above.shape[1])
    tops, bottoms = above @ resamples.T, below @ resamples.T
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(bottoms > 0, tops / bottoms, np.nan)
        seen = above.sum(axis=1) / below.sum(axis=1)
        left = (above.sum(axis=1)[:, None] - above) / (below.sum(axis=1)[:, None] - below)
    lost = np.isnan(ratios).mean(axis=1) > 0.01
    ratios = np.sort(np.where(np.isnan(ratios), np.inf, ratios), axis=1)
    kept = np.isfinite(ratios).sum(axis=1)
    gap = left.mean(axis=1)[:, None] - left
    with np.errstate(divide="ignore", invalid="ignore"):
        speed = np.nan_to_num((gap**3).sum(axis=1) / (6 * (gap**2).sum(axis=1) ** 1.5))
        under = (ratios < seen[:, None] - 1e-12).sum(axis=1) + (np.abs(ratios - seen[:, None]) <= 1e-12).sum(axis=1) / 2
        bias = special.ndtri(np.clip(under / kept, 1e-6, 1 - 1e-6))
    found = {}
    for name, shifted in (("percentile bootstrap", False), ("BCa bootstrap", True)):
        ends = []
        for z in (special.ndtri(0.025), special.ndtri(0.975)):
            share = (
                special.ndtr(bias + (bias + z) / (1 - speed * (bias + z)))
                if shifted
                else np.full(len(seen), special.ndtr(z))
            )
            at = np.clip(np.round(share * (kept - 1)), 0, RESAMPLES - 1)
            at = np.nan_to_num(at).astype(int)
            ends.append(np.where(lost | np.isnan(seen), np.nan, np.take_along_axis(ratios, at[:, None], axis=1)[:, 0]))
        found[name] = (ends[0], ends[1])
    return found


def measured(design: Design, draws: int, generator: np.random.Generator) -> dict[str, Any]:
    """By candidate: coverage where it gives an interval, how often it gives none, and median width."""
    assert design.other is not None
    truth = design.other / design.rate
    parts: dict[str, list[Ends]] = {}
    passed = 0.0
    for start in range(0, draws, BATCH):
        size = min(BATCH, draws - start)
        solo, other = drawn(design, size, generator)
        passed += float((other > 0).sum(axis=1).mean()) * size
        for name, ends in of_ratios(other, solo, design.counts).items():
            parts.setdefault(name, []).append(ends)
    found: dict[str, Any] = {"with_pass": passed / draws}
    for name, many in parts.items():
        low, high = (np.concatenate(ends) for ends in zip(*many, strict=True))
        given = np.isfinite(low) & np.isfinite(high)
        covered = (low[given] <= truth + 1e-9) & (truth - 1e-9 <= high[given])
        found[name] = {
            "coverage": float(covered.mean()) if given.any() else None,
            "none": float(1 - given.mean()),
            "width": float(np.median((high - low)[given])) if given.any() else None,
        }
    return found
