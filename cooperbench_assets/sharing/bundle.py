"""One experiment as one file for co-authors: tables, report and, if asked for, raw logs without secrets.

What belongs here: what is in a bundle, and making one. What does not: taking one in (``bundle_import``), and which
strings are secrets (``redaction``).

A bundle is a ``.tar.gz``: ``bundle.json``, ``tables/<unit>/<table>.parquet``, ``notes/<experiment>.jsonl``,
``report/<experiment>/…`` and ``logs/<run>/…``, laid out so that the page's links work where it is unpacked. The same
content gives the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from cooperbench_assets import __version__
from cooperbench_assets.analysis.registry import RESULT_TABLES
from cooperbench_assets.assets.tables import CELL_UNIT_TABLES, STORE_TABLES
from cooperbench_assets.errors import UserError
from cooperbench_assets.files import replacing
from cooperbench_assets.redaction import Redactor
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.content_hash import content_sha256
from cooperbench_assets.store.errors import FrameError, UnitError
from cooperbench_assets.store.partition_tables import check_frame, list_units, read_unit
from cooperbench_assets.store.planned import keeps, recall
from cooperbench_assets.store.redacted_frames import without_secrets
from cooperbench_assets.store.schema import CHECK_RESULTS, SCHEMA_VERSION
from cooperbench_assets.store.units import Unit, cell_of, parse_name
from cooperbench_assets.transcripts.notes import notes_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from cooperbench_assets.project import Project
    from cooperbench_assets.store.units import Record

FORMAT: Final = 1
CONTENTS: Final = "bundle.json"
DECLARED: Final = {table.name: table for table in STORE_TABLES if table not in RESULT_TABLES}
"""Tables that a bundle may hold; those of the analyses are made anew from them."""

_OF_CELLS: Final = frozenset(table.name for table in CELL_UNIT_TABLES)
_OF_CHECKS: Final = frozenset({CHECK_RESULTS.name})
KINDS: Final = {
    "cells": _OF_CELLS,
    "checks": _OF_CHECKS,
    **{name: frozenset({name}) for name in DECLARED.keys() - _OF_CELLS - _OF_CHECKS},
}
"""Kinds of units that a bundle may hold, and the tables of each; what is no cell's and no check's is its own kind."""

_TEXT_ENDINGS: Final = (".html", ".csv", ".tex", ".json", ".svg", ".txt")


class BundleError(UserError):
    """A bundle that cannot be made or taken in; says why and what to do."""


class UnitEntry(msgspec.Struct, frozen=True):
    """One unit of tables in a bundle."""

    name: str
    key: dict[str, str | int | None]
    content_sha256: str
    """Of the tables as they are in the bundle."""

    original_sha256: str
    """Of the tables where they came from: another one where secrets were taken out."""

    tables: dict[str, str]
    """Table → SHA-256 of its file."""


class Contents(msgspec.Struct, frozen=True):
    """``bundle.json``."""

    format: int
    schema_version: int
    made_by: str
    experiment: str
    units: list[UnitEntry]
    report: bool
    raw_logs: bool
    redacted: dict[str, int]
    """Secrets taken out, by kind."""

    @property
    def content(self) -> str:
        """Hash of all its tables, whoever made them where: what both sides can compare."""
        return content_of((unit.name, unit.content_sha256) for unit in self.units)


def content_of(units: Iterable[tuple[str, str]]) -> str:
    """Hash of units by their names and content hashes."""
    return hashlib.sha256("".join(f"{name} {content}\n" for name, content in sorted(units)).encode()).hexdigest()


@dataclass(frozen=True)
class Exported:
    """A bundle that was made."""

    file: Path
    cells: tuple[Cell, ...]
    contents: Contents
    log_files: int
    left_out: tuple[str, ...]
    """Runs and files of logs that could not be taken along, and why."""

    bytes: int


@dataclass(frozen=True)
class LogRun:
    """A run folder to be taken along, and the root that its name is relative to."""

    folder: Path
    root: Path


def export_bundle(
    project: Project,
    experiment: str,
    target: Path,
    *,
    runs: Iterable[LogRun] | None = None,
    redactor: Redactor | None = None,
) -> Exported:
    """Write an experiment's tables, notes and report, and its raw logs where `runs` are given, as one file.

    Args:
        project: The project.
        experiment: The experiment; it must have cells in the partition tables.
        target: The file; replaced at once.
        runs: Run folders whose files go along; None for no logs.
        redactor: Takes secrets out of all that goes along; by their shapes alone if not given.

    Raises:
        BundleError: if the experiment has no cell, one of its tables cannot be read, or the file cannot be written.
    """
    redactor = redactor or Redactor()
    left_out: list[str] = []
    logs = 0
    with _written(target) as archive:
        found = _units(project.tables, experiment, left_out)
        units = [_add_unit(archive, project.tables, unit, redactor) for unit in found]
        report = _add_report(archive, project.report / experiment, redactor)
        notes = notes_file(project.data, experiment)
        if notes.is_file():
            _add(archive, f"notes/{notes.name}", redactor.data(notes.read_bytes()))
        for run in runs or ():
            logs += _add_run(archive, run, redactor, left_out)
        contents = Contents(
            FORMAT, SCHEMA_VERSION, f"cooperbench-assets {__version__}", experiment, units, report, runs is not None,
            dict(sorted(redactor.found.items())),
        )  # fmt: skip
        _add(archive, CONTENTS, msgspec.json.format(msgspec.json.encode(contents), indent=1))
    cells = tuple(cell for unit in units if (cell := cell_unit_of(unit)) is not None)
    return Exported(target, cells, contents, logs, tuple(left_out), target.stat().st_size)


def _units(tables: Path, experiment: str, left_out: list[str]) -> list[tuple[Unit, Record]]:
    """The experiment's units that its plan keeps, without those of analyses; other kinds are left out by name.

    Raises:
        BundleError: if there is none, or one cannot be read.
    """
    plans = recall(tables)
    found: list[tuple[Unit, Record]] = []
    for listed in list_units(tables):
        owner, kind, *parts = parse_name(listed.name)
        if owner != experiment or kind == "analysis":
            continue
        if listed.record is None:
            raise BundleError(f"{listed.problem}; nothing was exported")
        if not listed.record.tables.keys() <= KINDS.get(kind, frozenset()):
            left_out.append(f"{listed.name}: this version knows no such tables")
        elif keeps(plans, owner, listed.record.key):
            found.append((Unit(owner, kind, tuple(parts), tuple(listed.record.key.items())), listed.record))
    if not any(unit.kind == "cells" for unit, _ in found):
        raise BundleError(
            f"{experiment} has no cell in {tables}; make them with: cooperbench-assets materialize {experiment}"
        )
    return found


def _add_unit(archive: tarfile.TarFile, tables: Path, found: tuple[Unit, Record], redactor: Redactor) -> UnitEntry:
    unit, record = found
    try:
        frames = read_unit(tables, unit)
        for name, frame in frames.items():
            check_frame(unit, DECLARED[name], frame)
    except UnitError as error:
        raise BundleError(f"{error}; nothing was exported") from error
    except FrameError as error:
        raise BundleError(
            f"{unit.name}: {error}: another version wrote it. Nothing was exported; materialize it again"
        ) from error
    clean = {name: without_secrets(frame, redactor) for name, frame in sorted(frames.items())}
    hashes = {}
    for name, frame in clean.items():
        buffer = io.BytesIO()
        frame.write_parquet(buffer, statistics=False)
        hashes[name] = hashlib.sha256(buffer.getvalue()).hexdigest()
        _add(archive, f"tables/{unit.name}/{name}.parquet", buffer.getvalue())
    content = content_sha256([(DECLARED[name], frame) for name, frame in clean.items()])
    return UnitEntry(unit.name, record.key, content, record.content_sha256, hashes)


def _add_report(archive: tarfile.TarFile, folder: Path, redactor: Redactor) -> bool:
    if not folder.is_dir():
        return False
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            clean = redactor.data(data) if path.suffix in _TEXT_ENDINGS else data
            _add(archive, f"report/{folder.name}/{path.relative_to(folder).as_posix()}", clean)
    return True


def _add_run(archive: tarfile.TarFile, run: LogRun, redactor: Redactor, left_out: list[str]) -> int:
    """The files of a run folder without secrets; links are left out, because they may lead anywhere."""
    if not run.folder.is_dir():
        left_out.append(f"{run.folder}: not there")
        return 0
    added = 0
    for folder, folders, files in os.walk(run.folder):
        folders.sort()
        for name in sorted(files):
            path = Path(folder) / name
            if path.is_symlink() or not path.is_file():
                left_out.append(f"{path}: no regular file")
                continue
            try:
                data = path.read_bytes()
            except OSError as error:
                left_out.append(f"{path}: {error.strerror}")
                continue
            _add(archive, f"logs/{path.relative_to(run.root).as_posix()}", redactor.data(data))
            added += 1
    return added


@contextmanager
def _written(target: Path) -> Iterator[tarfile.TarFile]:
    """An archive that takes the place of `target` when all went well."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as stream, _archive(stream) as archive:
            yield archive
    except OSError as error:
        raise BundleError(f"{error.filename or target}: {error.strerror or error}; nothing was exported") from error


@contextmanager
def _archive(stream: BinaryIO) -> Iterator[tarfile.TarFile]:
    with (
        gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        yield archive


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mode = 0o644
    archive.addfile(member, io.BytesIO(data))


def cell_unit_of(entry: UnitEntry) -> Cell | None:
    """The cell that an entry holds the tables of; None for check results."""
    return cell_of(entry.key) if parse_name(entry.name)[1] == "cells" else None
