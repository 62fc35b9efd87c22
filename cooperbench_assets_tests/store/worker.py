"""Processes of their own that write and publish, for tests that kill, lock and race them.

``python -m cooperbench_assets_tests.store.worker COMMAND ROOT …``; ROOT holds ``tables`` and ``results.duckdb``.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import polars as pl

from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.partition_tables import write_unit
from cooperbench_assets.store.publish import publish
from cooperbench_assets.store.schema import CELL_TABLES, CORE_TABLES
from cooperbench_assets.store.units import cell_unit
from cooperbench_assets_tests.store.foreign import write_foreign
from cooperbench_assets_tests.store.frames import random_frame

GENERATION = {
    "pairs": "reason",
    "agents": "error",
    "messages": "message",
    "attempts": "evidence",
    "quarantine": "remedy",
    "provenance": "record",
}
"""The text column of each table that carries the number of the write, so that a mixture shows."""


@cache
def generation_frames(cell: Cell, generation: int) -> dict[str, pl.DataFrame]:
    """Small tables of a cell, each row of each of which carries `generation`; their heights do as well."""
    key: dict[str, object] = {"experiment": cell.experiment, "setting": cell.setting, "seed": cell.seed}
    draw = random.Random(generation)
    return {
        table.name: random_frame(
            draw,
            table,
            1 if table.name == "provenance" else 2 + generation % 5,
            **key,
            **{GENERATION[table.name]: str(generation)},
        )
        for table in CELL_TABLES
    }


def generations(frames: dict[str, pl.DataFrame]) -> set[str]:
    """The generations that the rows of some tables carry."""
    return {value for name, column in GENERATION.items() for value in frames[name][column].to_list()}


def write(root: Path, cell: Cell, generation: int) -> None:
    """Write one generation of a cell."""
    write_unit(root / "tables", cell_unit(cell), generation_frames(cell, generation), declared=CORE_TABLES)


def write_and_publish(root: Path, setting: str, generation: str) -> None:
    """Write one generation of the cell of a setting, and publish, with a plan of as many cells."""
    write(root, Cell("race", setting, 0), int(generation))
    plan = [Cell("race", setting, seed) for seed in range(int(generation) + 1)]
    publish(root / "results.duckdb", root / "tables", planned={"race": plan})


def write_for_ever(root: Path, setting: str, start: str) -> None:
    """Write generation after generation."""
    generation = int(start)
    while True:
        write(root, Cell("race", setting, 0), generation)
        generation += 1


def publish_for_ever(root: Path, setting: str, start: str) -> None:
    """Write and publish generation after generation."""
    generation = int(start)
    while True:
        write_and_publish(root, setting, str(generation))
        generation += 1


def publish_cells(root: Path, setting: str, cells: str) -> None:
    """Write some cells of a setting, publishing after each."""
    for seed in range(int(cells)):
        write(root, Cell("race", setting, seed), seed)
        publish(root / "results.duckdb", root / "tables")


def fork(root: Path) -> None:
    """For every line of input (a command, its root and arguments, a stop) fork a child that runs it.

    Says the child's process id, and how it ended. Imports are paid once.
    """
    for line in sys.stdin:
        command, folder, arguments, stop_at = json.loads(line)
        child = os.fork()
        if child == 0:
            if stop_at is not None:
                os.environ["COOPERBENCH_ASSETS_STOP_AT"] = stop_at
            COMMANDS[command](root / folder, *arguments)
            os._exit(0)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


class Forker:
    """Runs commands of this module in processes of their own, without their imports' time."""

    def __init__(self, root: Path) -> None:
        self.process = start(fork, root)

    def launch(self, command: Callable[..., None], root: Path, *arguments: object, stop_at: str | None = None) -> int:
        """Start a command; its process id."""
        assert self.process.stdin is not None
        order = [command.__name__, str(root), [*map(str, arguments)], stop_at]
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def wait(self) -> int:
        """The exit code of what was started, once it has ended."""
        return self._answer()

    def _answer(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def close(self) -> None:
        """End it."""
        finish(self.process)


def start(command: Callable[..., None], *arguments: object, stop_at: str | None = None) -> subprocess.Popen[str]:
    """Run a command of this module or of `foreign` in a process of its own, to be killed at a named stop if told so."""
    environment = dict(os.environ)
    if stop_at is not None:
        environment["COOPERBENCH_ASSETS_STOP_AT"] = stop_at
    return subprocess.Popen(
        [sys.executable, "-m", command.__module__, command.__name__, *map(str, arguments)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def finish(process: subprocess.Popen[str]) -> None:
    """End a process that still runs, and close its pipes."""
    process.kill()
    process.communicate()


COMMANDS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (
        write_and_publish,
        write_for_ever,
        publish_for_ever,
        publish_cells,
        write_foreign,
        fork,
    )
}


def main(command: str, root: str, *arguments: str) -> None:
    """Run the command of that name."""
    COMMANDS[command](Path(root), *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
