"""Fixtures of the tests of execution's core."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cooperbench_assets.execution.runner.harness_servers import close_servers
from cooperbench_assets_tests.execution.toy import Toy, make_toy


@pytest.fixture(scope="package")
def core_toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    """One toy dataset for all cells, so that they share one harness server."""
    yield make_toy(tmp_path_factory.mktemp("core"))
    close_servers()
