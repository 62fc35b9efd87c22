"""One pair's folder in a log tree: what its files say, each caught by itself.

What belongs here: reading result.json, eval.json, conversation.json and the patches of one pair, and holding
them against the place they lie in. What does not: finding the folders (``logtree``) and judging (``outcomes``).
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Struct, field

from cooperbench_assets.benchmark import evidence
from cooperbench_assets.benchmark.jsonfiles import BadFileError, Quarantined, decode, printable, read_bytes
from cooperbench_assets.benchmark.pairs import Pair
from cooperbench_assets.benchmark.records import (
    CONVERSATION,
    EVAL,
    RESULT,
    AgentRecord,
    EvalRecord,
    FeatureRecord,
    MessageRecord,
    ResultRecord,
    parse_time,
    text_of,
)
from cooperbench_assets.benchmark.steps import message_steps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from cooperbench_assets.benchmark.attempts import Attempt
    from cooperbench_assets.benchmark.evidence import AgentEnd, FailureSignal

T = TypeVar("T")
MODES = ("solo", "coop", "team")
"""The folders that upstream puts a run's pairs into, one for each way of working."""

_REMEDIES = {
    "result.json": "restore it from where it was made, or delete it and run this pair again",
    "eval.json": "delete it and evaluate this pair again",
    "attempt.json": "nothing: the try counts as interrupted",
}
_ANY_REMEDY = "restore it from where it was made, or delete it"


class Patch(Struct, frozen=True):
    """One patch file."""

    sha256: str
    empty: bool
    """It holds nothing but white space."""


class FeatureVerdict(Struct, frozen=True):
    """The tests of one feature."""

    passed: bool | None
    exit_code: int | None
    tests_passed: int | None
    tests_failed: int | None
    sign: FailureSignal | None
    """What ended the test run, where it failed but not by itself."""


class Evaluation(Struct, frozen=True):
    """What eval.json says of a pair, matched to the pair's features."""

    both_passed: bool
    feature_a: FeatureVerdict | None
    feature_b: FeatureVerdict | None
    merge_status: str | None
    merge_strategy: str | None
    merge_diff_empty: bool | None
    apply_a: str | None
    apply_b: str | None
    error: str | None
    evaluated_at: datetime | None


class PairReading(Struct):
    """Everything that was found of one pair. What is absent or unusable is None."""

    pair: Pair
    run_dir: Path
    relative: str
    """The pair's folder, relative to the run folder; it need not exist where there are only attempts."""

    mode: str | None = None
    result: ResultRecord | None = None
    agents: tuple[AgentEnd, ...] = ()
    """The agents of the result in order of their features."""

    started_at: datetime | None = None
    ended_at: datetime | None = None
    evaluation: Evaluation | None = None
    messages: list[MessageRecord] | None = None
    message_steps: list[int | None] = field(default_factory=list)
    """For each message the step of its sender that it was sent in, from 1; None where that is not known."""

    patches: tuple[Patch | None, ...] = ()
    """solo: one; else one for each feature in order."""

    patch_sha256: str | None = None
    """Hash of the patch or of both patches (`patch_sha256`); None where a file is missing."""

    attempts: list[Attempt] = field(default_factory=list)
    eval_error: str | None = None
    """What the run's eval_summary.json says went wrong at this pair's evaluation."""

    eval_error_at: datetime | None = None

    @property
    def folder(self) -> Path:
        """The pair's folder."""
        return self.run_dir / self.relative


def patch_sha256(contents: Sequence[bytes]) -> str:
    """Hash of what is graded: of the one patch, or of two patches' hashes, in feature order, joined by a newline."""
    hashes = [hashlib.sha256(content).hexdigest() for content in contents]
    return _joined(hashes)


def _joined(hashes: Sequence[str]) -> str:
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


