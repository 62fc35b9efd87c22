"""The place that the tests of this folder share; one worker gets all of them (``workers``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cooperbench_assets_tests.dagster_ui.place import Place, made_place

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package")  # Not the session: as long as the browser is there, nothing else can use asyncio.
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One project with one `dagster dev` and one browser."""
    with made_place(tmp_path_factory.mktemp("ui")) as made:
        yield made
