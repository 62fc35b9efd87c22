"""What made a run, put together from every file that says something of it.

What belongs here: the sources of each fact, and which one wins. What does not: writing provenance.json
(``execution``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from cooperbench_assets.benchmark.harness_version import HarnessVersion, harness_of
from cooperbench_assets.benchmark.prompts import shared_git
from cooperbench_assets.benchmark.records import ProvenanceRecord, text_of

if TYPE_CHECKING:
    from datetime import datetime

    from cooperbench_assets.benchmark.logtree import RunReading


class RunFacts(msgspec.Struct, frozen=True):
    """What is known of a run. What is not known is None."""

    origin: str
    harness: HarnessVersion
    model: str | None
    agent: str | None
    agent_config: str | None
    isolation: str | None
    messaging: bool | None
    git: bool | None
    """Agents shared a git server."""

    started_at: datetime | None
    ended_at: datetime | None
    recorded: ProvenanceRecord
    """provenance.json, or an empty record."""

    record: str | None
    """provenance.json as it stands."""


def facts_of(reading: RunReading) -> RunFacts:
    """What is known of a run: provenance.json first, then the results, then config.json."""
    recorded = ProvenanceRecord() if reading.provenance is None else reading.provenance.record
    pairs = reading.pairs.values()
    results = [pair.result for pair in pairs if pair.result is not None]
    config = reading.config
    isolations = (attempt.isolation for pair in pairs for attempt in pair.attempts if attempt.stage == "eval")
    ends = [pair.ended_at for pair in pairs]
    ends += [pair.evaluation.evaluated_at for pair in pairs if pair.evaluation is not None]
    return RunFacts(
        origin=recorded.origin or "imported",
        harness=harness_of(reading),
        model=_one(result.model for result in results) or recorded.model or (config.model if config else None),
        agent=_one(result.agent_framework for result in results)
        or recorded.agent
        or (config.agent_framework if config else None),
        agent_config=text_of(recorded.agent_config),
        isolation=_one(isolations) or recorded.isolation,
        messaging=None if reading.mode == "solo" else recorded.messaging,
        git=recorded.git if recorded.git is not None else shared_git(reading),
        started_at=min((pair.started_at for pair in pairs if pair.started_at is not None), default=None),
        ended_at=max((end for end in ends if end is not None), default=None),
        recorded=recorded,
        record=None if reading.provenance is None else reading.provenance.text,
    )


def _one(values: Iterable[str | None]) -> str | None:
    """The distinct values, joined by a comma where they differ: a cell has one model, or a check says so."""
    return ", ".join(sorted({value for value in values if value})) or None
