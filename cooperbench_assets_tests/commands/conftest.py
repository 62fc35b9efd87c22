from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cooperbench_assets.project import ROOT_VARIABLE
from cooperbench_assets_tests.commands.place import Place, make_place

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A project that the command line finds, and somebody's logs beside it; we are beside the logs."""
    made = make_place(tmp_path)
    monkeypatch.setenv(ROOT_VARIABLE, str(made.project.root))
    monkeypatch.chdir(made.logs.parent)
    return made
