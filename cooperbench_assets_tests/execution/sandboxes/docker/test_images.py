from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.benchmark.pairs import Task
from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.execution.infra_errors import InfrastructureError
from cooperbench_assets.execution.sandboxes.docker.engine import Engine, identity_of
from cooperbench_assets.execution.sandboxes.docker.image_lock import (
    ImageChange,
    changes,
    image_rows,
    looked_into_on,
    read_lock,
    update_lock,
)
from cooperbench_assets.execution.sandboxes.docker.images import ImageRecord, Preparation, Progress, prepare_images
from cooperbench_assets.store.images import TASK_IMAGES
from cooperbench_assets_tests.execution.sandboxes.docker.images import base_image, make_image
from cooperbench_assets_tests.execution.sandboxes.docker.registry import Registry
from cooperbench_assets_tests.execution.toy import REPO, TASK, Toy, git

TOY = Task(REPO, TASK)
REMOTE = Task("remote_task", 7)
ENGINE = "an-engine"


@pytest.fixture
def registry(engine: Engine) -> Iterator[Registry]:
    made = Registry()
    yield made
    made.close()
    for image in engine.api.images():
        if any(name.startswith(made.address) for name in image.get("RepoDigests") or ()):
            engine.api.remove_image(image["Id"], force=True)


@pytest.fixture
def from_registry(registry: Registry) -> Preparation:
    """Quick pulls of images that are not looked into."""
    return Preparation(
        name_of=lambda task: f"{registry.address}/cooperbench-remote:task{task.task_id}",
        verify=False,
        pause_seconds=0.05,
        free_bytes=0,
    )


REPOSITORY = "cooperbench-remote"


@pytest.mark.engine
def test_an_image_that_is_there_is_looked_into_once(engine: Engine, toy: Toy, toy_image: str, tmp_path: Path) -> None:
    steps: list[str] = []
    chosen = Preparation(verified=tmp_path / "verified.json", progress=lambda said: steps.append(said.step))
    (record,) = prepare_images([TOY, TOY], chosen)
    assert (record.image, record.state, record.problem, record.pulled) == (toy_image, "ready", None, False)
    assert record.digest is None
    assert record.identity == record.image_id
    assert steps == ["waiting", "verifying", "ready"]
    assert record.image_id is not None
    assert json.loads((tmp_path / "verified.json").read_text()) == {engine.identity(): {record.image_id: record.head}}

    steps.clear()
    assert prepare_images([TOY], chosen) == [record]
    assert steps == ["waiting", "ready"]


@pytest.mark.engine
def test_the_commit_of_the_checkout_is_recorded(toy: Toy, toy_image: str) -> None:
    (record,) = prepare_images([TOY])
    assert record.head is not None
    # An image from an earlier session has the same files in a commit of its own.
    assert len(record.head) == len(git(toy.repo, "rev-parse", "HEAD").strip())


@pytest.mark.engine
@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, "there is no folder /workspace/repo"),
        ({"workspace/repo/file": b""}, "/workspace/repo is no git checkout"),
    ],
)
def test_an_image_that_is_no_tasks_is_unsuitable_and_says_why(
    engine: Engine, files: dict[str, bytes], problem: str
) -> None:
    name = "cooperbench-assets-test-unsuitable:task1"
    make_image(engine, name, base_image(engine), files)
    try:
        (record,) = prepare_images([TOY], Preparation(name_of=lambda _: name))
    finally:
        engine.api.remove_image(name, force=True)
    assert (record.state, record.family) == ("unsuitable", "configuration")
    assert problem in (record.problem or "")
    assert record.image_id is not None


@pytest.mark.engine
def test_a_runner_that_cannot_be_run_is_unsuitable(engine: Engine, toy_image: str) -> None:
    name = "cooperbench-assets-test-unsuitable:task2"
    make_image(engine, name, toy_image, {"usr/local/bin/runner.sh": b"#!/bin/sh\n"}, mode=0o644)
    try:
        (record,) = prepare_images([TOY], Preparation(name_of=lambda _: name))
    finally:
        engine.api.remove_image(name, force=True)
    assert "/usr/local/bin/runner.sh is not executable" in (record.problem or "")


