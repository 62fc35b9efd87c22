"""The demo's tasks as the package holds them, and trees with several patches put in."""

from __future__ import annotations

import difflib
import re

from hypothesis import given
from hypothesis import strategies as st

from cooperbench_assets.demo.tasks import VARIANTS, insert, tasks

TOY = {"toy/a.py": "one\ntwo\nthree\n"}
FIRST, SECOND = (
    f"--- a/toy/a.py\n+++ b/toy/a.py\n@@ -2,2 +2,4 @@\n two\n three\n+\n+{name}\n" for name in ("first", "second")
)
ASIDE = "--- a/toy/a.py\n+++ b/toy/a.py\n@@ -1,2 +1,3 @@\n one\n+aside\n two\n"
NEW = "--- /dev/null\n+++ b/toy/b.py\n@@ -0,0 +1,2 @@\n+new\n+file\n"


def test_there_are_eight_tasks_in_four_libraries_with_a_hundred_pairs() -> None:
    assert len(tasks()) == 8
    assert len({task.repo for task in tasks()}) == 4
    assert sum(len(task.pairs) for task in tasks()) == 100


def test_repositories_are_named_so_that_upstream_can_name_their_images() -> None:
    assert all(task.repo.endswith("_task") and task.repo.islower() for task in tasks())


def test_every_feature_says_what_it_wants_and_can_be_got_wrong() -> None:
    for task in tasks():
        for one in task.features.values():
            assert one.title
            assert one.text("feature.md").startswith("**Title**: "), one.folder
            assert one.text(VARIANTS["wrong"]) != one.text(VARIANTS["right"]), one.folder
            assert re.findall(r"^\+\+\+ b/tests/test_\w+\.py$", one.text("tests.patch"), re.MULTILINE), one.folder


def test_every_patch_takes_no_line_away_so_that_two_of_them_go_together() -> None:
    for task in tasks():
        for one in task.features.values():
            for name in (*VARIANTS.values(), "tests.patch"):
                assert not re.search(r"^-(?!-- )", one.text(name), re.MULTILINE), (one.folder, name)


def test_what_is_inserted_at_one_place_stands_below_each_other_in_the_order_given() -> None:
    both = insert(TOY, [FIRST, SECOND])["toy/a.py"].splitlines()
    assert both == ["one", "two", "three", "", "first", "", "second"]
    assert insert(TOY, [FIRST, ASIDE])["toy/a.py"].splitlines() == ["one", "aside", "two", "three", "", "first"]


def test_a_new_file_is_added_and_the_others_stay() -> None:
    assert insert(TOY, [NEW]) == {**TOY, "toy/b.py": "new\nfile\n"}


@given(st.lists(st.lists(st.sampled_from(["", " x", "+y", "-z", "@@ -1 +1 @@"]), max_size=3), min_size=1, max_size=8))
def test_a_diff_that_only_inserts_gives_the_file_that_it_was_made_for(places: list[list[str]]) -> None:
    own = [f"line {number}" for number in range(len(places) - 1)]
    lines = [*places[0], *(line for mine, below in zip(own, places[1:], strict=True) for line in (mine, *below))]
    if own and lines != own:
        patch = "".join(f"{line}\n" for line in difflib.unified_diff(own, lines, "a/f", "b/f", lineterm=""))
        assert insert({"f": "\n".join(own) + "\n"}, [patch])["f"].splitlines() == lines


def test_released_features_are_in_the_base_and_have_commits_of_their_own() -> None:
    (task,) = (one for one in tasks() if (one.repo, one.task_id) == ("slotbook_task", 21))
    releases = task.releases()
    assert [message for message, _ in releases] == ["First version", *(feature.title for feature in task.released)]
    assert len(task.released) == 2
    assert releases[-1][1] == task.base()
    first, last = releases[0][1], releases[-1][1]
    assert set(first) < set(last), "tests of released features are new files"
    assert all(last[path].count("\n") >= text.count("\n") for path, text in first.items())
