"""Services that tests need: skip where one is missing, and fail instead where CI promises it."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

REQUIRED = "COOPERBENCH_ASSETS_REQUIRE_SERVICES"
"""Set by CI: a missing service is a failure there."""


def missing(service: str, why: str) -> NoReturn:
    """End a test that lacks a service: as skipped on a person's machine, as failed in CI."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{service} is missing ({why}), and {REQUIRED}=1 says that it must be there")
    pytest.skip(f"{service} is missing: {why}")


def need_program(*names: str) -> str:
    """The path of the first of these programs that is installed."""
    for name in names:
        if path := shutil.which(name):
            return path
    missing(names[0], f"no {' or '.join(names)} on the PATH")