@pytest.mark.engine
def test_one_missing_image_does_not_keep_the_others_from_being_ready(toy_image: str) -> None:
    gone, there = prepare_images([REMOTE, TOY], Preparation(pull=False))
    assert (gone.state, gone.family, there.state) == ("missing", "image_missing", "ready")
    assert "is not there, and was not to be pulled" in (gone.problem or "")


@pytest.mark.engine
def test_images_are_pulled_several_at_once_with_their_digests(
    engine: Engine, registry: Registry, from_registry: Preparation
) -> None:
    digests = [registry.offer(engine, REPOSITORY, f"task{n}", {"file": b"x" * n}) for n in (1, 2, 3)]
    said: list[Progress] = []
    tasks = [Task("remote_task", n) for n in (1, 2, 3)]
    records = prepare_images(tasks, replace(from_registry, progress=said.append))
    assert [(record.state, record.digest, record.pulled) for record in records] == [
        ("ready", digest, True) for digest in digests
    ]
    assert {one.image for one in said} == {record.image for record in records}
    assert [record.pulled for record in prepare_images(tasks, from_registry)] == [False, False, False]


@pytest.mark.engine
def test_a_registry_with_a_bad_moment_is_asked_again(
    engine: Engine, registry: Registry, from_registry: Preparation
) -> None:
    registry.offer(engine, REPOSITORY, "task7", {"file": b"x"})
    registry.failures = 2
    said: list[Progress] = []
    (record,) = prepare_images([REMOTE], replace(from_registry, progress=said.append))
    assert record.state == "ready"
    assert "retrying" in [one.step for one in said]


@pytest.mark.engine
def test_a_registry_that_stays_away_is_given_up_with_its_words(registry: Registry, from_registry: Preparation) -> None:
    registry.failures = 1000
    (record,) = prepare_images([REMOTE], replace(from_registry, tries=2))
    assert (record.state, record.family) == ("missing", "network")
    assert "(tried 2 times)" in (record.problem or "")
    assert "503" in (record.problem or "")
    assert "are free at" in (record.problem or "")


@pytest.mark.engine
def test_an_image_that_no_registry_has_is_asked_for_once(registry: Registry, from_registry: Preparation) -> None:
    (record,) = prepare_images([REMOTE], from_registry)
    assert (record.state, record.family) == ("missing", "image_missing")
    assert "tried" not in (record.problem or "")


@pytest.mark.engine
def test_nothing_is_pulled_onto_a_disk_with_too_little_room(registry: Registry, from_registry: Preparation) -> None:
    (record,) = prepare_images([REMOTE], replace(from_registry, free_bytes=10**18))
    assert (record.state, record.family) == ("missing", "disk")
    assert "are free at" in (record.problem or "")
    assert "are wanted" in (record.problem or "")
    assert registry.manifests_asked == 0


@pytest.mark.engine
def test_a_tag_that_was_moved_is_a_change_from_the_lock(
    engine: Engine, registry: Registry, from_registry: Preparation, tmp_path: Path
) -> None:
    lock = tmp_path / "images.lock.json"
    first = registry.offer(engine, REPOSITORY, "task7", {"file": b"first"})
    assert update_lock(lock, prepare_images([REMOTE], from_registry), ENGINE) == []
    before = lock.read_bytes()

    second = registry.offer(engine, REPOSITORY, "task7", {"file": b"second"})
    image = from_registry.name_of(REMOTE)
    engine.api.remove_image(image)
    moved = prepare_images([REMOTE], from_registry)
    assert update_lock(lock, moved, ENGINE) == [ImageChange(image, first, second)]
    assert lock.read_bytes() == before

    update_lock(lock, moved, ENGINE, accept=True)
    assert read_lock(lock) == {image: second}
    assert changes(read_lock(lock), {image: second}) == []


