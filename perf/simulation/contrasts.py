"""Candidates for the test of a difference and for its interval, which is the test turned round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from perf.simulation.designs import Design, drawn
from perf.simulation.rates import cr2

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

ALPHA = 0.05
PATTERNS = 256
BATCH = 2_500
WIDTHS = 200
"""Draws whose intervals are worked out by turning the sign-flip test round, for their mean width."""

_HALVINGS = 12

DESIGNS = [
    Design(rate, tasks, seeds, rho, rate, kind)
    for kind, all_seeds, rhos in (
        ("shared", (1, 3), (0.0, 0.3, 0.6)),
        ("interaction", (3,), (0.3, 0.6)),
        ("drift", (3,), (0.3,)),
    )
    for rate in (0.1, 0.3, 0.5)
    for tasks in (6, 8, 12, 20, 26)
    for seeds in all_seeds
    for rho in rhos
] + [
    Design(rate, tasks, 3, 0.3, other, kind)
    for kind in ("shared", "interaction")
    for rate, other in ((0.3, 0.1), (0.5, 0.3), (0.5, 0.1))
    for tasks in (6, 8, 12, 20, 26)
]  # fmt: skip


def p_values(sums: Floats, counts: Floats, shift: float = 0.0) -> dict[str, Floats]:
    """Two-sided p by every candidate, of the hypothesis that the mean difference is `shift`."""
    moved = sums - counts * shift
    mean, se, dof = cr2(moved, counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(se > 1e-12, np.abs(mean) / se, np.where(np.abs(mean) > 1e-12, np.inf, 0.0))
    found = {"CR2-t": 2 * special.stdtr(dof, -t)}
    plain, studentised = _totals(moved, counts)
    for name, (seen, others) in {"sign-flip": plain, "studentised sign-flip": studentised}.items():
        edge = 1e-9 * np.maximum(1.0, seen)
        above = (others > (seen + edge)[:, None]).mean(axis=1)
        least = (others >= (seen - edge)[:, None]).mean(axis=1)
        found[name], found[f"{name}, mid-p"] = least, (above + least) / 2
    return found


def _totals(sums: Floats, counts: Floats) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """What is seen, and all sign patterns' (draws, patterns): of the sum, and of the sum over its CR2 error."""
    signs = _signs(sums.shape[1])
    n = counts.sum()
    w = counts / n
    totals: Floats = sums @ signs
    mean = totals / n
    spread = (sums**2 / (1 - w)).sum(axis=1)[:, None] - 2 * mean * ((sums * counts / (1 - w)) @ signs)
    spread += mean**2 * (counts**2 / (1 - w)).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(spread > 1e-12, np.abs(totals) / np.sqrt(np.maximum(spread, 1e-300)), np.inf)
    ratio = np.where(np.abs(totals) < 1e-12, 0.0, np.minimum(ratio, 1e9))
    totals = np.abs(totals)
    return (np.asarray(totals[:, 0], dtype=np.float64), totals), (np.asarray(ratio[:, 0], dtype=np.float64), ratio)


def _signs(tasks: int) -> Floats:
    """The identity first. All patterns with the first task as it is, or, of many, as many drawn ones."""
    if 2 ** (tasks - 1) <= PATTERNS:
        bits = (np.arange(2 ** (tasks - 1))[None, :] >> np.arange(tasks)[:, None]) & 1
        return np.asarray(1.0 - 2.0 * bits, dtype=np.float64)
    signs = 1.0 - 2.0 * np.random.default_rng(7).integers(0, 2, (tasks, PATTERNS))
    signs[:, 0] = 1
    return np.asarray(signs, dtype=np.float64)


def measured(design: Design, draws: int, generator: np.random.Generator) -> dict[str, Any]:
    """By candidate: how often no difference is rejected, coverage of the true one, and the mean width."""
    assert design.other is not None
    truth = design.rate - design.other
    parts: dict[str, list[tuple[float, float, int]]] = {}
    informative, widths = 0.0, dict[str, float]()
    for start in range(0, draws, BATCH):
        size = min(BATCH, draws - start)
        first, second = drawn(design, size, generator)
        sums = first - second
        informative += float((np.abs(sums) > 1e-9).sum(axis=1).mean()) * size
        none = p_values(sums, design.counts)
        true = none if truth == 0 else p_values(sums, design.counts, truth)
        for name, p in none.items():
            hits = (float((p <= ALPHA).sum()), float((true[name] > ALPHA).sum()), size)
            parts.setdefault(name, []).append(hits)
        widths = widths or _widths(sums[:WIDTHS], design.counts)
    found: dict[str, Any] = {"informative": informative / draws}
    for name, counts in parts.items():
        rejected, covered, all_ = (sum(values) for values in zip(*counts, strict=True))
        found[name] = {"rejected": rejected / all_, "coverage": covered / all_, "width": widths[name]}
    return found


def _widths(sums: Floats, counts: Floats) -> dict[str, float]:
    """Mean width of what each test does not reject between −1 and 1, by halving on either side of the estimate."""
    mean, se, dof = cr2(sums, counts)
    half = special.stdtrit(dof, 1 - ALPHA / 2) * se
    widths = {"CR2-t": float((np.clip(mean + half, -1, 1) - np.clip(mean - half, -1, 1)).mean())}
    names = ("sign-flip", "sign-flip, mid-p", "studentised sign-flip", "studentised sign-flip, mid-p")
    total = {name: np.zeros(len(sums)) for name in names}
    for end in (-1.0, 1.0):
        inner = {name: mean.copy() for name in names}
        outer = {name: np.full(len(sums), end) for name in names}
        for _ in range(_HALVINGS):
            for name in names:
                middle = (inner[name] + outer[name]) / 2
                kept = p_values(sums - counts * middle[:, None], counts)[name] > ALPHA
                inner[name] = np.where(kept, middle, inner[name])
                outer[name] = np.where(kept, outer[name], middle)
        for name in names:
            total[name] += np.abs(inner[name] - mean)
    return widths | {name: float(value.mean()) for name, value in total.items()}
