"""Patches that touch, against git itself: where two changes touch, git's own merge conflicts."""

from __future__ import annotations

import difflib
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cooperbench_assets.benchmark.diffs import changes_of, patch_overlap
from cooperbench_assets.store.overlaps import PATCH_OVERLAPS, overlaps_of

BASE = [f"line {number}\n" for number in range(1, 13)]
EDITS = st.lists(st.tuples(st.integers(0, 11), st.sampled_from(["replace", "lengthen", "insert"])), max_size=3)


def _edited(edits: list[tuple[int, str]], who: str) -> list[str]:
    lines: list[str] = []
    kinds = dict(edits)
    for number, line in enumerate(BASE):
        match kinds.get(number):
            case "replace":
                lines.append(f"{who} {number}\n")
            case "insert":
                lines += [f"{who} before {number}\n", line]
            case "lengthen":
                lines += [f"{who} instead of {number}\n", f"{who} and more\n"]
            case _:
                lines.append(line)
    return lines


def _patch(before: list[str], after: list[str], name: str = "x.py", context: int = 3) -> str:
    return "".join(difflib.unified_diff(before, after, f"a/{name}", f"b/{name}", n=context))


@settings(max_examples=80, deadline=None)
@given(EDITS, EDITS, st.integers(0, 3))
def test_two_changes_touch_exactly_where_git_merge_conflicts(
    first: list[tuple[int, str]], second: list[tuple[int, str]], context: int
) -> None:
    a, b = _edited(first, "A"), _edited(second, "B")
    found = patch_overlap(_patch(BASE, a, context=context), _patch(BASE, b, context=context))
    assert (found.places > 0) == _git_conflicts(a, b)


def _git_conflicts(a: list[str], b: list[str]) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, lines in (("a", a), ("base", BASE), ("b", b)):
            path = Path(folder, name)
            path.write_text("".join(lines))
            paths.append(str(path))
        done = subprocess.run(["git", "merge-file", "-p", *paths], capture_output=True, check=False)
    assert done.returncode in range(128)
    return done.returncode > 0


def test_lines_and_files_in_common_are_counted() -> None:
    a = _edited([(1, "replace"), (2, "replace"), (8, "insert")], "A")
    b = _edited([(2, "replace"), (3, "replace")], "B")
    found = patch_overlap(
        _patch(BASE, a) + _patch(["p\n"], ["q\n"], "y.py"), _patch(BASE, b) + _patch([], ["n\n"], "z")
    )
    assert (found.files, found.lines, found.places) == (("x.py",), 1, 1)


def test_a_new_file_that_both_make_touches() -> None:
    found = patch_overlap(_patch([], ["a\n"], "new.py"), _patch([], ["b\n"], "new.py"))
    assert (found.files, found.lines, found.places) == (("new.py",), 0, 1)


def test_removed_renamed_and_binary_files_count_as_files() -> None:
    removed = "diff --git a/old.py b/old.py\ndeleted file mode 100644\n--- a/old.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"
    renamed = "diff --git a/from.py b/to.py\nsimilarity index 100%\nrename from from.py\nrename to to.py\n"
    binary = "diff --git a/x.png b/x.png\nindex 1..2 100644\nBinary files a/x.png and b/x.png differ\n"
    assert set(changes_of(removed + renamed + binary)) == {"old.py", "from.py", "to.py", "x.png"}
    assert patch_overlap(removed, _patch(["x\n"], ["y\n"], "old.py")).lines == 1


def test_content_that_looks_like_a_header_is_content() -> None:
    patch = _patch(["a\n", "-- b/other.py\n", "c\n"], ["a\n", "++ b/other.py\n", "c\n"])
    assert "--- b/other.py" in patch
    assert set(changes_of(patch)) == {"x.py"}


def test_nothing_overlaps_with_an_empty_patch() -> None:
    assert patch_overlap("", _patch(BASE, _edited([(1, "replace")], "A"))).files == ()


def test_rows_of_the_table_are_made_from_patches() -> None:
    key = {"experiment": "e", "setting": "coop-comm", "seed": 0, "pair": "r/1/f1_f2"}
    a, b = _patch(BASE, _edited([(1, "replace")], "A")), _patch(BASE, _edited([(2, "replace")], "B"))
    frame = overlaps_of([(key, a, b)])
    assert frame.schema == PATCH_OVERLAPS.schema
    assert frame.select("files_a", "files_b", "shared_files", "shared_lines", "touching_places").row(0) == (
        1,
        1,
        1,
        0,
        1,
    )
    assert overlaps_of([]).schema == PATCH_OVERLAPS.schema


@pytest.mark.parametrize("text", ["no diff at all", "@@ -1 +1 @@\n", "--- a/x\n", "@@ -1,9 +1,9 @@\n-x"])
def test_a_cut_patch_is_read_as_far_as_it_goes(text: str) -> None:
    assert isinstance(patch_overlap(text, text).places, int)
