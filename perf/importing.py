"""Importing many cells: from log trees to a published store, against a loop with one table write a cell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.benchmark.pairs import load_subset
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.partition_tables import write_unit
from cooperbench_assets.store.publish import publish
from cooperbench_assets.store.rows import cell_frames
from cooperbench_assets.store.schema import CELL_TABLES
from cooperbench_assets.store.units import cell_unit
from perf import inputs
from perf.measure import Contender, peak_of, race
from perf.reading import walk_and_read
from perf.results import Record, Section, Target, find, ratio

COLUMNS = {
    "run": pl.String,
    "repo": pl.String,
    "task_id": pl.Int64,
    "features": pl.String,
    "total_cost": pl.Float64,
    "total_steps": pl.Int64,
    "status": pl.String,
    "both_passed": pl.Boolean,
    "merge": pl.String,
    "output_a": pl.String,
    "output_b": pl.String,
}


def ours(logs: str, subset: str, target: str) -> None:
    """Every run read, judged and written; then published once."""
    written(logs, subset, target)
    publish(Path(target) / "results.duckdb", Path(target) / "tables")


def written(logs: str, subset: str, target: str) -> None:
    """The same without publishing."""
    root, folder = Path(logs), Path(target)
    shutil.rmtree(folder, ignore_errors=True)
    planned = load_subset(Path(subset))
    for run in sorted(root.iterdir()):
        setting, _, seed = run.name.rpartition("-seed")
        cell = Cell("imported", setting, int(seed))
        frames = cell_frames(cell, planned, read_run(run), logs_root=root)
        write_unit(folder / "tables", cell_unit(cell), frames, declared=CELL_TABLES)


def read_only(logs: str) -> None:
    """The share of reading and checking."""
    for run in sorted(Path(logs).iterdir()):
        read_run(run)


def tables_only(logs: str, subset: str) -> None:
    """The share of reading, judging and making tables."""
    root, planned = Path(logs), load_subset(Path(subset))
    for run in sorted(root.iterdir()):
        cell_frames(Cell("imported", "any", 0), planned, read_run(run), logs_root=root)


def loop(logs: str, target: str) -> None:
    """What people write: json.load in a loop, and after each cell its rows replaced in a DuckDB table."""
    folder = Path(target)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    names = ", ".join(f'"{name}" {_sql(dtype)}' for name, dtype in COLUMNS.items())
    for run in sorted(Path(logs).iterdir()):
        rows = [_row(run, path) for path in run.rglob("result.json")]
        pl.DataFrame(rows, schema=COLUMNS).write_parquet(folder / "cell.parquet")
        with duckdb.connect(str(folder / "loop.duckdb")) as connection:
            connection.execute(f"CREATE TABLE IF NOT EXISTS results ({names})")
            connection.execute("DELETE FROM results WHERE run = ?", [run.name])
            connection.execute(f"INSERT INTO results SELECT * FROM read_parquet('{folder / 'cell.parquet'}')")


def _sql(dtype: Any) -> str:
    return {pl.String: "VARCHAR", pl.Int64: "BIGINT", pl.Float64: "DOUBLE", pl.Boolean: "BOOLEAN"}[dtype]


def _row(run: Path, path: Path) -> dict[str, Any]:
    result = json.loads(path.read_text())
    verdict = path.with_name("eval.json")
    content = json.loads(verdict.read_text()) if verdict.exists() else {}
    agents = [result["agent"]] if "agent" in result else list(result["agents"].values())
    return {
        "run": run.name,
        **{name: result.get(name) for name in ("repo", "task_id", "total_cost", "total_steps")},
        "features": str(result.get("features")),
        "status": ",".join(agent["status"] for agent in agents),
        "both_passed": content.get("both_passed"),
        "merge": (content.get("merge") or {}).get("status"),
        "output_a": content.get("feature1", {}).get("test_output", "")[-2000:],
        "output_b": content.get("feature2", {}).get("test_output", "")[-2000:],
    }


def measure(place: Path, quick: bool) -> Section:
    """The table's fourth row."""
    few, many = (4, 10) if quick else (20, 200)
    subset = str(inputs.subset(place, 100).path)
    trees = {count: str(place / f"logs-{count}") for count in (few, many)}
    for count, logs in trees.items():
        inputs.generate(Path(logs), cells=count, pairs=100)
    logs, target = trees[many], str(place / "ours")
    records = _raced(logs, subset, target, str(place), 100 * many, quick)
    small = peak_of("perf.importing", "ours", [trees[few], subset, str(place / "small")]) or 0.0
    large = find(records, "ours").peak_mib or 0.0
    times = ratio(records, "loop, one table write a cell", "ours")
    tables = inputs.tree_size(place / "ours" / "tables")
    _, tree_bytes = inputs.tree_size(Path(trees[few]))
    return Section(
        name="importing",
        title="Import of many cells",
        records=records,
        targets=[
            Target(text="≥ 4 × as fast as the loop", value=f"{times:.1f} ×", met=times >= 4, why=_why(records, many)),
            Target(
                text="memory flat",
                value=f"{small:.0f} MiB with {few} cells, {large:.0f} MiB with {many}",
                met=large <= 1.5 * small,
                why=f"Without publishing it is {find(records, 'of it: all but publishing').peak_mib or 0:.0f} MiB with "
                f"{many}: reading and writing take one cell at a time. Publishing hands DuckDB all that is new in one "
                "transaction, which it keeps in memory until the commit.",
            ),
        ],
        text=(
            f"{many} cells of 100 generated pairs ({tree_bytes / few / 1e6:.1f} MB a cell), from the log trees to a "
            "published store, without Dagster. The loop keeps 11 columns a pair, judges nothing, and syncs one "
            "database file a cell; ours keeps six tables, judges every pair, and has the disk hold every Parquet file."
        ),
        facts={
            "import_seconds_per_pair": (find(records, "ours").seconds or 0.0) / (100 * many),
            "parquet_bytes_per_pair": tables[1] / (100 * many),
            "parquet_files_per_cell": tables[0] / many,
            "import_peak_mib": large,
            "made_bytes_per_pair": tree_bytes / (100 * few),
        },
    )


