"""Runs from elsewhere become cells of an experiment that runs pairs itself, so that they can be evaluated and extended.

What belongs here: deciding whether a run can take a cell's place, and linking its files there, a run at a time and
never over another. What does not: finding runs (``importing``), reading what is in them (``benchmark.logtree``).

Files are hard-linked. Execution replaces files by rename and never writes into one, so the originals keep their
content; `copy` is for those whose originals somebody else still writes into.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import filelock

from cooperbench_assets.stops import reach

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MODES: Final = ("solo", "coop", "team")
PROVENANCE: Final = "provenance.json"
ATTEMPTS: Final = "attempts"
_TEMPORARY: Final = ".adopting-"
_LOCK: Final = ".adopting.lock"
_PAIR: Final = re.compile(r"f\d+(_f\d+)*")
_NO_LINK: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES})
"""What `link` says where two folders lie on two file systems, or this one or its owner allows no further link."""


class AdoptionError(RuntimeError):
    """A run cannot be adopted; nothing of it was taken, and the message says what to do."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """A run that is to be the run of a cell."""

    source: Path
    """The run folder to take; only read."""

    target: Path
    """The cell's run folder; must not exist, or hold nothing."""

    mode: str
    """The only mode folder that is taken: solo, coop or team."""

    facts: Mapping[str, Any]
    """What is known of the run, for its provenance record."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """What adopting one run did."""

    target: Path
    linked: int = 0
    """Files that share their content with the original."""

    copied: int = 0
    left: tuple[str, ...] = ()
    """What was not taken, each with the reason."""

    before: bool = False
    """The same run was adopted earlier; nothing was done."""


def adopted_before(adoption: Adoption) -> bool:
    """Whether the cell's run folder already holds this run, adopted.

    Raises:
        AdoptionError: if it holds anything else.
    """
    target = adoption.target
    try:
        content = {name for name in os.listdir(target) if not name.startswith(".")}
    except FileNotFoundError:
        return False
    except OSError as error:
        raise AdoptionError(f"{target}: {error.strerror or error}") from error
    if not content:
        return False
    if target.samefile(adoption.source):
        raise AdoptionError(f"{target} is the cell's run folder already: there is nothing to adopt; materialise it")
    record = _record(target).get("adopted")
    if isinstance(record, dict) and record.get("listing_sha256") == _listing_sha256(adoption.source):
        return True
    raise AdoptionError(
        f"{target} exists, and is not {adoption.source.name} as it is now; it was left alone. Move it away, or give "
        "the cell another run_name in defs.yaml"
    )


def adopt(adoption: Adoption, *, copy: bool = False) -> Adopted:
    """Link one run into the place of a cell, whole or not at all.

    Older trees without the mode level get it on the way. What is no regular file is left.

    Raises:
        AdoptionError: if another run is there, another process adopts at this moment, or a file cannot be taken.
    """
    logs = adoption.target.parent
    try:
        logs.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(logs / _LOCK, blocking=False):
            _sweep(logs)
            if adopted_before(adoption):
                return Adopted(adoption.target, before=True)
            return _take(adoption, copy=copy)
    except filelock.Timeout as error:
        raise AdoptionError(f"another process is adopting runs into {logs}; wait for it, and start again") from error
    except OSError as error:
        raise AdoptionError(f"{error.filename or adoption.source}: {error.strerror or error}") from error


def _sweep(logs: Path) -> None:
    """Remove what a killed adoption left; the lock says that nobody works in it."""
    for entry in os.scandir(logs):
        if entry.name.startswith(_TEMPORARY) and entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)


def _take(adoption: Adoption, *, copy: bool) -> Adopted:
    target = adoption.target
    temporary = target.with_name(_TEMPORARY + target.name)
    temporary.mkdir()
    try:
        done, left = _fill(adoption, temporary, copy=copy)
        _write_record(adoption, temporary, done)
        reach("adopt:linked")
        _clear_empty(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Adopted(target, done["linked"], done["copied"], tuple(left))


def _clear_empty(target: Path) -> None:
    """Remove a run folder that holds a lock file at most, so that the rename finds its place free."""
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(target):
            if entry.is_file(follow_symlinks=False) and entry.name.startswith("."):
                Path(entry.path).unlink()
        target.rmdir()


def _fill(adoption: Adoption, temporary: Path, *, copy: bool) -> tuple[Counter[str], list[str]]:
    done: Counter[str] = Counter(linked=0, copied=0)
    left: list[str] = []
    repositories = _legacy_repositories(adoption.source)
    for relative, entry in _walk(adoption.source, ""):
        place = _place(relative, adoption.mode, repositories)
        if place is None:
            continue
        destination = temporary / place
        if not entry.is_file(follow_symlinks=False):
            left.append(f"{relative}: no regular file")
        elif destination.exists():
            left.append(f"{relative}: the same pair lies in {adoption.mode}/ too")
        else:
            destination.parent.mkdir(parents=True, exist_ok=True)
            linked = not copy and _link(entry.path, destination)
            if not linked:
                shutil.copy2(entry.path, destination)
            done["linked" if linked else "copied"] += 1
    left += [f"{mode}/: another mode" for mode in MODES if mode != adoption.mode and (adoption.source / mode).is_dir()]
    return done, sorted(left)


def _walk(folder: Path | str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below a folder that is no folder itself, the mode level first; links are not followed."""
    entries = sorted(os.scandir(folder), key=lambda entry: (bool(prefix) or entry.name not in MODES, entry.name))
    for entry in entries:
        relative = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, relative + "/")
        else:
            yield relative, entry


