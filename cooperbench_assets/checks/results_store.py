"""What must hold of one experiment in the results store, over its cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from cooperbench_assets.checks.finding import Check, Finding, found

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cooperbench_assets.store.cells import Cell

RECIPE = ("model", "agent", "agent_config_sha256", "harness_version", "merge_policy", "subset_sha256")
"""What must be the same in cells that are compared."""

GOLD_AGENT = "gold"
"""What the gold baseline's cells name as their agent."""


@dataclass(frozen=True, slots=True)
class StoreView:
    """What the checks of one experiment in the store look at."""

    experiment: str
    planned: tuple[Cell, ...]
    published: Mapping[str, pl.DataFrame]
    """The experiment's rows of each table, from results.duckdb."""

    partitions: Mapping[Cell, Mapping[str, pl.DataFrame]]
    """Each cell's tables, from Parquet."""

    @property
    def again(self) -> str:
        """The command that publishes again."""
        return f"cooperbench-assets materialize {self.experiment}"


def _cell_name(row: Mapping[str, object]) -> str:
    return f"{row['setting']} seed {row['seed']}"


def planned_cells_present(view: StoreView) -> Finding:
    """Every planned cell is in the store."""
    rows = view.published["provenance"].select("setting", "seed").iter_rows()
    there = set(rows)
    missing = [cell for cell in view.planned if (cell.setting, cell.seed) not in there]
    return found(
        (str(cell) for cell in missing),
        good=f"all {len(view.planned)} planned cells",
        bad=f"{{n}} of {len(view.planned)} planned cells {{n:is|are}} not in the store",
        remedy=view.again,
        numbers={"cells": len(view.planned) - len(missing), "planned_cells": len(view.planned)},
    )


def same_pairs_everywhere(view: StoreView) -> Finding:
    """The same pairs in every seed and setting."""
    pairs = view.published["pairs"]
    cells = pairs.group_by("setting", "seed").agg(pl.col("pair").unique().sort().alias("pairs"))
    if cells.height < 2:
        return Finding(passed=True, description=f"{cells.height} cell: nothing to compare")
    sets = {_cell_name(row): set(row["pairs"]) for row in cells.sort("setting", "seed").iter_rows(named=True)}
    common = set.intersection(*sets.values())
    return found(
        (
            f"{name}: {', '.join(sorted(own - common)[:3])} not in every cell"
            for name, own in sets.items()
            if own - common
        ),
        good=f"the same {len(common)} pairs in {len(sets)} cells",
        bad="{n:cells} {n:has|have} pairs that others lack",
        remedy="give all settings one subset, and materialise the cells that were read with another",
    )


def one_recipe(view: StoreView) -> Finding:
    """One model, agent, agent config, harness version, merge policy and subset in all cells."""
    provenance = view.published["provenance"].sort("setting", "seed")
    # The gold baseline has no model and no agent, and is compared with nothing.
    provenance = provenance.filter(pl.col("agent").fill_null("") != GOLD_AGENT)
    differing: list[str] = []
    for column in RECIPE:
        known = provenance.filter(pl.col(column).is_not_null())
        if column in ("harness_version", "merge_policy"):
            # Solo merges nothing, so neither can be read off its files unless it was recorded.
            known = known.filter(pl.col("merge_policy") != "none", pl.col(column) != "unknown")
        if known[column].n_unique() > 1:
            most = known[column].mode().sort()[0]
            for row in known.filter(pl.col(column) != most).iter_rows(named=True):
                differing.append(f"{_cell_name(row)}: {column} {str(row[column])[:40]}, others {str(most)[:40]}")
    return found(
        differing,
        good="one model, agent, agent config, harness version, merge policy and subset",
        bad="{n:differences} between cells; comparisons of those cells are refused",
        remedy="make the cells named again with the same recipe, or put them into an experiment of their own",
    )


def equals_partition_tables(view: StoreView) -> Finding:
    """The published rows are those of the partition tables, row for row."""
    wrong: list[str] = []
    rows = 0
    for cell, tables in view.partitions.items():
        for name, frame in tables.items():
            here = pl.col("setting").eq(cell.setting) & pl.col("seed").eq(cell.seed)
            published = view.published[name].filter(here)
            rows += frame.height
            if published.height != frame.height:
                wrong.append(f"{cell}: {name}: {published.height} rows published, {frame.height} in Parquet")
            elif not _same_rows(published, frame):
                wrong.append(f"{cell}: {name}: {frame.height} rows that differ")
    return found(
        wrong,
        good=f"{rows} rows equal to the partition tables",
        bad="{n:tables} of cells {n:differs from its|differ from their} partition tables",
        remedy=view.again,
        numbers={"rows": rows},
    )


def _same_rows(one: pl.DataFrame, other: pl.DataFrame) -> bool:
    """Equal as multisets of rows: DuckDB promises no order."""
    plain = [name for name, dtype in other.schema.items() if not dtype.is_nested()]
    return one.select(other.columns).sort(plain).equals(other.sort(plain))


def nothing_dropped_remains(view: StoreView) -> Finding:
    """No row of a cell that the experiment does not plan and no partition table backs."""
    kept = {(cell.setting, cell.seed) for cell in (*view.planned, *view.partitions)}
    rows = view.published["provenance"].sort("setting", "seed").iter_rows(named=True)
    return found(
        (_cell_name(row) for row in rows if (row["setting"], row["seed"]) not in kept),
        good="nothing of a dropped cell",
        bad="{n:cells} in the store that the experiment has dropped",
        remedy=view.again,
    )


RESULTS_STORE_CHECKS: tuple[Check[StoreView], ...] = (
    Check("planned_cells_present", "Every planned cell is in the store", planned_cells_present),
    Check("same_pairs_everywhere", "The same pairs in every seed and setting", same_pairs_everywhere),
    Check("one_recipe", "One model, agent, config, harness version and merge policy", one_recipe),
    Check("equals_partition_tables", "Row for row equal to the partition tables", equals_partition_tables),
    Check("nothing_dropped_remains", "Nothing of a dropped cell", nothing_dropped_remains),
)
