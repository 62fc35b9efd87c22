"""Whole experiments on a Docker engine, through the assets: images, verdicts, the gold baseline, a killed container."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from docker.errors import APIError

from cooperbench_assets.assets.keys import partition_key
from cooperbench_assets.automation.dagster_runs import job_name
from cooperbench_assets.execution.runner.harness_servers import close_servers
from cooperbench_assets.execution.sandboxes.docker.engine import Engine
from cooperbench_assets.experiment import experiment_definitions
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.read import query
from cooperbench_assets_tests.automation.driving import NO_FAULTS
from cooperbench_assets_tests.commands.place import make_place
from cooperbench_assets_tests.demo.bench import write_pairs, write_share
from cooperbench_assets_tests.execution.sandboxes.docker.places import LIMITS, Place, demo_experiment, in_background

pytestmark = [pytest.mark.engine, pytest.mark.slow]

ALL = {
    "solo": {"mode": "solo", "seeds": [0]},
    "coop-comm": {"mode": "coop", "seeds": [0]},
}
THREE = (("inkline_task", 3, (1, 2)), ("plainconf_task", 5, (1, 4)), ("slotbook_task", 8, (1, 4)))
VERDICT = ("pair", "outcome", "reason", "outcome_strict", "reason_strict", "merge_status", "apply_a", "apply_b")


@pytest.fixture(scope="module", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory, demo_images: list[str]) -> Iterator[None]:
    """Slots and the command that makes containers: the same for all tests, which so share one harness. The images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COOPERBENCH_ASSETS_STATE", str(tmp_path_factory.mktemp("state")))
        yield
        close_servers()


def verdicts(tried: Place, setting: str) -> list[tuple[Any, ...]]:
    return tried.table(setting).select(VERDICT).sort("pair").rows()


def until_settled(tried: Place, setting: str) -> None:
    """Run a cell as often as its scripted failures of infrastructure need."""
    for _ in range(4):
        assert tried.run(setting).error is None
        if not tried.table(setting).filter(pl.col("outcome") == "infra_error").height:
            return


def test_verdicts_on_docker_equal_those_of_processes(demo_dataset: Path, tmp_path: Path, engine: Engine) -> None:
    subset = str(write_share(10, demo_dataset, tmp_path / "share.json"))
    said = {"subset": subset, "settings": ALL, "agent_config": {"injected_faults": NO_FAULTS}}
    docker = Place(tmp_path / "docker", demo_experiment(demo_dataset, **said))
    process = Place(tmp_path / "process", demo_experiment(demo_dataset, execution="process", **said))
    for setting in ALL:
        for tried in (docker, process):
            assert tried.run(setting).error is None
        assert verdicts(docker, setting) == verdicts(process, setting)
        assert {row[1] for row in verdicts(docker, setting)} == {"pass", "fail"}
    assert docker.left(engine) == []


def evaluate_again(tried: Place, setting: str) -> None:
    """The job second_verdict on a cell."""
    repository = experiment_definitions(tried.experiment).get_repository_def()
    with dg.DagsterInstance.ephemeral() as instance:
        repository.get_job(job_name(tried.name, "second_verdict")).execute_in_process(
            instance=instance, partition_key=partition_key(Cell(tried.name, setting, 0))
        )


def test_gold_passes_but_for_pairs_that_conflict_on_purpose_and_all_is_the_same_on_another_machine(
    demo_dataset: Path, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    subset = str(write_pairs(THREE, tmp_path / "subset.json"))
    tried = Place(tmp_path / "here", demo_experiment(demo_dataset, subset=subset))
    ran = tried.gold()
    assert ran.error is None
    assert ran.failed_checks == ()
    said = ran.metadata["gold_baseline"]
    assert {name: said[name] for name in ("sound", "fails", "flaky", "conflicting", "not_judged")} == {
        "sound": 6,
        "fails": 0,
        "flaky": 0,
        "conflicting": 1,
        "not_judged": 0,
    }
    until_settled(tried, "solo")
    evaluate_again(tried, "solo")
    published = tried.publish()
    assert (published.error, published.failed_checks) == (None, ())
    rows = tried.rows("SELECT mode, first, second, count(*) FROM gold_baseline GROUP BY ALL ORDER BY ALL")
    assert rows == [("coop", "fail", "fail", 1), ("coop", "pass", "pass", 2), ("solo", "pass", "pass", 3)]
    sensitivity = tried.rows("SELECT DISTINCT setting, gold_passes, gold_fails, gold_unknown FROM gold_sensitivity")
    assert sensitivity == [("solo", 3, 0, 0)]
    assert tried.left(engine) == []
    the_same_on_another_machine(tried, tmp_path, monkeypatch)


def the_same_on_another_machine(tried: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units = "SELECT unit, content_sha256 FROM published WHERE unit NOT LIKE '%/analysis/%' ORDER BY unit"
    here = tried.rows(units)
    assert {unit.split("/")[1] for unit, _ in here} == {
        "cells", "checks", "gold_baseline", "second_verdicts", "task_images"
    }  # fmt: skip
    there = make_place(tmp_path / "there")
    printed = []
    for root, command in (
        (tried.project.root, ("export", tried.name, "-o", tmp_path / "bundle.tar.gz")),
        (there.project.root, ("import-bundle", tmp_path / "bundle.tar.gz")),
    ):
        monkeypatch.setenv("COOPERBENCH_ASSETS_ROOT", str(root))
        done = there.run(*command)
        assert done.exit_code == 0, done.output
        printed += [line for line in done.stdout.splitlines() if line.startswith("content hash")]
    assert len(printed) == 2
    assert printed[0] == printed[1]
    assert query(there.project.database, units).rows() == here


def test_a_container_that_is_killed_is_no_fail_and_the_next_run_completes_the_cell(
    demo_dataset: Path, tmp_path: Path, engine: Engine
) -> None:
    limits = {**LIMITS, "eval_concurrency": 1, "eval_attempts": 3}
    subset = str(write_pairs(THREE, tmp_path / "subset.json"))
    tried = Place(tmp_path / "project", demo_experiment(demo_dataset, limits=limits, subset=subset))
    killed: list[str] = []

    def kill() -> None:
        end = time.monotonic() + 240
        while not killed and time.monotonic() < end:
            for one in tried.left(engine):
                # One that has ended meanwhile is not there any more, or cannot be killed: then another one is.
                with contextlib.suppress(APIError):
                    if engine.api.inspect_container(one.id)["State"]["Running"]:
                        engine.api.kill(one.id)
                        killed.append(one.described["pair"])
                        return
            time.sleep(0.02)

    with in_background(kill):
        assert tried.run().error is None
    (pair,) = killed
    assert tried.outcomes()[pair].startswith("infra_error eval container_")
    assert tried.left(engine) == []
    until_settled(tried, "solo")
    assert set(tried.table("solo")["outcome"]) <= {"pass", "fail"}
