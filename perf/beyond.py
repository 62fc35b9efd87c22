"""What ten thousand times as much needs: a reckoning from the measured figures, not a measurement."""

from __future__ import annotations

from collections.abc import Mapping

PAIRS = 10**6
CELL = 100
SHARE = 0.1


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
    units = f"{parquet:,.1f} GB in {cells * facts['parquet_files_per_cell']:,.0f} files"
    store = PAIRS * facts["store_bytes_per_pair"] / 1e9
    reading = PAIRS * facts["import_seconds_per_pair"] / 3600
    tests = PAIRS * facts["evaluation_seconds_per_pair"] / 86400
    analysis = facts["analysis_seconds"] * PAIRS / facts["analysis_rows"]
    gib = facts["analysis_peak_mib"] * PAIRS / facts["analysis_rows"] / 1024
    fixed, each = _publish(facts)
    once, every = fixed + each * cells, (fixed * cells + each * cells**2 / 2) / 3600
    return f"""## Past one machine

A reckoning in proportion, from the figures above, of {PAIRS:,} pairs: {cells:,} cells of {CELL}. Nothing of it was
measured at that size.

| what | time | disk | memory |
| --- | --- | --- | --- |
| log trees, without patches and trajectories | | {tree:,.0f} GB | |
| evaluation: the demo's short tests, on this machine | {tests:,.1f} days | | |
| reading, judging and writing all of it once | {reading:,.1f} h | {units} | {facts["import_peak_mib"]:,.0f} MiB |
| results.duckdb | | {store:,.1f} GB | |
| publishing one changed cell | {once:,.1f} s | | |
| publishing after each new cell, from none to all | {every:,.1f} h | | |
| the analysis of all experiments at once | {analysis:,.0f} s | | {gib:,.1f} GiB |

{_first(facts)}

Reading and the partition tables have no such limit: a cell costs what it costs, in any number of processes, on any
number of machines that share a file system. The tests are most of the time at any size: they go to more machines with
the harness's own backends and Dagster's run launchers.
"""


def _publish(facts: Mapping[str, float]) -> tuple[float, float]:
    """Seconds of one publish: fixed, and for each cell in the store."""
    small, large = facts["publish_small_seconds"], facts["publish_seconds"]
    few, many = facts["publish_small_cells"], facts["publish_cells"]
    each = max(0.0, (large - small) / (many - few))
    return max(0.0, small - each * few), each


def _first(facts: Mapping[str, float]) -> str:
    """Which part breaks first, and at how many pairs."""
    fixed, each = _publish(facts)
    # Publishing once a cell, from none to n cells, takes a tenth of the time that evaluating them takes.
    allowed = SHARE * CELL * facts["evaluation_seconds_per_pair"] - fixed
    published = CELL * 2 * allowed / each if each > 0 and allowed > 0 else 0.0
    analysed = facts["memory_mib"] * facts["analysis_rows"] / facts["analysis_peak_mib"]
    publishing = (
        "publishing after every cell: it copies the whole file and looks at every unit's record, so that all publishes "
        f"together grow with the square of the cells. From about {published:,.0f} pairs on they take a tenth of "
        "the time of the evaluation itself. Publish in batches then (one publish takes in whatever changed since the "
        "last), or keep one file an experiment"
    )
    analysing = (
        "the analysis of all experiments at once, which takes every row into memory: "
        f"{analysed:,.0f} pairs fill this machine's. An asset takes the rows of its own experiment only, so it is "
        "the largest experiment that counts; past that, the counting must move into DuckDB"
    )
    first, second = (publishing, analysing) if published < analysed else (analysing, publishing)
    return f"**What breaks first** is {first}.\n\nNext is {second}."
