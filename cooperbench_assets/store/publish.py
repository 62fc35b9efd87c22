"""The only code that replaces results.duckdb: from partition tables to one file, all or nothing.

What belongs here: the steps from the present file to the next one. What does not: which rows change
(``store.exchange``), and what the file consists of (``store.layout``).

Under one lock: copy the file into the build folder, replace the rows of the units that changed, check, have the disk
hold it, rename it over the old one. A killed publish leaves the old file; whoever has that open keeps what they see.
A file that is not as it was published, or that consists of other tables, is built anew from Parquet.

A file is as it was published if the time of its last change is the one that is noted in it. Nothing plainer does: a
hash would have every publish read the whole file; and a note beside the file cannot change in one step with it, so
that a kill between the two would make our own file look like somebody else's.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import duckdb
import msgspec

from cooperbench_assets.faultpoints import hit
from cooperbench_assets.store import layout
from cooperbench_assets.store import planned as memory
from cooperbench_assets.store.build_dir import WAL_SUFFIXES, BuildDir
from cooperbench_assets.store.catalog import FILE_TIME, HASHED_BY, LAYOUT, checked_version, content_of, info, note
from cooperbench_assets.store.errors import StoreError, StoreTooNewError
from cooperbench_assets.store.exchange import EARLIER, Survey, exchange, survey
from cooperbench_assets.store.files import copy, sync
from cooperbench_assets.store.schema import CORE_TABLES, Table
from cooperbench_assets.store.types import literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from cooperbench_assets.store.exchange import Exchanged
    from cooperbench_assets.store.planned import Plans

PATIENCE: Final = 120.0
"""Seconds to wait for another publish; one takes well under a second."""

_CONFIG: Final = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "threads": "1",  # more of them take twice the memory and half as much CPU time again, for little
    "fsync_mode": "NONE",  # nobody reads a build before it is synced as a whole
}


@dataclass(frozen=True, slots=True)
class Published:
    """What a publish did."""

    replaced: bool
    """Whether there is a new file; False if the present one already held all this, and was not touched."""

    changed: tuple[str, ...]
    """Units whose rows were replaced, by name (``<experiment>/cells/<setting>/<seed>``, …)."""

    dropped: tuple[str, ...]
    """Units whose rows left, because their experiment plans them no longer."""

    unreadable: Mapping[str, str]
    """Units that could not be read, and why. Those that were published before keep their rows."""

    outdated: tuple[str, ...]
    """Units written with other columns than are declared now: materialise them again."""

    undeclared: tuple[str, ...]
    """Units with tables that nobody declares; they were left as they are."""

    rows: Mapping[str, int]
    """Rows by table, of all units."""

    content: str
    """Hash of all that the file holds: the same content gives the same one, however it got there."""

    rebuilt: str | None
    """Why the file was built anew from Parquet; None where it was not."""

    warnings: tuple[str, ...]


class _OtherLayoutError(StoreError):
    """The present file is as we published it, and consists of other tables than it should."""


@dataclass(slots=True)
class _Job:
    """One publish, on its way."""

    build_dir: BuildDir
    asked: Survey
    declared: Mapping[str, Table]
    warnings: list[str] = field(default_factory=list)
    file_time: int = field(default_factory=lambda: time.time_ns() // 1000)
    """What the new file's time of last change will be, microseconds."""

    @property
    def database(self) -> Path:
        return self.build_dir.database

    @property
    def notes(self) -> dict[str, str]:
        """What a file of this code says about how it was made."""
        return {LAYOUT: layout.fingerprint(self.declared), HASHED_BY: duckdb.__version__}

    def published(self, done: Exchanged, *, replaced: bool, rebuilt: str | None = None) -> Published:
        """The account of it."""
        return Published(
            replaced=replaced,
            changed=tuple(sorted(done.taken)),
            dropped=tuple(sorted(done.dropped)),
            unreadable=done.unreadable,
            outdated=tuple(done.outdated),
            undeclared=tuple(sorted(done.undeclared)),
            rows=done.rows(self.declared),
            content=content_of(done.entries.values()),
            rebuilt=rebuilt,
            warnings=tuple(self.warnings),
        )


def publish(
    database: Path,
    tables: Path,
    *,
    declared: Sequence[Table] = CORE_TABLES,
    planned: Plans | Callable[[], Plans] | None = None,
    timeout: float = PATIENCE,
) -> Published:
    """Bring `database` up to what the partition tables below `tables` hold.

    Args:
        database: the file to replace, such as ``data/results.duckdb``; made if it is not there.
        tables: root of the partition tables.
        declared: the tables that the file should hold. One that is not named stays as it was declared before.
        planned: the cells that an experiment keeps, by experiment. Units of other cells leave the file, though
            their Parquet stays; an experiment with no cell leaves as a whole. It is remembered beside the
            tables, and stands until told otherwise; experiments that are not named stay as they are. What tells
            them is called when no other publish can run: of two plans, the one that is read later counts.
        timeout: seconds to wait for another publish.

    Raises:
        StoreLockedError: if another process published all that time.
        StoreTooNewError: if the file has a later layout than this code knows.
        StoreError: if the file is no results store, or the new one does not hold what it should.
    """
    build_dir = BuildDir.of(database)
    by_name = layout.by_name(declared)
    with build_dir.locked(timeout):
        hit("publish:locked")
        memory.remember(tables, planned() if callable(planned) else planned or {})
        job = _Job(build_dir, survey(tables, memory.recall(tables)), by_name)
        if moved := build_dir.move_foreign_files(whole=False):
            job.warnings.append(moved)
        hit("publish:log-set-aside")
        return _update(job) if job.database.exists() else _anew(job, "there was no file")


