"""What a feature's tests printed, with what failed first.

What belongs here: which lines name a failure, in the outputs of common test runners. What does not: whether a test
failed (``benchmark.outcomes``).
"""

from __future__ import annotations

import re

_NAMES = re.compile(
    r"^(?:FAILED|ERROR)\s+\S+::\S+.*|^(?:FAIL|ERROR): \S+.*|^--- FAIL: .*|^test \S+ \.\.\. FAILED|^\s*(?:✕|✗|×|✖) .*"
    r"|^not ok \d+.*|^# FAIL:.*|^FAIL\s+\S+.*|^_{3,} \S.* _{3,}$"
)
"""pytest, unittest, Go, cargo, jest and vitest, TAP."""

_DETAILS = re.compile(
    r"^E   .*|^\w*(?:Error|Exception)\b.*|^(?:error|fatal)(?:\[\w+\])?: .*|^thread '.*' panicked at .*"
)
_MOST = 200
_LONGEST = 500


def failing_lines(output: str) -> list[str]:
    """Lines that name what failed, then lines that say how; at most 200, each cut to 500 characters."""
    names: list[str] = []
    details: list[str] = []
    for line in output.split("\n"):
        if _NAMES.match(line[:_LONGEST]):
            names.append(line[:_LONGEST])
        elif len(details) < _MOST and _DETAILS.match(line[:_LONGEST]):
            details.append(line[:_LONGEST])
    return list(dict.fromkeys([*names, *details]))[:_MOST]
