"""Taking in a bundle that another machine exported: its cells join those that are here.

What belongs here: reading a bundle, refusing what is none or does not fit, and writing its units. What does not: what
is in a bundle (``bundle``), and how tables are written and published (``store``).

``bundle.json`` and the tables are read in memory: no name in the archive ever becomes a path on disk.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from cooperbench_assets.assets.tables import STORE_TABLES
from cooperbench_assets.sharing.bundle import (
    CONTENTS,
    DECLARED,
    FORMAT,
    KINDS,
    BundleError,
    Contents,
    cell_unit_of,
    content_of,
)
from cooperbench_assets.store.content_hash import content_sha256
from cooperbench_assets.store.errors import FrameError
from cooperbench_assets.store.partition_tables import check_frame, load_record, write_unit
from cooperbench_assets.store.planned import recall
from cooperbench_assets.store.publish import Published, publish
from cooperbench_assets.store.schema import SCHEMA_VERSION
from cooperbench_assets.store.units import Unit, cell_of, key_problem, parse_name
from cooperbench_assets.transcripts.notes import notes_file, take_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from cooperbench_assets.project import Project
    from cooperbench_assets.sharing.bundle import UnitEntry
    from cooperbench_assets.store.cells import Cell
    from cooperbench_assets.store.schema import Table

_CONTENTS: Final = msgspec.json.Decoder(Contents)

LARGEST_TABLE: Final = 2**31
"""Bytes from which a table's file is refused."""


@dataclass(frozen=True)
class Imported:
    """What taking a bundle in came to."""

    experiment: str
    added: tuple[Cell, ...]
    unchanged: tuple[Cell, ...]
    published: Published
    content: str
    """Hash of the bundle's units as they are here now; another one than the bundle's where `kept` names any."""

    kept: tuple[str, ...] = ()
    """Tables beside those of cells and checks that are here with other content, and stay as they are."""

    redacted: Mapping[str, int] = field(default_factory=dict)


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
        write_unit(project.tables, unit, frames[entry.name], declared=tuple(DECLARED.values()), imported=True)
    cells = {entry.name: cell for _, entry in units if (cell := cell_unit_of(entry)) is not None}
    plans = recall(project.tables)
    planned = None
    if contents.experiment in plans:
        planned = {contents.experiment: {*plans[contents.experiment], *cells.values()}}
    published = publish(project.database, project.tables, declared=STORE_TABLES, planned=planned)
    notes = notes_file(project.data, contents.experiment)
    take_in(notes, tables.get(f"notes/{notes.name}", b""))
    added = {entry.name for _, entry in new}
    now = {unit.name: _content_here(project.tables, unit) or "" for unit, _ in units}
    return Imported(
        contents.experiment,
        tuple(cell for name, cell in cells.items() if name in added),
        tuple(cell for name, cell in cells.items() if name not in added),
        published,
        content_of(now.items()),
        tuple(unit.name for unit, entry in units if unit.kind != "checks" and _differs(here[unit.name], entry)),
        contents.redacted,
    )


def read_bundle(file: Path) -> tuple[Contents, dict[str, bytes]]:
    """What a bundle says of itself, and the files of its tables and notes by name.

    Raises:
        BundleError: as `import_bundle` says.
    """
    found: dict[str, bytes] = {}
    seen: set[str] = set()
    try:
        with tarfile.open(file, mode="r:gz") as archive:
            for member in archive:
                name = _checked_name(file, member, seen)
                if name == CONTENTS or name.startswith(("tables/", "notes/")):
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
        return _CONTENTS.decode(data)
    except msgspec.DecodeError as error:
        raise BundleError(f"{file}: {CONTENTS} cannot be read ({error}); export it again") from error


def _unit_of(file: Path, entry: UnitEntry, experiment: str) -> Unit:
    """The unit of an entry, if its name is one that this package gives."""
    parts = parse_name(entry.name)
    try:
        unit = Unit(parts[0], parts[1], tuple(parts[2:]), tuple(entry.key.items()))
        known = unit.name == entry.name and entry.tables.keys() <= KINDS.get(unit.kind, frozenset())
        whole = unit.kind in ("cells", "checks") or cell_of(entry.key) is not None or unit.parts == ("all",)
    except (IndexError, ValueError):
        known = whole = False
    if not (known and whole and parts[0] == experiment):
        raise BundleError(f"{file} names a unit {entry.name!r}, which is none of {experiment}; nothing was imported")
    if wrong := key_problem(entry.name, entry.key):
        raise BundleError(f"{file}: {wrong}; nothing was imported")
    return unit


LATER = {"provenance": ("analysis",)}
"""Columns that a bundle of an earlier release does not have: NULL then."""


def _with_later_columns(table: Table, frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with those of ``LATER`` that it lacks."""
    lacking = [name for name in LATER.get(table.name, ()) if name not in frame.columns]
    return frame.with_columns(pl.lit(None, table.schema[name]).alias(name) for name in lacking)


def _as_written(table: Table, frame: pl.DataFrame) -> Table:
    """`table` with the columns that the bundle's release knew: what its hash is of."""
    return replace(table, columns=tuple(column for column in table.columns if column.name in frame.columns))


def _frames(file: Path, unit: Unit, entry: UnitEntry, tables: Mapping[str, bytes]) -> dict[str, pl.DataFrame]:
    """A unit's tables, each as it was written and as it is declared here."""
    frames, written = {}, []
    for name, sha256 in entry.tables.items():
        data = tables.get(f"tables/{entry.name}/{name}.parquet")
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            raise BundleError(f"{file}: table {name} of {entry.name} is missing or damaged; nothing was imported")
        if name not in DECLARED:
            raise BundleError(f"{file}: {entry.name} has a table {name!r} that is not known here; nothing was imported")
        try:
            found = pl.read_parquet(io.BytesIO(data))
            frame = _with_later_columns(DECLARED[name], found)
            check_frame(unit, DECLARED[name], frame)
        except (pl.exceptions.PolarsError, FrameError) as error:
            raise BundleError(f"{file}: {entry.name}: {error}; nothing was imported") from error
        frames[name] = frame
        written.append((_as_written(DECLARED[name], found), found))
    if content_sha256(written) != entry.content_sha256:
        raise BundleError(f"{file}: {entry.name} is not what {CONTENTS} says; nothing was imported")
    return frames


def _content_here(tables: Path, unit: Unit) -> str | None:
    """The content of a unit that is here already."""
    try:
        return load_record(unit.folder(tables)).content_sha256
    except FileNotFoundError:
        return None


def _differs(here: str | None, entry: UnitEntry) -> bool:
    """Whether a unit is here already, with other content."""
    return here not in (None, entry.content_sha256, entry.original_sha256)


def _refuse_conflicts(file: Path, units: Iterable[tuple[Unit, UnitEntry]], here: Mapping[str, str | None]) -> None:
    conflicts = [
        str(cell_unit_of(entry)) for unit, entry in units if unit.kind == "cells" and _differs(here[unit.name], entry)
    ]
    if conflicts:
        raise BundleError(
            f"{file}: here already with different content: {', '.join(conflicts)}. Nothing was imported. Two machines "
            "ran the same cell: give one of them another seed, or import into another project"
        )
