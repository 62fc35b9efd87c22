"""Partition tables: every table of the store as Parquet first, one folder a unit, replaced all at once.

What belongs here: writing, reading and listing units. What does not: results.duckdb (``store.publish``).

A writer makes a new content folder beside the old one, has the disk hold it, and renames its ``current.json``
over the unit's. A reader takes the folder that ``current.json`` names, so it sees one generation of all tables
or another, never a mixture. Whoever writes or reads a content folder holds it (a shared lock on the folder,
which a killed process lets go of); a writer removes the folders that are neither current nor held.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from cooperbench_assets.faultpoints import hit
from cooperbench_assets.store.content_hash import columns_sha256, content_sha256
from cooperbench_assets.store.errors import FrameError, UnitError
from cooperbench_assets.store.files import FolderGoneError, held, make_folders, sync, sync_all, unheld
from cooperbench_assets.store.schema import SCHEMA_VERSION, Table
from cooperbench_assets.store.units import CONTENT_MARK, POINTER, Record, TableRecord, Unit, key_problem, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

TIMES_TO_LOOK_AGAIN = 100
"""How often a reader follows a pointer to a folder that is gone by then, before it gives up."""


_RECORD = msgspec.json.Decoder(Record)


@dataclass(frozen=True, slots=True)
class Written:
    """What `write_unit` did."""

    content_sha256: str
    changed: bool
    """Whether anything was written: False if the unit already held this content, intact."""

    folder: Path
    """The content folder that counts now."""

    rows: Mapping[str, int]
    """Rows by table."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A unit's folder as `list_units` found it."""

    name: str
    record: Record | None
    """None where `problem` says why."""

    problem: str | None = None


def write_unit(
    tables: Path, unit: Unit, frames: Mapping[str, pl.DataFrame], *, declared: Sequence[Table], imported: bool = False
) -> Written:
    """Replace all tables of a unit at once, if their content differs from what is there.

    Any number of processes may do this at once; of two that write the same unit, the later rename counts.
    A unit without frames is an empty unit: publishing it takes its rows out of the store. One that another machine
    made is `imported`, until it is written here.

    Raises:
        FrameError: if a frame is not exactly as its table declares, or has rows of another unit; or if the unit's key
            is not the one that its name stands for.
        UnitError: if the folder belongs to a unit whose name differs only in case.
    """
    if wrong := key_problem(unit.name, dict(unit.key)):
        raise FrameError(wrong)
    checked = [(_table(declared, name), frame) for name, frame in frames.items()]
    for table, frame in checked:
        check_frame(unit, table, frame)
    content = content_sha256(checked)
    folder = unit.folder(tables)
    present = _present(folder, unit)
    same = present is not None and (present.content_sha256, present.imported) == (content, imported)
    changed = present is None or not same or problem_of(folder, present) is not None
    if changed:
        present = _write(folder, unit, checked, content, imported)
    assert present is not None
    _sweep(folder)
    return Written(content, changed, folder / present.folder, present.rows)


def _table(declared: Sequence[Table], name: str) -> Table:
    for table in declared:
        if table.name == name:
            return table
    known = ", ".join(table.name for table in declared)
    raise FrameError(f"no table {name!r} is declared; declared are {known or 'none'}")


def check_frame(unit: Unit, table: Table, frame: pl.DataFrame) -> None:
    """Raise FrameError unless a frame has exactly a table's columns, and all its rows the unit's key."""
    if frame.schema != table.schema:
        raise FrameError(f"table {table.name}: {_difference(table.schema, frame.schema)}")
    key = dict(unit.key)
    if set(key) != set(table.key):
        raise FrameError(
            f"table {table.name} is kept by {', '.join(table.key)}, and unit {unit.name} by {', '.join(key)}"
        )
    for column, value in key.items():
        if frame.height and (frame[column][0] != value or frame[column].n_unique() > 1):
            found = frame[column].unique().sort().to_list()
            raise FrameError(f"table {table.name}: {column} is {found} in unit {unit.name}, which holds {value!r} only")


