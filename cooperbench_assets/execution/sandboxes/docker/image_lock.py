"""The lock file of an experiment's images: which ones its results were made with, and which engines have them.

What belongs here: writing it, reading it, and comparing images with it. What does not: the images (``images``).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cooperbench_assets.execution.errors import LaunchError
from cooperbench_assets.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from pathlib import Path

    from cooperbench_assets.execution.sandboxes.docker.images import ImageRecord

VERSION = 1


@dataclass(frozen=True, slots=True)
class ImageChange:
    """An image that is not the one that the lock names."""

    image: str
    locked: str
    found: str


def read_lock(path: Path) -> dict[str, str]:
    """Image → its identity (the registry's digest, or the id of one made here); empty without a file.

    Raises:
        LaunchError: if the file cannot be read.
    """
    return {image: entry.identity for image, entry in _read(path).items()}


def looked_into_on(path: Path, engine: str) -> frozenset[str]:
    """Images of the lock that were looked into on an engine, whichever they were there.

    Args:
        path: The lock file; without one there is none.
        engine: From `Engine.identity`. What was found on one engine says nothing of another's images.

    Raises:
        LaunchError: if the file cannot be read.
    """
    return frozenset(image for image, entry in _read(path).items() if engine in entry.engines)


@dataclass(frozen=True, slots=True)
class _Entry:
    identity: str
    engines: frozenset[str]


def _read(path: Path) -> dict[str, _Entry]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise ValueError(f"its version is {content['version']!r}, and {VERSION} is known here")
        return {
            str(image): _Entry(str(entry["identity"]), frozenset(map(str, entry.get("engines", ()))))
            for image, entry in content["images"].items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LaunchError(
            f"the lock file of the images {path} cannot be read: {error}; restore it, or remove it to accept the "
            f"images that are there"
        ) from error


def changes(lock: Mapping[str, str], found: Mapping[str, str]) -> list[ImageChange]:
    """Images that are there and are not those that the lock names, by name; none for images it does not name."""
    return [
        ImageChange(image, lock[image], found[image])
        for image in sorted(lock.keys() & found.keys())
        if lock[image] != found[image]
    ]


def update_lock(path: Path, records: Iterable[ImageRecord], engine: str, *, accept: bool = False) -> list[ImageChange]:
    """Put ready images into the lock; returns those that are not the ones it names, which stay as they are.

    Args:
        path: The lock file, which is made if it is not there.
        records: Images; those that are not ready are left out.
        engine: Where they were looked into, from `Engine.identity`.
        accept: Take what is there in place of what the lock names.

    Raises:
        LaunchError: if the file cannot be read.
    """
    lock = _read(path)
    ready = [record for record in records if record.state == "ready"]
    found = {record.image: record.identity for record in ready if record.identity}
    changed = changes({image: entry.identity for image, entry in lock.items()}, found)
    new = dict(lock)
    for image, identity in found.items():
        known = lock.get(image, _Entry(identity, frozenset()))
        new[image] = _Entry(identity if accept else known.identity, known.engines | {engine})
    if new != lock or not path.exists():
        _write(path, new)
    return changed


def _write(path: Path, lock: Mapping[str, _Entry]) -> None:
    images = {
        image: {"identity": entry.identity, "engines": sorted(entry.engines)} for image, entry in sorted(lock.items())
    }
    content = {"version": VERSION, "images": images}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f"{json.dumps(content, indent=2)}\n".encode())


def image_rows(
    experiment: str, records: Iterable[ImageRecord], lock: Mapping[str, str], looked_at: datetime
) -> list[dict[str, object]]:
    """Rows of the store's table ``task_images``.

    Args:
        experiment: Its name.
        records: The images as they are.
        lock: What the lock file named before, from `read_lock`.
        looked_at: UTC, without a zone.
    """
    return [
        {
            "experiment": experiment,
            **asdict(record),
            "locked": (locked := lock.get(record.image)),
            "changed": locked != record.identity if locked and record.identity else None,
            "looked_at": looked_at,
        }
        for record in records
    ]
