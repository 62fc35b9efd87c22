"""Fixtures of this room's tests: an empty run of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from cooperbench_assets_tests.trees import Tree


@pytest.fixture
def solo(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "logs" / "run-solo")


@pytest.fixture
def coop(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "logs" / "run-coop", "coop")
