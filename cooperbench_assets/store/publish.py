"""The only code that replaces results.duckdb: from partition tables to one file, all or nothing.

What belongs here: which units go in and out, and the steps from the present file to the next one. What does not:
SQL on rows (``store.loading``) and on tables (``store.layout``).

Under one lock: copy the file into the workplace, replace the units that changed in one transaction, check, have
the disk hold it, rename it over the old one. A killed publish leaves the old file; whoever has that open keeps
what they see. The time of the file's last change is noted in the file itself: one that differs was changed by
somebody else, and is built anew from Parquet.
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
from cooperbench_assets.store import planned as memory
from cooperbench_assets.store.build_dir import WAL_SUFFIXES, Workplace
from cooperbench_assets.store.catalog import content_of
from cooperbench_assets.store.errors import StoreError, StoreTooNewError
from cooperbench_assets.store.exchange import (
    HASHED_BY,
    NOTHING_BEFORE,
    Before,
    Exchanged,
    Survey,
    bring_up,
    fill,
    read_before,
    survey,
)
from cooperbench_assets.store.files import copy, sync
from cooperbench_assets.store.layout import Declaration, declarations
from cooperbench_assets.store.migrations import check_version, info, note, version_of
from cooperbench_assets.store.schema import CORE_TABLES, Table
from cooperbench_assets.store.types import literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from cooperbench_assets.store.planned import Plans

PATIENCE: Final = 120.0
"""Seconds to wait for another publish; one takes well under a second."""

FILE_TIME: Final = "file_time_us"
"""Note in the file: the time of its last change, microseconds since 1970. A unit written later is not in it."""

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

    seconds: float
    rebuilt: str | None
    """Why the file was built anew from Parquet; None where it was not."""

    warnings: tuple[str, ...]


@dataclass(slots=True)
class _Job:
    """One publish, on its way."""

    workplace: Workplace
    asked: Survey
    declared: Mapping[str, Declaration]
    warnings: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    file_time: int = field(default_factory=lambda: time.time_ns() // 1000)
    """What the new file's time of last change will be, microseconds."""

    keep_old: bool = False
    """Whether the present file is not ours, or not as we left it, and is kept under another name."""

    @property
    def database(self) -> Path:
        return self.workplace.database

    def published(self, done: Exchanged, *, replaced: bool, rebuilt: str | None = None) -> Published:
        """The account of it."""
        return Published(
            replaced=replaced,
            changed=done.changed,
            dropped=done.dropped,
            unreadable=done.unreadable,
            outdated=done.outdated,
            undeclared=done.undeclared,
            rows=done.rows,
            content=content_of(done.entries),
            seconds=time.perf_counter() - self.started,
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
    with _job(database, tables, declared, planned, timeout) as job:
        return _update(job) if job.database.exists() else _anew(job, "there was no file")


def rebuild(
    database: Path,
    tables: Path,
    *,
    declared: Sequence[Table] = CORE_TABLES,
    planned: Plans | Callable[[], Plans] | None = None,
    timeout: float = PATIENCE,
) -> Published:
    """Build `database` from nothing but Parquet, whatever is there now.

    Units that cannot be read, and tables that are not declared, are not in the new file. The rest is as
    `publish` says.
    """
    with _job(database, tables, declared, planned, timeout) as job:
        return _anew(job, "it was asked for")


@contextmanager
def _job(
    database: Path,
    tables: Path,
    declared: Sequence[Table],
    planned: Plans | Callable[[], Plans] | None,
    timeout: float,
) -> Iterator[_Job]:
    """Alone with the database file: know what is asked of it, and see foreign logs moved away."""
    workplace = Workplace.of(database)
    as_sql = declarations(declared)
    with workplace.locked(timeout):
        hit("publish:locked")
        memory.remember(tables, planned() if callable(planned) else planned or {})
        job = _Job(workplace, survey(tables, memory.recall(tables)), as_sql)
        if aside := workplace.set_aside(whole=False):
            job.warnings.append(aside)
        hit("publish:log-set-aside")
        yield job


def _update(job: _Job) -> Published:
    """Publish on a copy of the present file; build anew if that file is not as it was published."""
    build = job.workplace.build()
    try:
        changed_at = _copy(job.database, build)
        hit("publish:copied")
        with _opened(build) as connection:
            version = _check_ours(connection, changed_at)
            done = _transact(job, connection, lambda: bring_up(connection, job.asked, job.declared, version))
        if not done.anything:
            return job.published(done, replaced=False)
    except StoreTooNewError as error:
        raise StoreTooNewError(f"{job.database}: {error}") from None
    except (StoreError, duckdb.Error) as error:
        job.keep_old = True
        return _anew(job, str(error), before=build)
    else:
        _put_in_place(job, build)
        return job.published(done, replaced=True)
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


def _check_ours(connection: DuckDBPyConnection, changed_at: int) -> int:
    """The file's layout, if it is as we published it."""
    version = version_of(connection)
    if version == 0:
        raise StoreError("it was no results store")
    check_version(version)
    noted = int(info(connection, FILE_TIME) or 0)
    if changed_at not in (noted, noted // 1_000_000 * 1_000_000):  # archives keep whole seconds
        raise StoreError("it was changed since it was published, or copied without its time")
    return version


def _anew(job: _Job, reason: str, before: Path | None = None) -> Published:
    """Build from Parquet; what cannot be read there is carried over from `before`, where that can be opened."""
    build = job.workplace.build()
    try:
        with _opened(build) as connection:
            earlier = _attach(job, connection, before)
            done = _transact(job, connection, lambda: fill(connection, job.asked, job.declared, earlier))
        hit("publish:filled")
        if job.keep_old and (aside := job.workplace.set_aside(whole=True)):
            job.warnings.append(aside)
        hit("publish:file-set-aside")
        _put_in_place(job, build)
        return job.published(done, replaced=True, rebuilt=reason)
    except duckdb.Error as error:
        if before is None:
            raise StoreError(f"{job.database} cannot be built: {error}") from error
        job.warnings.append(f"nothing could be carried over from the earlier file ({error})")
        return _anew(job, reason)
    finally:
        build.unlink(missing_ok=True)


def _attach(job: _Job, connection: DuckDBPyConnection, before: Path | None) -> Before:
    """What an earlier file holds; nothing if there is none, or none that can be read."""
    if before is None or not before.exists():
        return NOTHING_BEFORE
    try:
        connection.execute(f"ATTACH {literal(str(before))} AS before (READ_ONLY)")
        return read_before(connection, "before")
    except (duckdb.Error, msgspec.DecodeError) as error:
        job.warnings.append(f"nothing could be carried over from the earlier file ({error})")
        return NOTHING_BEFORE


def _transact(job: _Job, connection: DuckDBPyConnection, work: Callable[[], Exchanged]) -> Exchanged:
    """Run `work` in one transaction, and leave a file without a log; nothing is kept if nothing came of it."""
    connection.begin()
    done = work()
    if not done.anything:
        connection.rollback()
        return done
    hit("publish:exchanged")
    note(connection, FILE_TIME, str(job.file_time))
    note(connection, HASHED_BY, duckdb.__version__)
    connection.commit()
    hit("publish:committed")
    connection.execute("CHECKPOINT")
    hit("publish:checkpointed")
    return done


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
