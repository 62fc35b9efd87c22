"""Whatever lies in a file: rows or a quarantine entry, never a crash, never a lost neighbour."""

from __future__ import annotations

import contextlib
import copy
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cooperbench_assets.benchmark import attempts, records
from cooperbench_assets.benchmark.jsonfiles import BadFileError, decode
from cooperbench_assets.benchmark.logtree import LogTreeError, read_run
from cooperbench_assets.benchmark.pairs import Subset
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.counts import cell_counts
from cooperbench_assets.store.rows import cell_frames
from cooperbench_assets.store.schema import CELL_TABLES
from cooperbench_assets_tests.trees import Tree, evaluation, message, pairs, put, result

LEFT, HIT, RIGHT = pairs(3)
CELL = Cell("any", "some", 0)
OUTCOMES = {"pass", "fail", "infra_error", "unevaluated", "missing"}
OF_PAIR = ("result.json", "eval.json", "conversation.json", "attempt.json")
OF_RUN = ("config.json", "eval_summary.json", "provenance.json")
FILES = (*OF_PAIR, *OF_RUN)
KINDS = {"empty", "cut", "encoding", "not_json", "wrong_type", "features", "misplaced", "duplicate"}
DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    "result.json": records.RESULT,
    "eval.json": records.EVAL,
    "conversation.json": records.CONVERSATION,
    "attempt.json": attempts.ATTEMPT,
    "config.json": records.CONFIG,
    "eval_summary.json": records.EVAL_SUMMARY,
    "provenance.json": records.PROVENANCE,
}

# Leaves that have broken readers before: too large, not finite, of a wrong type, half a character, a zero byte.
LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.floats(),
    st.text(st.characters(codec=None), max_size=8),
    st.sampled_from([2**31, 2**63, -(2**31) - 1, 10**400, 1e300, "", "\x00", "NaN", "2026-99-99", "Error", "solo", -1]),
    st.just([]),
    st.just({}),
)


def tree_with(mode: str, root: Path) -> Tree:
    """Three finished pairs with tries, and the run's own files."""
    tree = Tree(root / "logs" / "a-run", mode)
    for pair in (LEFT, HIT, RIGHT):
        tree.pair(pair)
        if mode != "solo":
            tree.conversation(pair, message())
        tree.attempt(pair, "agent", 1)
        tree.attempt(pair, "eval", 1)
    tree.config()
    tree.eval_summary({HIT: "Read timed out."})
    tree.provenance(harness_version="0.0.29", merge_policy="agent1_alone", agent_config="a: 1")
    return tree


def path_of(tree: Tree, file: str) -> Path:
    if file == "attempt.json":
        return tree.run_dir / "attempts" / tree.mode / HIT.name / "eval-1" / file
    return tree.run_dir / file if file in OF_RUN else tree.folder(HIT) / file


def pair_rows(tree: Tree) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """The rows of the three pairs by name, and of what was set aside; all tables are as the schema says."""
    subset = Subset("three", (LEFT, HIT, RIGHT), Path("three.json"))
    frames = cell_frames(CELL, subset, read_run(tree.run_dir, tree.mode), logs_root=tree.logs)
    for table in CELL_TABLES:
        assert frames[table.name].schema == table.schema
    assert cell_counts(frames["pairs"])["planned"] == frames["pairs"].height == 3
    rows = {row["pair"]: row for row in frames["pairs"].iter_rows(named=True)}
    return rows, frames["quarantine"].to_dicts()


def exclude(tree: Tree, file: str) -> tuple[bool, dict[str, dict[str, Any]]]:
    """Whether a file was set aside, and the pairs' rows. Either way each pair has its row; its neighbours are whole."""
    rows, quarantine = pair_rows(tree)
    assert set(rows) == {LEFT.name, HIT.name, RIGHT.name}
    assert rows[HIT.name]["outcome"] in OUTCOMES
    for pair in (LEFT, RIGHT):
        assert (rows[pair.name]["outcome"], rows[pair.name]["has_result"]) == ("pass", True)
    for entry in quarantine:
        assert entry["path"] == str(path_of(tree, file).relative_to(tree.logs))
        assert entry["pair"] == (HIT.name if file in OF_PAIR else None)
        assert entry["kind"] in KINDS
        assert entry["message"].startswith(f"{path_of(tree, file).relative_to(tree.run_dir)}: ")
        assert entry["remedy"]
    assert len(quarantine) <= 1
    used = {"result.json": "has_result", "eval.json": "has_eval"}.get(file)
    if used is not None:
        assert rows[HIT.name][used] != bool(quarantine)
    return bool(quarantine), rows


def damage(file: str, content: bytes) -> str | None:
    """What is wrong with a file's content, as a kind and a sentence; None where it is a record."""
    try:
        decode(content, DECODERS[file])
    except BadFileError as bad:
        return f"{bad.kind}: {bad}"
    return None


