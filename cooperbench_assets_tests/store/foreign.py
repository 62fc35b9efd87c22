"""What other people's processes do with the published file. They import DuckDB alone, as it takes least."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb


def read_forever(root: Path) -> None:
    """Hold the published file open for reading."""
    connection = duckdb.connect(str(root / "results.duckdb"), read_only=True)
    print(connection.execute("SELECT count(*) FROM pairs").fetchall(), flush=True)
    time.sleep(600)


def write_foreign(root: Path, ending: str) -> None:
    """Write into the published file as a person might, and stay in it, die in it, or leave."""
    path = root / "results.duckdb"
    path.chmod(0o644)
    connection = duckdb.connect(str(path))
    connection.execute("INSERT INTO pairs (experiment, setting, seed, pair) VALUES ('foreign', 'solo', 0, 'x')")
    if ending == "in-transaction":
        connection.begin()
        connection.execute("DELETE FROM pairs")
    if ending == "leave":
        connection.close()
        return
    print("written", flush=True)
    if ending == "die":
        os._exit(9)
    time.sleep(600)


if __name__ == "__main__":
    command, root, *arguments = sys.argv[1:]
    known: dict[str, Callable[..., None]] = {"read_forever": read_forever, "write_foreign": write_foreign}
    known[command](Path(root), *arguments)
