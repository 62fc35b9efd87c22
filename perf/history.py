"""Dagster instances with thousands of earlier runs: copies of the runs that an instance has.

A run is copied with all its events, check results and tags, under an ID of its own. Times are moved, so that the
copies lie an hour apart and the last one is as old as the runs were. Only SQLite storage as dagster.yaml has it.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from pathlib import Path

RUNS = "history/runs.db"
INDEX = "history/runs/index.db"
SHARDS = "history/runs"

_NOT_COPIED = ("id", "run_id")
_TIMES = {
    "runs": ("create_timestamp", "update_timestamp"),
    "event_logs": ("timestamp",),
    "asset_event_tags": ("event_timestamp",),
    "asset_check_executions": ("evaluation_event_timestamp", "create_timestamp"),
}
_SECONDS = {"runs": ("start_time", "end_time")}
_EVENT_IDS = ("event_id", "evaluation_event_storage_id", "materialization_event_storage_id")
_WITH_RUN_ID = ("run_body", "event", "evaluation_event")


def lengthen(instance: Path, until: int) -> int:
    """Copy all runs of an instance, again and again, until it has at least so many.

    Args:
        instance: The folder that dagster.yaml names as `base_dir`; no process uses it now.
        until: The number of runs.

    Returns:
        How many runs it has then.
    """
    with sqlite3.connect(instance / RUNS) as runs:
        originals = [run for (run,) in runs.execute("SELECT run_id FROM runs ORDER BY id")]
    rounds = max(0, -(-until // len(originals)) - 1)
    copies = [(number, run, str(uuid.uuid4())) for number in range(1, rounds + 1) for run in originals]
    for name, tables in ((RUNS, ("runs", "run_tags")), (INDEX, ("event_logs", "asset_check_executions"))):
        _copy(instance / name, tables, copies, rounds)
    for _, run, copied in copies:
        # Links: nobody writes to, or reads, the events of a run that ended long ago.
        os.link(instance / SHARDS / f"{run}.db", instance / SHARDS / f"{copied}.db")
    return len(originals) + len(copies)


def _copy(file: Path, tables: tuple[str, ...], copies: list[tuple[int, str, str]], rounds: int) -> None:
    database = sqlite3.connect(file)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TEMP TABLE copies (number INTEGER, original TEXT, run TEXT)")
    database.executemany("INSERT INTO copies VALUES (?, ?, ?)", copies)
    stride = _highest(database, "event_logs") + 1 if "event_logs" in tables else 0
    for table in tables:
        _copy_table(database, table, rounds, stride)
    if stride:
        _copy_event_tags(database, rounds, stride)
    database.commit()
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()


def _copy_table(database: sqlite3.Connection, table: str, rounds: int, stride: int) -> None:
    columns = [name for (_, name, *_) in database.execute(f"PRAGMA table_info({table})")]
    kept = [name for name in columns if name not in _NOT_COPIED]
    values = [_value(table, name, rounds) for name in kept]
    into, taken = ["run_id", *kept], ["copies.run", *values]
    if table == "event_logs":  # Other tables name events by their IDs.
        into, taken = ["id", *into], [f"{table}.id + copies.number * {stride}", *taken]
    database.execute(
        f"INSERT INTO {table} ({', '.join(map(_quoted, into))}) SELECT {', '.join(taken)} "
        f"FROM copies JOIN {table} ON {table}.run_id = copies.original ORDER BY copies.number, {table}.id"
    )
    if stride and table != "event_logs":
        named = [name for name in _EVENT_IDS if name in columns]
        changes = ", ".join(f"{name} = {name} + copies.number * {stride}" for name in named)
        database.execute(f"UPDATE {table} SET {changes} FROM copies WHERE copies.run = {table}.run_id")
    moved = [f"{_quoted(name)} = {_moved(table, name, str(rounds))}" for name in _TIMES.get(table, ())]
    moved += [f"{_quoted(name)} = {_quoted(name)} - 3600 * {rounds}" for name in _SECONDS.get(table, ())]
    if moved:
        chosen = "run_id IN (SELECT original FROM copies)"
        database.execute(f"UPDATE {table} SET {', '.join(moved)} WHERE {chosen}")


def _copy_event_tags(database: sqlite3.Connection, rounds: int, stride: int) -> None:
    database.execute("CREATE TEMP TABLE numbers AS SELECT DISTINCT number FROM copies")
    time = _moved("asset_event_tags", "event_timestamp", f"({rounds} - number)")
    database.execute(
        "INSERT INTO asset_event_tags (event_id, asset_key, key, value, event_timestamp) "
        f"SELECT event_id + number * {stride}, asset_key, key, value, {time} FROM numbers JOIN asset_event_tags"
    )


def _value(table: str, name: str, rounds: int) -> str:
    column = f"{table}.{_quoted(name)}"
    if name in _TIMES.get(table, ()):
        return _moved(table, name, f"({rounds} - copies.number)")
    if name in _SECONDS.get(table, ()):
        return f"{column} - 3600 * ({rounds} - copies.number)"
    return f"replace({column}, copies.original, copies.run)" if name in _WITH_RUN_ID else column


def _moved(table: str, name: str, hours: str) -> str:
    """A time, in SQLAlchemy's notation with microseconds, so many hours earlier."""
    return f"strftime('%Y-%m-%d %H:%M:%f000', {table}.{_quoted(name)}, '-' || {hours} || ' hours')"


def _highest(database: sqlite3.Connection, table: str) -> int:
    (highest,) = database.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()
    return int(highest)


def _quoted(name: str) -> str:
    return f'"{name}"'
