"""The demo's dataset, made at set-up from the package's sources, in the benchmark's own layout.

What belongs here: which files lie where. What does not: what is in the libraries (``sources``, ``compose``).

::

    <root>/README.md
    <root>/subsets/lite.json  tiny.json            with the pairs whose gold patches conflict when merged
    <root>/<repo>/task<id>/feature<n>/feature.md  feature.patch  tests.patch
                           combined.patch          all features of the task together
                           repo/  runner.sh        what `execution: process` makes a sandbox of
    <root>/.demo/built.json                        hash of the sources that this was built from
                 pairs.json                        what the scripted agents' endings depend on
                 patches/<repo>-<id>.json          what the scripted agents can submit

Everything is the same byte for byte on every build with the same git.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cooperbench_assets.errors import UserError
from cooperbench_assets.files import sync_all

from . import gitwork
from .compose import VARIANTS, Part, Variant, base, collide, compose, releases
from .difficulty import Traits, pair_traits
from .sources import TaskSource, tasks

OWN = ".demo"
"""Folder below the dataset's root that only the demo reads."""

SUBSETS = ("lite", "tiny")

_HERE = Path(__file__).parent
_BUILDERS = ("sources.py", "compose.py", "gitwork.py", "chance.py", "difficulty.py", "dataset.py", "runner.sh")
_SHORTEST = 500
"""Upstream takes shorter text for the name of a file, and asks the file system for it."""

_TINY = {
    ("inkline_task", 3): [(1, 2), (1, 4)],
    ("plainconf_task", 5): [(1, 4)],
    ("slotbook_task", 8): [(1, 4), (4, 5)],
    ("tablewright_task", 37): [(1, 5)],
}

_README = """# The demo's dataset

Written by `cooperbench_assets.demo`, and rewritten when the package's sources change: changes here are lost.
Four small Python libraries, eight tasks, 44 features, 100 pairs, all made up for this purpose. The agents that work
on it are scripted: its figures say nothing about any model.
"""


class DatasetError(UserError):
    """The demo's dataset cannot be built where it was asked for."""


def build_dataset(root: Path) -> Path:
    """Build the demo's dataset at `root`, or leave it alone if these very sources built it.

    Safe to call from several processes at once: one builds, into a folder beside `root` that then takes its
    name, and the others wait.

    Returns:
        `root`.

    Raises:
        DatasetError: if something else lies at `root`.
        GitError: if git is missing or fails.
    """
    sources = sources_sha256()
    root = root.absolute()
    if built_from(root) == sources:
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with _locked(root.with_name(f".{root.name}.lock")):
        if built_from(root) != sources:
            _replace(root, sources)
    return root


