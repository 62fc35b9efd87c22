"""Leases on record: who launches a cell next waits for nodes that may still run something of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from cooperbench_assets.execution.attempts.leases import FILE, end_lease, wait_for_lease, write_lease


def test_a_lease_is_waited_for_to_its_end(tmp_path: Path) -> None:
    write_lease(tmp_path, 0.3)
    until = json.loads((tmp_path / FILE).read_bytes())["until"]
    assert wait_for_lease(tmp_path) > 0
    assert time.time() >= until
    assert wait_for_lease(tmp_path) == 0


def test_a_lease_that_was_ended_is_not_waited_for(tmp_path: Path) -> None:
    write_lease(tmp_path, 1000)
    end_lease(tmp_path)
    end_lease(tmp_path)
    assert wait_for_lease(tmp_path) == 0


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"until": "soon"}', '{"until": null}'])
def test_a_damaged_record_is_not_waited_for(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    assert wait_for_lease(tmp_path) == 0
