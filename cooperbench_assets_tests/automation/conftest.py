"""Fixtures of automation's tests: the project's storage on disk, and how safely it is written."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from sqlalchemy import Engine, event

from cooperbench_assets.dagster_storage import LockedSqliteStorage
from cooperbench_assets.local_runs import NO_OUTPUT

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """An instance with the storage of a project's dagster.yaml, that keeps no output of steps: they print none."""
    folder = tmp_path_factory.mktemp("instance")
    storage = {
        "module": LockedSqliteStorage.__module__,
        "class": LockedSqliteStorage.__name__,
        "config": {"base_dir": str(folder)},
    }
    with dg.instance_for_test(overrides={**NO_OUTPUT, "storage": {"custom": storage}}, temp_dir=str(folder)) as made:
        yield made


@pytest.fixture(scope="package", autouse=True)
def _storage_is_not_forced() -> Iterator[None]:
    """Dagster's storage is not forced to the disk: no test here cuts the power, and some write thousands of times."""
    event.listen(Engine, "connect", _not_forced)
    yield
    event.remove(Engine, "connect", _not_forced)


def _not_forced(connection: object, _record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")