def _raced(logs: str, subset: str, target: str, place: str, pairs: int, quick: bool) -> list[Record]:
    """Ours, its parts, the loop and the floor, in turns."""
    written_to, looped = f"{place}/written", f"{place}/loop"
    return race(
        [
            Contender("floor: walk and read", "floor", lambda: walk_and_read(logs), n=pairs),
            Contender(
                "ours",
                "ours",
                lambda: ours(logs, subset, target),
                n=pairs,
                peak=("perf.importing", "ours", [logs, subset, target]),
            ),
            Contender("of it: read and check", "part", lambda: read_only(logs), n=pairs),
            Contender("of it: read, judge, make tables", "part", lambda: tables_only(logs, subset), n=pairs),
            Contender(
                "of it: all but publishing",
                "part",
                lambda: written(logs, subset, written_to),
                n=pairs,
                peak=("perf.importing", "written", [logs, subset, written_to]),
            ),
            Contender(
                "loop, one table write a cell",
                "peer",
                lambda: loop(logs, looped),
                n=pairs,
                peak=("perf.importing", "loop", [logs, looped]),
            ),
        ],
        rounds=1 if quick else 3,
        warm=0 if quick else 1,
    )


def _why(records: list[Record], cells: int) -> str:
    """Where the time of ours goes, a cell."""
    read, made, whole, floor = (
        1000 * (find(records, name).seconds or 0.0) / cells
        for name in (
            "of it: read and check",
            "of it: read, judge, make tables",
            "ours",
            "floor: walk and read",
        )
    )
    return (
        f"Of {whole:.0f} ms a cell, {read:.0f} go into reading (the bytes alone: {floor:.0f}), {made - read:.0f} into "
        f"judging and tables, {whole - made:.0f} into the Parquet files, their hashes and their record, synced "
        "together, and into publishing. The loop parses as much, writes one narrow table and syncs one file."
    )
