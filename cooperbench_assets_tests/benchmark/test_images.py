"""Names of task images."""

from __future__ import annotations

import pytest

from cooperbench_assets.benchmark.images import image_name
from cooperbench_assets.benchmark.pairs import Task


@pytest.mark.parametrize(
    ("task", "image"),
    [
        (Task("pallets_click_task", 2068), "akhatua/cooperbench-pallets-click:task2068"),
        (Task("samuelcolvin_dirty_equals_task", 43), "akhatua/cooperbench-samuelcolvin-dirty-equals:task43"),
        (Task("typst_task", 6554), "akhatua/cooperbench-typst:task6554"),
    ],
)
def test_a_tasks_image_is_named_after_its_repository(task: Task, image: str) -> None:
    assert image_name(task) == image