class Exclusions:
    """What a walk gathers beside pairs: what is excluded, and how much was read."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.root = str(run_dir)
        self.quarantine: list[Quarantined] = []
        self.files_read = 0
        self.bytes_read = 0
        self.strangers: list[tuple[int, Pair, ResultRecord]] = []
        """Results that name another pair than their folder: index into `quarantine`, that pair, the result."""

    def exclude(self, relative: str, pair: Pair | None, kind: str, message: str, remedy: str) -> None:
        """Exclude a file or folder."""
        path = printable(relative)
        self.quarantine.append(Quarantined(path, pair, kind, f"{path}: {message}", remedy))

    def read(self, relative: str, pair: Pair | None) -> bytes | None:
        """The bytes of a file; None (and an entry in quarantine) where it cannot be read."""
        try:
            raw = read_bytes(f"{self.root}/{relative}")
        except BadFileError as error:
            self.bad(relative, pair, error)
            return None
        self.files_read += 1
        self.bytes_read += len(raw)
        return raw

    def bad(self, relative: str, pair: Pair | None, error: BadFileError) -> None:
        """Exclude a file for what is wrong with it."""
        name = relative.rpartition("/")[2]
        self.exclude(relative, pair, error.kind, str(error), _REMEDIES.get(name, _ANY_REMEDY))

    def decode(self, raw: bytes, relative: str, pair: Pair | None, decoder: msgspec.json.Decoder[T]) -> T | None:
        """The record that bytes hold; None (and an entry in quarantine) where they hold none."""
        try:
            return decode(raw, decoder)
        except BadFileError as error:
            self.bad(relative, pair, error)
            return None

    def load(self, relative: str, pair: Pair | None, decoder: msgspec.json.Decoder[T]) -> T | None:
        """The record of a file; None (and an entry in quarantine) where there is none."""
        raw = self.read(relative, pair)
        return None if raw is None else self.decode(raw, relative, pair, decoder)


def read_pair(
    exclusions: Exclusions, pair: Pair, relative: str, mode: str | None, *, find_steps: bool = True
) -> PairReading:
    """Read one pair's folder.

    Args:
        exclusions: Where quarantine goes.
        pair: The pair that the folder's place names.
        relative: The folder, relative to the run folder.
        mode: solo, coop or team; None in an older tree, where the result says it.
        find_steps: Whether to look for the steps of messages in the trajectories.
    """
    reading = PairReading(pair, exclusions.run_dir, relative, mode)
    folder = f"{exclusions.root}/{relative}"
    try:
        names = frozenset(os.listdir(folder))  # noqa: PTH208 - a third of the time of Path.iterdir
    except OSError as error:
        exclusions.exclude(
            relative, pair, "unreadable", f"it cannot be listed: {error.strerror}", "fix its permissions"
        )
        return reading
    if "result.json" in names:
        _read_result(exclusions, reading, folder, names)
    if reading.mode is None and "solo.patch" in names:
        reading.mode = "solo"
    if "eval.json" in names:
        _read_evaluation(exclusions, reading)
    if "conversation.json" in names and reading.mode != "solo":
        reading.messages = exclusions.load(f"{relative}/conversation.json", pair, CONVERSATION)
        messages = reading.messages or []
        reading.message_steps = (
            message_steps(folder, names, reading.agents, messages) if find_steps else [None] * len(messages)
        )
    _read_patches(exclusions, reading, names)
    return reading


def _read_result(exclusions: Exclusions, reading: PairReading, folder: str, names: frozenset[str]) -> None:
    relative = f"{reading.relative}/result.json"
    record = exclusions.load(relative, reading.pair, RESULT)
    if record is None or not _in_place(exclusions, reading, relative, record):
        return
    shape = "solo" if record.agent is not None and not record.agents else "coop"
    if reading.mode is None:
        reading.mode = record.setting if record.setting in MODES else shape
    if not _of_mode(exclusions, reading, relative, record, shape):
        return
    reading.result = record
    reading.started_at, reading.ended_at = parse_time(record.started_at), parse_time(record.ended_at)
    reading.agents = tuple(
        evidence.agent_end(folder, names, name, feature, agent)
        for name, feature, agent in _agents(reading.pair, record)
    )


def _agents(pair: Pair, record: ResultRecord) -> list[tuple[str, int | None, AgentRecord]]:
    """Name, feature and record of the agents, in order of features; agents are matched by feature, not by order."""
    if record.agent is not None and not record.agents:
        return [("solo", None, record.agent)]
    by_number = {"agent1": pair.features[0], "agent2": pair.features[1]}
    found = [
        (name, by_number.get(name) if agent.feature_id is None else agent.feature_id, agent)
        for name, agent in (record.agents or {}).items()
    ]
    return sorted(found, key=_by_feature)


def _by_feature(agent: tuple[str, int | None, AgentRecord]) -> tuple[bool, int, str]:
    name, feature, _ = agent
    return feature is None, feature or 0, name


def _of_mode(exclusions: Exclusions, reading: PairReading, relative: str, record: ResultRecord, shape: str) -> bool:
    """Whether a result is of the mode that its place says; else it goes into quarantine."""
    said = record.setting if record.setting in MODES else None
    if said is not None and said != reading.mode:
        exclusions.exclude(
            relative,
            reading.pair,
            "misplaced",
            f"it says setting {said} and lies in a run of setting {reading.mode}",
            f"move the pair's folder to a run of setting {said}",
        )
        return False
    if record.agent is None and not record.agents:
        exclusions.bad(relative, reading.pair, BadFileError("wrong_type", "it lists no agent"))
        return False
    if (reading.mode == "solo") != (shape == "solo"):
        message = f"it lists agents as setting {shape} does, in a run of setting {reading.mode}"
        exclusions.bad(relative, reading.pair, BadFileError("wrong_type", message))
        return False
    return True


def _in_place(exclusions: Exclusions, reading: PairReading, relative: str, record: ResultRecord | EvalRecord) -> bool:
    """Whether a file speaks of the pair whose folder it lies in; else it goes into quarantine."""
    pair, features = reading.pair, record.features
    if features == list(pair.features) and record.repo == pair.repo and record.task_id == pair.task_id:
        return True
    if features is not None and (len(features) != 2 or features[0] == features[1]):
        exclusions.exclude(
            relative,
            pair,
            "features",
            f"it lists features {features[:5]}, and a pair has two",
            "delete the folder: the subset plans pairs",
        )
        return False
    same = record.repo in (None, pair.repo) and record.task_id in (None, pair.task_id)
    if same and (features is None or tuple(sorted(features)) == pair.features):
        return True
    low, high = sorted(features or pair.features)
    named = Pair(record.repo or pair.repo, pair.task_id if record.task_id is None else record.task_id, (low, high))
    if isinstance(record, ResultRecord):
        exclusions.strangers.append((len(exclusions.quarantine), named, record))
    exclusions.exclude(
        relative,
        pair,
        "misplaced",
        f"it is about {named.name}, and lies in the folder of {pair.name}",
        "move it to the folder of the pair that it names, or delete it",
    )
    return False


def _read_evaluation(exclusions: Exclusions, reading: PairReading) -> None:
    relative = f"{reading.relative}/eval.json"
    raw = exclusions.read(relative, reading.pair)
    record = None if raw is None else exclusions.decode(raw, relative, reading.pair, EVAL)
    if raw is None or record is None or not _in_place(exclusions, reading, relative, record):
        return
    first, second = record.feature1, record.feature2
    if first is not None and first.feature_id == reading.pair.features[1]:
        first, second = second, first
    merge, applied = record.merge, record.apply_status
    reading.evaluation = Evaluation(
        both_passed=record.both_passed,
        feature_a=_feature(record, first),
        feature_b=_feature(record, second),
        merge_status=None if merge is None else merge.status,
        merge_strategy=None if merge is None else merge.strategy,
        merge_diff_empty=None if merge is None else merge.diff_empty,
        apply_a=None if applied is None else applied.agent1,
        apply_b=None if applied is None else applied.agent2,
        error=text_of(record.error or None),
        evaluated_at=parse_time(record.evaluated_at),
    )


def _feature(record: EvalRecord, feature: FeatureRecord | None) -> FeatureVerdict | None:
    if feature is None:
        return None
    return FeatureVerdict(
        feature.passed,
        feature.exit_code,
        feature.tests_passed,
        feature.tests_failed,
        None if record.both_passed else evidence.infra_failed(feature),
    )


def _read_patches(exclusions: Exclusions, reading: PairReading, names: frozenset[str]) -> None:
    if reading.mode is None:
        return
    pair = reading.pair
    files = ["solo.patch"] if reading.mode == "solo" else [f"agent{feature}.patch" for feature in pair.features]
    patches: list[Patch | None] = []
    for file in files:
        raw = exclusions.read(f"{reading.relative}/{file}", pair) if file in names else None
        patches.append(None if raw is None else Patch(hashlib.sha256(raw).hexdigest(), not raw.strip()))
    reading.patches = tuple(patches)
    hashes = [patch.sha256 for patch in patches if patch is not None]
    reading.patch_sha256 = _joined(hashes) if len(hashes) == len(files) else None
