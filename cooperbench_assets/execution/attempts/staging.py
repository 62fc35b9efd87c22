"""Where a child writes: a folder of its own below the run folder, on the same file system as the log tree.

What belongs here: making, filling and removing it, and what its files say of a child that was killed. What does not:
taking its files over (``promotion``).
"""

from __future__ import annotations

import queue
import shutil
import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from cooperbench_assets.benchmark.jsonfiles import BadFileError, read_bytes
from cooperbench_assets.execution.job import STAGING, CellJob
from cooperbench_assets.execution.worker.protocol import LOG, PROGRESS, REPORT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.attempts.deadlines import Counted, End
    from cooperbench_assets.execution.worker.protocol import Stage

_MIN_EVIDENCE: Final = 1500


@dataclass(frozen=True, slots=True)
class Staged:
    """The staging folder of one try."""

    root: Path
    """The child's working folder."""

    pair_dir: Path
    """Where upstream puts the pair's files in it."""

    @property
    def log(self) -> Path:
        """What the child printed."""
        return self.root / LOG


def staged(job: CellJob, pair: Pair, name: str) -> Staged:
    """The staging folder of a try, whether or not it is there; `name` is its folder of attempts' name."""
    root = job.run_dir / STAGING / f"{pair.repo}-{pair.task_id}-{pair.folder}-{name}"
    return Staged(root, root / f"logs/{job.run_name}/{job.mode}/{pair.name}")


def prepare(job: CellJob, pair: Pair, stage: Stage, place: Staged) -> None:
    """Make an empty staging folder; for an evaluation, with copies of the result and the patches in it."""
    shutil.rmtree(place.root, ignore_errors=True)
    if stage == "agent":
        place.root.mkdir(parents=True)
        return
    place.pair_dir.mkdir(parents=True)
    source = job.pair_dir(pair)
    for file in source.iterdir():
        if file.name == "result.json" or file.suffix == ".patch":
            try:
                (place.pair_dir / file.name).write_bytes(read_bytes(str(file)))
            except BadFileError as error:
                raise OSError(f"{file}: {error}") from error


def keep_evidence(place: Staged, folder: Path, stage: Stage) -> None:
    """Move what a try left behind, and was not promoted, into its folder of attempts."""
    files = _entries(place.pair_dir) if stage == "agent" else [place.pair_dir / "eval.json"]
    for file in (place.log, *files):
        target = folder / file.name
        if file.exists() and not target.exists():
            file.rename(target)


class Janitor:
    """Removes staging folders in a thread of its own: on a disk, that is mostly waiting."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def discard(self, place: Staged) -> None:
        """Remove a staging folder soon."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="janitor", daemon=True)
            self._thread.start()
        self._queue.put(place.root)

    def close(self) -> None:
        """Wait until all is removed."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while (root := self._queue.get()) is not None:
            shutil.rmtree(root, ignore_errors=True)


def last_words(place: Staged) -> str:
    """The end of what a child printed."""
    try:
        content = place.log.read_bytes()[-_MIN_EVIDENCE:]
    except OSError:
        return ""
    return content.decode("utf-8", "replace").strip()


class ChildReport(msgspec.Struct, frozen=True):
    """What a child wrote of its end, for a parent that was not there to hear it."""

    error: str | None = None
    isolation: str | None = None


_CHILD_REPORT: Final = msgspec.json.Decoder(ChildReport)


def read_report(place: Staged) -> ChildReport:
    """The child's own report; an empty one if it left none."""
    try:
        return _CHILD_REPORT.decode((place.root / REPORT).read_bytes())
    except (OSError, msgspec.DecodeError):
        return ChildReport()


def patches_of(job: CellJob, pair: Pair) -> dict[str, str]:
    """Upstream's names of a pair's agents, in the order of their features, with the patch that each hands in."""
    if job.mode == "solo":
        return {"solo": "solo.patch"}
    return {f"agent{n}": f"agent{feature}.patch" for n, feature in enumerate(pair.features, 1)}


