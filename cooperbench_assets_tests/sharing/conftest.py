"""A machine with one cell and what it exports."""

from __future__ import annotations

from pathlib import Path

import pytest

from cooperbench_assets.experiment_context import ExperimentContext
from cooperbench_assets.sharing.bundle import export_bundle
from cooperbench_assets_tests.sharing.machines import ALL, machine


@pytest.fixture(scope="package")
def one_cell(tmp_path_factory: pytest.TempPathFactory) -> ExperimentContext:
    """A machine with one cell, for tests that change nothing on it."""
    return machine(tmp_path_factory.mktemp("machine"), ALL[:1])


@pytest.fixture(scope="package")
def bundle(one_cell: ExperimentContext, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What it exports."""
    return export_bundle(one_cell.project, "made", tmp_path_factory.mktemp("bundle") / "x.tar.gz").file
