"""cleanup: what dead runs have left on the engine goes, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from cooperbench_assets.cli import NOT_DONE, cli
from cooperbench_assets.execution.processes import mark_of, process_identity
from cooperbench_assets.execution.sandboxes.docker import ownership
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets_tests.engines import engine
from cooperbench_assets_tests.execution.sandboxes.docker.images import base_image

__all__ = ["engine"]

LIVING = mark_of(os.getpid(), process_identity(os.getpid()) or "")
DEAD = "1/a-boot-that-was:5"


@pytest.fixture
def made(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Containers of a dead run, of a living one, of another machine and of nobody, by what they are."""
    monkeypatch.setattr(ownership, "host", lambda: f"test/{os.getpid()}/cleanup")
    here = ownership.host()
    described = {"experiment": "tidy", "setting": "solo", "seed": "0", "pair": "a_task/1/f1_f2", "attempt": "eval-1"}
    kinds = {"dead": (DEAD, here), "living": (LIVING, here), "elsewhere": (DEAD, "another/machine")}
    containers = {}
    for kind, (owner, host) in kinds.items():
        labels = {**ownership.describing("evaluation", described), ownership.OWNER: owner, ownership.HOST: host}
        containers[kind] = engine.api.create_container(base_image(engine), ["true"], labels=labels)["Id"]
    containers["nobody's"] = engine.api.create_container(base_image(engine), ["true"])["Id"]
    yield containers
    for one in engine.api.containers(all=True):
        if one["Id"] in containers.values():
            engine.api.remove_container(one["Id"], force=True)


def there(engine: Engine, made: dict[str, str]) -> set[str]:
    present = {one["Id"] for one in engine.api.containers(all=True)}
    return {kind for kind, identifier in made.items() if identifier in present}


@pytest.mark.engine
def test_a_dry_run_says_what_would_go_and_why_and_a_real_one_removes_that_alone(
    engine: Engine, made: dict[str, str]
) -> None:
    dry = CliRunner().invoke(cli, ["cleanup", "--dry-run"])
    assert dry.exit_code == 0
    (line,) = [line for line in dry.stdout.splitlines() if line.startswith("would go") and "tidy" in line]
    assert "tidy solo seed 0 a_task/1/f1_f2 eval-1" in line
    assert line.endswith("the process that it served is gone")
    assert there(engine, made) == {"dead", "living", "elsewhere", "nobody's"}

    done = CliRunner().invoke(cli, ["cleanup"])
    assert done.exit_code == 0
    kept = [line for line in done.stdout.splitlines() if line.startswith("kept") and "tidy" in line]
    assert {line.rpartition("  ")[2].strip() for line in kept} == {
        "the process that it serves runs",
        "it belongs to another machine or container, which cannot be looked into from here",
    }
    assert there(engine, made) == {"living", "elsewhere", "nobody's"}


def test_without_an_engine_it_says_so_and_that_nothing_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    done = CliRunner().invoke(cli, ["cleanup"])
    assert done.exit_code == NOT_DONE
    assert "no Docker engine answers" in done.stderr
