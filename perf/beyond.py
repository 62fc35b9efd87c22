"""What ten thousand times as much needs: a reckoning from the measured figures, not a measurement."""

from __future__ import annotations

from collections.abc import Mapping

PAIRS = 10**6
CELL = 100


def section(facts: Mapping[str, float]) -> str:
    """The last part of the page; empty where a figure is missing."""
    try:
        return _section(facts)
    except KeyError as missing:
        return f"## Past one machine\n\nNot reckoned: no figure for {missing.args[0]}.\n"


def _section(facts: Mapping[str, float]) -> str:
    cells = PAIRS // CELL
    tree = PAIRS * facts["tree_bytes_per_pair"] / 1e9
    parquet = PAIRS * facts["parquet_bytes_per_pair"] / 1e9
    files = cells * facts["parquet_files_per_cell"]
    store = PAIRS * facts["store_bytes_per_pair"] / 1e9
    reading = PAIRS * facts["import_seconds_per_pair"] / 3600
    tests = PAIRS * facts["evaluation_seconds_per_pair"] / 86400
    analysis = facts["analysis_seconds"] * PAIRS / facts["analysis_rows"]
    memory = facts["analysis_peak_mib"] * PAIRS / facts["analysis_rows"] / 1024
    small, large = facts["publish_small_seconds"], facts["publish_seconds"]
    each = (large - small) / (facts["publish_cells"] - facts["publish_small_cells"])
    publish = small + each * cells
    units = f"{parquet:,.1f} GB in {files:,.0f} files"
    work = facts["import_peak_mib"]
    daily = publish * cells / 3600
    return f"""## Past one machine

A reckoning in proportion, from the figures above, of {PAIRS:,} pairs: {cells:,} cells of {CELL}. Nothing of it was
measured at that size.

| what | time | disk | memory |
| --- | --- | --- | --- |
| log trees, without patches and trajectories | | {tree:,.0f} GB | |
| evaluation, demo's tests, this machine | {tests:,.1f} days | | |
| read, judge, write and publish all of it once | {reading:,.1f} h | {units} | {work:,.0f} MiB |
| results.duckdb | | {store:,.1f} GB | |
| publish one changed cell | {publish:,.1f} s | | |
| the same after each of {cells:,} cells | {daily:,.0f} h | | |
| the whole analysis at once | {analysis:,.0f} s | | {memory:,.1f} GiB |

**What breaks first: publishing after every cell.** One publish copies the whole file and looks at every unit's
record, so that its time grows with the store, and publishing once a cell with its square. Long before that the tests
themselves fill the machine: they are most of the time at any size, and go to more machines with the harness's own
backends and Dagster's run launchers. Then publish in batches (the asset does: one run takes in all cells that changed
since the last), or one file an experiment. Reading and the partition tables have no such limit: a cell costs what it
costs, in any number of processes, on any number of machines that share a file system. The analysis of one experiment
takes only its own rows, so its memory grows with the experiment and not with the store.
"""
