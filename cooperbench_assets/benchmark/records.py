"""What the files of a log tree say, as typed records.

What belongs here: one struct for each JSON file, with the fields that are used and no others. What does not:
opening files (``jsonfiles``), walking the tree (``logtree``), and any judgement of what the fields mean.

Unknown keys are skipped, so that a fork's additions are no error; a used key of a wrong type is one.
Numbers are bounded by the columns that they end in, so that a record that decodes always fits a frame.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct, field

Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
NOTHING = Raw()
"""An undecoded field that is not there."""

TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
"""Counts of tokens, as upstream names them."""

When = str | float | None
"""A time as recorded: ISO text (without a zone: UTC), seconds since 1970, or nothing."""


class AgentRecord(Struct, frozen=True):
    """One agent's part of a result.json."""

    feature_id: Int32 | None = None
    status: str | None = None
    cost: float | None = None
    steps: Int64 | None = None
    input_tokens: Int64 | None = None
    output_tokens: Int64 | None = None
    cache_read_tokens: Int64 | None = None
    cache_write_tokens: Int64 | None = None
    patch_lines: Int64 | None = None
    error: Any = None


class ResultRecord(Struct, frozen=True):
    """result.json: what the agents of a pair did."""

    repo: str | None = None
    task_id: Int64 | None = None
    features: list[Int64] | None = None
    setting: str | None = None
    run_id: str | None = None
    run_name: str | None = None
    agent_framework: str | None = None
    model: str | None = None
    started_at: When = None
    ended_at: When = None
    duration_seconds: float | None = None
    agent: AgentRecord | None = None
    agents: dict[str, AgentRecord] | None = None
    total_cost: float | None = None
    total_steps: Int64 | None = None
    messages_sent: Int64 | None = None


class MergeRecord(Struct, frozen=True):
    """How the two patches of a pair were merged."""

    status: str | None = None
    strategy: str | None = None
    diff: Raw = NOTHING

    @property
    def diff_empty(self) -> bool | None:
        """Whether the kept diff is empty; None where none was kept."""
        kept = bytes(self.diff)
        return None if not kept else kept in (b'""', b"null")


class FeatureRecord(Struct, frozen=True):
    """The tests of one feature. The output is left undecoded: it can be very large."""

    feature_id: Int64 | None = None
    passed: bool | None = None
    exit_code: Int64 | None = None
    tests_passed: Int64 | None = None
    tests_failed: Int64 | None = None
    test_output: Raw = NOTHING
    output: Raw = NOTHING
    """Some versions write ``output`` in place of ``test_output``."""


class ApplyRecord(Struct, frozen=True):
    """Whether each agent's patch applied: applied, skipped, failed or unknown."""

    agent1: str | None = None
    agent2: str | None = None


class EvalRecord(Struct, frozen=True):
    """eval.json: the verdict on a pair."""

    both_passed: bool
    repo: str | None = None
    task_id: Int64 | None = None
    features: list[Int64] | None = None
    setting: str | None = None
    apply_status: ApplyRecord | None = None
    merge: MergeRecord | None = None
    feature1: FeatureRecord | None = None
    feature2: FeatureRecord | None = None
    error: Any = None
    evaluated_at: When = None


class MessageRecord(Struct, frozen=True):
    """One message of a conversation.json."""

    sender: str | None = field(default=None, name="from")
    recipient: str | list[str] | None = field(default=None, name="to")
    message: Any = None
    timestamp: When = None
    feature_id: Int32 | None = None


class ConfigRecord(Struct, frozen=True):
    """config.json of a run: its last invocation."""

    run_name: str | None = None
    agent_framework: str | None = None
    model: str | None = None
    setting: str | None = None
    started_at: When = None


class SummaryEntry(Struct, frozen=True):
    """One pair in an eval_summary.json."""

    run: str | None = None
    status: str | None = None
    error: Any = None


class EvalSummaryRecord(Struct, frozen=True):
    """eval_summary.json of a run: its last evaluation, and the only place of some errors."""

    evaluated_at: When = None
    results: list[SummaryEntry] = field(default_factory=list)


class ProvenanceRecord(Struct, frozen=True):
    """provenance.json of a run: what made it. Only what the store's columns need."""

    origin: str | None = None
    model: str | None = None
    agent: str | None = None
    agent_config_sha256: str | None = None
    agent_config: Any = None
    harness_version: str | None = None
    harness_commit: str | None = None
    merge_policy: str | None = None
    subset: str | None = None
    subset_sha256: str | None = None
    dataset_sha256: str | None = None
    execution: str | None = None
    isolation: str | None = None
    truncated: bool | None = None
    messaging: bool | None = None
    git: bool | None = None
    gold: bool | None = None
    """The dataset's own patches stand in for an agent's."""


class StreamEvent(Struct, frozen=True):
    """An event of an agent's stream that says how the agent ended."""

    type: str | None = None
    subtype: str | None = None
    is_error: bool | None = None
    api_error_status: Any = None
    result: Any = None
    message: Any = None
    error: Any = None


class TrajectoryMessage(Struct, frozen=True):
    """A message of a trajectory; ``extra`` of the last one may say why the agent ended."""

    role: str | None = None
    content: Any = None
    extra: Any = None


class TrajectoryRecord(Struct, frozen=True):
    """``*_traj.json``: whose it is, and its messages, undecoded."""

    agent_id: str | None = None
    feature_id: Int64 | None = None
    messages: list[Raw] = field(default_factory=list)


RESULT = msgspec.json.Decoder(ResultRecord)
EVAL = msgspec.json.Decoder(EvalRecord)
CONVERSATION = msgspec.json.Decoder(list[MessageRecord])
CONFIG = msgspec.json.Decoder(ConfigRecord)
EVAL_SUMMARY = msgspec.json.Decoder(EvalSummaryRecord)
PROVENANCE = msgspec.json.Decoder(ProvenanceRecord)
STREAM_EVENT = msgspec.json.Decoder(StreamEvent)
TRAJECTORY = msgspec.json.Decoder(TrajectoryRecord)
TRAJECTORY_MESSAGE = msgspec.json.Decoder(TrajectoryMessage)
TEXT = msgspec.json.Decoder(str)


def parse_time(value: object) -> datetime | None:
    """A recorded time as naive UTC; None where it is absent or stands for none.

    Text without a zone is taken as UTC, because upstream writes local times and says nothing of the zone.
    Numbers are seconds since 1970, or milliseconds where they are too large for that.
    """
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return moment if moment.tzinfo is None else _naive(moment)
        if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
            return _naive(datetime.fromtimestamp(value / 1000 if abs(value) > 1e11 else value, UTC))
    except (ValueError, OverflowError, OSError):
        return None
    return None


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


def text_of(value: object) -> str | None:
    """A field that should be text, as text: None stays None, anything else than text becomes JSON."""
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()
