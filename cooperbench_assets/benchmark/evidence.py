"""Why an agent or a test run failed, looked for in the files of a pair's folder.

What belongs here: which files are looked at, in which order, and what is taken from them as evidence. What does
not: what a text means (``failures``) and what follows for the pair (``outcomes``).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Struct

from cooperbench_assets.benchmark import failures
from cooperbench_assets.benchmark.jsonfiles import BadFileError, decode, open_regular, read_bytes
from cooperbench_assets.benchmark.records import (
    STREAM_EVENT,
    TEXT,
    TRAJECTORY,
    TRAJECTORY_MESSAGE,
    AgentRecord,
    FeatureRecord,
    StreamEvent,
    TrajectoryMessage,
    TrajectoryRecord,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Container

    from cooperbench_assets.benchmark.failures import Failure

T = TypeVar("T")

EVIDENCE_LIMIT = 2000
"""Characters of evidence that are kept."""

GRADED = frozenset({"Submitted", "LimitsExceeded", "CostLimitExceeded"})
LIMITS = frozenset({"LimitsExceeded", "CostLimitExceeded"})
"""Statuses of an agent that used up its steps or its money: its patch is graded."""

_COMPLAINTS = (
    "Error response from daemon: ",
    "Error: No such container",
    "OCI runtime exec failed",
    "Cannot connect to",
)
_COMPLAINT_LINES = 4
"""A patch with a change in it has more."""

_NO_TEXT = (b"", b"null", b'""')
_TAIL = 1 << 16
_LONGEST_TAIL = 1 << 23
_LARGEST_TRAJECTORY = 1 << 27


class AgentEnd(Struct, frozen=True):
    """One agent of a result: its record, and why it failed if it did."""

    name: str
    """agent1, agent2 or solo."""

    feature: int | None
    """Its feature; None for solo."""

    record: AgentRecord
    failure: Failure | None = None
    """None where the agent ended by itself."""

    evidence: str | None = None
    source: str | None = None
    """File that the evidence was found in, relative to the pair's folder."""

    suspect: bool = False
    """It says Submitted, although its stream ended in an API error (then that is the evidence)."""


class FailureSignal(Struct, frozen=True):
    """What ended the test run of a feature."""

    failure: Failure
    evidence: str


class _Ending(Struct, frozen=True):
    """The last event of a stream that says how the agent ended."""

    text: str
    source: str
    is_api_error: bool


def agent_end(folder: str, names: Container[str], name: str, feature: int | None, record: AgentRecord) -> AgentEnd:
    """How one agent ended.

    Args:
        folder: The pair's folder.
        names: Names of the files in it.
        name: agent1, agent2 or solo.
        feature: The agent's feature; None for solo.
        record: What result.json says of it.
    """
    ending = _stream_ending(folder, names, name, feature)
    if not _died(record.status):
        if ending is not None and ending.is_api_error:
            return AgentEnd(
                name, feature, record, None, ending.text, ending.source, suspect=record.status not in LIMITS
            )
        if (lost := _from_patch(folder, names, feature, record)) is not None:
            return AgentEnd(name, feature, record, *lost)
        return AgentEnd(name, feature, record)
    found = _from_result(record)
    if found is None or found[0].family == "unknown":
        better = _from_ending(ending) or _from_trajectory(folder, names, name, feature)
        found = better if better is not None and (found is None or better[0].family != "unknown") else found
    if found is None:
        return AgentEnd(name, feature, record, failures.UNKNOWN, "status Error, and no file says why", "result.json")
    failure, text, source = found
    return AgentEnd(name, feature, record, failure, text[:EVIDENCE_LIMIT], source)


def _died(status: str | None) -> bool:
    """Whether a status says that the agent did not end by itself.

    Older adapters put an exception's name there, so a status that is no known word is read like an error.
    """
    if status in GRADED:
        return False
    if status is None or status == "Error":
        return True
    failure = failures.classify(status)
    return failure is not None and failure.family != "unknown"


_Found = tuple["Failure", str, str]


def _from_result(record: AgentRecord) -> _Found | None:
    text = text_of(record.error or None) or (record.status if record.status not in (None, "Error") else None)
    failure = failures.classify(text)
    return None if failure is None or text is None else (failure, text, "result.json")


def _from_patch(folder: str, names: Container[str], feature: int | None, record: AgentRecord) -> _Found | None:
    """The engine's complaint where a patch should be: the container was gone when upstream asked it for the work.

    The agent does not notice: every command of it fails, until its steps are used up or it says that it is done.
    """
    file = "solo.patch" if feature is None else f"agent{feature}.patch"
    if not (isinstance(record.patch_lines, int) and 0 < record.patch_lines <= _COMPLAINT_LINES) or file not in names:
        return None
    try:
        text = read_bytes(f"{folder}/{file}").decode("utf-8", "replace").strip()
    except (OSError, BadFileError):
        return None
    if not text.startswith(_COMPLAINTS):
        return None
    failure = failures.classify(text)
    return None if failure is None else (failure, text[:EVIDENCE_LIMIT], file)


