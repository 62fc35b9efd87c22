"""The demo's dataset, made at set-up from what the package has of it, in the benchmark's own layout.

What belongs here: which files lie where. What does not: what is in the libraries (``tasks``).

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
import functools
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
from .tasks import LIBRARIES, VARIANTS, DemoTask, insert, tasks

OWN = ".demo"
"""Folder below the dataset's root that only the demo reads."""

_HERE = Path(__file__).parent
_BUILDERS = ("tasks.py", "gitwork.py", "dataset.py", "runner.sh")
_SHORTEST = 500
"""Upstream takes shorter text for the name of a file, and asks the file system for it."""

_WORKS = list(itertools.product(("right", "wrong"), repeat=2))
"""What two agents may make of a pair's features, beside leaving one out."""


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


@functools.cache  # Asked for with every look at a subset; a process has loaded its own code only once, too.
def sources_sha256() -> str:
    """Hash of everything that the dataset is made from, as this process found it first."""
    digest = hashlib.sha256()
    libraries = (file for file in sorted(LIBRARIES.rglob("*")) if file.is_file())
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
    trees = [(task, _trees(task)) for task in tasks()]
    patches = iter(gitwork.patches((task.base(), list(one.values())) for task, one in trees))
    for task, one in trees:
        made = {key: next(patches) for key in one}
        _write_task(root / task.repo / f"task{task.task_id}", task, made.pop("combined"))
        _write_json(root / OWN / "patches" / f"{task.repo}-{task.task_id}.json", _submissions(task, made))
    shutil.copytree(LIBRARIES / "subsets", root / "subsets")
    shutil.copy(LIBRARIES / "pairs.json", root / OWN)
    shutil.copy(LIBRARIES / "README.md", root)
    _write_json(root / OWN / "built.json", {"sources_sha256": sources})


def _trees(task: DemoTask) -> dict[str, dict[str, str]]:
    """Every tree of a task in which several features are put in, by a key."""
    base = task.base()
    trees = {"combined": insert(base, [feature.text(VARIANTS["right"]) for feature in task.features.values()])}
    for (a, b), (work_a, work_b) in itertools.product(task.pairs, _WORKS):
        parts = (task.features[a].text(VARIANTS[work_a]), task.features[b].text(VARIANTS[work_b]))
        trees[f"{a}_{b} {work_a}-{work_b}"] = insert(base, parts)
    return trees


def _write_task(folder: Path, task: DemoTask, combined: str) -> None:
    """A task's folder: features, combined patch, checkout and runner."""
    gitwork.repository(folder / "repo", task.releases())
    shutil.copyfile(_HERE / "runner.sh", folder / "runner.sh")
    (folder / "runner.sh").chmod(0o755)
    (folder / "combined.patch").write_text(combined, "utf-8")
    for number, feature in task.features.items():
        place = folder / f"feature{number}"
        place.mkdir()
        for name in ("feature.md", "feature.patch", "tests.patch"):
            (place / name).write_text(feature.text(name), "utf-8")


def _submissions(task: DemoTask, of_pairs: dict[str, str]) -> dict[str, Any]:
    """What the scripted agents can submit for a task."""
    features = {
        str(number): {variant: feature.text(name) for variant, name in VARIANTS.items()}
        for number, feature in task.features.items()
    }
    pairs: dict[str, dict[str, str]] = {}
    for key, patch in of_pairs.items():
        pair, _, works = key.partition(" ")
        pairs.setdefault(pair, {})[works] = patch
    for name, patches in (features | pairs).items():
        if any(len(patch) < _SHORTEST for patch in patches.values()):
            raise DatasetError(f"a patch of {task.repo}/{task.task_id}, {name}, is too short for the harness")
    titles = {str(number): feature.title for number, feature in task.features.items()}
    return {"features": features, "pairs": pairs, "titles": titles}


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