def _place(relative: str, mode: str, repositories: frozenset[str]) -> str | None:
    """Where a file of the source goes; None where it is not taken: other modes, and our own working files."""
    first, _, rest = relative.partition("/")
    if first.startswith(".") or relative == PROVENANCE or (first in MODES and rest and first != mode):
        return None
    return f"{mode}/{relative}" if first in repositories else relative


def _legacy_repositories(source: Path) -> frozenset[str]:
    """Folders of the run that hold pairs without a mode level above them."""
    return frozenset(
        folder.name
        for folder in source.iterdir()
        if folder.name not in (*MODES, ATTEMPTS)
        and not folder.name.startswith(".")
        and any(_PAIR.fullmatch(pair.name) and pair.parent.name.isdecimal() for pair in folder.glob("*/*/"))
    )


def _listing_sha256(source: Path) -> str:
    """Hash of the names and sizes of a run's files: tells one run from another without reading either."""
    digest = hashlib.sha256()
    for relative, entry in _walk(source, ""):
        if not relative.startswith("."):
            size = entry.stat(follow_symlinks=False).st_size
            digest.update(f"{relative}\0{size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _link(source: str, destination: Path) -> bool:
    """Hard-link a file; False where the file system cannot."""
    try:
        os.link(source, destination, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_LINK:
            return False
        raise
    return True


def _record(run_dir: Path) -> dict[str, Any]:
    """provenance.json of a run; empty where there is none that can be read."""
    try:
        record = json.loads((run_dir / PROVENANCE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _write_record(adoption: Adoption, temporary: Path, done: Mapping[str, int]) -> None:
    """provenance.json: what the run's own said, that it was adopted, and from which run; no path of elsewhere."""
    adopted = {
        "run": adoption.source.name,
        "listing_sha256": _listing_sha256(adoption.source),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": done["linked"] + done["copied"],
        "how": "copied" if not done["linked"] else "hard-linked" if not done["copied"] else "hard-linked and copied",
    }
    facts = {key: value for key, value in adoption.facts.items() if value is not None}
    record = {**facts, **_record(adoption.source), "origin": "adopted", "adopted": adopted}
    (temporary / PROVENANCE).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
