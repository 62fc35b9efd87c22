"""Storage of the project's Dagster instance, as dagster.yaml names it.

What belongs here: Dagster's own SQLite storage, made by one process at a time, whose files stay open while they are
used, and in which no dead process keeps a pool. What does not: what is stored in it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

# A storage is a plug-in of Dagster, and what it is made of has no public names; a test compares the list of them.
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage, _event_logs_directory
from dagster.version import __version__ as dagster_version
from filelock import FileLock
from sqlalchemy import create_engine, event, make_url
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from cooperbench_assets.shown_checks import ShownChecks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dagster._serdes import ConfigurableClassData
    from dagster._utils.concurrency import ConcurrencyClaimStatus
    from sqlalchemy import Connection, Engine

LOCK = ".lock"

BLANK: Final = f"blank-{dagster_version}"
"""A file of the event log without an event, from which the file of each run is copied. Runs' files end in .db."""

MOST_OPEN: Final = 8
"""Files that a process keeps open: that of all runs, and those of the runs it used last."""

CLAIM_SECONDS: Final = 0.5
"""Between two claims of a place in a pool that others hold."""

BUSY_SECONDS: Final = 30
"""How long to wait for another process that writes, as Dagster does."""


class OpenEventLog(ShownChecks, SqliteEventLogStorage):
    """Dagster's event log, whose files stay open while a process uses them.

    Dagster opens and closes a file for each event, three times for a check result. Each time SQLAlchemy compiles its
    statement anew, and SQLite, having no other connection, moves its log into the file, syncs both and removes it:
    measured, four fifths of what an event costs. Nothing but `_connect` decides that, so it is replaced here.

    Events are not synced one by one: a power cut may lose the last of them, and breaks no file.

    The file of a run is a copy of a blank one that Dagster made. Dagster makes each anew, and asks of each that it
    opens whether it is made; for both it reads all of its migrations, every time.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._open: OrderedDict[str, tuple[Engine, tuple[int, int]]] = OrderedDict()
        self._process = os.getpid()
        self._tables: set[str] = set()
        super().__init__(base_dir, inst_data)

    def _initdb(self, engine: Engine, for_index_shard: bool = False) -> None:
        path = Path(str(engine.url.database))
        if not path.exists():
            self._copy_blank(path)
        if not _is_made(path):
            super()._initdb(engine, for_index_shard)

    def _copy_blank(self, path: Path) -> None:
        """Have a blank file at this path, unless another process has one there first."""
        blank = Path(self._base_dir) / BLANK
        with tempfile.TemporaryDirectory(dir=self._base_dir) as folder:
            if not blank.exists():
                made = Path(folder) / "made"
                engine = create_engine(f"sqlite:///{made}", poolclass=NullPool)
                super()._initdb(engine)
                engine.dispose()
                made.replace(blank)
            copied = Path(folder) / "copied"
            shutil.copyfile(blank, copied)
            with contextlib.suppress(OSError):  # It is there by now, or the file system has no links: Dagster makes it.
                os.link(copied, path)

    @contextlib.contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        path = Path(self.path_for_shard(shard))
        if shard not in self._initialized_dbs or not path.exists():
            self._initialized_dbs.discard(shard)
            with super()._connect(shard):  # It makes the file and its tables.
                pass
        with self._db_lock:
            engine = self._engine(shard, path)
            try:
                with engine.connect() as connection:
                    file: Any = connection.connection.dbapi_connection
                    changes = file.total_changes
                    with connection.begin():
                        yield connection
                    changed = file.total_changes != changes
            except BaseException:
                self._close(shard)
                raise
        if changed:
            # What is written stays in SQLite's log for a while, and who watches a run watches the file itself.
            os.utime(path)

    def has_table(self, table_name: str) -> bool:
        """Whether the file of all runs has this table; Dagster opens the file anew to ask, for every check result."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def claim_concurrency_slot(
        self, concurrency_key: str, run_id: str, step_key: str, priority: int | None = None
    ) -> ConcurrencyClaimStatus:
        """Claim a place in a pool for a step; what dead runs hold of it is freed, and what others hold waited for.

        Dagster means to sleep before it claims again, and asks without a pause whether the time has come: a core's
        whole work for as long as another process publishes. So the pause is made here.
        """
        status: ConcurrencyClaimStatus = super().claim_concurrency_slot(concurrency_key, run_id, step_key, priority)
        if status.is_claimed:
            return status
        from cooperbench_assets.automation.dead_runs import free_pools  # it imports assets, and few steps have to wait

        if free_pools(self._instance):
            status = super().claim_concurrency_slot(concurrency_key, run_id, step_key, priority)
        if not status.is_claimed:
            time.sleep(CLAIM_SECONDS)
            status = status.with_sleep_interval(0.0)
        return status

    def _engine(self, shard: str, path: Path) -> Engine:
        """The engine of a file, opened anew if somebody replaced the file."""
        if self._process != os.getpid():  # SQLite's connections do not survive a fork.
            self._open, self._process = OrderedDict(), os.getpid()
        found = path.stat()
        file = (found.st_dev, found.st_ino)
        if shard in self._open and self._open[shard][1] != file:
            self._close(shard)
        if shard not in self._open:
            self._open[shard] = (_one_connection(self.conn_string_for_shard(shard)), file)
            for other in list(self._open)[:-MOST_OPEN]:
                self._close(other)
        self._open.move_to_end(shard)
        return self._open[shard][0]

    def _close(self, shard: str) -> None:
        engine, _ = self._open.pop(shard)
        engine.dispose()

    def _close_all(self) -> None:
        with self._db_lock:
            for shard in list(self._open):
                self._close(shard)

    def wipe(self) -> None:
        """Remove every event, and the files of the runs."""
        self._close_all()
        self._tables.clear()
        super().wipe()

    def dispose(self) -> None:
        """Close all files."""
        self._close_all()
        super().dispose()


