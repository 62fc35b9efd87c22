"""Names of the container images that hold the tasks.

What belongs here: the naming rule. What does not: pulling, pinning or running an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cooperbench_assets.benchmark.pairs import Task

ACCOUNT = "akhatua"
"""The account on Docker Hub under which the benchmark's images are published."""


def image_name(task: Task) -> str:
    """The image of a task, with its tag: ``akhatua/cooperbench-<repo>:task<id>``.

    The repository's name loses ``_task``, and its underscores become hyphens.
    """
    repo = task.repo.replace("_task", "").replace("_", "-")
    return f"{ACCOUNT}/cooperbench-{repo}:task{task.task_id}"
