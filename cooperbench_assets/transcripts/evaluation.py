"""What eval.json holds for the page: the merge, and what each feature's tests printed.

What belongs here: reading it again with the outputs, which a list of pairs does without. What does not: the verdict
(``benchmark.outcomes``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cooperbench_assets.benchmark.jsonfiles import BadFileError, decode, read_bytes
from cooperbench_assets.benchmark.records import EVAL, text_of
from cooperbench_assets.transcripts.model import FeatureTests, LeftOut, Merge
from cooperbench_assets.transcripts.outputs import failing_lines
from cooperbench_assets.transcripts.records import UNDECODABLE, decoded

if TYPE_CHECKING:
    from cooperbench_assets.benchmark.pairfolder import PairReading
    from cooperbench_assets.benchmark.records import EvalRecord, FeatureRecord
    from cooperbench_assets.redaction import Redactor

FILE = "eval.json"
_LONGEST_OUTPUT = 256 * 1024
_LONGEST_MERGE = 1 << 20
_CONFLICTS = ("conflicts", "conflict")


class Graded(NamedTuple):
    """The evaluation's part of a page."""

    merge: Merge | None = None
    tests: list[FeatureTests] = []  # noqa: RUF012 - never changed
    left_out: list[LeftOut] = []  # noqa: RUF012


def graded(reading: PairReading, redactor: Redactor) -> Graded:
    """The merge and the tests of a pair; nothing of an eval.json that is missing or was excluded."""
    if reading.evaluation is None:
        return Graded()
    try:
        record = decode(read_bytes(f"{reading.folder}/{FILE}"), EVAL)
    except BadFileError:
        return Graded()
    left_out: list[LeftOut] = []
    merge = _merge(record, reading, redactor, left_out)
    tests = _tests(record, reading, redactor, left_out)
    return Graded(merge, tests, left_out)


def _merge(record: EvalRecord, reading: PairReading, redactor: Redactor, left_out: list[LeftOut]) -> Merge | None:
    found = record.merge
    if found is None or reading.mode == "solo":
        return None
    text = _text(found.diff)
    if text is not None and len(text) > _LONGEST_MERGE:
        left_out.append(
            LeftOut(file=FILE, reason="the merged diff is cut after 1 MB", bytes=len(text) - _LONGEST_MERGE)
        )
        text = text[:_LONGEST_MERGE]
    applied = record.apply_status
    return Merge(
        status=found.status,
        strategy=found.strategy,
        conflict=found.status in _CONFLICTS,
        applied={} if applied is None else {"agent1": applied.agent1, "agent2": applied.agent2},
        text=None if text is None else redactor.text(text),
    )


def _tests(record: EvalRecord, reading: PairReading, redactor: Redactor, left_out: list[LeftOut]) -> list[FeatureTests]:
    features = reading.pair.features
    first, second = record.feature1, record.feature2
    if first is not None and first.feature_id == features[1]:
        first, second = second, first
    found = []
    for number, feature in zip(features, (first, second), strict=True):
        if feature is not None:
            found.append(_feature(number, feature, redactor, left_out))
    return found


def _feature(number: int, record: FeatureRecord, redactor: Redactor, left_out: list[LeftOut]) -> FeatureTests:
    output = _text(record.test_output) or _text(record.output)
    size = None if output is None else len(output.encode("utf-8", "replace"))
    failing: list[str] = []
    if output is not None:
        failing = [redactor.text(line) for line in failing_lines(output)] if not record.passed else []
        if len(output) > _LONGEST_OUTPUT:
            cut = len(output) - _LONGEST_OUTPUT
            reason = f"the beginning of feature {number}'s test output: it is in the raw file"
            left_out.append(LeftOut(file=FILE, reason=reason, bytes=len(output[:cut].encode("utf-8", "replace"))))
            output = output[cut:]
        output = redactor.text(output)
    # Where patches do not merge, upstream records a failure of tests that it never ran.
    ran = bool(output or record.passed or record.exit_code is not None or record.tests_passed or record.tests_failed)
    return FeatureTests(
        feature=number,
        passed=record.passed if ran else None,
        exit_code=record.exit_code,
        tests_passed=record.tests_passed if ran else None,
        tests_failed=record.tests_failed if ran else None,
        failing=failing,
        output=output,
        output_bytes=size,
    )


def _text(raw: msgspec.Raw) -> str | None:
    """What an undecoded field says; None where it is absent or null."""
    kept = bytes(raw)
    if not kept:
        return None
    value = decoded(kept)
    return kept.decode("utf-8", "replace") if value is UNDECODABLE else text_of(value)
