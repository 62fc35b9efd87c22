"""What is shown: experiments of a project, or a folder of logs, as answers to the keys that pages ask for.

What belongs here: the keys, and which data stand behind each. What does not: HTTP (``server``), files of a bundle
(``bundle``), and how logs are read (``transcripts``).

    index                                   everything that is shown
    list/SOURCE                             a row for every pair
    experiment/SOURCE                       cells, checks, progress, money
    headline/SOURCE                         warnings and results, which take longer
    search/SOURCE?text=                     pairs whose evidence or messages hold a text
    pair/SOURCE/CELL/PAIR[/TRY]             one pair, or an earlier try of it, but for the texts of its steps
    chunk/SOURCE/CELL/PAIR[/TRY]/AGENT/NUMBER   the texts of a range of steps
    raw/SOURCE/CELL/PAIR/FILE?start=        a stretch of a raw file, without secrets

A CELL is ``setting/seed`` of an experiment, and ``run/mode`` of foreign logs; a PAIR is ``repo/task/f<a>_f<b>``; a TRY
is ``agent-1``.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import msgspec

from cooperbench_assets.transcripts.listing import messages_by_path, pair_rows
from cooperbench_assets.transcripts.model import Note
from cooperbench_assets.transcripts.notes import write_note
from cooperbench_assets.transcripts.page import chunk, pair_page, raw_part
from cooperbench_assets.transcripts.sources import find, run_path
from cooperbench_assets.viewer.experiment_page import address_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from cooperbench_assets.transcripts.model import Chunk, PairPage, PairRow, RawPart
    from cooperbench_assets.transcripts.sources import Source

PARTS_OF_CELL, PARTS_OF_PAIR = 2, 3
_LINK: Final = re.compile(rb'href="https?://[^"/]*/#/e/')
_CLEAN: Final = ("list", "pair", "chunk", "messages", "search")
FRESH_SECONDS: Final = 5.0
"""How long a list that was read is given out again."""


class NotThere(LookupError):
    """There is nothing under a key; the message says so to the reader of the page."""


@dataclass
class Shelf:
    """One experiment, or one folder of logs."""

    name: str
    source: Source
    overview: Callable[[list[PairRow]], dict[str, Any]]
    """The experiment page's data, of the rows of its pairs."""

    headline: Callable[[], dict[str, Any]]
    kind: str = "experiment"
    report: Path | None = None
    """Folder of the experiment's report; it need not be there."""

    _lock: Lock = field(default_factory=Lock, repr=False)
    _rows: list[PairRow] | None = None
    _read_at: float = 0.0

    def rows(self) -> list[PairRow]:
        """A row for every pair, read anew after a few seconds."""
        with self._lock:
            began = time.monotonic()
            if self._rows is None or began - self._read_at > max(FRESH_SECONDS, self._cost * 20):
                self._rows = list(pair_rows(self.source))
                self._read_at = time.monotonic()
                self._cost = self._read_at - began
            return self._rows

    _cost: float = 0.0
    """Seconds that reading took: what takes long is read less often."""

    def messages(self) -> dict[str, str]:
        """The texts of all messages of a pair, by its path; only pairs with messages."""
        return messages_by_path(self.source, self.rows())

    def path(self, cell: tuple[str, str], pair: str) -> str:
        """The path of a pair below the log root.

        Raises:
            NotThere: if the shelf has no such cell.
        """
        for one in self.source.cells:
            if address_of(one) == cell:
                return "/".join(filter(None, (run_path(self.source, one), one.mode, pair)))
        raise NotThere(f"{self.name} has no cell {'/'.join(cell)[:200]}")


