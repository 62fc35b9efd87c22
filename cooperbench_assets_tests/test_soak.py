"""The soak: what it must notice is planted, and one small soak of real runs is made."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perf.soak import page, results
from perf.soak.drivers import CommandLine
from perf.soak.faults import Scene, fill_disk, kill_child, kinds_for
from perf.soak.invariants import Ledger, at_rest
from perf.soak.place import Place, Verdicts
from perf.soak.soak import Soak

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Verdicts]:
    """A place whose undisturbed run has ended, and what it came to."""
    place = Place(tmp_path_factory.mktemp("soak"), "process", 2)
    soak = Soak(place, CommandLine(place), random.Random(1), full_disk=False, wanted=0, ends=time.monotonic())
    return place, soak.undisturbed()


@pytest.fixture
def copied(finished: tuple[Place, Verdicts]) -> Iterator[tuple[Place, Verdicts]]:
    """The same, put back after the test."""
    place, expected = finished
    kept = place.root.with_name(f"{place.root.name}-kept")
    shutil.copytree(place.logs, kept)
    yield place, expected
    shutil.rmtree(place.logs)
    kept.rename(place.logs)


def _verdict(place: Place) -> Path:
    return min(file for run in place.runs for file in run.glob("*/*/*/f*/eval.json"))


def test_a_run_that_nobody_disturbed_holds_everything(copied: tuple[Place, Verdicts]) -> None:
    place, expected = copied
    assert len(expected) == 6
    assert place.finished()
    assert not at_rest(place, expected)
    ledger = Ledger(place)
    assert not ledger.look()
    assert len(ledger.verdicts) == 6
    assert not ledger.look()


def test_a_verdict_that_changes_or_goes_is_lost(copied: tuple[Place, Verdicts]) -> None:
    place, expected = copied
    ledger = Ledger(place)
    ledger.look()
    file = _verdict(place)
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "both_passed": not content["both_passed"]}))
    assert "changed" in ledger.look().lost[0]
    file.unlink()
    assert "is gone" in ledger.look().lost[0]
    assert at_rest(place, expected).wrong


def test_a_record_of_an_attempt_that_goes_is_lost(copied: tuple[Place, Verdicts]) -> None:
    place, expected = copied
    ledger = Ledger(place)
    ledger.look()
    shutil.rmtree(min(place.runs[0].rglob("attempt.json")).parent)
    assert len(ledger.look().lost) == 1
    (place.runs[0] / "attempts" / "solo" / "some_task" / "1" / "f1_f2" / "agent-2").mkdir(parents=True)
    assert any("agent tries [2]" in one for one in at_rest(place, expected).lost)


def test_a_process_a_slot_and_a_staging_folder_that_are_left_are_leaked(copied: tuple[Place, Verdicts]) -> None:
    place, expected = copied
    (place.runs[0] / ".staging").mkdir()
    hold = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'w');"
        "fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-S", "-c", hold, str(place.state / "slots" / "agents" / "0.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        leaked = at_rest(place, expected).leaked
        process.kill()
    assert any(f"process {process.pid}" in one for one in leaked)
    assert any(one.endswith(".staging") for one in leaked)
    assert "slot of agents" in leaked


def test_a_few_faults_are_survived_and_told_on_the_page(finished: tuple[Place, Verdicts], tmp_path: Path) -> None:
    place, expected = finished
    driver = CommandLine(place)
    soak = Soak(place, driver, random.Random(2), full_disk=False, wanted=2, ends=time.monotonic() + 120)
    soak.longest_stop = 1
    try:
        soak.run(expected)
    finally:
        driver.stop()
    assert not soak.broken
    assert soak.injected == 2
    assert sum(one.recovered for one in soak.faults.values()) == 2
    faults = [*soak.faults.values()]
    run = results.SoakRun(
        "2026-01-01", 2, "process", driver.name, 2, soak.passes, soak.verdicts, 1.0, faults, [], [], []
    )
    file = tmp_path / "runs.jsonl"
    results.keep(run, file)
    results.keep(run, file)
    assert results.read_runs(file) == [run, run]
    said = page.page(results.read_runs(file))
    assert f"**4 faults in {2 * soak.passes} passes: 0 lost, 0 leaked, 0 wrong" in said


def test_a_fault_that_finds_nothing_to_hit_says_so(finished: tuple[Place, Verdicts]) -> None:
    place, _ = finished
    scene = Scene(place, CommandLine(place), random.Random(3), full_disk=False)
    assert kill_child(scene) is None
    assert fill_disk(scene) is None
    assert {kind.name for kind in kinds_for(scene.driver, place)} >= {"SIGKILL of a harness server", "disk full"}


def test_the_page_in_the_docs_is_the_one_of_the_kept_runs() -> None:
    runs = results.read_runs()
    assert runs
    assert page.PAGE.read_text(encoding="utf-8") == page.page(runs)
