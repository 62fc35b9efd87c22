"""Fixtures of automation's tests: Dagster's storage on disk, and a demo experiment whose harness server is shared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pytest

from cooperbench_assets.execution.servers import close_servers

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance with SQLite storage, as a project has."""
    with dg.instance_for_test() as made:
        yield made


@pytest.fixture(scope="package", autouse=True)
def _servers() -> Iterator[None]:
    yield
    close_servers()
