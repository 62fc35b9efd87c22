"""Kills: at every named stop, and at random moments. What was good stays, and the next run finishes."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest

import cooperbench_assets.store
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.partition_tables import read_unit
from cooperbench_assets.store.units import cell_unit
from cooperbench_assets_tests.store.foreign import write_foreign
from cooperbench_assets_tests.store.stores import Store
from cooperbench_assets_tests.store.worker import (
    GENERATION,
    Forker,
    generation_frames,
    generations,
    publish_for_ever,
    write,
    write_and_publish,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

KILLS = 30
"""At random moments. More draws find nothing more: each named stop has a kill of its own."""

CELL = Cell("race", "solo", 0)
SOURCES = sorted(Path(cooperbench_assets.store.__file__).parent.glob("*.py"))
STOPS = sorted({stop for path in SOURCES for stop in re.findall(r"hit\(\"(.+?)\"\)", path.read_text())})
AFTER_A_FOREIGN_CHANGE = {"publish:filled", "publish:old-linked", "publish:file-set-aside"}
BEFORE_THE_POINTER = {"write:folder-made", "write:table-written", "write:tables-written", "write:synced"}


@pytest.fixture(scope="module")
def forker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forker]:
    forker = Forker(tmp_path_factory.getbasetemp())
    yield forker
    forker.close()


def published_generation(store: Store) -> int:
    """The one generation that the published rows of all tables carry, as plain DuckDB reads them."""
    every_table = " UNION ".join(f"SELECT {column} FROM {name}" for name, column in GENERATION.items())
    with duckdb.connect(str(store.database), read_only=True) as connection:
        found = connection.execute(every_table).fetchall()
    assert len(found) == 1, found
    return int(found[0][0])


def written_generation(store: Store) -> int:
    """The one generation that the cell's Parquet files carry."""
    frames = read_unit(store.tables, cell_unit(CELL))
    (found,) = generations(frames)
    assert {name: frame.height for name, frame in frames.items()} == {
        name: frame.height for name, frame in generation_frames(CELL, int(found)).items()
    }
    return int(found)


def is_whole(store: Store) -> None:
    """The published file opens as plain DuckDB does it, and its catalog agrees with its rows."""
    with duckdb.connect(str(store.database), read_only=True) as connection:
        heights = {name: connection.execute(f"SELECT count(*) FROM {name}").fetchall() for name in GENERATION}
    generation = published_generation(store)
    assert heights == {name: [(frame.height,)] for name, frame in generation_frames(CELL, generation).items()}


def test_stops_are_named_in_writing_and_in_publishing() -> None:
    assert len([stop for stop in STOPS if stop.startswith("write:")]) >= 5
    assert len([stop for stop in STOPS if stop.startswith("publish:")]) >= 10


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which a second generation has taken the place of the first, to be copied."""
    root = tmp_path_factory.mktemp("second")
    for generation in (1, 2):
        write_and_publish(root, "solo", str(generation))
    return root


@pytest.mark.slow
@pytest.mark.parametrize("stop", STOPS)
def test_a_kill_at_a_named_stop_leaves_the_last_good_store_and_the_next_run_finishes(
    store: Store, second: Path, forker: Forker, stop: str
) -> None:
    shutil.copytree(second, store.root, symlinks=True, dirs_exist_ok=True)
    if stop in AFTER_A_FOREIGN_CHANGE:
        forker.launch(write_foreign, store.root, "leave")
        assert forker.wait() == 0
    before = store.database.read_bytes()

    forker.launch(write_and_publish, store.root, "solo", 3, stop_at=stop)
    assert forker.wait() == -signal.SIGKILL

    assert written_generation(store) == (2 if stop in BEFORE_THE_POINTER else 3)
    if stop == "publish:renamed":
        assert published_generation(store) == 3
    else:
        assert store.database.read_bytes() == before

    write_and_publish(store.root, "solo", "3")
    assert written_generation(store) == published_generation(store) == 3
    is_whole(store)
    assert not store.publish().replaced
    kept = [name for name in store.leftovers() if name.startswith("results.duckdb.set-aside-")]
    assert store.leftovers() == kept
    assert bool(kept) == (stop in AFTER_A_FOREIGN_CHANGE), "a kill never makes our own file look like somebody else's"
    assert len(content_folders(store)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("stop", [stop for stop in STOPS if stop.startswith("publish:")])
def test_a_kill_in_the_first_publish_leaves_no_store_or_a_whole_one(store: Store, forker: Forker, stop: str) -> None:
    forker.launch(write_and_publish, store.root, "solo", 1, stop_at=stop)
    forker.wait()
    if store.database.exists():
        is_whole(store)
    store.publish()
    is_whole(store)
    assert store.leftovers() == []


def content_folders(store: Store) -> list[Path]:
    return list(cell_unit(CELL).folder(store.tables).glob("@*"))


@pytest.mark.slow
def test_kills_at_random_moments_leave_the_last_good_store_and_the_next_run_finishes(
    store: Store, forker: Forker
) -> None:
    draw = random.Random(1)
    write_and_publish(store.root, "solo", "0")
    began = time.monotonic()
    forker.launch(write_and_publish, store.root, "solo", 1)
    assert forker.wait() == 0
    span = 2 * (time.monotonic() - began)
    last, in_the_act = 1, 0
    for _ in range(KILLS):
        child = forker.launch(publish_for_ever, store.root, "solo", last + 1)
        time.sleep(draw.uniform(0, span))
        os.kill(child, signal.SIGKILL)
        assert forker.wait() == -signal.SIGKILL
        in_the_act += bool(store.leftovers()) or len(content_folders(store)) > 1
        present = published_generation(store)
        assert written_generation(store) >= present >= last
        # However busy the machine is: most kills come before a first publish is done, a quarter in a later one.
        span *= 1.05 if present == last else 0.85
        last = present
    assert last > 1
    assert in_the_act > KILLS // 4

    store.publish()
    assert published_generation(store) == written_generation(store)
    is_whole(store)
    assert store.leftovers() == []
    published = store.contents()
    store.database.unlink()
    store.publish()
    assert store.contents() == published
    write(store.root, CELL, written_generation(store))
    assert len(content_folders(store)) == 1
