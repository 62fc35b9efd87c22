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

from cooperbench_assets.execution.job import STAGING, CellJob

if TYPE_CHECKING:
    from cooperbench_assets.benchmark.pairs import Pair
    from cooperbench_assets.execution.protocol import Stage

CHILD_LOG: Final = "child.log"
"""What a child printed."""

REPORT: Final = "child.json"
"""What a child said of its end."""

REPLY_MINUTES: Final = 10.0
"""An agent killed at its deadline timed out by itself if the model answered within the last minutes."""

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
        return self.root / CHILD_LOG


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
            shutil.copyfile(file, place.pair_dir / file.name)


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


def read_report(place: Staged) -> ChildReport:
    """The child's own report; an empty one if it left none."""
    try:
        return msgspec.json.decode((place.root / REPORT).read_bytes(), type=ChildReport)
    except (OSError, msgspec.DecodeError):
        return ChildReport()


def last_sign_of_life(place: Staged) -> float | None:
    """When the agents last wrote something, as seconds since 1970; None if they never did.

    Trajectories, streams and logs grow with the model's replies, so this is the latest time at which the model
    is known to have answered. Look before the child is killed: its last words are no reply.
    """
    files = (place.log, *(place.root / "logs").rglob("*"))
    times = [status.st_mtime for file in files if file.is_file() and (status := file.stat()).st_size > 0]
    return max(times, default=None)


def write_timed_out_result(job: CellJob, pair: Pair, place: Staged, started: datetime, text: str) -> None:
    """Write the result that a killed agent could not write: upstream's shape, status Error, costs left out.

    A key that is left out is read as not known, by upstream's totals too; null would drop the pair from them.
    """
    ended = datetime.now(UTC)
    agent = {"status": "Error", "patch_lines": 0, "error": text}
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
    if job.mode == "solo":
        content["agent"] = agent
        patches = ["solo.patch"]
    else:
        content["agents"] = {
            f"agent{place_ + 1}": {"feature_id": feature, **agent} for place_, feature in enumerate(pair.features)
        }
        patches = [f"agent{feature}.patch" for feature in pair.features]
    content["log_dir"] = str(place.pair_dir.relative_to(place.root))
    place.pair_dir.mkdir(parents=True, exist_ok=True)
    for name in patches:
        (place.pair_dir / name).touch()
    encoded = msgspec.json.format(msgspec.json.encode(content), indent=2)
    (place.pair_dir / "result.json").write_bytes(encoded)


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


def clear(run_dir: Path) -> None:
    """Remove every staging folder of a run; none of its tries may be unsettled."""
    shutil.rmtree(run_dir / STAGING, ignore_errors=True)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
