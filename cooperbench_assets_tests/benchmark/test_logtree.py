"""Reading runs of every shape, and what happens to what cannot be used."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cooperbench_assets.benchmark.jsonfiles import Quarantined
from cooperbench_assets.benchmark.logtree import LogTreeError, RunReading, read_run
from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.benchmark.records import parse_time
from cooperbench_assets_tests.trees import Tree, agent, evaluation, message, pairs, put, result

ONE, TWO, THREE = pairs(3)


@pytest.fixture
def solo(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "logs" / "run-solo")


@pytest.fixture
def coop(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "logs" / "run-coop", "coop")


def only(reading: RunReading) -> Quarantined:
    assert len(reading.quarantine) == 1, reading.quarantine
    return reading.quarantine[0]


def moment(text: str) -> datetime:
    """A time without a zone."""
    return datetime.fromisoformat(text)


# Shapes.


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


def test_linked_pair_folders_are_read_like_any_other(tmp_path: Path) -> None:
    source = Tree(tmp_path / "elsewhere" / "a-run")
    source.pair(ONE)
    source.pair(TWO)
    adopted = Tree(tmp_path / "logs" / "run-solo")
    adopted.folder(ONE).parent.mkdir(parents=True)
    adopted.folder(ONE).symlink_to(source.folder(ONE))
    shutil.copytree(source.folder(TWO), adopted.folder(TWO), copy_function=os.link)
    reading = read_run(adopted.run_dir)
    assert reading.quarantine == []
    assert all(reading.pairs[pair].result is not None for pair in (ONE, TWO))


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


# Damage: one file at a time, its neighbours read.

BROKEN: list[tuple[str, bytes]] = [
    ("empty", b""),
    ("empty", b" \n"),
    ("cut", b'{"repo": "sprout_task", "agent": {"sta'),
    ("cut", b"\0" * 512),
    ("encoding", b'{"agent": {"status": "Submi\xfftted"}, "both_passed": true, "evaluated_at": "\xff"}'),
    ("not_json", b"<html>502 Bad Gateway</html>"),
    ("wrong_type", b"[" * 100_000),
    ("not_json", b'{"a": ' * 50_000 + b"1" + b"}" * 50_000),
    ("wrong_type", b"[]"),
    ("wrong_type", b"null"),
    ("wrong_type", b'{"features": "1,2", "both_passed": "yes", "agent": 3}'),
    ("wrong_type", b'{"task_id": 99999999999999999999999, "agent": {}, "both_passed": true}'),
    ("wrong_type", b'{"task_id": ' + b"9" * 6000 + b', "agent": {}, "both_passed": true}'),
    ("features", b'{"features": [1, 2, 3], "agent": {}, "both_passed": true}'),
    ("features", b'{"features": [4, 4], "agent": {}, "both_passed": true}'),
    ("misplaced", b'{"repo": "other_task", "agent": {}, "both_passed": true}'),
    ("misplaced", b'{"task_id": -5, "agent": {}, "both_passed": true}'),
    ("misplaced", b'{"features": [3, 2], "agent": {}, "both_passed": true}'),
]


@pytest.mark.parametrize("file", ["result.json", "eval.json"])
@pytest.mark.parametrize(("kind", "content"), BROKEN)
def test_a_broken_file_is_quarantined_and_its_neighbours_are_read(
    solo: Tree, file: str, kind: str, content: bytes
) -> None:
    for pair in (ONE, TWO, THREE):
        solo.pair(pair)
    solo.write(TWO, file, content)
    reading = read_run(solo.run_dir)
    entry = only(reading)
    assert (entry.kind, entry.pair, entry.path) == (kind, TWO, f"solo/{TWO.name}/{file}")
    assert entry.message.startswith(f"solo/{TWO.name}/{file}: ")
    assert entry.remedy
    touched = reading.pairs[TWO]
    assert (touched.result is None, touched.evaluation is None) == (file == "result.json", file == "eval.json")
    for pair in (ONE, THREE):
        assert reading.pairs[pair].result is not None
        assert reading.pairs[pair].evaluation is not None


@pytest.mark.parametrize("kind", ["folder", "dangling link", "pipe"])
def test_what_is_no_file_is_quarantined(solo: Tree, kind: str) -> None:
    solo.pair(ONE)
    solo.pair(TWO)
    path = solo.folder(ONE) / "result.json"
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("nowhere")
    reading = read_run(solo.run_dir)
    assert only(reading).kind in ("unreadable", "empty")
    assert reading.pairs[TWO].result is not None


def test_a_file_that_may_not_be_read_is_quarantined(solo: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    solo.pair(ONE)
    solo.pair(TWO)
    real = os.open

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if str(path).endswith(f"{ONE.name}/eval.json"):
            raise PermissionError(13, "Permission denied")
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    reading = read_run(solo.run_dir)
    assert (only(reading).kind, only(reading).pair) == ("unreadable", ONE)
    assert "Permission denied" in only(reading).message
    assert reading.pairs[TWO].evaluation is not None


def test_a_byte_order_mark_is_no_damage(solo: Tree) -> None:
    path = solo.result(ONE)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    reading = read_run(solo.run_dir)
    assert reading.quarantine == []
    assert reading.pairs[ONE].result is not None


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_cost_that_is_no_number_is_not_known(solo: Tree, word: str) -> None:
    path = solo.result(ONE)
    path.write_text(path.read_text().replace("0.25", word))
    reading = read_run(solo.run_dir)
    assert reading.quarantine == []
    record = reading.pairs[ONE].result
    assert record is not None
    assert record.agent is not None
    assert (record.total_cost, record.agent.cost) == (None, None)


def test_half_characters_that_python_wrote_are_replaced(coop: Tree) -> None:
    coop.result(ONE)
    coop.conversation(ONE, message(text="odd \udc80 byte"), message(text="pair \ud83d\ude00"))
    reading = read_run(coop.run_dir)
    assert reading.quarantine == []
    assert [one.message for one in reading.pairs[ONE].messages or []] == ["odd \ufffd byte", "pair \U0001f600"]


def test_bad_bytes_in_an_output_that_nobody_needs_are_no_damage(solo: Tree) -> None:
    solo.result(ONE)
    path = solo.evaluation(ONE)
    path.write_bytes(path.read_bytes().replace(b"3 passed", b"3 \xff\xfe passed"))
    assert read_run(solo.run_dir).quarantine == []


def test_bad_bytes_in_the_output_of_a_struck_test_are_replaced(solo: Tree) -> None:
    solo.result(ONE)
    path = solo.evaluation(ONE, passed=(False, True), outputs=("caf# runner.sh: line 9: 12 Killed  x", None))
    path.write_bytes(path.read_bytes().replace(b"caf#", b"caf\xff\\n"))
    verdict = read_run(solo.run_dir).pairs[ONE].evaluation
    assert verdict is not None
    assert verdict.feature_a is not None
    assert verdict.feature_a.sign is not None
    assert verdict.feature_a.sign.failure.family == "oom"


@pytest.mark.parametrize("content", [b"{}", b'[{"from": 5}]', b'[{"from": "a", "to"', b""])
def test_a_broken_conversation_leaves_its_pair(coop: Tree, content: bytes) -> None:
    coop.pair(ONE)
    coop.write(ONE, "conversation.json", content)
    reading = read_run(coop.run_dir)
    assert only(reading).path.endswith("conversation.json")
    assert reading.pairs[ONE].messages is None
    assert reading.pairs[ONE].result is not None


@pytest.mark.parametrize("file", ["config.json", "eval_summary.json", "provenance.json"])
@pytest.mark.parametrize("content", [b"[]", b"{", b"", b'{"results": 5, "model": 7, "origin": {}}'])
def test_a_broken_file_of_the_run_leaves_its_pairs(solo: Tree, file: str, content: bytes) -> None:
    solo.pair(ONE)
    put(solo.run_dir / file, content)
    reading = read_run(solo.run_dir)
    assert (only(reading).path, only(reading).pair) == (file, None)
    assert reading.pairs[ONE].result is not None


@pytest.mark.parametrize("pair_key", ["x", "sprout_task/7/1,40,41", "sprout_task/7/40,40", None, "a/b/c,d"])
def test_an_entry_of_the_evaluation_summary_for_no_pair_is_passed_over(solo: Tree, pair_key: str | None) -> None:
    solo.result(ONE)
    put(solo.run_dir / "eval_summary.json", {"results": [{"run": pair_key, "status": "error", "error": "x"}]})
    reading = read_run(solo.run_dir)
    assert (reading.quarantine, reading.pairs[ONE].eval_error) == ([], None)


# Folder against content.


def test_a_result_of_another_setting_is_misplaced(coop: Tree) -> None:
    coop.pair(ONE)
    coop.write(TWO, "result.json", result(TWO, "solo"))
    reading = read_run(coop.run_dir)
    assert (only(reading).kind, only(reading).pair) == ("misplaced", TWO)
    assert reading.pairs[TWO].result is None


@pytest.mark.parametrize("change", [{"agents": {}}, {"agents": None, "agent": agent()}, {"agents": None}])
def test_agents_that_do_not_suit_the_setting_are_a_wrong_type(coop: Tree, change: dict[str, Any]) -> None:
    coop.write(ONE, "result.json", result(ONE, "coop") | change)
    assert only(read_run(coop.run_dir)).kind == "wrong_type"


def test_a_copy_of_a_result_in_another_pairs_folder_is_a_duplicate(solo: Tree) -> None:
    solo.pair(ONE)
    solo.pair(TWO)
    solo.write(TWO, "result.json", result(ONE))
    reading = read_run(solo.run_dir)
    assert (only(reading).kind, only(reading).pair) == ("duplicate", TWO)
    assert reading.pairs[ONE].result is not None
    assert reading.pairs[TWO].result is None


@pytest.mark.parametrize("other", ["f01_f40", "f1_f040", "f001_f0040"])
def test_two_folders_of_one_pair_are_one_pair_and_a_duplicate(solo: Tree, other: str) -> None:
    solo.pair(ONE)
    put(solo.folder(ONE).with_name(other) / "result.json", result(ONE, run_id="another"))
    reading = read_run(solo.run_dir)
    assert (only(reading).kind, only(reading).pair, only(reading).path.endswith(other)) == ("duplicate", ONE, True)
    record = reading.pairs[ONE].result
    assert record is not None
    assert record.run_id == "0f0f0f0f"


def test_a_task_with_leading_zeros_is_the_same_task(solo: Tree) -> None:
    solo.pair(ONE)
    put(solo.run_dir / "solo" / "sprout_task" / "007" / ONE.folder / "result.json", result(ONE))
    assert only(read_run(solo.run_dir)).kind == "duplicate"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sprout_task/7/f1_f2_f3", "features"),
        ("sprout_task/7/f5_f5", "features"),
        ("sprout_task/7/f1", "stray"),
        ("sprout_task/7/f9_f2", "misplaced"),
        ("sprout_task/7/f1_f40.bak", "stray"),
        ("sprout_task/latest/f1_f2", "stray"),
        ("sprout_task/-7/f1_f2", "stray"),
    ],
)
def test_a_folder_that_stands_for_no_pair_is_set_aside(solo: Tree, name: str, kind: str) -> None:
    solo.pair(TWO)
    put(solo.run_dir / "solo" / name / "result.json", result(ONE))
    reading = read_run(solo.run_dir)
    assert (only(reading).kind, set(reading.pairs)) == (kind, {TWO})


def test_names_that_are_no_text_can_still_be_told(solo: Tree) -> None:
    solo.pair(ONE)
    for name in (b"sprout_task/7/f1_\xff", b"odd\xff_task/3/f1_f2"):
        (solo.run_dir / "solo" / os.fsdecode(name)).mkdir(parents=True)
    reading = read_run(solo.run_dir)
    assert "\ufffd" in only(reading).path
    assert Pair("odd\ufffd_task", 3, (1, 2)) in reading.pairs


def test_a_folder_that_cannot_be_listed_is_set_aside(solo: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    solo.pair(ONE)
    solo.pair(TWO)
    real = os.listdir

    def listdir(path: str) -> list[str]:
        if str(path).endswith(ONE.name):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    reading = read_run(solo.run_dir)
    assert (only(reading).kind, only(reading).pair) == ("unreadable", ONE)
    assert reading.pairs[TWO].result is not None


def test_a_verdict_beside_no_result_is_kept_and_said(solo: Tree) -> None:
    solo.evaluation(ONE)
    reading = read_run(solo.run_dir)
    assert reading.pairs[ONE].result is None
    assert reading.pairs[ONE].evaluation is not None


def test_an_evaluation_of_another_pair_is_misplaced(coop: Tree) -> None:
    coop.pair(ONE)
    coop.write(ONE, "eval.json", evaluation(TWO, "coop"))
    reading = read_run(coop.run_dir)
    assert (only(reading).kind, only(reading).pair) == ("misplaced", ONE)
    assert reading.pairs[ONE].evaluation is None


# Attempts.


def test_attempts_are_read_beside_their_pairs_and_never_as_pairs(coop: Tree) -> None:
    coop.pair(ONE)
    coop.attempt(ONE, "agent", 1, outcome="infra_error", family="auth", evidence="401")
    coop.attempt(ONE, "agent", 2)
    coop.attempt(ONE, "eval", 1)
    put(coop.run_dir / "attempts" / "coop" / ONE.name / "agent-1" / "result.json", result(ONE, "coop"))
    reading = read_run(coop.run_dir)
    assert (set(reading.pairs), reading.quarantine) == ({ONE}, [])
    tried = [(one.stage, one.n, one.outcome, one.counted) for one in reading.pairs[ONE].attempts]
    assert tried == [
        ("agent", 1, "infra_error", True),
        ("agent", 2, "completed", False),
        ("eval", 1, "completed", False),
    ]


def test_attempts_of_a_pair_without_a_folder_are_read(solo: Tree) -> None:
    solo.attempt(ONE, "agent", 1, outcome="infra_error", family="container_start")
    reading = read_run(solo.run_dir)
    assert reading.mode == "solo"
    assert (reading.pairs[ONE].result, len(reading.pairs[ONE].attempts)) == (None, 1)


@pytest.mark.parametrize(("alive", "outcome"), [(True, "running"), (False, "interrupted")])
def test_a_try_without_an_end_is_interrupted_once_its_process_is_gone(solo: Tree, alive: bool, outcome: str) -> None:
    solo.attempt(ONE, "agent", 1, outcome="running", ended_at=None, pid=4)
    (tried,) = read_run(solo.run_dir, alive=lambda _: alive).pairs[ONE].attempts
    assert (tried.outcome, tried.counted) == (outcome, not alive)


@pytest.mark.parametrize(
    ("pid", "outcome"),
    [(os.getpid(), "running"), (2**22 + 7, "interrupted"), (None, "interrupted")],
    ids=["of this process", "of none", "not recorded"],
)
def test_whether_a_process_is_there_is_looked_up(solo: Tree, pid: int | None, outcome: str) -> None:
    solo.attempt(ONE, "agent", 1, outcome="running", pid=pid)
    assert read_run(solo.run_dir).pairs[ONE].attempts[0].outcome == outcome


def test_an_unreadable_record_of_a_try_counts_as_interrupted(solo: Tree) -> None:
    solo.attempt(ONE, "agent", 1).write_text('{"n": 1, "outc')
    reading = read_run(solo.run_dir)
    assert (only(reading).kind, only(reading).pair) == ("cut", ONE)
    (tried,) = reading.pairs[ONE].attempts
    assert (tried.outcome, tried.counted, tried.n) == ("interrupted", True, 1)


def test_a_try_that_was_there_before_counts_for_no_limit(solo: Tree) -> None:
    solo.attempt(ONE, "agent", 1, outcome="infra_error", campaign=0)
    assert not read_run(solo.run_dir).pairs[ONE].attempts[0].counted


def test_stray_folders_among_attempts_are_passed_over(solo: Tree) -> None:
    solo.attempt(ONE, "agent", 1)
    base = solo.run_dir / "attempts" / "solo" / ONE.name
    for name in ("notes", "agent-x", "eval-2"):
        (base / name).mkdir()
    put(base.parent / "f9_f1" / "agent-1" / "attempt.json", "{}")
    reading = read_run(solo.run_dir)
    assert len(reading.pairs[ONE].attempts) == 1


def test_raw_provenance_is_kept_as_it_stands(solo: Tree) -> None:
    solo.pair(ONE)
    path = solo.provenance(harness_version="0.0.29", agent_config={"step_limit": 100})
    reading = read_run(solo.run_dir)
    assert reading.provenance is not None
    assert json.loads(reading.provenance.text) == json.loads(path.read_text())
