"""The asset task_images: what is pinned, what is checked, and how trouble is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from cooperbench_assets.assets.keys import op_name
from cooperbench_assets.benchmark.images import image_name
from cooperbench_assets.benchmark.pairs import Task
from cooperbench_assets.checks.task_images import ImagesView, all_ready, digests_unchanged
from cooperbench_assets.demo import build_dataset
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.store.images import TASK_IMAGES
from cooperbench_assets_tests.demo.bench import write_pairs
from cooperbench_assets_tests.engines import engine
from cooperbench_assets_tests.execution.sandboxes.docker.images import base_image, build_task_images, make_image
from cooperbench_assets_tests.execution.sandboxes.docker.places import Place, demo_experiment
from cooperbench_assets_tests.execution.sandboxes.docker.proxy import EngineDoor

__all__ = ["engine"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_dataset(tmp_path_factory.mktemp("demo") / "dataset")


@pytest.fixture
def tried(dataset: Path, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    build_task_images(engine, dataset)
    monkeypatch.setenv("COOPERBENCH_ASSETS_STATE", str(tmp_path / "state"))
    return Place(tmp_path / "project", demo_experiment(dataset))


def locked(tried: Place) -> dict[str, Any]:
    images: dict[str, Any] = json.loads(tried.experiment.image_lock.read_text())["images"]
    return images


@pytest.mark.engine
def test_images_are_looked_into_pinned_and_told_of(tried: Place) -> None:
    with tried.launcher() as launcher:
        ran = launcher.run_subset()
        assert (ran.error, ran.failed_checks) == (None, ())
        assert ran.materialized == ("subset_pairs", "task_images")
        assert launcher.run_store().error is None
    rows = tried.rows("SELECT image, state, image_id, head, changed FROM task_images ORDER BY image")
    assert [row[0] for row in rows] == sorted({image_name(task) for task in tried.subset.tasks})
    assert {row[1] for row in rows} == {"ready"}
    assert all(len(row[3]) == 40 for row in rows)
    assert {row[0]: row[2] for row in rows} == {name: entry["identity"] for name, entry in locked(tried).items()}
    checks = tried.rows("SELECT check_name, passed FROM check_results WHERE asset = 'task_images' ORDER BY 1")
    assert checks == [("all_ready", True), ("digests_unchanged", True)]


@pytest.mark.engine
def test_an_image_that_is_not_the_locked_one_fails_its_check_until_it_is_accepted(tried: Place) -> None:
    with tried.launcher() as launcher:
        assert launcher.run_subset().error is None
    lock = json.loads(tried.experiment.image_lock.read_text())
    name = sorted(lock["images"])[0]
    lock["images"][name]["identity"] = "sha256:an-older-one"
    tried.experiment.image_lock.write_text(json.dumps(lock))
    with tried.launcher() as launcher:
        ran = launcher.run_subset()
        assert ran.error is None
        assert [check for check, _ in ran.failed_checks] == ["task_images.digests_unchanged"]
        assert locked(tried)[name]["identity"] == "sha256:an-older-one"
        accept = {op_name(tried.name, "task_images"): {"config": {"accept": True}}}
        ran = launcher._run(["task_images"], ops=accept)
    assert (ran.error, ran.failed_checks) == (None, ())
    assert locked(tried)[name]["identity"].startswith("sha256:")
    assert locked(tried)[name]["identity"] != "sha256:an-older-one"


@pytest.mark.engine
def test_an_unsuitable_and_a_missing_image_are_one_clear_error_and_no_cell_runs(
    dataset: Path, engine: Engine, tmp_path: Path, odd_task: tuple[Path, str]
) -> None:
    odd, image = odd_task
    tried = Place(tmp_path / "project", demo_experiment(odd, subset="odd", agent="other", dataset_module=None))
    ran = tried.run()
    assert ran.error is not None
    assert ran.error.startswith(f"{tried.name}: 1 of 1 task images are not ready: {image} is no task's image: ")
    assert "there is no folder /workspace/repo" in ran.error
    assert not locked(tried)
    with tried.launcher() as launcher:
        # A cell that is launched all the same, from the UI say, says so too, and runs nothing.
        launched = launcher.run_cell(tried.experiment.cells[0].cell)
    assert launched.error is not None
    assert f"1 of 1 task images were never looked into on this engine: {image}" in launched.error
    assert "cooperbench-assets materialize" in launched.error


@pytest.fixture
def odd_task(engine: Engine, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A dataset of one task, whose image holds no checkout."""
    task = Task("odd_task", 1)
    folder = tmp_path / "dataset" / task.folder
    for feature in (1, 2):
        (folder / f"feature{feature}").mkdir(parents=True)
        (folder / f"feature{feature}" / "feature.md").write_text("odd\n")
    subsets = tmp_path / "dataset" / "subsets"
    subsets.mkdir()
    content = {"name": "odd", "tasks": [{"repo": task.repo, "task_id": task.task_id, "pairs": [[1, 2]]}]}
    (subsets / "odd.json").write_text(json.dumps(content))
    name = image_name(task)
    made = make_image(engine, name, base_image(engine), {"usr/local/bin/runner.sh": b"#!/bin/sh\n"})
    yield tmp_path / "dataset", name
    engine.api.remove_image(made, force=True)


