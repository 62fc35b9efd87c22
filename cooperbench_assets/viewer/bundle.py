"""The same pages as files: for any static host, and for a browser that opens them from disk.

What belongs here: which files a bundle has, and putting them in place. What does not: what is in them (``library``).

A page of ``file://`` may not fetch, so that each piece of data is a script that hands it over. Raw files are left out.
"""

from __future__ import annotations

import json
import secrets
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cooperbench_assets.errors import UserError
from cooperbench_assets.transcripts.page import pair_page
from cooperbench_assets.viewer.library import NotThere, with_links_here
from cooperbench_assets.viewer.pages import STATIC, TYPES, page_html

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cooperbench_assets.viewer.library import Library, Shelf

MARK: Final = 'data-source="bundle"'


class BundleError(UserError):
    """A bundle cannot be written there; says why."""


@dataclass
class Written:
    """What a bundle came to."""

    pairs: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    """A sentence for each page that could not be made."""


def write_bundle(library: Library, folder: Path) -> Written:
    """Write everything of a library but raw files into a folder, in place of an earlier bundle.

    Raises:
        BundleError: if the folder holds anything else, or cannot be written.
    """
    if folder.exists() and not _is_replaceable(folder):
        raise BundleError(f"{folder} holds something else than a bundle; name an empty or a new folder")
    part = folder.resolve().parent / f".{folder.name}.{secrets.token_hex(4)}.part"
    try:
        written = _fill(library, part)
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    except OSError as error:
        raise BundleError(f"{folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return written


def _is_replaceable(folder: Path) -> bool:
    index = folder / "index.html"
    if not folder.is_dir():
        return False
    return not any(folder.iterdir()) or (index.is_file() and MARK in index.read_text(errors="replace")[:500])


def _fill(library: Library, folder: Path) -> Written:
    written = Written()
    (folder / "static").mkdir(parents=True)
    for file in STATIC.iterdir():
        if file.suffix in TYPES and file.name != "index.html":
            shutil.copyfile(file, folder / "static" / file.name)
    (folder / "index.html").write_text(page_html("bundle"))
    for key in _keys(library, written):
        try:
            _put(folder, key, library.data(key))
        except (UserError, NotThere, ValueError) as error:
            written.problems.append(f"{key}: {error}")
    for name, shelf in library.shelves().items():
        if shelf.report is not None and shelf.report.is_dir():
            _copy_report(shelf.report, folder / "report" / name)
    written.bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return written


def _copy_report(report: Path, folder: Path) -> None:
    for file in report.rglob("*"):
        if file.is_file():
            target = folder / file.relative_to(report)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(with_links_here(file.read_bytes()))


def _put(folder: Path, key: str, data: bytes) -> None:
    """Write one piece of data.

    Raises:
        ValueError: if its key would lead out of the folder: names of agents come from result.json.
    """
    parts = key.split("/")
    if any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts):
        raise ValueError("its name cannot be one of a file")
    file = folder.joinpath("data", *parts[:-1], f"{parts[-1]}.js")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"View.take(" + json.dumps(key).encode() + b"," + data + b");\n")


def _keys(library: Library, written: Written) -> Iterator[str]:
    yield "index"
    for name, shelf in library.shelves().items():
        for kind in ("list", "experiment", "headline", "messages"):
            yield f"{kind}/{name}"
        for row in shelf.rows():
            written.pairs += 1
            cell = (row.setting, row.seed) if row.experiment is not None else (row.run, row.mode or "-")
            yield from _keys_of_page(shelf, row.path, f"{name}/{cell[0]}/{cell[1]}/{row.pair}")


def _keys_of_page(shelf: Shelf, path: str, place: str, attempt: str | None = None) -> Iterator[str]:
    """A page, the texts of its steps, and the pages of earlier tries."""
    yield f"pair/{place}"
    try:
        page = pair_page(shelf.source, path, attempt)
    except UserError:
        return  # What is wrong with it was said of the page itself.
    for agent in page.agents:
        yield from (f"chunk/{place}/{agent.name}/{number}" for number in range(agent.chunks))
    for one in page.tries if attempt is None else ():
        if one.page is not None:
            yield from _keys_of_page(shelf, path, f"{place}/{one.page}", one.page)
