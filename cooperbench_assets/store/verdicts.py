"""The table of further verdicts: what the same patches were given when a whole cell was evaluated again.

What belongs here: its declaration, and its unit. What does not: evaluating (``execution.runner.further_verdicts``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from cooperbench_assets.store.schema import TIME, Column, Table
from cooperbench_assets.store.units import Unit

if TYPE_CHECKING:
    from cooperbench_assets.store.cells import Cell

SECOND_VERDICTS = Table(
    "second_verdicts",
    "One row for every pair of a cell and round of fresh evaluation; the first verdict stays the outcome of record.",
    (
        Column("experiment", pl.String, "Name of the experiment: the folder of its defs.yaml"),
        Column("setting", pl.String, "The user's label of how agents work"),
        Column("seed", pl.Int32, "Number of the independent repetition"),
        Column("pair", pl.String, "repo/task_id/f<a>_f<b>: the key of the pair in every table"),
        Column("round", pl.Int32, "Number of the verdict: 2 is the second one"),
        Column("first", pl.String, "The outcome of record: pass or fail"),
        Column("first_reason", pl.String, "Why it failed, where it did"),
        Column("verdict", pl.String, "What this round says: pass or fail; NULL for an infrastructure error"),
        Column("reason", pl.String, "Why it failed, where it did"),
        Column("flaky", pl.Boolean, "Differs from the outcome of record on the same patch; NULL without a verdict"),
        Column("family", pl.String, "Family of the infrastructure failure; NULL where there is none"),
        Column("evidence", pl.String, "The text that shows the failure"),
        Column("tries", pl.Int32, "Tries of this round"),
        Column("evaluated_at", TIME, "When the round's last try of the pair ended"),
    ),
)


def verdicts_unit(cell: Cell) -> Unit:
    """The unit of a cell's further verdicts."""
    key: dict[str, str | int | None] = {"experiment": cell.experiment, "setting": cell.setting, "seed": cell.seed}
    return Unit.of(cell.experiment, SECOND_VERDICTS.name, cell.setting, str(cell.seed), key=key)
