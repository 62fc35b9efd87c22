"""The cell: a setting and a seed of an experiment, one Dagster partition, one run of upstream's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True, slots=True)
class Cell:
    """The key that every row of a cell's tables carries."""

    experiment: str
    setting: str
    seed: int

    def __str__(self) -> str:
        return f"{self.experiment} {self.setting} seed {self.seed}"