@pytest.mark.engine
def test_what_one_engine_was_looked_into_for_counts_for_no_other(
    dataset: Path, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_task_images(engine, dataset)
    monkeypatch.setenv("COOPERBENCH_ASSETS_STATE", str(tmp_path / "state"))
    subset = write_pairs([("inkline_task", 3, (1, 2))], tmp_path / "one.json")
    tried = Place(tmp_path / "project", demo_experiment(dataset, subset=str(subset)))
    cell, own = tried.experiment.cells[0].cell, engine.identity()
    other = own[::-1]
    with tried.launcher() as launcher:
        assert launcher.run_subset().error is None
    verified = tried.experiment.image_lock.with_name("verified.json")
    (heads,) = json.loads(verified.read_text()).values()
    with TemporaryDirectory(prefix="cb-") as short:  # A socket's path is short.
        door = EngineDoor.of_another(Path(short) / "engine.sock", own, other)
        monkeypatch.setenv("DOCKER_HOST", door.host)
        with tried.launcher() as launcher:
            launched = launcher.run_cell(cell)
            assert launched.error is not None
            assert "1 of 1 task images were never looked into on this engine: " in launched.error
            assert launcher.run_subset().error is None
        door.shut()
    assert json.loads(verified.read_text()) == {own: heads, other: heads}
    assert {tuple(entry["engines"]) for entry in locked(tried).values()} == {tuple(sorted((own, other)))}


@pytest.mark.engine
def test_an_engine_that_is_not_there_is_one_sentence(tried: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with tried.launcher() as launcher:
        ran = launcher.run_subset()
    assert ran.materialized == ("subset_pairs",)
    assert ran.error is not None
    assert ran.error.startswith(f"{tried.name}: no Docker engine answers: ")
    assert "\n" not in ran.error


def view(*rows: dict[str, Any]) -> ImagesView:
    base = {"experiment": "made", "repo": "a_task", "task_id": 1, "image": "a", "state": "ready", "size_bytes": 10**9}
    return ImagesView("made", TASK_IMAGES.frame([{**base, **row} for row in rows]))


def test_checks_count_and_name_what_is_wrong() -> None:
    finding = all_ready(view({}, {"image": "b", "state": "missing", "problem": "not there"}))
    assert (finding.passed, finding.affected, finding.sample) == (False, 1, ("b: not there",))
    assert finding.numbers == {"images": 2, "ready": 1, "size_gb": 1.0}
    finding = digests_unchanged(
        view({"changed": None}, {"image": "b", "changed": True, "digest": "new", "locked": "old"})
    )
    assert (finding.passed, finding.sample) == (False, ("b: new, locked old",))
    assert all_ready(view({})).passed
    assert digests_unchanged(view({"changed": False})).passed
