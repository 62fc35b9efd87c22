"""Made studies: pairs of tasks that pass by chances that are known, drawn many at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

PAIRS_OF_TASK = (1, 6, 2, 8, 3, 4)
"""How many pairs the tasks have, in turn: 4 on average, as uneven as the benchmark's subsets are."""

WITHIN_TASK = 0.5
"""How alike the seeds of one pair are, beyond what its task explains: most pairs always pass, or never do."""

UNLIKE = 0.05
"""Correlation within tasks of the second setting where tasks are not shared."""


@dataclass(frozen=True, slots=True)
class Design:
    """One made study of one setting, or of two."""

    rate: float
    """Chance of the first setting (solo), on average over tasks."""

    tasks: int
    seeds: int
    rho: float
    """Correlation of the chances of two pairs of one task."""

    other: float | None = None
    """Chance of the second setting; None: there is one setting."""

    kind: str = "shared"
    """shared: what is easy in one setting is easy in the other · interaction: a task's effect turns with the setting ·
    drift: as shared, and chances rise from the first seed to the last."""

    @property
    def counts(self) -> npt.NDArray[np.float64]:
        """Pairs of every task."""
        return np.array([PAIRS_OF_TASK[task % len(PAIRS_OF_TASK)] for task in range(self.tasks)], dtype=np.float64)


def drawn(design: Design, draws: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Sums over pairs of a task of the share of seeds that pass: (draws, tasks) for each of the two settings."""
    counts = design.counts.astype(int)
    of_task = _beta(np.full((draws, design.tasks), design.rate), design.rho, generator)
    first = _beta(np.repeat(of_task, counts, axis=1), WITHIN_TASK, generator)
    if design.other is None:
        second = first
    elif design.kind == "interaction":
        alike = _beta(np.full((draws, design.tasks), design.other), UNLIKE, generator)
        second = _beta(np.repeat(alike, counts, axis=1), WITHIN_TASK, generator)
    else:
        second = first * (design.other / design.rate)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return (
        np.add.reduceat(_passes(first, design, generator), starts, axis=1),
        np.add.reduceat(_passes(second, design, generator), starts, axis=1),
    )


def _beta(mean: Floats, rho: float, generator: np.random.Generator) -> Floats:
    """Chances about `mean`, of which two draws correlate by `rho`."""
    if rho == 0:
        return mean
    size = (1 - rho) / rho
    inner = np.clip(mean, 1e-9, 1 - 1e-9)
    return generator.beta(inner * size, (1 - inner) * size)


def _passes(chance: Floats, design: Design, generator: np.random.Generator) -> Floats:
    """Share of seeds that pass. A drift keeps every pair's chance on average over its seeds."""
    if design.kind != "drift" or design.seeds == 1:
        shares: Floats = generator.binomial(design.seeds, np.clip(chance, 0, 1)) / design.seeds
        return shares
    room = np.minimum(chance, 1 - chance) * 0.8
    slopes = np.linspace(-1, 1, design.seeds)
    total = sum(generator.random(chance.shape) < chance + slope * room for slope in slopes)
    return np.asarray(total, dtype=np.float64) / design.seeds