def _is_made(path: Path) -> bool:
    """Whether Dagster has made a file's tables: it notes their revision last."""
    if not path.exists():
        return False
    with contextlib.closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
        try:
            return bool(connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,))
        except sqlite3.OperationalError:
            return False


def _one_connection(address: str) -> Engine:
    """An engine with one connection that stays open."""
    engine = create_engine(
        address, poolclass=StaticPool, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False}
    )
    event.listen(engine, "connect", _sync_later)
    return engine


def _sync_later(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA synchronous = NORMAL")


class _KeptConnections:
    """Connections to a file of Dagster's that stay open; a question takes one that nobody uses, or a new one.

    Dagster makes an engine for each question: it compiles the statement anew, and opens and closes the file. Measured,
    seven eighths of what a question costs.
    """

    _conn_string: str
    _kept: tuple[int, tuple[int, int] | None, Engine] | None = None

    @contextlib.contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection in a transaction, which ends with the block."""
        with self._engine().connect() as connection, connection.begin():
            yield connection

    def _engine(self) -> Engine:
        """The file's engine: another one in a process that was forked, and when somebody replaced the file."""
        address = make_url(self._conn_string)
        process, file = os.getpid(), _file(Path(str(address.database)))
        kept = self._kept
        if kept is not None and kept[:2] == (process, file):
            return kept[2]
        if kept is not None and kept[0] == process:
            kept[2].dispose()
        engine = create_engine(address, poolclass=QueuePool, pool_size=MOST_OPEN, max_overflow=-1)
        self._kept = process, file, engine
        return engine

    def dispose(self) -> None:
        """Close the file."""
        if self._kept is not None and self._kept[0] == os.getpid():
            self._kept[2].dispose()
        self._kept = None


def _file(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


class OpenRuns(_KeptConnections, SqliteRunStorage):
    """Dagster's runs, whose file stays open."""


class OpenTicks(_KeptConnections, SqliteScheduleStorage):
    """Dagster's ticks of sensors and schedules, whose file stays open."""


class LockedSqliteStorage(DagsterSqliteStorage):
    """SQLite, opened by one process at a time.

    Dagster makes its tables without a lock: of two processes that open a fresh instance at once, whichever they are
    (a command, the UI, its daemon), one would end with `table runs already exists`.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        folder = Path(base_dir)
        folder.mkdir(parents=True, exist_ok=True)
        runs, ticks = folder / "history" / "runs.db", folder / "schedules" / "schedules.db"
        with FileLock(folder / LOCK):
            event_log = OpenEventLog(_event_logs_directory(base_dir))
            # Dagster's reads all of its migrations for each file that it opens, and a sensor opens them for every tick.
            if not (_is_made(runs) and _is_made(ticks)):
                DagsterSqliteStorage(base_dir)
        super(DagsterSqliteStorage, self).__init__()  # type: ignore[no-untyped-call]
        self.base_dir = base_dir
        self._inst_data = inst_data
        self._event_log_storage = event_log
        self._run_storage = OpenRuns(f"sqlite:///{runs.absolute()}")
        self._schedule_storage = OpenTicks(f"sqlite:///{ticks.absolute()}")

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> LockedSqliteStorage:
        """The storage that dagster.yaml describes: `base_dir`, relative to the current folder."""
        return cls(config_value["base_dir"], inst_data)
