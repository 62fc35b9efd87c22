"""The recorded attempts of a run as they lie on disk; whatever walks that tree does it here.

What belongs here: the walk over ``attempts/<mode>/<repo>/<task>/<pair>/<stage>-<n>/``, and which of these folders is an
attempt. What does not: what a record says (``attempts``), writing one, and limits
(``execution.attempts``).

A folder without a record is an attempt if it holds anything: one that is empty is just being made, or nothing of it
was launched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import msgspec

from cooperbench_assets.benchmark.attempts import (
    ATTEMPT,
    ATTEMPTS,
    FILE,
    Attempt,
    parse_folder,
    unreadable,
)
from cooperbench_assets.benchmark.jsonfiles import BadFileError, decode, printable, read_bytes
from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.benchmark.pairs import parse_folder as parse_pair_folder

Listing: TypeAlias = Callable[[str], Iterable[tuple[str, bool]]]
"""From a folder's path, relative to the run folder, to the names in it and whether each is a folder; hidden ones are
left out."""

LONGEST_NUMBER = 18
"""Digits of a task's number: what is longer fits no column."""


def plain_listing(run_dir: Path) -> Listing:
    """Listing of a run folder that follows no link; a folder that is not there holds nothing."""
    root = str(run_dir)

    def listed(relative: str) -> list[tuple[str, bool]]:
        try:
            with os.scandir(f"{root}/{relative}") as entries:
                return [
                    (entry.name, entry.is_dir(follow_symlinks=False))
                    for entry in entries
                    if not entry.name.startswith(".")
                ]
        except (FileNotFoundError, NotADirectoryError):
            return []

    return listed


def _folders(listed: Listing, relative: str) -> list[str]:
    return [name for name, is_dir in listed(relative) if is_dir]


def pair_folders(listed: Listing, base: str) -> Iterator[tuple[Pair, str]]:
    """Every pair folder ``<base>/<repo>/<task>/f<a>_f<b>``, with its path; anything else there is passed over."""
    for repo in _folders(listed, base):
        for task in _folders(listed, f"{base}/{repo}"):
            if not task.isdecimal() or len(task) > LONGEST_NUMBER:
                continue
            for folder in _folders(listed, f"{base}/{repo}/{task}"):
                if (features := parse_pair_folder(folder)) is not None:
                    yield Pair(printable(repo), int(task), features), f"{base}/{repo}/{task}/{folder}"


def attempt_folders(listed: Listing, mode: str) -> Iterator[tuple[Pair, str]]:
    """The folder of every attempt and every further verdict of a mode, with its path; others are there too."""
    for pair, base in pair_folders(listed, f"{ATTEMPTS}/{mode}"):
        for name in _folders(listed, base):
            yield pair, f"{base}/{name}"


Load: TypeAlias = Callable[[str, Pair], Attempt | None]
"""From the path of a record to what it says; None where it cannot be read."""


def walk_attempts(run_dir: Path, mode: str, listed: Listing, load: Load) -> dict[Pair, list[Attempt]]:
    """Every recorded attempt of a run, in the order of stage and number.

    Args:
        run_dir: The run folder.
        mode: solo, coop or team.
        listed: How folders are listed.
        load: How a record is read.
    """
    found: dict[Pair, list[Attempt]] = {}
    for pair, relative in attempt_folders(listed, mode):
        attempt = _attempt_in(run_dir, pair, relative, listed, load)
        if attempt is not None:
            found.setdefault(pair, []).append(attempt)
    return {pair: sorted(attempts, key=_order) for pair, attempts in found.items()}


def _order(attempt: Attempt) -> tuple[str, int]:
    return attempt.stage, attempt.n


def _attempt_in(run_dir: Path, pair: Pair, relative: str, listed: Listing, load: Load) -> Attempt | None:
    named = parse_folder(relative.rpartition("/")[2])
    if named is None or not (there := [name for name, _ in listed(relative)]):
        return None
    stage, n = named
    record = load(f"{relative}/{FILE}", pair) if FILE in there else None
    if record is None:
        changed = datetime.fromtimestamp((run_dir / relative).stat().st_mtime, UTC)
        return unreadable(stage, n, changed.isoformat(timespec="milliseconds"))
    # The folder says which try it is: a copied record does not make two of one number.
    return msgspec.structs.replace(record, stage=stage, n=n)


def scan_attempts(run_dir: Path, mode: str) -> dict[Pair, list[Attempt]]:
    """Every recorded attempt of a run as its record says, in the order of stage and number; no link is followed."""

    def load(relative: str, _pair: Pair) -> Attempt | None:
        try:
            return decode(read_bytes(f"{run_dir}/{relative}"), ATTEMPT)
        except BadFileError:
            return None

    return walk_attempts(run_dir, mode, plain_listing(run_dir), load)