def write_timed_out_result(
    job: CellJob, pair: Pair, place: Staged, started: datetime, ends: Mapping[str, End], counted: Counted
) -> None:
    """Write the result that agents killed at their deadline could not write, in upstream's shape.

    A key that is left out is read as not known, by upstream's totals too; null would drop the pair from them.

    Args:
        job: The cell.
        pair: The pair.
        place: Where the child worked.
        started: When it was launched.
        ends: How each agent ended, by its name.
        counted: What was counted of their calls until they were gone.
    """
    ended = datetime.now(UTC)
    content: dict[str, Any] = {
        "repo": pair.repo,
        "task_id": pair.task_id,
        "features": list(pair.features),
        "setting": job.mode,
        "run_id": uuid.uuid4().hex[:8],
        "run_name": job.run_name,
        "agent_framework": job.agent,
        "model": job.model_name,
        "started_at": started.replace(tzinfo=None).isoformat(),
        "ended_at": ended.replace(tzinfo=None).isoformat(),
        "duration_seconds": (ended - started).total_seconds(),
    }
    place.pair_dir.mkdir(parents=True, exist_ok=True)
    parts = [
        {**_killed_agent(place, name, ends[name], patch), **counted.known(name, job.agent)}
        for name, patch in patches_of(job, pair).items()
    ]
    if job.mode == "solo":
        content["agent"] = parts[0]
    else:
        of_features = zip(ends, pair.features, parts, strict=True)
        content["agents"] = {name: {"feature_id": feature, **part} for name, feature, part in of_features}
    if (cost := counted.spent(job.agent)) is not None:
        content["total_cost"] = cost
    content["log_dir"] = str(place.pair_dir.relative_to(place.root))
    encoded = msgspec.json.format(msgspec.json.encode(content), indent=2)
    (place.pair_dir / "result.json").write_bytes(encoded)


def _killed_agent(place: Staged, name: str, end: End, patch: str) -> dict[str, Any]:
    """One agent's part of the result; what it handed in lies in the staging folder, if it ended by itself."""
    handed_in = place.root / f"{name}.patch"
    content = handed_in.read_bytes() if end.by_itself and handed_in.is_file() else b""
    (place.pair_dir / patch).write_bytes(content)
    return {"status": end.status, "patch_lines": len(content.splitlines()), "error": end.error}


def write_timed_out_verdict(job: CellJob, pair: Pair, place: Staged, text: str) -> None:
    """Write the eval.json that a killed evaluation could not write: upstream's shape, with an error."""
    feature = {"passed": False, "test_output": ""}
    content: dict[str, Any] = {
        "repo": pair.repo,
        "task_id": pair.task_id,
        "features": list(pair.features),
        "setting": "solo" if job.mode == "solo" else "coop",
        "merge": None if job.mode == "solo" else {"status": "error", "strategy": None, "diff": ""},
        "feature1": feature,
        "feature2": feature,
        "both_passed": False,
        "error": text,
        "evaluated_at": datetime.now(UTC).replace(tzinfo=None).isoformat(),
    }
    encoded = msgspec.json.format(msgspec.json.encode(content), indent=2)
    (place.pair_dir / "eval.json").write_bytes(encoded)


class EvaluationProgress(msgspec.Struct, frozen=True):
    """What an evaluation was doing when it was last heard of."""

    doing: str = "it started"
    test: bool = False
    """It was a test run."""

    since: float = 0.0
    """Seconds since 1970."""


_EVALUATION_PROGRESS: Final = msgspec.json.Decoder(EvaluationProgress)


def read_progress(place: Staged) -> EvaluationProgress:
    """What an evaluation's child was doing; that it started, if it said nothing."""
    try:
        return _EVALUATION_PROGRESS.decode((place.root / PROGRESS).read_bytes())
    except (OSError, msgspec.DecodeError):
        return EvaluationProgress()


def clear(run_dir: Path) -> None:
    """Remove every staging folder of a run; none of its tries may be unsettled."""
    shutil.rmtree(run_dir / STAGING, ignore_errors=True)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