def built_from(root: Path) -> str | None:
    """Hash of the sources that the dataset at `root` was built from; None if nothing of ours is there."""
    try:
        content = json.loads((root / OWN / "built.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return str(content.get("sources_sha256")) if isinstance(content, dict) else None


def sources_sha256() -> str:
    """Hash of everything that the dataset is made from."""
    digest = hashlib.sha256()
    libraries = (file for file in sorted((_HERE / "libraries").rglob("*")) if file.is_file())
    for file in (*libraries, *(_HERE / name for name in _BUILDERS)):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(_HERE).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _replace(root: Path, sources: str) -> None:
    """Build beside `root`, then take its name."""
    if root.is_symlink() or (root.exists() and built_from(root) is None and (root.is_file() or any(root.iterdir()))):
        raise DatasetError(f"{root} is not a dataset of the demo; move it away, or choose another folder")
    beside, old = (root.with_name(f".{root.name}.{word}") for word in ("building", "old"))
    for leftover in (beside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        _write(beside, sources)
        # Else a power cut leaves some of them empty in a dataset that counts as whole.
        sync_all([path for path in beside.rglob("*") if path.is_file() and not path.is_symlink()])
        if root.exists():
            root.rename(old)
        beside.rename(root)
    finally:
        for leftover in (beside, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _write(root: Path, sources: str) -> None:
    """The whole dataset."""
    traits = pair_traits()
    trees = [(task, dict(_trees(task))) for task in tasks()]
    patches = iter(gitwork.patches((base(task), list(one.values())) for task, one in trees))
    for task, one in trees:
        made = {key: next(patches) for key in one}
        _write_task(root / task.repo / f"task{task.task_id}", task, made)
        _write_json(root / OWN / "patches" / f"{task.repo}-{task.task_id}.json", _submissions(task, made))
    _write_json(root / "subsets" / "lite.json", _subset("lite", {}, traits))
    _write_json(root / "subsets" / "tiny.json", _subset("tiny", _TINY, traits))
    _write_json(root / OWN / "pairs.json", {name: one.to_dict() for name, one in traits.items()})
    (root / "README.md").write_text(_README, "utf-8")
    _write_json(root / OWN / "built.json", {"sources_sha256": sources})


_Key = tuple[str, ...]


def _trees(task: TaskSource) -> Iterator[tuple[_Key, dict[str, str]]]:
    """Every tree of a task that becomes a patch against its base, by a key."""
    yield ("combined",), compose(task, [Part(feature) for feature in task.features.values()])
    for number, feature in task.features.items():
        yield ("tests", str(number)), base(task) | feature.tests
        for variant in VARIANTS:
            yield ("feature", str(number), variant), compose(task, [Part(feature, variant)])
    works: tuple[Variant, ...] = ("right", "wrong")
    for a, b in task.pairs:
        for work_a, work_b in itertools.product(works, works):
            parts = [Part(task.features[a], work_a), Part(task.features[b], work_b)]
            yield ("pair", f"{a}_{b}", f"{work_a}-{work_b}"), compose(task, parts)


def _write_task(folder: Path, task: TaskSource, made: dict[_Key, str]) -> None:
    """A task's folder: features, combined patch, checkout and runner."""
    gitwork.repository(folder / "repo", releases(task))
    shutil.copyfile(_HERE / "runner.sh", folder / "runner.sh")
    (folder / "runner.sh").chmod(0o755)
    (folder / "combined.patch").write_text(made["combined",], "utf-8")
    for number, feature in task.features.items():
        place = folder / f"feature{number}"
        place.mkdir()
        (place / "feature.md").write_text(feature.description, "utf-8")
        (place / "feature.patch").write_text(made["feature", str(number), "right"], "utf-8")
        (place / "tests.patch").write_text(made["tests", str(number)], "utf-8")


def _submissions(task: TaskSource, made: dict[_Key, str]) -> dict[str, Any]:
    """What the scripted agents can submit for a task."""
    content: dict[str, Any] = {"features": {}, "pairs": {}}
    for key, patch in made.items():
        if key[0] not in ("feature", "pair"):
            continue
        if len(patch) < _SHORTEST:
            raise DatasetError(f"the patch {' '.join(key)} of {task.repo}/{task.task_id} is too short for the harness")
        content[f"{key[0]}s"].setdefault(key[1], {})[key[2]] = patch
    content["titles"] = {str(number): feature.title for number, feature in task.features.items()}
    return content


def _subset(name: str, chosen: dict[tuple[str, int], list[tuple[int, int]]], traits: dict[str, Traits]) -> Any:
    """A subset file; `chosen` says which pairs of which tasks, all pairs of all tasks if it is empty."""
    entries = []
    for task in tasks():
        pairs = chosen.get((task.repo, task.task_id), []) if chosen else task.pairs
        conflicts = [pair for pair in pairs if collide(task, *(Part(task.features[one]) for one in pair))]
        if pairs:
            entries.append({"repo": task.repo, "task_id": task.task_id, "pairs": pairs, "conflicts": conflicts})
    count = sum(len(entry["pairs"]) for entry in entries)  # type: ignore[misc, arg-type]
    repos = len({entry["repo"] for entry in entries})
    return {
        "name": name,
        "description": f"{count} pairs of the demo's made-up libraries; `conflicts` lists pairs whose gold patches "
        "do not merge",
        "stats": {"tasks": len(entries), "pairs": count, "repos": repos},
        "tasks": entries,
    }


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file; its leftover is harmless."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
