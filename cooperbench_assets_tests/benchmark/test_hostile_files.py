"""Files that are none: pipes, links out of the tree, and sizes that no memory holds. The rest is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets.store.overlaps import PATCH_OVERLAPS
from cooperbench_assets_tests.experiments import bind, fill, tree, view


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_out_of_the_tree(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


@pytest.mark.parametrize("put", [pipe, link_to_a_device, link_out_of_the_tree, sparse])
@pytest.mark.parametrize("name", ["result.json", "eval.json", "conversation.json", "agent1.patch"])
def test_what_is_no_regular_file_is_quarantined_and_the_rest_is_read(tmp_path: Path, name: str, put: object) -> None:
    assert callable(put)
    experiment = bind(tmp_path)
    first, *others = fill(experiment, "coop-comm")
    folder = tree(experiment, "coop-comm").folder(first)
    place = folder / (f"agent{first.features[0]}.patch" if name.endswith(".patch") else name)
    place.unlink(missing_ok=True)
    put(place)
    found = view(experiment, "coop-comm")
    (entry,) = found.reading.quarantine
    assert (entry.kind, entry.pair) == ("unreadable", first)
    assert entry.path.endswith(place.name)
    assert any(text in entry.message for text in ("is no regular file", "is a link; put", "bytes, and a file"))
    assert set(others) <= {pair for pair, one in found.reading.pairs.items() if one.result is not None}
    assert PATCH_OVERLAPS.name in found.frames


@pytest.mark.parametrize("put", [pipe, link_to_a_device, sparse])
@pytest.mark.parametrize("name", ["agent1_stream.jsonl", "agent2_full_traj.json"])
def test_evidence_is_not_looked_for_in_what_is_no_regular_file(tmp_path: Path, name: str, put: object) -> None:
    assert callable(put)
    experiment = bind(tmp_path)
    fill(experiment, "coop-comm")
    for pair in experiment.subset().pairs:
        put(tree(experiment, "coop-comm").folder(pair) / name)
    reading = read_run(tree(experiment, "coop-comm").run_dir, "coop")
    assert len(reading.pairs) == 4
    assert reading.quarantine == []
