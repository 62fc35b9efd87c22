"""What must hold after every fault, and at the end of a pass.

What belongs here: looking and comparing. What does not: acting.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cooperbench_assets.execution.cell_lock import holder
from cooperbench_assets.execution.runner.slots import POOLS, SlotPool
from cooperbench_assets.store.read import query
from perf.soak.drivers import Driver, processes_of
from perf.soak.place import SETTINGS, files

if TYPE_CHECKING:
    from perf.soak.place import Place, Verdicts


@dataclass(slots=True)
class Broken:
    """What did not hold."""

    lost: list[str] = field(default_factory=list)
    """Results, verdicts or records that were there and are gone or changed; pairs that did not finish."""

    leaked: list[str] = field(default_factory=list)
    """Processes, containers, files and slots that nobody will use again."""

    wrong: list[str] = field(default_factory=list)
    """Pairs that came out otherwise than undisturbed, pairs worked on twice at once, a store that cannot be read."""

    def __bool__(self) -> bool:
        return bool(self.lost or self.leaked or self.wrong)

    def add(self, other: Broken) -> None:
        """Enter what another look found."""
        self.lost += other.lost
        self.leaked += other.leaked
        self.wrong += other.wrong


@dataclass
class Ledger:
    """What was seen on disk so far in a pass: it may grow, and must not change."""

    place: Place
    verdicts: dict[Path, str] = field(default_factory=dict)
    """Hash of each accepted verdict's files, by the pair's folder."""

    seen: dict[Path, tuple[Any, ...]] = field(default_factory=dict)
    """What the pair came to when its verdict was accepted."""

    attempts: dict[Path, tuple[Any, ...]] = field(default_factory=dict)
    """How each try that has ended was recorded, by its file."""

    def look(self) -> Broken:
        """Compare with what is there now, and remember it."""
        broken = Broken()
        for folder, known in self.verdicts.items():
            if (now := _verdict_hash(folder)) != known:
                what = "is gone" if now is None else "changed"
                broken.lost.append(f"the verdict in {folder} {what}; it was {self.seen[folder]}")
        for file, record in self.attempts.items():
            if (present := _ended(file)) != record:
                broken.lost.append(f"{file}: was recorded as {record}, is now {present}")
        self._remember()
        return broken

    def _remember(self) -> None:
        for run in self.place.runs:
            for file in files(run / "attempts", "attempt.json"):
                if file not in self.attempts and (record := _ended(file)) is not None:
                    self.attempts[file] = record
        for (setting, pair), row in self.place.verdicts().items():
            folder = self.place.pair_dir(setting, pair)
            if row[0] in ("pass", "fail") and folder not in self.verdicts and (made := _verdict_hash(folder)):
                self.verdicts[folder], self.seen[folder] = made, row


def _verdict_hash(folder: Path) -> str | None:
    try:
        contents = [(folder / name).read_bytes() for name in ("result.json", "eval.json")]
    except OSError:
        return None
    return hashlib.sha256(b"\n".join(contents)).hexdigest()


def _ended(file: Path) -> tuple[Any, ...] | None:
    """Outcome, family, end and patch of a recorded try that has ended; None for one that runs, or is not there."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    if content.get("ended_at") is None:
        return None
    return tuple(content.get(key) for key in ("outcome", "family", "ended_at", "patch_sha256"))


def after_fault(ledger: Ledger, driver: Driver) -> Broken:
    """What must hold at any moment."""
    broken = ledger.look()
    working = Counter(_pair_of(one.cwd()) for one in driver.children() if one.is_running())
    broken.wrong += [f"{pair} is worked on {n} times at once" for pair, n in working.items() if pair and n > 1]
    broken.wrong += _store(ledger.place)
    return broken


def _pair_of(folder: str) -> str:
    """The staging folder that a working folder lies in, without the try's number."""
    before, found, after = folder.partition("/.staging/")
    return f"{before}/{after.split('/')[0].rpartition('-')[0]}" if found else ""


def _store(place: Place) -> list[str]:
    """What is wrong with the published store: it opens, and a cell in it has every planned pair."""
    if not place.project.database.exists():
        return []
    rows = query(place.project.database, "SELECT setting, count(*) FROM pairs GROUP BY ALL").rows()
    return [f"the store has {n} of {place.pairs} pairs of {setting}" for setting, n in rows if n != place.pairs]


def at_rest(place: Place, expected: Verdicts) -> Broken:
    """What must hold when a pass has ended and nothing runs any more."""
    broken = Broken()
    found = place.verdicts()
    broken.lost += [f"{key} has no verdict" for key in expected.keys() - found.keys()]
    broken.wrong += [
        f"{key} is {found[key]}, undisturbed {row}" for key, row in expected.items() if found.get(key, row) != row
    ]
    broken.leaked += [f"process {one.pid}: {' '.join(one.cmdline())[:200]}" for one in processes_of(place)]
    broken.leaked += [f"slot of {name}" for name in POOLS if _taken(name, place)]
    for run in place.runs:
        broken.leaked += [str(file) for file in (*run.rglob(".staging"), *run.rglob("*.tmp"))]
        broken.lost += [f"{file} has no end" for file in run.rglob("attempt.json") if _ended(file) is None]
        broken.lost += _gaps(run)
        if (by := holder(run)) is not None:
            broken.leaked.append(f"the lock of {run.name}, held by {by}")
    if place.execution == "docker":
        broken.leaked += _containers()
    broken.wrong += _store(place)
    if place.project.database.exists():
        stored = query(place.project.database, "SELECT setting, pair, outcome FROM pairs").rows()
        differ = [row for row in stored if expected.get((row[0], row[1]), (None,))[0] != row[2]]
        broken.wrong += [f"the store says {row}" for row in differ]
        if len(stored) != place.pairs * len(SETTINGS):
            broken.lost.append(f"the store has {len(stored)} of {place.pairs * len(SETTINGS)} rows")
    return broken


def _taken(name: Any, place: Place) -> bool:
    pool = SlotPool(name, state=place.state)
    slots = [pool.acquire() for _ in range(pool.size)]
    for slot in slots:
        if slot is not None:
            slot.close()
    return None in slots


def _gaps(run: Path) -> list[str]:
    """Pairs whose tries are not numbered one after another: a record is missing."""
    found = []
    for pair in run.glob("attempts/*/*/*/*"):
        for stage in ("agent", "eval"):
            numbers = sorted(int(one.name.split("-")[1]) for one in pair.glob(f"{stage}-*"))
            if numbers != list(range(1, len(numbers) + 1)):
                found.append(f"{pair}: {stage} tries {numbers}")
    return found


def _containers() -> list[str]:
    """What this experiment has on the engine."""
    from cooperbench_assets.execution.sandboxes.docker.engine import Engine
    from cooperbench_assets.execution.sandboxes.docker.leftovers import belongings
    from perf.soak.place import EXPERIMENT

    with Engine.connect() as engine:
        return [f"{one.kind} {one.name}" for one in belongings(engine) if one.described.get("experiment") == EXPERIMENT]
