"""One experiment as one file for co-authors: tables, report and, if asked for, raw logs without secrets; and back.

What belongs here: what is in a bundle, and taking its cells in. What does not: which strings are secrets
(``redaction``), and how tables are written and published (``store``).

A bundle is a ``.tar.gz``: ``bundle.json``, ``tables/<unit>/<table>.parquet``, ``report/<experiment>/…`` and
``logs/<run>/…``, laid out so that the page's links work where it is unpacked. The same content gives the same bytes.
Importing reads ``bundle.json`` and the tables, in memory: no name in the archive ever becomes a path on disk.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import secrets
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from cooperbench_assets import __version__
from cooperbench_assets.assets.tables import CELL_UNIT_TABLES, STORE_TABLES
from cooperbench_assets.redaction import Redactor
from cooperbench_assets.store.cells import Cell
from cooperbench_assets.store.content import content_sha256
from cooperbench_assets.store.errors import FrameError, UnitError
from cooperbench_assets.store.partition import check_frame, list_units, load_record, read_unit, write_unit
from cooperbench_assets.store.planned import keeps, recall
from cooperbench_assets.store.publish import Published, publish
from cooperbench_assets.store.schema import CHECK_RESULTS, SCHEMA_VERSION
from cooperbench_assets.store.units import Unit, cell_of, parse_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cooperbench_assets.project import Project
    from cooperbench_assets.store.units import Record

FORMAT: Final = 1
CONTENTS: Final = "bundle.json"
DECLARED: Final = {table.name: table for table in (*CELL_UNIT_TABLES, CHECK_RESULTS)}
"""Tables that a bundle may hold; those of the analyses are made anew from them."""

LARGEST_TABLE: Final = 2**31
"""Bytes from which a table's file is refused."""

_TEXT_ENDINGS: Final = (".html", ".csv", ".tex", ".json", ".svg", ".txt")


class BundleError(RuntimeError):
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
class Imported:
    """What taking a bundle in came to."""

    experiment: str
    added: tuple[Cell, ...]
    unchanged: tuple[Cell, ...]
    published: Published
    redacted: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class LogRun:
    """A run folder to be taken along, and the root that its name is relative to."""

    folder: Path
    root: Path


def export_bundle(
    project: Project, experiment: str, target: Path, *, runs: Iterable[LogRun] | None = None, known: Iterable[str] = ()
) -> Exported:
    """Write an experiment's tables and report, and its raw logs where `runs` are given, as one file.

    Args:
        project: The project.
        experiment: The experiment; it must have cells in the partition tables.
        target: The file; replaced at once.
        runs: Run folders whose files go along; None for no logs.
        known: Values of secrets, taken out whatever they look like.

    Raises:
        BundleError: if the experiment has no cell, or one of its tables cannot be read.
    """
    redactor = Redactor(known)
    left_out: list[str] = []
    logs = 0
    with _replacing(target) as stream, _archive(stream) as archive:
        units = [_add_unit(archive, project.tables, unit, redactor) for unit in _units(project.tables, experiment)]
        report = _add_report(archive, project.report / experiment, redactor)
        for run in runs or ():
            logs += _add_run(archive, run, redactor, left_out)
        contents = Contents(
            FORMAT, SCHEMA_VERSION, f"cooperbench-assets {__version__}", experiment, units, report, runs is not None,
            dict(sorted(redactor.found.items())),
        )  # fmt: skip
        _add(archive, CONTENTS, msgspec.json.format(msgspec.json.encode(contents), indent=1))
    cells = tuple(cell for unit in units if (cell := _cell_unit_of(unit)) is not None)
    return Exported(target, cells, contents, logs, tuple(left_out), target.stat().st_size)