def _difference(wanted: pl.Schema, got: pl.Schema) -> str:
    """What is wrong with a frame's columns, in words."""
    problems = []
    if missing := [name for name in wanted if name not in got]:
        problems.append(f"lacks {', '.join(missing)}")
    if unknown := [name for name in got if name not in wanted]:
        problems.append(f"has unknown {', '.join(unknown)}")
    for name in wanted.keys() & got.keys():
        if wanted[name] != got[name]:
            problems.append(f"{name} is {got[name]}, not {wanted[name]}")
    return "the frame " + ("; ".join(sorted(problems)) or f"has its columns in another order than {list(wanted)}")


def _present(folder: Path, unit: Unit) -> Record | None:
    """The unit's record; None where there is none that can be read, so that it is written anew."""
    try:
        record = load_record(folder)
    except (FileNotFoundError, UnitError):
        return None
    if record.unit != unit.name:
        raise UnitError(
            f"{folder} holds {record.unit}, not {unit.name}: the file system takes the two names for one; "
            "rename one of them"
        )
    return record


def load_record(folder: Path) -> Record:
    """What a unit's ``current.json`` says.

    Raises:
        FileNotFoundError: if there is none.
        UnitError: if it cannot be read, or comes from a later version.
    """
    path = folder / POINTER
    try:
        record = _RECORD.decode(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, msgspec.DecodeError) as error:
        raise UnitError(f"{path} cannot be read ({error}); materialise the unit again") from error
    if record.schema_version > SCHEMA_VERSION:
        raise UnitError(
            f"{path} was written by a later version (schema {record.schema_version}, this is {SCHEMA_VERSION}); "
            "update cooperbench-assets, or materialise the unit again"
        )
    return record


def problem_of(folder: Path, record: Record) -> str | None:
    """What is wrong with the files that a record names; None if every byte is as it was written."""
    for name, table in record.tables.items():
        path = folder / record.folder / f"{name}.parquet"
        try:
            data = path.read_bytes()
        except OSError as error:
            return f"{path} cannot be read ({error.strerror})"
        if hashlib.sha256(data).hexdigest() != table.sha256:
            return f"{path} is not as it was written"
    return None


def _write(
    folder: Path, unit: Unit, frames: Sequence[tuple[Table, pl.DataFrame]], content: str, imported: bool
) -> Record:
    """Write a new content folder and point to it."""
    make_folders(folder)
    while True:
        new = folder / f"{CONTENT_MARK}{content[:16]}-{secrets.token_hex(4)}"
        new.mkdir()
        try:
            with held(new):
                return _fill(folder, new, unit, frames, content, imported)
        except FolderGoneError:  # somebody swept it before it was held
            continue


def _fill(
    folder: Path, new: Path, unit: Unit, frames: Sequence[tuple[Table, pl.DataFrame]], content: str, imported: bool
) -> Record:
    hit("write:folder-made")
    written = {table.name: _write_table(new, table, frame) for table, frame in frames}
    hit("write:tables-written")
    record = Record(
        unit=unit.name,
        key=dict(unit.key),
        schema_version=SCHEMA_VERSION,
        content_sha256=content,
        folder=new.name,
        tables=written,
        written_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        imported=imported,
    )
    (new / POINTER).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1))
    sync_all([new / POINTER, *(_file(new, table) for table, _ in frames)])
    sync(new)
    hit("write:synced")
    (new / POINTER).replace(folder / POINTER)
    hit("write:renamed")
    sync(folder)
    return record


def _file(folder: Path, table: Table) -> Path:
    return folder / f"{table.name}.parquet"


def _write_table(folder: Path, table: Table, frame: pl.DataFrame) -> TableRecord:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, statistics=False)
    data = buffer.getvalue()
    _file(folder, table).write_bytes(data)
    hit("write:table-written")
    return TableRecord(frame.height, len(data), hashlib.sha256(data).hexdigest(), columns_sha256(table))


