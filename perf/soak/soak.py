"""The soak: passes over an experiment, each disturbed until it is done, each compared with the undisturbed one.

What belongs here: the order of things. What does not: the faults, the invariants, and who runs the experiment.
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from perf.soak.drivers import COMMAND, CommandLine, Driver, processes_of, wait_until
from perf.soak.faults import Scene, kinds_for
from perf.soak.invariants import Broken, Ledger, after_fault, at_rest
from perf.soak.place import EXPERIMENT
from perf.soak.results import Injected

if TYPE_CHECKING:
    from perf.soak.place import Place, Verdicts

STUCK_SECONDS: Final = 600.0
"""How long a pass may go on without a single try that ends."""

SETTLE_SECONDS: Final = 30.0
"""How long what is ending may take to be gone."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One injected fault."""

    kind: str
    ended_at: float
    """Seconds since 1970."""


@dataclass
class Soak:
    """One call: an undisturbed pass, then disturbed ones."""

    place: Place
    driver: Driver
    chance: random.Random
    full_disk: bool
    wanted: int
    """Faults to inject."""

    ends: float
    """When to stop, `time.monotonic`; the pass that is under way is still brought to its end."""

    longest_stop: float = 150.0
    faults: dict[str, Injected] = field(default_factory=dict)
    broken: Broken = field(default_factory=Broken)
    passes: int = 0
    verdicts: int = 0

    @property
    def injected(self) -> int:
        """Faults so far."""
        return sum(one.count for one in self.faults.values())

    def run(self, expected: Verdicts) -> None:
        """Run passes until enough faults were injected, the time is over, or something did not hold.

        Args:
            expected: What every pair must come to: what it came to `undisturbed`.
        """
        while self.injected < self.wanted and time.monotonic() < self.ends and not self.broken:
            self._pass(expected)
            say(f"pass {self.passes}: {self.injected} of {self.wanted} faults; {self.broken or 'all held'}")

    def stop(self) -> None:
        """Inject no further fault; `run` returns when the pass that is under way has come to its end."""
        self.ends = 0.0

    def undisturbed(self) -> Verdicts:
        """What every pair comes to when nothing happens.

        Raises:
            RuntimeError: if it does not end.
        """
        alone = CommandLine(self.place)
        for _ in range(5):
            if alone.start([*COMMAND, "materialize", EXPERIMENT]).wait(STUCK_SECONDS) == 0 and self.place.finished():
                break
        else:
            raise RuntimeError(f"the undisturbed run does not end; see {self.place.root}/output.log")
        found = self.place.verdicts()
        say(f"undisturbed: {len(found)} verdicts")
        return found

    def _pass(self, expected: Verdicts) -> None:
        self.place.clear()
        ledger, hits = Ledger(self.place), list[Hit]()
        scene = Scene(self.place, self.driver, self.chance, self.full_disk, self.longest_stop)
        progress, moved = -1, time.monotonic()
        while not self.place.finished():
            self.driver.keep_running()
            if self.injected < self.wanted and time.monotonic() < self.ends:
                self._fault(scene, ledger, hits)
            else:
                time.sleep(0.5)
            if (ended := len(ledger.attempts)) != progress:
                progress, moved = ended, time.monotonic()
            self.broken.add(ledger.look())
            if time.monotonic() - moved > STUCK_SECONDS:
                self.broken.lost.append(f"no try has ended for {STUCK_SECONDS:g} s")
                break
            if self.broken:
                break
        self._end(expected, hits)

    def _fault(self, scene: Scene, ledger: Ledger, hits: list[Hit]) -> None:
        """Wait for something to hit, hit it, and look."""
        if not wait_until(lambda: self.driver.working() or not self._runs(), 30):
            return
        time.sleep(self.chance.uniform(0.05, 1.2))
        kinds = kinds_for(self.driver, self.place)
        (kind,) = self.chance.choices(kinds, [one.weight for one in kinds])
        if (done := kind.inject(scene)) is None:
            return
        hits.append(Hit(kind.name, time.time()))
        log(self.place, f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {kind.name}: {done}")
        self.faults.setdefault(kind.name, Injected(kind.name)).count += 1
        self.broken.add(after_fault(ledger, self.driver))

    def _runs(self) -> bool:
        return self.driver.process is not None and self.driver.process.poll() is None

    def _end(self, expected: Verdicts, hits: list[Hit]) -> None:
        """Let what runs end, bring everything up to date once more, and look at what is there."""
        if isinstance(self.driver, CommandLine) and not wait_until(lambda: not self._runs(), STUCK_SECONDS, nap=0.2):
            self.broken.wrong.append(
                f"a materialize whose pairs have their verdicts did not end for {STUCK_SECONDS:g} s"
            )
        self.driver.stop()
        last = self.driver.start([*COMMAND, "materialize", EXPERIMENT])
        if not wait_until(lambda: last.poll() is not None, STUCK_SECONDS, nap=0.2):
            last.kill()
        if last.wait() != 0:
            self.broken.wrong.append(f"the last materialize of a pass ended with {last.returncode}")
        wait_until(lambda: not list(processes_of(self.place)), SETTLE_SECONDS, nap=0.2)
        self.broken.add(at_rest(self.place, expected))
        self.passes += 1
        self.verdicts += len(expected)
        self._count_recovered(hits)

    def _count_recovered(self, hits: list[Hit]) -> None:
        tries = sorted(_completed(self.place))
        for hit in hits:
            after = [end for start, end in tries if start >= hit.ended_at]
            one = self.faults[hit.kind]
            one.recovered += 1 if after or not self.broken else 0
            if after:
                one.seconds.append(round(min(after) - hit.ended_at, 2))


def _completed(place: Place) -> list[tuple[float, float]]:
    """Start and end of every completed try, seconds since 1970."""
    found = []
    for run in place.runs:
        for file in run.glob("attempts/*/*/*/*/*/attempt.json"):
            record = json.loads(file.read_bytes())
            if record["outcome"] == "completed" and record["ended_at"]:
                start, end = (datetime.fromisoformat(record[key]) for key in ("started_at", "ended_at"))
                found.append((start.timestamp(), end.timestamp()))
    return found


def say(text: str) -> None:
    """One line with the time, for whoever watches."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def log(place: Place, text: str) -> None:
    """One line among what the commands print, for whoever looks for a cause."""
    with (place.root / "output.log").open("a") as file:
        file.write(f"=== {text}\n")