def _units(tables: Path, experiment: str) -> list[tuple[Unit, Record]]:
    """The experiment's units that its plan keeps, without those of analyses.

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
        if keeps(plans, owner, listed.record.key):
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
    except UnitError as error:
        raise BundleError(f"{error}; nothing was exported") from error
    clean = {name: _redacted(frame, redactor) for name, frame in sorted(frames.items())}
    hashes = {}
    for name, frame in clean.items():
        buffer = io.BytesIO()
        frame.write_parquet(buffer, statistics=False)
        hashes[name] = hashlib.sha256(buffer.getvalue()).hexdigest()
        _add(archive, f"tables/{unit.name}/{name}.parquet", buffer.getvalue())
    content = content_sha256([(DECLARED[name], frame) for name, frame in clean.items()])
    return UnitEntry(unit.name, record.key, content, record.content_sha256, hashes)


def _redacted(frame: pl.DataFrame, redactor: Redactor) -> pl.DataFrame:
    """A frame whose texts hold no secret. The columns that name a cell or pair are left as they are."""
    changed = []
    for column in frame.iter_columns():
        if column.dtype != pl.String or column.name in ("experiment", "setting", "pair", "repo"):
            continue
        texts = column.to_list()
        clean = [None if text is None else redactor.text(text) for text in texts]
        if clean != texts:
            changed.append(pl.Series(column.name, clean, dtype=pl.String))
    return frame.with_columns(changed)


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
def _replacing(target: Path) -> Iterator[io.BufferedWriter]:
    """A file beside `target` that takes its place when all went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as stream:
            yield stream
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _archive(stream: io.BufferedWriter) -> Iterator[tarfile.TarFile]:
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


def import_bundle(project: Project, file: Path) -> Imported:
    """Take a bundle's cells into the partition tables, and publish them.

    Nothing is written unless every cell can be. A cell that is here already must hold the same; its check results,
    and those of the experiment, then stay those of this machine.

    Raises:
        BundleError: if the file is no bundle, is damaged, names a path outside itself, comes from a later version,
            or holds a cell that is here with different content.
        StoreError: if the store cannot be published.
    """
    contents, tables = read_bundle(file)
    units = [(_unit_of(file, entry, contents.experiment), entry) for entry in contents.units]
    frames = {entry.name: _frames(file, unit, entry, tables) for unit, entry in units}
    here = {unit.name: _content_here(project.tables, unit) for unit, _ in units}
    _refuse_conflicts(file, units, here)
    new = [(unit, entry) for unit, entry in units if here[unit.name] is None]
    for unit, entry in new:
        write_unit(project.tables, unit, frames[entry.name], declared=tuple(DECLARED.values()))
    cells = {entry.name: cell for _, entry in units if (cell := _cell_unit_of(entry)) is not None}
    plans = recall(project.tables)
    planned = None
    if contents.experiment in plans:
        planned = {contents.experiment: {*plans[contents.experiment], *cells.values()}}
    published = publish(project.database, project.tables, declared=STORE_TABLES, planned=planned)
    added = {entry.name for _, entry in new}
    return Imported(
        contents.experiment,
        tuple(cell for name, cell in cells.items() if name in added),
        tuple(cell for name, cell in cells.items() if name not in added),
        published,
        contents.redacted,
    )


def read_bundle(file: Path) -> tuple[Contents, dict[str, bytes]]:
    """What a bundle says of itself, and the files of its tables by name.

    Raises:
        BundleError: as `import_bundle` says.
    """
    found: dict[str, bytes] = {}
    seen: set[str] = set()
    try:
        with tarfile.open(file, mode="r:gz") as archive:
            for member in archive:
                name = _checked_name(file, member, seen)
                if name == CONTENTS or name.startswith("tables/"):
                    found[name] = _read(file, archive, member)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise BundleError(f"{file} is no bundle that can be read ({error}); export it again") from error
    if CONTENTS not in found:
        raise BundleError(f"{file} has no {CONTENTS}: it is no bundle of cooperbench-assets, or was cut")
    return _contents(file, found.pop(CONTENTS)), found


def _checked_name(file: Path, member: tarfile.TarInfo, seen: set[str]) -> str:
    path = PurePosixPath(member.name)
    outside = path.is_absolute() or ".." in path.parts or "\\" in member.name or str(path) != member.name
    if outside or not member.isfile():
        raise BundleError(
            f"{file} holds {member.name!r}, which is no plain file within it: nothing was imported; "
            "ask for a bundle made by cooperbench-assets export"
        )
    if member.name in seen:
        raise BundleError(f"{file} holds {member.name!r} twice; nothing was imported")
    seen.add(member.name)
    return member.name