@st.composite
def mutated(draw: st.DrawFn, content: Any) -> Any:
    """Valid content in which up to three values are something else, or gone."""
    changed = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        place = changed
        while isinstance(place, dict | list) and place:
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if not isinstance(place[key], dict | list) or not place[key] or draw(st.integers(0, 3)) == 0:
                if isinstance(place, dict) and draw(st.integers(0, 4)) == 0:
                    del place[key]
                else:
                    place[key] = draw(LEAVES)
                break
            place = place[key]
    return changed


@pytest.fixture(scope="module")
def whole(trees: dict[str, Tree]) -> dict[str, dict[str, dict[str, Any]]]:
    """The rows of each tree as it is before and after every example."""
    return {mode: pair_rows(tree)[0] for mode, tree in trees.items()}


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tree]:
    """A tree of each mode, in which every example changes one file and puts it back."""
    return {mode: tree_with(mode, tmp_path_factory.mktemp(mode)) for mode in ("solo", "coop")}


@contextlib.contextmanager
def put_in_place(tree: Tree, file: str, content: bytes) -> Iterator[None]:
    """One file's content in place of the valid one."""
    path = path_of(tree, file)
    before = path.read_bytes() if path.exists() else None
    put(path, content)
    try:
        yield
    finally:
        path.unlink() if before is None else path.write_bytes(before)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
@settings(max_examples=60)
@given(content=st.binary(max_size=60))
@example(content=b"")
@example(content=b"\xff\xfe{\x00}\x00")
@example(content=b'{"features": []}')
@example(content=b'{"both_passed": true}')
@example(content=b'{"agents": {"agent1": {}}, "agent": {}}')
@example(content=b'{"agent": {"steps": 1e3}}')
@example(content=b'[{"to": ["a", 1]}]')
@example(content=b'{"agents": {"\\ud800": {"status": "Error"}}}')
def test_any_bytes_give_rows_or_a_quarantine_entry(trees: dict[str, Tree], file: str, content: bytes) -> None:
    tree = trees["coop" if file == "conversation.json" else "solo"]
    with put_in_place(tree, file, content):
        assert exclude(tree, file)[0] or damage(file, content) is None, "what is no record is told of"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["solo", "coop"])
@pytest.mark.parametrize("file", FILES)
@settings(max_examples=60)
@given(data=st.data())
def test_valid_files_with_other_values_give_rows_or_a_quarantine_entry(
    trees: dict[str, Tree],
    whole: dict[str, dict[str, dict[str, Any]]],
    file: str,
    mode: str,
    data: st.DataObject,
) -> None:
    tree, before = trees[mode], whole[mode]
    path = path_of(tree, file)
    content = json.dumps(data.draw(mutated(json.loads(path.read_text()) if path.exists() else []))).encode()
    with put_in_place(tree, file, content):
        unread = mode == "solo" and file == "conversation.json"
        excluded, after = exclude(tree, file)
        assert excluded or damage(file, content) is None or unread
    if file in OF_PAIR:
        assert [after[pair.name] for pair in (LEFT, RIGHT)] == [before[pair.name] for pair in (LEFT, RIGHT)]


@settings(max_examples=300)
@given(st.sampled_from(FILES), st.binary(max_size=200))
def test_any_bytes_decode_or_are_said_to_be_bad(file: str, content: bytes) -> None:
    said = damage(file, content)
    if said is not None:
        kind, _, sentence = said.partition(": ")
        assert kind in KINDS
        assert sentence.startswith("it ")
    else:
        record = decode(content, DECODERS[file])
        assert decode(msgspec.json.encode(record), DECODERS[file]) == record


@settings(max_examples=200)
@given(st.sampled_from(["result.json", "eval.json"]), st.data())
def test_a_file_that_is_cut_anywhere_is_set_aside(file: str, data: st.DataObject) -> None:
    whole = json.dumps(result(HIT) if file == "result.json" else evaluation(HIT)).encode()
    length = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(BadFileError) as caught:
        decode(whole[:length], DECODERS[file])
    assert caught.value.kind in {"cut", "empty"}


MEANT = st.sampled_from(["solo", "7", "f1_f2", "attempts", "x_task"])
NAMES = st.text(st.characters(blacklist_characters="/\x00", blacklist_categories=["Cs"]), min_size=1, max_size=6)


@settings(max_examples=40)
@given(
    st.lists(st.lists(NAMES | st.sampled_from(["solo", "7", "f1_f2", "attempts", "x_task"]), min_size=1, max_size=5))
)
def test_any_folders_leave_the_pairs_that_are_there(places: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        tree = Tree(Path(root) / "logs" / "a-run")
        tree.pair(LEFT)
        for place in places:
            if ".." in place or "." in place:
                continue
            try:
                put(tree.run_dir.joinpath(*place) / "result.json", "{}")
            except OSError:
                continue
        try:
            reading = read_run(tree.run_dir, "solo")
        except LogTreeError:
            pytest.fail("a run whose mode is known is always read")
        assert reading.pairs[LEFT].result is not None
