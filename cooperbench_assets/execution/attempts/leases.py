"""Until when nodes of a cluster may still run children of a cell, on record for whoever launches it next.

What belongs here: the file in the cell's staging folder. What does not: the lease itself (``fleet``).
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

from cooperbench_assets.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "fleet-lease.json"

LONGEST_SECONDS: Final = 3600.0
"""No lease is longer: a time further away was written by a clock that was wrong."""


def write_lease(staging: Path, seconds: float) -> None:
    """Say that children may run on nodes for so long, even if nobody hears of them."""
    if staging.is_dir():
        write_atomically(staging / FILE, json.dumps({"until": time.time() + seconds}).encode(), durable=False)


def end_lease(staging: Path) -> None:
    """Say that no node runs anything of this cell."""
    (staging / FILE).unlink(missing_ok=True)


def wait_for_lease(staging: Path) -> float:
    """Wait until no node can run a child that a dead launch of this cell left there; returns the seconds waited."""
    try:
        until = float(json.loads((staging / FILE).read_bytes())["until"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
    left = min(until - time.time(), LONGEST_SECONDS)
    if left <= 0:
        return 0.0
    time.sleep(left)
    return left
