"""Bringing a try's files into the pair's folder by renames, so that no kill leaves an old verdict beside a new patch.

What belongs here: the journal, the renames, and finishing what was interrupted. What does not: whether a try's files
are good enough (``lifecycle``).

The order is what makes it safe: the old verdict goes out first, then the old result, then the rest; the new files
come in, and last of all the file that says that they are whole. Each rename can be told from the two places
whether it has happened, so an interrupted promotion is finished by doing it again.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from cooperbench_assets.benchmark.attempts import FILE
from cooperbench_assets.execution.attempts.records import Attempt, write_attempt
from cooperbench_assets.execution.worker.protocol import LOG
from cooperbench_assets.faultpoints import hit
from cooperbench_assets.files import sync, sync_all, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

JOURNAL: Final = "promotion.json"
"""Lies in the try's folder while its files are on their way."""

RESULT, VERDICT = "result.json", "eval.json"
_OURS: Final = frozenset({FILE, JOURNAL, LOG})


class Move(msgspec.Struct, frozen=True):
    """One rename, by paths relative to the run folder."""

    source: str
    target: str


class Journal(msgspec.Struct, frozen=True):
    """A promotion, written down before its first rename."""

    attempt: Attempt
    """The try's record as it will stand in the end."""

    out: list[Move]
    """The earlier try's files, to its folder of attempts."""

    into: list[Move]
    """The new files, to the pair's folder."""


_JOURNAL: Final = msgspec.json.Decoder(Journal)


@dataclass(frozen=True, slots=True)
class Promotion:
    """What is to be moved for one try."""

    run_dir: Path
    folder: Path
    """The try's folder of attempts."""

    staged: Path
    """The pair's folder in staging."""

    pair_dir: Path
    """The pair's folder in the log tree."""

    attempt: Attempt
    """The try's record as it will stand in the end."""

    results_to: Path | None
    """Folder of the try whose agents' files lie in the pair's folder; None where none lie there."""

    verdict_to: Path | None
    """Folder of the try whose verdict lies there."""


def promote_agents(promotion: Promotion) -> None:
    """Put the files of a try of a pair's agents in place of all that lies in the pair's folder."""
    there = _names(promotion.pair_dir)
    out = []
    if VERDICT in there and promotion.verdict_to is not None:
        out.append((VERDICT, promotion.verdict_to))
    if promotion.results_to is not None:
        rest = [name for name in there if name not in (VERDICT, RESULT)]
        out += [(name, promotion.results_to) for name in _first(RESULT, there) + rest]
    _run(promotion, out, _last(RESULT, _names(promotion.staged)))


def promote_verdict(promotion: Promotion) -> None:
    """Put a new eval.json in place of the one that lies in the pair's folder."""
    there = _names(promotion.pair_dir)
    out = [(VERDICT, promotion.verdict_to)] if VERDICT in there and promotion.verdict_to is not None else []
    _run(promotion, out, [VERDICT])


def finish(run_dir: Path, folder: Path) -> Attempt | None:
    """Finish a promotion that was interrupted; None if there is none in this folder of a try."""
    try:
        journal = _JOURNAL.decode((folder / JOURNAL).read_bytes())
    except FileNotFoundError:
        return None
    except msgspec.DecodeError:
        # The disk holds a journal before the first rename: one that is torn was cut before anything was moved.
        (folder / JOURNAL).unlink(missing_ok=True)
        return None
    _renames(run_dir, folder, journal)
    return journal.attempt


def _run(promotion: Promotion, out: Iterable[tuple[str, Path]], into: Sequence[str]) -> None:
    run_dir, pair_dir = promotion.run_dir, promotion.pair_dir
    journal = Journal(
        attempt=promotion.attempt,
        out=[_move(run_dir, pair_dir / name, _free(target / _safe(name))) for name, target in out],
        into=[_move(run_dir, promotion.staged / name, pair_dir / name) for name in into],
    )
    # Else a power cut leaves them empty in their new place.
    sync_all([file for name in into for file in _regular_files(promotion.staged / name)])
    write_atomically(promotion.folder / JOURNAL, msgspec.json.encode(journal))
    hit("promote:journal")
    _renames(run_dir, promotion.folder, journal)


def _renames(run_dir: Path, folder: Path, journal: Journal) -> None:
    for move in journal.out:
        source, target = run_dir / move.source, run_dir / move.target
        if not target.exists() and source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
        hit(f"promote:{source.name if source.name in (RESULT, VERDICT) else 'file'}-out")
    for move in journal.into:
        source, target = run_dir / move.source, run_dir / move.target
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # It went in before the interruption.
            source.rename(target)
        hit(f"promote:{source.name if source.name in (RESULT, VERDICT) else 'file'}-in")
    for touched in {(run_dir / move.target).parent for move in journal.into}:
        sync(touched)
    write_attempt(folder, journal.attempt)
    hit("promote:attempt")
    (folder / JOURNAL).unlink(missing_ok=True)
    hit("promote:done")


def _regular_files(place: Path) -> Iterator[Path]:
    """A file, or all that lie in a folder; what is a link, a pipe or a device holds no bytes of ours."""
    inside = (Path(folder, name) for folder, _, names in os.walk(place) for name in names)
    for file in (place, *inside):
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISREG(file.lstat().st_mode):
                yield file


def _move(run_dir: Path, source: Path, target: Path) -> Move:
    return Move(str(source.relative_to(run_dir)), str(target.relative_to(run_dir)))


def _safe(name: str) -> str:
    """A name that cannot meet one of ours in a folder of attempts."""
    return f"{name}.kept" if name in _OURS else name


def _free(target: Path) -> Path:
    """`target`, or the first numbered name beside it that nothing has."""
    place = target
    number = 1
    while place.exists():
        number += 1
        place = target.with_name(f"{target.name}.{number}")
    return place


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        return []


def _first(name: str, names: Sequence[str]) -> list[str]:
    return [name] if name in names else []


def _last(name: str, names: Sequence[str]) -> list[str]:
    return [*(other for other in names if other != name), *_first(name, names)]