def _read(file: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > LARGEST_TABLE:
        raise BundleError(f"{file}: {member.name} is larger than {LARGEST_TABLE:,} bytes; nothing was imported")
    stream = archive.extractfile(member)
    assert stream is not None
    return stream.read()


def _contents(file: Path, data: bytes) -> Contents:
    try:
        versions = msgspec.json.decode(data, type=dict[str, object])
        later = [
            f"{name} {versions.get(name)}, this is {ours}"
            for name, ours in (("format", FORMAT), ("schema_version", SCHEMA_VERSION))
            if isinstance(versions.get(name), int) and versions[name] != ours
        ]
        if later:
            raise BundleError(
                f"{file} was made by {versions.get('made_by')} ({'; '.join(later)}); use the same version of "
                "cooperbench-assets on both sides"
            )
        return msgspec.json.decode(data, type=Contents)
    except msgspec.DecodeError as error:
        raise BundleError(f"{file}: {CONTENTS} cannot be read ({error}); export it again") from error


def _unit_of(file: Path, entry: UnitEntry, experiment: str) -> Unit:
    """The unit of an entry, if its name is one that this package gives."""
    parts = parse_name(entry.name)
    try:
        unit = Unit(parts[0], parts[1], tuple(parts[2:]), tuple(entry.key.items()))
        agrees = unit.name == entry.name and len(parts) > 2 and unit.kind in ("cells", "checks")
    except (IndexError, ValueError):
        agrees = False
    if not agrees or parts[0] != experiment or entry.key.get("experiment") != experiment:
        raise BundleError(f"{file} names a unit {entry.name!r}, which is none of {experiment}; nothing was imported")
    return unit


def _frames(file: Path, unit: Unit, entry: UnitEntry, tables: Mapping[str, bytes]) -> dict[str, pl.DataFrame]:
    """A unit's tables, each as it was written and as it is declared here."""
    frames = {}
    for name, sha256 in entry.tables.items():
        data = tables.get(f"tables/{entry.name}/{name}.parquet")
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            raise BundleError(f"{file}: table {name} of {entry.name} is missing or damaged; nothing was imported")
        if name not in DECLARED:
            raise BundleError(f"{file}: {entry.name} has a table {name!r} that is not known here; nothing was imported")
        try:
            frame = pl.read_parquet(io.BytesIO(data))
            check_frame(unit, DECLARED[name], frame)
        except (pl.exceptions.PolarsError, FrameError) as error:
            raise BundleError(f"{file}: {entry.name}: {error}; nothing was imported") from error
        frames[name] = frame
    if content_sha256([(DECLARED[name], frame) for name, frame in frames.items()]) != entry.content_sha256:
        raise BundleError(f"{file}: {entry.name} is not what {CONTENTS} says; nothing was imported")
    return frames


def _content_here(tables: Path, unit: Unit) -> str | None:
    """The content of a unit that is here already."""
    try:
        return load_record(unit.folder(tables)).content_sha256
    except FileNotFoundError:
        return None


def _refuse_conflicts(file: Path, units: Iterable[tuple[Unit, UnitEntry]], here: Mapping[str, str | None]) -> None:
    conflicts = [
        str(_cell_unit_of(entry))
        for unit, entry in units
        if unit.kind == "cells" and here[unit.name] not in (None, entry.content_sha256, entry.original_sha256)
    ]
    if conflicts:
        raise BundleError(
            f"{file}: here already with different content: {', '.join(conflicts)}. Nothing was imported. Two machines "
            "ran the same cell: give one of them another seed, or import into another project"
        )


def _cell_unit_of(entry: UnitEntry) -> Cell | None:
    """The cell that an entry holds the tables of; None for check results."""
    return cell_of(entry.key) if parse_name(entry.name)[1] == "cells" else None
