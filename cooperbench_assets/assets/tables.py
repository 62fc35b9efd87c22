"""Every table that the assets write: those of the store, and those of the analyses."""

from __future__ import annotations

from cooperbench_assets.analysis.registry import RESULT_TABLES
from cooperbench_assets.store.gold import GOLD_BASELINE
from cooperbench_assets.store.images import TASK_IMAGES
from cooperbench_assets.store.overlaps import PATCH_OVERLAPS
from cooperbench_assets.store.schema import CELL_TABLES, CORE_TABLES
from cooperbench_assets.store.verdicts import SECOND_VERDICTS

CELL_UNIT_TABLES = (*CELL_TABLES, PATCH_OVERLAPS)
"""What pair_results writes for a cell."""

STORE_TABLES = (*CORE_TABLES, PATCH_OVERLAPS, TASK_IMAGES, GOLD_BASELINE, SECOND_VERDICTS, *RESULT_TABLES)
"""What results.duckdb holds."""