def _sweep(folder: Path) -> None:
    """Remove the content folders that are neither current nor held.

    The pointer is read after a folder proved unheld: its writer is then done or dead, so that the pointer can
    never come to name it afterwards.
    """
    for entry in list(folder.iterdir()):
        if not entry.name.startswith(CONTENT_MARK):
            continue
        with unheld(entry) as free:
            if free and _current_name(folder) not in (None, entry.name):
                shutil.rmtree(entry, ignore_errors=True)
                hit("write:swept")


def _current_name(folder: Path) -> str | None:
    """Name of the content folder that counts; None where that cannot be told, and nothing may be removed."""
    try:
        return load_record(folder).folder
    except (OSError, UnitError):
        return None


@contextmanager
def opened(folder: Path) -> Iterator[tuple[Record, Path]]:
    """A unit's record and content folder, which nobody removes while the block runs.

    Raises:
        FileNotFoundError: if the unit was never written.
        UnitError: if it cannot be read.
    """
    with ExitStack() as stack:
        record = _hold_current(folder, stack)
        yield record, folder / record.folder


def _hold_current(folder: Path, stack: ExitStack) -> Record:
    for _ in range(TIMES_TO_LOOK_AGAIN):
        record = load_record(folder)
        try:
            stack.enter_context(held(folder / record.folder))
        except FolderGoneError:
            if load_record(folder).folder == record.folder:
                break
        except OSError as error:
            raise UnitError(f"{folder / record.folder} cannot be read ({error})") from error
        else:
            return record
    raise UnitError(f"{folder / POINTER} names a folder that is gone; materialise the unit again")


def read_unit(tables: Path, unit: Unit) -> dict[str, pl.DataFrame]:
    """All tables of a unit, of one generation.

    Raises:
        UnitError: if the unit was never written, or cannot be read.
    """
    folder = unit.folder(tables)
    try:
        with opened(folder) as (record, content):
            if problem := problem_of(folder, record):
                raise UnitError(f"{problem}; materialise the unit again")
            return {name: pl.read_parquet(content / f"{name}.parquet") for name in record.tables}
    except FileNotFoundError:
        raise UnitError(f"{folder} holds no tables yet; materialise the unit first") from None


def list_units(tables: Path, experiment: str | None = None) -> list[Listed]:
    """Every unit below the root of the partition tables, or of one experiment, by name; no Parquet file is opened.

    A folder in which a writer was killed before its first rename is no unit yet, and one that cannot be listed
    holds none that can be read: whoever knows of units from elsewhere (``results.duckdb``) misses them here.
    """
    found: list[Listed] = []
    for folder in _folders(tables) if experiment is None else [quote(experiment)]:
        for kind in _folders(tables / folder):
            _list_below(tables, f"{folder}/{kind}", found)
    return sorted(found, key=lambda listed: listed.name)


def _folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, but for content folders and hidden ones."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.name[0] not in (CONTENT_MARK, ".") and entry.is_dir()]
    except OSError:
        return []


def _list_below(tables: Path, name: str, found: list[Listed]) -> None:
    try:
        record = load_record(tables / name)
    except FileNotFoundError:
        for below in _folders(tables / name):
            _list_below(tables, f"{name}/{below}", found)
    except UnitError as error:
        found.append(Listed(name, None, str(error)))
    else:
        found.append(_listed(tables, name, record))


def _listed(tables: Path, name: str, record: Record) -> Listed:
    if record.unit != name:
        problem = f"{tables / name} holds {record.unit}: it was moved or copied; move it back or delete it"
        return Listed(name, None, problem)
    if wrong := key_problem(name, record.key):
        return Listed(name, None, f"{wrong}: delete {tables / name}, and materialise it again")
    return Listed(name, record)
