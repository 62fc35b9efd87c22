"""Fixtures of the tests of execution's core."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import pytest

from cooperbench_assets.execution.runner.harness_servers import close_servers
from cooperbench_assets_tests.execution.fleet.ray_nodes import Nodes, ray_nodes
from cooperbench_assets_tests.execution.toy import Toy, make_toy
from cooperbench_assets_tests.services import missing

# Read when upstream is imported: without it, that waits for a price list from the network.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")


@pytest.fixture(scope="package")
def core_toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    """One toy dataset for all cells, so that they share one harness server."""
    yield make_toy(tmp_path_factory.mktemp("core"))
    close_servers()


@pytest.fixture(scope="package")
def nodes() -> Iterator[Nodes]:
    """A Ray cluster of three nodes for all tests marked deploy; who kills a node adds another."""
    if importlib.util.find_spec("ray") is None:  # Importing it would read its variables before they are set.
        missing("Ray", "it is not installed: make test-deploy installs it")
    with ray_nodes(3) as found:
        yield found
        close_servers()
