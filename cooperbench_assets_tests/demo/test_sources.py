"""The package's sources of the demo: libraries, features, places."""

from __future__ import annotations

import pytest

from cooperbench_assets.demo.compose import Part, base, collide, compose, releases
from cooperbench_assets.demo.sources import Edit, Feature, Library, Place, TaskSource, tasks

LIBRARY = Library(
    "toy_task",
    {"toy/a.py": "one\ntwo\nthree\n"},
    {("toy/a.py", "end"): Place("toy/a.py", 3, 1), ("toy/a.py", "end~"): Place("toy/a.py", 1)},
)


def feature(name: str, place: str = "end") -> Feature:
    return Feature(
        name, f"**Title**: {name}\n", (Edit("toy/a.py", place, (f"{name} right",), (f"{name} wrong",)),), (), {}
    )


FIRST, SECOND = feature("first"), feature("second")
TOY = TaskSource(LIBRARY, 1, (), {1: FIRST, 2: SECOND})


def lines(*parts: Part) -> list[str]:
    return compose(TOY, parts)["toy/a.py"].splitlines()


def test_there_are_eight_tasks_in_four_libraries_with_a_hundred_pairs() -> None:
    assert len(tasks()) == 8
    assert len({task.repo for task in tasks()}) == 4
    assert sum(len(task.pairs) for task in tasks()) == 100


def test_repositories_are_named_so_that_upstream_can_name_their_images() -> None:
    assert all(task.repo.endswith("_task") and task.repo.islower() for task in tasks())


def test_every_feature_says_what_it_wants_and_can_be_got_wrong() -> None:
    for task in tasks():
        for one in task.features.values():
            assert one.description.startswith("**Title**: "), one.name
            assert any(edit.right != edit.wrong for edit in (*one.edits, *one.files)), one.name
            assert one.tests, one.name


def test_no_marks_of_places_or_wrong_lines_are_left_in_a_tree() -> None:
    for task in tasks():
        files = compose(task, [Part(one) for one in task.features.values()])
        for path, text in files.items():
            assert "#@" not in text, path
            assert "#!" not in text, path


def test_every_place_is_used_by_a_feature() -> None:
    for task in tasks():
        used = {
            (edit.path, edit.place)
            for other in tasks()
            for one in other.features.values()
            if other.repo == task.repo
            for edit in one.edits
        }
        assert {(path, name.removesuffix("~")) for path, name in task.library.places} == used


def test_features_at_one_place_stand_below_each_other_by_number() -> None:
    assert lines(Part(SECOND), Part(FIRST)) == ["one", "two", "three", "", "first right", "", "second right"]


def test_a_wrong_feature_has_its_wrong_lines() -> None:
    assert lines(Part(FIRST, "wrong")) == ["one", "two", "three", "", "first wrong"]


def test_a_feature_aside_stands_at_the_other_place() -> None:
    assert lines(Part(FIRST), Part(SECOND, "aside")) == ["one", "second right", "two", "three", "", "first right"]
    assert lines(Part(SECOND, "wrong-aside"))[1] == "second wrong"


def test_only_features_at_one_place_collide() -> None:
    assert collide(TOY, Part(FIRST), Part(SECOND))
    assert not collide(TOY, Part(FIRST), Part(SECOND, "aside"))


def test_a_place_that_is_not_there_is_an_error() -> None:
    lost = feature("lost", "nowhere")
    with pytest.raises(KeyError):
        compose(TaskSource(LIBRARY, 1, (), {1: lost}), [Part(lost)])


def test_released_features_are_in_the_base_and_have_commits_of_their_own() -> None:
    task = TaskSource(LIBRARY, 2, (FIRST,), {1: SECOND})
    assert base(task)["toy/a.py"].endswith("\nfirst right\n")
    assert [message for message, _ in releases(task)] == ["First version", "first"]
    assert releases(task)[-1][1] == base(task)
