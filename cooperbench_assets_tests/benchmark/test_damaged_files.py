"""Damage: one file at a time is set aside with its reason, and its neighbours are read."""

from __future__ import annotations

import os

import pytest

from cooperbench_assets.benchmark.logtree import read_run
from cooperbench_assets_tests.benchmark.looking import only
from cooperbench_assets_tests.trees import Tree, message, pairs, put

ONE, TWO, THREE = pairs(3)


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


def test_bad_bytes_in_the_output_of_a_test_that_infrastructure_ended_are_replaced(solo: Tree) -> None:
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
