"""Walking `<repo>/<task_id>/f<a>_f<b>` below a folder: the shape of the log tree and of our attempts.

What belongs here: the walk. What does not: reading what lies there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cooperbench_assets.benchmark.pairs import Pair, parse_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def folders(root: Path) -> list[Path]:
    """The folders in a folder; none if it is not there."""
    try:
        with os.scandir(root) as entries:
            return [root / entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def pair_folders(root: Path) -> Iterator[tuple[Pair, Path]]:
    """Every pair folder below a mode's folder; anything else there is the log tree's reader to report."""
    for repo in folders(root):
        for task in folders(repo):
            if not task.name.isdecimal():
                continue
            for folder in folders(task):
                features = parse_folder(folder.name)
                if features is not None:
                    yield Pair(repo.name, int(task.name), features), folder
