"""Which version of the harness made a run, and how that version merges.

What belongs here: what was recorded, and the fingerprints that the files of older runs carry. What does not:
comparing cells (``checks``).

Up to 0.0.14 a conflict was merged by union; from 0.0.19 on agent 1's patch is tested alone. The second policy
passes about twice as often, so what one says must never be held against the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cooperbench_assets.benchmark.logtree import Evaluation, RunReading

MergePolicy = Literal["union", "agent1_alone", "none", "unknown"]
Source = Literal["recorded", "fingerprinted", "unknown"]

UNION_UNTIL = (0, 0, 14)
AGENT1_ALONE_FROM = (0, 0, 19)
_RELEASE = re.compile(r"v?(\d{1,9})(?:\.(\d{1,9})(?:\.(\d{1,9}))?(?!\d)|\Z)")


@dataclass(frozen=True, slots=True)
class HarnessVersion:
    """The harness of a run."""

    version: str | None
    """A version, or a range such as ``0.0.19+`` where it was fingerprinted."""

    source: Source
    merge_policy: str
    """union, agent1_alone, none (solo) or unknown."""


def harness_of(reading: RunReading) -> HarnessVersion:
    """The harness that made a run: what provenance.json records wins over fingerprints."""
    verdicts = [pair.evaluation for pair in reading.pairs.values() if pair.evaluation is not None]
    found = fingerprint(verdicts) if reading.mode != "solo" else HarnessVersion(None, "unknown", "none")
    recorded = None if reading.provenance is None else reading.provenance.record
    if recorded is None or (recorded.harness_version is None and recorded.merge_policy is None):
        return found
    version = recorded.harness_version
    policy = "none" if reading.mode == "solo" else recorded.merge_policy or merge_policy(version, reading.mode)
    return HarnessVersion(
        version or found.version,
        "recorded" if version is not None else found.source,
        policy if policy != "unknown" else found.merge_policy,
    )


def fingerprint(evaluations: Iterable[Evaluation]) -> HarnessVersion:
    """The version range that the merges of a coop run show; unknown where they show none, or several."""
    shown: set[MergePolicy] = set()
    for evaluation in evaluations:
        if (policy := _shown(evaluation)) is not None:
            shown.add(policy)
    if shown == {"union"}:
        return HarnessVersion("≤0.0.14", "fingerprinted", "union")
    if shown == {"agent1_alone"}:
        return HarnessVersion("0.0.19+", "fingerprinted", "agent1_alone")
    return HarnessVersion(None, "unknown", "unknown")


def _shown(evaluation: Evaluation) -> MergePolicy | None:
    """The policy that one merge shows; None where either could have written it."""
    if evaluation.merge_strategy == "union":
        return "union"
    if evaluation.merge_status in ("identical", "missing_input"):
        return "agent1_alone"
    if evaluation.merge_strategy in ("solo-agent1", "skip-merge-identical"):
        return "agent1_alone"
    left_at_naive = evaluation.merge_status == "conflicts" and evaluation.merge_strategy == "naive"
    return "agent1_alone" if left_at_naive and evaluation.apply_a is not None else None


def merge_policy(version: str | None, mode: str | None) -> MergePolicy:
    """How a version of the harness merges: none (solo); unknown between the two that were looked at."""
    if mode == "solo":
        return "none"
    match = _RELEASE.match(version or "")
    if match is None:
        return "unknown"
    release = tuple(int(part or 0) for part in match.groups())
    if release == (0, 0, 0):  # What builds call themselves that do not know their version.
        return "unknown"
    if release <= UNION_UNTIL:
        return "union"
    return "agent1_alone" if release >= AGENT1_ALONE_FROM else "unknown"
