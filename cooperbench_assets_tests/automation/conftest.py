"""Fixtures of automation's tests: the project's storage on disk, and how safely it is written."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, event

from cooperbench_assets_tests.automation.driving import instance_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dagster as dg


@pytest.fixture
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """An instance in a folder of its own."""
    with instance_in(tmp_path_factory.mktemp("instance")) as made:
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
