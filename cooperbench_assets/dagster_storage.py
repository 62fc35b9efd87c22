"""Storage of the project's Dagster instance, as dagster.yaml names it.

What belongs here: Dagster's own SQLite storage, made by one process at a time. What does not: what is stored in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster._serdes import ConfigurableClassData

LOCK = ".lock"


class LockedSqliteStorage(DagsterSqliteStorage):
    """SQLite, opened by one process at a time.

    Dagster makes its tables without a lock: of two processes that open a fresh instance at once, whichever they are
    (a command, the UI, its daemon), one would end with `table runs already exists`.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        folder = Path(base_dir)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):
            super().__init__(base_dir, inst_data)

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> LockedSqliteStorage:
        """The storage that dagster.yaml describes: `base_dir`, relative to the current folder."""
        return cls(config_value["base_dir"], inst_data)
