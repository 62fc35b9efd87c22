"""Looking at a pair that was read, for this room's tests.

What belongs here: reading one pair back and judging it. What does not: writing trees (``trees``).
"""

from __future__ import annotations

import hashlib

from cooperbench_assets.benchmark.jsonfiles import Quarantined
from cooperbench_assets.benchmark.logtree import PairReading, RunReading, read_run
from cooperbench_assets.benchmark.outcomes import Outcome, judge
from cooperbench_assets_tests.trees import Tree, pairs

(ONE,) = pairs(1)
REVOKED = "Failed to authenticate. API Error: 401 OAuth access token has been revoked."
DIED = {"type": "result", "subtype": "success", "is_error": True, "api_error_status": 401, "result": REVOKED}
WELL = {"type": "result", "subtype": "success", "is_error": False, "api_error_status": None, "result": "done"}
TIMEOUT = "Command timed out after 600 seconds"
NETWORK = "curl: (6) Could not resolve host: static.example.com\n"


def only(reading: RunReading) -> Quarantined:
    assert len(reading.quarantine) == 1, reading.quarantine
    return reading.quarantine[0]


def outcome(tree: Tree) -> Outcome:
    return judge(reading(tree))


def reading(tree: Tree) -> PairReading | None:
    return read_run(tree.run_dir, tree.mode, alive=lambda _: False).pairs.get(ONE)


def both(found: Outcome) -> tuple[str, str | None, str, str | None]:
    return found.outcome, found.reason, found.outcome_strict, found.reason_strict


def solo_sha(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