@dataclass
class Library:
    """Everything that is shown."""

    shelves: Callable[[], Mapping[str, Shelf]]
    broken: Callable[[], Mapping[str, str]] = dict
    """Why an experiment cannot be shown, by its name."""

    def data(self, key: str, query: Mapping[str, str] | None = None) -> bytes:
        """The JSON of a key.

        Raises:
            NotThere: if there is nothing under it.
            SourceError: if what it names cannot be read.
        """
        kind, *rest = key.split("/")
        if kind == "index" and not rest:
            return msgspec.json.encode(self._index())
        if not rest:
            raise NotThere(f"There is no {kind[:100]!r} here.")
        shelf = self.shelf(rest[0])
        if kind == "raw":
            return msgspec.json.encode(_raw_part(shelf, rest[1:], query or {}))
        answer = _ANSWERS.get((kind, len(rest) - 1))
        if answer is None:
            raise NotThere(f"There is no {kind[:100]!r} of {shelf.name} here.")
        made = msgspec.json.encode(answer(shelf, rest[1:], query or {}))
        # What transcripts give is clean; the texts of checks and locks know no personal names to take out.
        return made if kind in _CLEAN else shelf.source.redactor.text(made.decode()).encode()

    def shelf(self, name: str) -> Shelf:
        """What is called so.

        Raises:
            NotThere: if nothing is.
        """
        shelves = self.shelves()
        if name in shelves:
            return shelves[name]
        if why := self.broken().get(name):
            raise NotThere(f"{name} cannot be shown: {why}")
        raise NotThere(f"There is no {name[:200]!r} here; there are: {', '.join(shelves) or 'none'}")

    def _index(self) -> dict[str, Any]:
        shelves = self.shelves().values()
        return {
            "sources": [{"name": one.name, "kind": one.kind, "cells": len(one.source.cells)} for one in shelves],
            "broken": dict(self.broken()),
        }

    def raw(self, key: str) -> Iterator[bytes]:
        """A raw file without secrets as UTF-8, by SOURCE/CELL/PAIR/FILE, the file relative to its run folder.

        Raises:
            NotThere: if there is nothing under the key.
            SourceError: if the file is none of the pair's; at once, not when it is read.
        """
        name, *rest = key.split("/")
        shelf = self.shelf(name)
        first = _raw_part(shelf, rest, {})
        return _parts(shelf, rest, first)

    def report_file(self, key: str) -> bytes:
        """A file of an experiment's report, by SOURCE/FILE; its links lead to pages of this viewer.

        Raises:
            NotThere: if there is no such file.
        """
        name, _, rest = key.partition("/")
        folder = self.shelf(name).report
        file = None if folder is None else folder / rest
        if folder is None or file is None or not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
            raise NotThere(
                f"There is no report file {rest[:200]!r} of {name}; make it: cooperbench-assets report {name}"
            )
        return with_links_here(file.read_bytes())

    def write_note(self, key: str, body: bytes) -> None:
        """Keep a person's note on a pair, by SOURCE/CELL/PAIR, or on a step of it.

        Raises:
            NotThere: if there is no such pair, or the note is none.
            NoteError: if it cannot be kept.
        """
        name, *rest = key.split("/")
        shelf = self.shelf(name)
        try:
            written = _WRITTEN.decode(body)
        except msgspec.MsgspecError as error:
            raise NotThere(f"That is no note: {error}") from error
        path = _pair_path(shelf, rest)
        find(shelf.source, path)
        write_note(
            shelf.source,
            Note(path=path, agent=written.agent, index=written.index, text=written.text, labels=written.labels),
        )


def with_links_here(report: bytes) -> bytes:
    """A report whose links to pages of a viewer, wherever that was, lead to the one beside it."""
    return _LINK.sub(rb'href="../../index.html#/e/', report)


class _Written(msgspec.Struct):
    """A note as a page sends it."""

    agent: str | None = None
    index: int | None = None
    text: str = ""
    labels: list[str] = []


_WRITTEN: Final = msgspec.json.Decoder(_Written)


def _parts(shelf: Shelf, place: list[str], part: RawPart) -> Iterator[bytes]:
    yield part.text.encode()
    while part.start < part.end < part.bytes:
        part = _raw_part(shelf, place, {"start": str(part.end)})
        yield part.text.encode()


def _raw_part(shelf: Shelf, place: list[str], query: Mapping[str, str]) -> RawPart:
    """A stretch of a raw file, by CELL/PAIR/FILE."""
    at = PARTS_OF_CELL + PARTS_OF_PAIR
    path = _pair_path(shelf, place[:at])
    return raw_part(shelf.source, path, "/".join(place[at:]), _whole_number(query.get("start", "0")))


def _pair_path(shelf: Shelf, parts: list[str]) -> str:
    if len(parts) != PARTS_OF_CELL + PARTS_OF_PAIR:
        raise NotThere("This address names no pair.")
    cell, pair = parts[:PARTS_OF_CELL], parts[PARTS_OF_CELL:]
    return shelf.path((cell[0], cell[1]), "/".join(pair))


def _search(shelf: Shelf, _: list[str], query: Mapping[str, str]) -> dict[str, Any]:
    """Paths of pairs with a text in their messages."""
    wanted = query.get("text", "").lower()
    return {"paths": [path for path, text in shelf.messages().items() if wanted in text.lower()] if wanted else []}


def _pair(shelf: Shelf, parts: list[str], _: Mapping[str, str]) -> PairPage:
    return pair_page(shelf.source, _pair_path(shelf, parts[:5]), *parts[5:])


def _chunk(shelf: Shelf, parts: list[str], _: Mapping[str, str]) -> Chunk:
    *place, agent, number = parts
    return chunk(shelf.source, _pair_path(shelf, place[:5]), agent, _whole_number(number), *place[5:])


_ANSWERS: Final[Mapping[tuple[str, int], Callable[[Shelf, list[str], Mapping[str, str]], Any]]] = {
    ("list", 0): lambda shelf, _parts, _query: shelf.rows(),
    ("experiment", 0): lambda shelf, _parts, _query: shelf.overview(shelf.rows()),
    ("headline", 0): lambda shelf, _parts, _query: shelf.headline(),
    ("messages", 0): lambda shelf, _parts, _query: shelf.messages(),
    ("search", 0): _search,
    **dict.fromkeys([("pair", 5), ("pair", 6)], _pair),
    **dict.fromkeys([("chunk", 7), ("chunk", 8)], _chunk),
}
"""By the kind of a key and how many words follow its source."""


def _whole_number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise NotThere(f"{text[:100]!r} is no number of a chunk.")
    return int(text)
