"""Named stops at which a test may kill the process; nothing that does work belongs here.

A step that must survive `kill -9` calls `reach("promote:result-in")` before each of its renames. Set
`COOPERBENCH_ASSETS_STOP_AT` to that name and the process dies there, as if it had been killed from outside.
With `name#3` it dies the third time it passes. Without the variable a call costs one dictionary look-up.
"""

from __future__ import annotations

import os
import signal
from typing import Final

VARIABLE: Final = "COOPERBENCH_ASSETS_STOP_AT"
"""Environment variable that names the stop, optionally followed by `#<n>` (n-th passage, from 1)."""

_passages: dict[str, int] = {}


def hit(name: str) -> None:
    """Kill this process with SIGKILL if `COOPERBENCH_ASSETS_STOP_AT` names this stop."""
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    stop, _, passage = wanted.partition("#")
    if stop != name:
        return
    _passages[name] = _passages.get(name, 0) + 1
    if _passages[name] == int(passage or 1):
        os.kill(os.getpid(), signal.SIGKILL)