def _update(job: _Job) -> Published:
    """Publish on a copy of the present file; build anew if that file is not as it should be."""
    build = job.build_dir.build()
    try:
        changed_at = _copy(job.database, build)
        hit("publish:copied")
        with _opened(build) as connection:
            _check_ours(connection, changed_at)
            if any(info(connection, name) != value for name, value in job.notes.items()):
                raise _OtherLayoutError("its tables are declared otherwise by now, or DuckDB is of another version")
            done = exchange(connection, job.asked, job.declared)
            if not done.anything:
                return job.published(done, replaced=False)
            _finish(job, connection)
        _put_in_place(job, build)
        return job.published(done, replaced=True)
    except StoreTooNewError as error:
        raise StoreTooNewError(f"{job.database}: {error}") from None
    except (StoreError, duckdb.Error) as error:
        return _anew(job, str(error), build, keep=not isinstance(error, _OtherLayoutError))
    finally:
        build.unlink(missing_ok=True)


def _copy(database: Path, build: Path) -> int:
    """Copy the present file, as plain bytes: nobody who has it open can hinder that.

    Returns:
        the time of its last change, microseconds.

    Raises:
        StoreError: if somebody wrote into it meanwhile.
    """
    before = database.stat()
    copy(database, build)
    after = database.stat()
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise StoreError("it was being written to")
    return before.st_mtime_ns // 1000


def _check_ours(connection: DuckDBPyConnection, changed_at: int) -> None:
    """Raise StoreError unless the file is as we published it.

    DuckDB notes in a file neither who wrote it last nor how often. The time of the last change, which we set and note,
    tells it without reading the file once more: a hash takes each publish three times as long as copying it.
    """
    if checked_version(connection) == 0:
        raise StoreError("it was no results store")
    noted = int(info(connection, FILE_TIME) or 0)
    if changed_at not in (noted, noted // 1_000_000 * 1_000_000):  # archives keep whole seconds
        raise StoreError("it was changed since it was published, or copied without its time")


def _anew(job: _Job, reason: str, before: Path | None = None, *, keep: bool = False) -> Published:
    """Build from Parquet; what cannot be read there is carried over from `before`, where that can be opened.

    With `keep` the present file stays under another name: it is not ours, or not all of it could be carried over.
    """
    build = job.build_dir.build()
    try:
        _lay_out(build, job.declared)
        with _opened(build) as connection:
            if before is not None:
                connection.execute(f"ATTACH {literal(str(before))} AS {EARLIER} (READ_ONLY)")
            done = exchange(connection, job.asked, job.declared, earlier=before is not None)
            if before is not None:
                connection.execute(f"DETACH {EARLIER}")
            for name, value in job.notes.items():
                note(connection, name, value)
            _finish(job, connection)
        hit("publish:filled")
        if keep and (moved := job.build_dir.move_foreign_files(whole=True)):
            job.warnings.append(moved)
        hit("publish:file-set-aside")
        _put_in_place(job, build)
        return job.published(done, replaced=True, rebuilt=reason)
    except (duckdb.Error, msgspec.DecodeError) as error:
        if before is None:
            raise StoreError(f"{job.database} cannot be built: {error}") from error
        job.warnings.append(f"nothing could be carried over from the earlier file ({error})")
        return _anew(job, reason, keep=True)
    finally:
        build.unlink(missing_ok=True)


def _lay_out(build: Path, declared: Mapping[str, Table]) -> None:
    """Make a results store without rows."""
    with _opened(build) as connection:
        for statement in layout.statements(declared):
            connection.execute(statement)


def _finish(job: _Job, connection: DuckDBPyConnection) -> None:
    """Note the file's time in it, and leave a file without a log."""
    hit("publish:exchanged")
    note(connection, FILE_TIME, str(job.file_time))
    hit("publish:noted")
    connection.execute("CHECKPOINT")
    hit("publish:checkpointed")


@contextmanager
def _opened(build: Path) -> Iterator[DuckDBPyConnection]:
    connection = duckdb.connect(str(build), config=dict(_CONFIG))
    try:
        yield connection
    finally:
        connection.close()


def _put_in_place(job: _Job, build: Path) -> None:
    """Have the disk hold a finished build, and rename it over the present file."""
    if left := [suffix for suffix in WAL_SUFFIXES if build.with_name(build.name + suffix).exists()]:
        raise StoreError(f"{build} was closed with a log beside it ({', '.join(left)})")
    build.chmod(0o444)
    os.utime(build, ns=(job.file_time * 1000, job.file_time * 1000))
    sync(build)
    hit("publish:synced")
    build.replace(job.database)
    hit("publish:renamed")
    sync(job.database.parent)
