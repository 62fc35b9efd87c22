"""What must hold of one experiment in the results store, over its cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from cooperbench_assets.checks.finding import Check, Finding, found
from cooperbench_assets.wording import count, counted, plural

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cooperbench_assets.store.cells import Cell
    from cooperbench_assets.store.comparison import Comparison

RECIPE = ("model", "agent", "agent_config_sha256", "harness_version", "merge_policy", "subset_sha256")
"""What must be the same in cells that are compared."""


@dataclass(frozen=True, slots=True)
class StoreView:
    """What the checks of one experiment in the store look at."""

    experiment: str
    planned: tuple[Cell, ...]
    kept: frozenset[Cell]
    """The cells that belong in the store: those planned, launched although unplanned, or imported."""

    published: Mapping[str, pl.DataFrame]
    """The experiment's rows of the tables ``pairs`` and ``provenance``, from results.duckdb."""

    comparison: Comparison
    """What differs between results.duckdb and the partition tables."""

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
        bad=lambda n: f"{n} of {len(view.planned)} planned cells {plural(n, 'is', 'are')} not in the store",
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
        good=f"the same {count(len(common), 'pair')} in {len(sets)} cells",
        bad=lambda n: f"{count(n, 'cell')} {plural(n, 'has', 'have')} pairs that others lack",
        remedy="give all settings one subset, and materialise the cells that were read with another",
    )


def one_recipe(view: StoreView) -> Finding:
    """One model, agent, agent config, harness version, merge policy and subset in all cells."""
    provenance = view.published["provenance"].sort("setting", "seed")
    # The gold baseline has no model and no agent, and is compared with nothing.
    provenance = provenance.filter(~pl.col("gold").fill_null(False))
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
        bad=lambda n: f"{count(n, 'difference')} between cells; comparisons of those cells are refused",
        remedy="make the cells named again with the same recipe, or put them into an experiment of their own",
    )


def equals_partition_tables(view: StoreView) -> Finding:
    """The published rows are those of the partition tables, row for row."""
    compared = view.comparison
    newer = f"; {counted(compared.newer, 'cell', 'was', 'were')} written since" if compared.newer else ""
    return found(
        compared.problems,
        good=f"{compared.rows} rows equal to the partition tables{newer}",
        bad=lambda n: f"{count(n, 'difference')} between the store and the partition tables",
        remedy=view.again,
        numbers={"rows": compared.rows},
    )


def nothing_dropped_remains(view: StoreView) -> Finding:
    """No row of a cell that the experiment does not plan, launched nor imported."""
    kept = {(cell.setting, cell.seed) for cell in view.kept}
    rows = view.published["provenance"].sort("setting", "seed").iter_rows(named=True)
    return found(
        (_cell_name(row) for row in rows if (row["setting"], row["seed"]) not in kept),
        good="nothing of a dropped cell",
        bad=lambda n: f"{count(n, 'cell')} in the store that the experiment has dropped",
        remedy=view.again,
    )


RESULTS_STORE_CHECKS: tuple[Check[StoreView], ...] = (
    Check("planned_cells_present", "Every planned cell is in the store", planned_cells_present),
    Check("same_pairs_everywhere", "The same pairs in every seed and setting", same_pairs_everywhere),
    Check("one_recipe", "One model, agent, config, harness version and merge policy", one_recipe),
    Check("equals_partition_tables", "Row for row equal to the partition tables", equals_partition_tables),
    Check("nothing_dropped_remains", "Nothing of a dropped cell", nothing_dropped_remains),
)