def test_no_engine_is_an_error_and_no_list_of_missing_images(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError) as error:
        prepare_images([TOY], Preparation(environment={"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}))
    assert error.value.family == "engine"


def record(image: str, state: Any = "ready", **facts: Any) -> ImageRecord:
    return ImageRecord("some_task", 1, image, state, **facts)


def test_a_lock_is_the_same_bytes_whatever_the_order(tmp_path: Path) -> None:
    one, two = record("a:task1", digest="sha256:1", image_id="sha256:x"), record("b:task1", image_id="sha256:2")
    missing = record("c:task1", "missing")
    update_lock(tmp_path / "x", [one, two, missing], ENGINE)
    update_lock(tmp_path / "y", [two], ENGINE)
    update_lock(tmp_path / "y", [one], ENGINE)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    assert read_lock(tmp_path / "x") == {"a:task1": "sha256:1", "b:task1": "sha256:2"}
    assert update_lock(tmp_path / "x", [missing], ENGINE) == []


def test_a_lock_knows_the_engines_on_which_its_images_were_looked_into(tmp_path: Path) -> None:
    path = tmp_path / "images.lock.json"
    assert looked_into_on(path, ENGINE) == frozenset()
    one, two = record("a:task1", image_id="sha256:1"), record("b:task1", image_id="sha256:2")
    update_lock(path, [one, two], ENGINE)
    update_lock(path, [two, record("a:task1", "missing")], "another")
    assert looked_into_on(path, ENGINE) == {"a:task1", "b:task1"}
    assert looked_into_on(path, "another") == {"b:task1"}
    assert read_lock(path) == {"a:task1": "sha256:1", "b:task1": "sha256:2"}
    path.write_text('{"version": 1, "images": {"a:task1": {"identity": "sha256:1"}}}')
    assert looked_into_on(path, ENGINE) == frozenset(), "a lock of before names no engine"


@pytest.mark.engine
def test_an_engine_keeps_its_identity_and_podman_is_told_by_what_lasts_of_it(engine: Engine) -> None:
    with Engine.connect() as again:
        assert engine.identity() == again.identity() == engine.client.info()["ID"]
    said = {"Name": "machine", "DockerRootDir": "/var/lib/containers/storage"}
    podman = {"Components": [{"Name": "Podman Engine"}, {"Name": "Conmon"}]}
    assert identity_of({**said, "ID": "a"}, podman) == identity_of({**said, "ID": "b"}, podman)
    assert identity_of({**said, "ID": "a"}, podman) != identity_of({**said, "Name": "other", "ID": "a"}, podman)


@pytest.mark.parametrize("content", ["", "[]", '{"version": 9, "images": {}}', '{"version": 1, "images": {"a": 1}}'])
def test_a_lock_that_cannot_be_read_is_named_with_the_remedy(tmp_path: Path, content: str) -> None:
    path = tmp_path / "images.lock.json"
    path.write_text(content)
    with pytest.raises(LaunchError, match=r"images\.lock\.json cannot be read: .*restore it, or remove it"):
        read_lock(path)


def test_records_become_rows_of_the_table() -> None:
    ready = record("a:task1", digest="sha256:2", image_id="sha256:x", size_bytes=5, head="abc")
    missing = record("b:task1", "missing", problem="gone", family="image_missing")
    rows = image_rows("toy", [ready, missing], {"a:task1": "sha256:1"}, datetime(2026, 1, 1))  # noqa: DTZ001
    frame = TASK_IMAGES.frame(rows)
    assert frame.get_column("changed").to_list() == [True, None]
    assert frame.get_column("locked").to_list() == ["sha256:1", None]
    assert frame.get_column("state").to_list() == ["ready", "missing"]
