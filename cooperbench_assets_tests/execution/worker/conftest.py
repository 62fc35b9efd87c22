"""The task that tests of this folder give to harness servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cooperbench_assets_tests.execution.toy import make_toy

if TYPE_CHECKING:
    from cooperbench_assets_tests.execution.toy import Toy


@pytest.fixture(scope="package")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"))