def _from_ending(ending: _Ending | None) -> _Found | None:
    if ending is None or not ending.is_api_error:
        return None
    failure = failures.classify(ending.text)
    return None if failure is None else (failure, ending.text, ending.source)


def _stream_ending(folder: str, names: Container[str], name: str, feature: int | None) -> _Ending | None:
    """How the stream of an agent ended; None without a stream, or if it says nothing.

    The file carries the agent's name. One that carries its feature is taken only where no other agent can
    have that name.
    """
    file = f"{name}_stream.jsonl"
    if file not in names and feature is not None and feature > 2:
        file = f"agent{feature}_stream.jsonl"
    return _last_event(f"{folder}/{file}", file) if file in names else None


def _last_event(path: str, source: str) -> _Ending | None:
    length = _TAIL
    try:
        descriptor, size = open_regular(path)
    except OSError:
        return None
    try:
        while True:
            tail = os.pread(descriptor, length, max(0, size - length))
            ending = _ending_in(tail, source)
            if ending is not None or length >= min(size, _LONGEST_TAIL):
                return ending
            length *= 8
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _ending_in(tail: bytes, source: str) -> _Ending | None:
    """The last event in `tail` that says how the agent ended."""
    for line in reversed(tail.splitlines()):
        if b'"result"' not in line and b'"turn.' not in line and b'"error"' not in line:
            continue
        event = _decoded(line, STREAM_EVENT)
        if event is not None and event.type in ("result", "turn.failed", "turn.completed", "error"):
            return _ending(event, source)
    return None


def _decoded(raw: bytes, decoder: msgspec.json.Decoder[T]) -> T | None:
    """A record out of a file that is no one document; None where these bytes hold none."""
    try:
        return decode(raw.decode("utf-8", "replace").encode(), decoder)
    except BadFileError:
        return None


def _ending(event: StreamEvent, source: str) -> _Ending:
    """An event as an ending. Running out of turns or money is no API error."""
    subtype = event.subtype or ""
    limited = any(word in subtype for word in ("max_turns", "limit", "budget"))
    status = event.api_error_status
    failed = event.type in ("turn.failed", "error") or bool(event.is_error) or status is not None
    text = text_of(event.result) or text_of(event.error) or text_of(event.message) or subtype or "is_error"
    if status is not None and str(status) not in text:
        text = f"{text} (HTTP status {text_of(status)})"
    return _Ending(text[:EVIDENCE_LIMIT], source, failed and not limited)


def _from_trajectory(folder: str, names: Container[str], name: str, feature: int | None) -> _Found | None:
    """What the end of a trajectory says; read only if nothing else explains a failure, because it can be large."""
    files = [f"{name}_traj.json" if feature is None else f"agent{feature}_traj.json", f"{name}_full_traj.json"]
    for file in files:
        if file not in names:
            continue
        try:
            path = f"{folder}/{file}"
            trajectory = decode(read_bytes(path, _LARGEST_TRAJECTORY), TRAJECTORY)
        except (BadFileError, OSError):
            continue
        if feature is not None and trajectory.feature_id not in (None, feature):
            continue
        if found := _last_words(trajectory, file):
            return found
    return None


def _last_words(trajectory: TrajectoryRecord, file: str) -> _Found | None:
    """The failure that the last messages of a trajectory tell of."""
    for raw in reversed(trajectory.messages[-3:]):
        message = _decoded(bytes(raw), TRAJECTORY_MESSAGE)
        text = None if message is None else _words(message)
        failure = failures.classify(text)
        if (
            message is not None
            and failure is not None
            and text
            and (message.role == "exit" or failure.family != "unknown")
        ):
            return failure, text, file
    return None


def _words(message: TrajectoryMessage) -> str | None:
    """What a message says of its agent's end; None for one that is part of the work."""
    if message.role == "exit":
        extra = message.extra if isinstance(message.extra, dict) else {}
        said = text_of(extra.get("exception_str")) or text_of(message.content) or ""
        status = text_of(extra.get("exit_status"))
        return f"{status}: {said}" if status else said
    text = text_of(message.content) or ""
    return text if message.role == "assistant" and "Error" in text and len(text) < EVIDENCE_LIMIT else None


def infra_failed(record: FeatureRecord) -> FailureSignal | None:
    """The infrastructure failure of a feature's test run; None where it passed or failed by itself."""
    if record.passed:
        return None
    raw = memoryview(record.test_output)
    if raw in _NO_TEXT:
        raw = memoryview(record.output)
    told = record.exit_code in failures.TELLING_EXIT_CODES
    if not told and (raw in _NO_TEXT or not failures.may_show_infra_failure(raw)):
        return None
    output = _output(bytes(raw))
    failure = failures.classify_output(output, record.exit_code)
    if failure is None:
        return None
    return FailureSignal(failure, failures.excerpt(output, EVIDENCE_LIMIT) or f"exit code {record.exit_code}")


def _output(raw: bytes) -> str:
    """What the tests printed, with bytes that are no text replaced."""
    if raw in _NO_TEXT:
        return ""
    try:
        return TEXT.decode(raw)
    except (msgspec.MsgspecError, ValueError):
        return raw.decode("utf-8", "replace").replace("\\n", "\n")
