"""Reading runs of every shape: modes, layouts, what lies beside pairs, and times."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from cooperbench_assets.benchmark.logtree import LogTreeError, read_run
from cooperbench_assets.benchmark.records import parse_time
from cooperbench_assets_tests.benchmark.looking import only
from cooperbench_assets_tests.trees import Tree, agent, message, pairs, put, result

ONE, TWO, THREE = pairs(3)


def moment(text: str) -> datetime:
    """A time without a zone."""
    return datetime.fromisoformat(text)


@pytest.mark.parametrize("mode", ["solo", "coop", "team"])
@pytest.mark.parametrize("legacy", [False, True])
def test_every_mode_and_layout_is_read_without_being_told(tmp_path: Path, mode: str, legacy: bool) -> None:
    tree = Tree(tmp_path / "logs" / "a-run", mode, legacy)
    for pair in (ONE, TWO):
        tree.pair(pair)
    tree.config()
    reading = read_run(tree.run_dir)
    assert (reading.mode, reading.layout, set(reading.pairs)) == (mode, "legacy" if legacy else "modes", {ONE, TWO})
    assert reading.quarantine == []
    first = reading.pairs[ONE]
    assert first.result is not None
    assert first.evaluation is not None
    assert first.folder == tree.folder(ONE)
    assert [end.name for end in first.agents] == (["solo"] if mode == "solo" else ["agent1", "agent2"])
    assert [end.feature for end in first.agents] == ([None] if mode == "solo" else list(ONE.features))
    assert len(first.patches) == (1 if mode == "solo" else 2)
    assert first.messages == (None if mode == "solo" else [])
    assert reading.config is not None
    assert reading.files_read == (7 if mode == "solo" else 11)
    assert reading.bytes_read == sum(path.stat().st_size for path in tree.run_dir.rglob("*.*") if path.is_file())


def test_a_run_folder_that_is_not_there_is_an_empty_reading(tmp_path: Path) -> None:
    reading = read_run(tmp_path / "nothing", "solo")
    assert (reading.exists, reading.mode, reading.pairs, reading.layout) == (False, "solo", {}, None)


def test_a_run_folder_without_pairs_is_read(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "logs" / "a-run")
    tree.config()
    reading = read_run(tree.run_dir)
    assert (reading.exists, reading.mode, reading.pairs, reading.quarantine) == (True, "solo", {}, [])
    (tree.run_dir / "config.json").unlink()
    assert read_run(tree.run_dir).mode is None


@pytest.mark.parametrize("legacy", [False, True])
def test_several_modes_in_one_run_are_one_clear_error(tmp_path: Path, legacy: bool) -> None:
    run_dir = tmp_path / "logs" / "mixed"
    Tree(run_dir, "solo", legacy).pair(ONE)
    Tree(run_dir, "coop", legacy).pair(TWO)
    with pytest.raises(LogTreeError, match=r"mixed holds .* several settings \((solo, coop|coop, solo)\); say which"):
        read_run(run_dir)


def test_the_other_mode_of_a_mixed_run_is_set_aside_when_one_is_meant(tmp_path: Path) -> None:
    run_dir = tmp_path / "logs" / "mixed"
    Tree(run_dir, "solo").pair(ONE)
    Tree(run_dir, "coop").pair(TWO)
    reading = read_run(run_dir, "solo")
    assert set(reading.pairs) == {ONE}
    assert (only(reading).kind, only(reading).path) == ("unknown_setting", "coop")


def test_an_empty_folder_of_another_mode_confuses_nobody(solo: Tree) -> None:
    solo.pair(ONE)
    (solo.run_dir / "coop").mkdir()
    reading = read_run(solo.run_dir)
    assert (reading.mode, reading.quarantine) == ("solo", [])


@pytest.mark.parametrize("place", [".", "solo", "solo/sprout_task", "solo/sprout_task/7"])
def test_a_link_that_leads_to_itself_hides_nothing(solo: Tree, place: str) -> None:
    solo.pair(ONE)
    (solo.run_dir / place / "f2_f3").symlink_to("f2_f3")
    reading = read_run(solo.run_dir)
    assert (set(reading.pairs), reading.quarantine) == ({ONE}, [])


@pytest.mark.parametrize("mode", ["solo", "coop"])
def test_an_older_tree_whose_mode_is_told_sets_aside_what_is_of_another(tmp_path: Path, mode: str) -> None:
    run_dir = tmp_path / "logs" / "mixed"
    Tree(run_dir, "solo", legacy=True).pair(ONE)
    Tree(run_dir, "coop", legacy=True).pair(TWO)
    reading = read_run(run_dir, mode)
    told, other = (ONE, TWO) if mode == "solo" else (TWO, ONE)
    assert reading.pairs[told].result is not None
    assert reading.pairs[other].result is None
    assert (only(reading).kind, only(reading).pair) == ("misplaced", other)


def test_a_folder_of_no_setting_is_set_aside_and_the_rest_is_read(solo: Tree) -> None:
    solo.pair(ONE)
    put(solo.run_dir / "duet" / ONE.name / "result.json", result(ONE))
    (solo.run_dir / ".staging").mkdir()
    reading = read_run(solo.run_dir)
    assert set(reading.pairs) == {ONE}
    assert (only(reading).kind, only(reading).path) == ("unknown_setting", "duet")


def test_unknown_keys_of_forks_are_no_error(coop: Tree) -> None:
    coop.result(ONE, message_schema="v2", messages_by_kind={}, agents=(agent(mood="calm"), agent()))
    coop.evaluation(ONE, feature1_independent=None, feature2_independent={"passed": True})
    coop.conversation(ONE, message(kind="claim"))
    coop.provenance(harness_version="0.0.29", packages={"litellm": "1"}, host={"cpus": 2})
    reading = read_run(coop.run_dir)
    assert reading.quarantine == []
    assert reading.provenance is not None
    assert reading.provenance.record.harness_version == "0.0.29"


@pytest.mark.parametrize("place", ["solo", "solo/sprout_task", "solo/sprout_task/7", ONE.name])
def test_a_folder_that_is_a_link_out_of_the_run_is_not_followed(tmp_path: Path, place: str) -> None:
    source = Tree(tmp_path / "elsewhere" / "a-run")
    source.pair(ONE)
    run = Tree(tmp_path / "logs" / "run-solo")
    run.pair(TWO)
    place = f"solo/{place}" if place == ONE.name else place
    if (linked := run.run_dir / place).exists():
        shutil.rmtree(linked)
    linked.parent.mkdir(parents=True, exist_ok=True)
    linked.symlink_to(source.run_dir / place)
    reading = read_run(run.run_dir, "solo")
    assert ONE not in reading.pairs
    assert (only(reading).kind, only(reading).path, only(reading).remedy) == (
        "unreadable",
        place,
        "put the folder itself there",
    )


def test_a_run_folder_that_is_a_link_and_files_linked_hard_are_read_like_any_other(tmp_path: Path) -> None:
    source = Tree(tmp_path / "elsewhere" / "a-run")
    source.pair(ONE)
    shutil.copytree(source.run_dir, tmp_path / "elsewhere" / "copy", copy_function=os.link)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "run-solo").symlink_to(tmp_path / "elsewhere" / "copy")
    reading = read_run(tmp_path / "logs" / "run-solo")
    assert reading.quarantine == []
    assert reading.pairs[ONE].result is not None


def test_nothing_below_a_pairs_folder_is_followed(solo: Tree) -> None:
    solo.pair(ONE)
    put(solo.folder(ONE) / "old" / "result.json", "not even JSON")
    (solo.folder(ONE) / "loop").symlink_to(solo.run_dir)
    reading = read_run(solo.run_dir)
    assert (set(reading.pairs), reading.quarantine) == ({ONE}, [])


def test_an_agent_without_a_feature_is_matched_by_its_number(coop: Tree) -> None:
    content = result(ONE, "coop")
    for one in content["agents"].values():
        del one["feature_id"]
    coop.write(ONE, "result.json", content)
    ends = read_run(coop.run_dir).pairs[ONE].agents
    assert [(end.name, end.feature) for end in ends] == [("agent1", 1), ("agent2", 40)]


def test_times_without_a_zone_are_utc_and_others_are_converted(solo: Tree) -> None:
    solo.result(ONE, started_at="2026-07-16T10:00:00", ended_at="2026-07-16T12:05:00+02:00")
    first = read_run(solo.run_dir).pairs[ONE]
    assert (first.started_at, first.ended_at) == (moment("2026-07-16T10:00:00"), moment("2026-07-16T10:05:00"))


@pytest.mark.parametrize(
    "value",
    ["yesterday", "", "2026-13-40T00:00:00", "0001-01-01T00:00:00+14:00", None, 1e300, float("nan"), True, [], -1e18],
)
def test_a_time_that_is_none_is_not_known(value: object) -> None:
    assert parse_time(value) is None


@pytest.mark.parametrize("value", [1784198013.5, 1784198013500, "2026-07-16T10:33:33.5Z", "2026-07-16T10:33:33.500"])
def test_times_come_as_text_seconds_and_milliseconds(value: object) -> None:
    assert parse_time(value) == moment("2026-07-16T10:33:33.500000")


def test_raw_provenance_is_kept_as_it_stands(solo: Tree) -> None:
    solo.pair(ONE)
    path = solo.provenance(harness_version="0.0.29", agent_config={"step_limit": 100})
    reading = read_run(solo.run_dir)
    assert reading.provenance is not None
    assert json.loads(reading.provenance.text) == json.loads(path.read_text())
